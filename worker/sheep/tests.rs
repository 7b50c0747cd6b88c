//! Ids, places, and nodes besides.

use super::*;
use crate::fake::FakeSheep;
use sheepfs::wire::{Status, VdiId};
use std::net::TcpListener;
use std::sync::atomic::Ordering;

fn sheep(generation: u64) -> (Sheep, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (Sheep::connect(address, CONNECTIONS, generation, Instant::now()).unwrap(), listener)
}

#[test]
fn an_id_that_is_outstanding_is_not_given_again() {
    let (mut sheep, _listener) = sheep(0);
    sheep.next_id = 0xff_ffff;
    let mut ask = || sheep.request(Request::get_cluster_default(), None, 0);
    assert_eq!([ask(), ask(), ask()], [0xff_ffff, 0, 1]);
    sheep.next_id = 0xff_ffff;
    assert_eq!(sheep.request(Request::get_cluster_default(), None, 0), 2);
    assert_eq!(sheep.ask(Request::stat(), Instant::now()), 3);
}

#[test]
fn an_id_says_of_which_worker_it_is() {
    let (mut sheep, _listener) = sheep(0x1_02a5);
    assert_eq!(sheep.request(Request::get_cluster_default(), None, 0), 0xa500_0001);
    sheep.next_id = 0xff_ffff;
    assert_eq!(sheep.request(Request::get_cluster_default(), None, 0), 0xa5ff_ffff);
    assert_eq!(sheep.request(Request::get_cluster_default(), None, 0), 0xa500_0000);
}

/// What was asked for stays here until it is dispatched, whatever is flushed.
#[test]
fn nothing_leaves_before_it_is_dispatched() {
    let (mut sheep, _listener) = sheep(1);
    let (arena, now) = (Arena::create(4096).unwrap(), Instant::now());
    sheep.request(Request::get_cluster_default(), None, 0);
    sheep.flush(&arena, now).unwrap();
    assert!(sheep.is_idle() && sheep.stalled().is_empty());
    sheep.dispatch(Hold::default(), now);
    assert!(!sheep.is_idle());
    assert_eq!(sheep.stalled().len(), 1);
}

#[test]
fn a_node_that_refuses_is_told_from_one_that_is_silent() {
    let (mut sheep, listener) = sheep(1);
    let (arena, now) = (Arena::create(4096).unwrap(), Instant::now());
    let silent = sheep.ask_node(listener.local_addr().unwrap(), Request::stat(), now, now);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let until = now + std::time::Duration::from_secs(60);
    let refused = sheep.ask_node(closed, Request::stat(), until, now);
    let mut replies = Vec::new();
    sheep.expire(now, &mut replies);
    assert_eq!(
        replies.pop().map(|reply| (Ok(reply.id), reply.lost)),
        Some((silent, Some(LostReason::Unreachable)))
    );
    if let Ok(refused) = refused {
        while replies.is_empty() {
            let side = sheep.side.keys().next().copied().unwrap();
            sheep.ready(side, &arena, now, &mut replies).unwrap();
        }
        let reply = replies.pop().unwrap();
        assert_eq!((reply.id, reply.lost), (refused, Some(LostReason::Refused)));
    } else {
        assert_eq!(refused, Err(LostReason::Refused));
    }
}

/// What was written through a node that knows of a newer epoch may not be at home.
#[test]
fn what_home_reads_in_an_old_epoch_is_not_believed() {
    let home = FakeSheep::start();
    let now = Instant::now();
    let mut sheep = Sheep::connect(home.address, CONNECTIONS, 1, now).unwrap();
    let arena = Arena::create(4096).unwrap();
    let mut read = |newest: u32| {
        sheep.router.note_epoch(newest);
        sheep.request(Request::read_inode_header(VdiId::new(7).unwrap()), None, 0);
        sheep.dispatch(Hold::default(), now);
        let mut replies = Vec::new();
        while replies.is_empty() {
            sheep.flush(&arena, now).unwrap();
            for id in sheep.watched().map(|(id, _, _)| id).collect::<Vec<_>>() {
                sheep.ready(id, &arena, now, &mut replies).unwrap();
            }
        }
        replies[0].status
    };
    home.habits.epoch.store(3, Ordering::SeqCst);
    assert_eq!(read(3), Status::Success);
    assert_eq!(read(4), Status::NetworkError);
    home.habits.epoch.store(4, Ordering::SeqCst);
    assert_eq!(read(4), Status::Success);
}
