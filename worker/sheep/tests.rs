//! Ids, places, and nodes besides.

use super::*;
use crate::fake::{CTIME, FakeSheep};
use sheepfs::ipc::{FromWorker, Route};
use sheepfs::wire::cluster::{Node, NodeId};
use sheepfs::wire::placement::Ring;
use sheepfs::wire::request::Extent;
use sheepfs::wire::{ObjectId, Opcode, Status, VdiId};
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

/// Home, and a node that is asked directly.
struct Pair {
    home: FakeSheep,
    other: FakeSheep,
    sheep: Sheep,
    arena: Arena,
    now: Instant,
}

impl Pair {
    fn start() -> Self {
        let (home, other, now) = (FakeSheep::start(), FakeSheep::start(), Instant::now());
        let mut sheep = Sheep::connect(home.address, CONNECTIONS, 1, now).unwrap();
        sheep.route_by(Router::new(home.address, CTIME, 1).with(Route::Replica, 64, []));
        let mut pair = Self { home, other, sheep, arena: Arena::create(4096).unwrap(), now };
        pair.learn(1);
        let first = pair.sheep.request(pair.read(), None, 1);
        let mut is_answered = false;
        // An answer that comes later would be taken for one of the test's own.
        while pair.sheep.routed().nodes == 0 || !is_answered {
            pair.sheep.dispatch(Hold::default(), now);
            pair.sheep.arrange(now);
            is_answered |= pair.turn().iter().any(|reply| reply.id == first);
            for word in pair.sheep.take_words() {
                let FromWorker::Opened { opening, .. } = word else { panic!("{word:?}") };
                pair.sheep.may_use(opening, now);
            }
        }
        pair
    }

    fn nodes(&self) -> [Node; 2] {
        [&self.home, &self.other].map(|fake| {
            let zone = fake.address.port().into();
            Node { id: NodeId::new(fake.address), nr_vnodes: 128, zone, space: 0 }
        })
    }

    fn learn(&mut self, epoch: u32) {
        let (nodes, home) = (self.nodes(), self.home.address);
        self.sheep.learn(epoch, Some(&nodes), Some(home), self.now);
    }

    /// An object that the other holds.
    fn object(&self) -> (VdiId, u32) {
        let (ring, vid) = (Ring::new(&self.nodes()).unwrap(), VdiId::new(7).unwrap());
        let is_others =
            |index: &u32| ring.holders(ObjectId::data(vid, *index), 1).as_slice() == [1];
        (vid, (0..1_000).find(is_others).unwrap())
    }

    fn read(&self) -> Request {
        let (vid, index) = self.object();
        Request::read(vid, index, Extent::new(0, 4, 22).unwrap())
    }

    fn write(&self) -> Request {
        let (vid, index) = self.object();
        Request::write_bytes(vid, index, Extent::new(0, 4, 22).unwrap(), vec![1; 4]).unwrap()
    }

    fn turn(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        self.sheep.flush(&self.arena, self.now).unwrap();
        for id in self.sheep.watched().map(|(id, _, _)| id).collect::<Vec<_>>() {
            self.sheep.ready(id, &self.arena, self.now, &mut replies).unwrap();
        }
        replies
    }

    /// How many such requests home and the other were sent for one.
    fn serve(&mut self, request: Request, opcode: Opcode) -> [usize; 2] {
        let counts = |pair: &Self| [&pair.home, &pair.other].map(|fake| fake.count(opcode));
        let before = counts(self);
        let id = self.sheep.request(request, None, 1);
        let replies = loop {
            self.sheep.dispatch(Hold::default(), self.now);
            let replies = self.turn();
            if replies.iter().any(|reply| reply.id == id) {
                break replies;
            }
        };
        assert!(replies.iter().all(|reply| reply.status == Status::Success));
        let after = counts(self);
        [after[0] - before[0], after[1] - before[1]]
    }
}

#[test]
fn what_is_answered_in_the_epoch_of_homes_list_is_good() {
    let mut pair = Pair::start();
    assert_eq!(pair.serve(pair.write(), Opcode::WriteObj), [0, 1]);
    assert_eq!(pair.serve(pair.read(), Opcode::ReadObj), [0, 1]);
    assert_eq!(pair.sheep.routed().again, 0);
}

/// A change that another part of the cluster has taken may be lost with it.
#[test]
fn what_is_answered_in_another_epoch_is_done_once_more_by_home() {
    for epoch in [4, 2] {
        let mut pair = Pair::start();
        pair.home.habits.epoch.store(3, Ordering::SeqCst);
        pair.learn(3);
        pair.other.habits.epoch.store(epoch, Ordering::SeqCst);
        assert_eq!(pair.serve(pair.write(), Opcode::WriteObj), [1, 1], "epoch {epoch}");
        assert_eq!(pair.sheep.routed().again, 1);
        assert_eq!(pair.serve(pair.write(), Opcode::WriteObj), [1, 0], "it is not asked any more");
        let mut pair = Pair::start();
        pair.other.habits.epoch.store(epoch - 2, Ordering::SeqCst);
        let home = pair.home.count(Opcode::ReadObj);
        pair.sheep.request(pair.read(), None, 1);
        while pair.home.count(Opcode::ReadObj) == home {
            pair.sheep.dispatch(Hold::default(), pair.now);
            pair.turn();
        }
        assert_eq!(pair.sheep.routed().again, 1, "epoch {epoch}");
    }
}
