//! Sessions with several gateways, any of which may be dead when they end.

use super::succeeding::successor;
use super::*;
use crate::control::life::Life;

/// A session with the sheep 7000 that asks 7001 and 7002 directly; 7003 is known too.
fn several() -> Loop {
    let mut running = Loop::running_at(&[7000, 7003]);
    for (opening, port) in [(1, 7001), (2, 7002)] {
        running.says(FromWorker::Opened { node: sheep(port), opening });
    }
    running
}

/// The worker says that this gateway is lost, and its process is gone.
fn lose(running: &mut Loop, port: u16) {
    running.says(FromWorker::Lost { reason: LostReason::Disconnected, node: sheep(port) });
    running.is_gone(KILLED);
}

fn refuse(running: &mut Loop) {
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
}

/// Where the next worker is sent, which gateways were left, and which nodes are avoided.
fn told(running: &mut Loop) -> (u16, Vec<u16>, Vec<(u16, u32)>) {
    if matches!(running.control.life, Life::Greeting { .. }) {
        running.greet();
    }
    let found = running.done.iter().rev().find_map(|effect| match effect {
        Effect::Connect { sheep, left, avoid, .. } => Some((
            sheep.port(),
            left.iter().map(SocketAddr::port).collect(),
            avoid.iter().map(|(node, ms)| (node.port(), *ms)).collect(),
        )),
        _ => None,
    });
    running.done.clear();
    found.unwrap()
}

fn left(running: &mut Loop) -> (u16, Vec<u16>) {
    let (sheep, left, _) = told(running);
    (sheep, left)
}

#[test]
fn two_gateways_died_and_one_is_reported() {
    let mut running = several();
    lose(&mut running, 7001);
    assert_eq!(left(&mut running), (7000, vec![7001, 7002]));
}

/// Whether a gateway died with it is not known.
#[test]
fn the_worker_died() {
    let mut running = several();
    running.is_gone(KILLED);
    assert_eq!(left(&mut running), (7000, vec![7001, 7002]));
    running.reach();
    running.later(Duration::from_secs(60));
    running.is_gone(KILLED);
    assert_eq!(left(&mut running), (7000, vec![]), "the cluster has noticed since");
}

#[test]
fn a_gateway_and_the_sheep_died() {
    let mut running = several();
    lose(&mut running, 7001);
    refuse(&mut running);
    assert_eq!(left(&mut running), (7003, vec![7000, 7001, 7002]));
}

#[test]
fn a_gateway_died_then_the_sheep_then_the_supervisor() {
    let mut running = several();
    lose(&mut running, 7001);
    while !matches!(running.control.life, Life::BackingOff { .. }) {
        refuse(&mut running);
    }
    let saved = running.control.saved();
    assert_eq!(saved.session, None);
    let saved: Vec<u16> = saved.left.iter().map(|(gateway, _)| gateway.port()).collect();
    assert_eq!(saved, [7000, 7001, 7002]);
    let mut next = successor(&running, wishes(&[7000, 7003], &[]));
    let (sheep, left) = left(&mut next);
    let all = [7000, 7001, 7002].into_iter().filter(|port| *port != sheep);
    assert_eq!(left, all.collect::<Vec<_>>());
}

#[test]
fn the_supervisor_died() {
    let mut running = several();
    let mut next = successor(&running, wishes(&[7000, 7003], &[]));
    assert_eq!(left(&mut next), (7000, vec![7001, 7002]));
    // Also when the loss was heard of, and the worker is not known to be gone yet.
    running.says(FromWorker::Lost { reason: LostReason::Disconnected, node: sheep(7001) });
    let mut next = successor(&running, wishes(&[7000, 7003], &[]));
    assert_eq!(left(&mut next), (7000, vec![7001, 7002]));
}

#[test]
fn one_that_was_closed_before_is_not_asked() {
    let mut running = several();
    running.says(FromWorker::Closed { node: sheep(7002) });
    running.is_gone(KILLED);
    assert_eq!(left(&mut running), (7000, vec![7001]));
}

/// It answers its trial in each session, and ends it.
#[test]
fn a_node_that_ends_sessions_is_avoided_for_longer_each_time() {
    let mut running = several();
    lose(&mut running, 7001);
    let avoided = |running: &mut Loop| told(running).2;
    assert_eq!(avoided(&mut running), [(7001, 5_000)]);
    running.reach();
    running.later(Duration::from_secs(2));
    running.is_gone(KILLED);
    assert_eq!(avoided(&mut running), [(7001, 3_000)], "it is not at fault for that");
    running.reach();
    running.says(FromWorker::Opened { node: sheep(7001), opening: 3 });
    running.later(Duration::from_secs(4));
    lose(&mut running, 7001);
    assert_eq!(avoided(&mut running), [(7001, 10_000)]);
    running.reach();
    lose(&mut running, 7000);
    assert_eq!(avoided(&mut running), [(7001, 10_000)], "the sheep is no such node");
}
