//! Workers that die while a write changes the tree of a hyper volume (hazard 52).

use super::*;
use std::net::SocketAddr;

fn gateway() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7000))
}

/// A rig whose first worker was told of two writes, said that it changes the tree for
/// `growing` of them, has answered the second, and is dead.
fn bereft(growing: usize) -> Rig {
    let mut rig = Rig::new(64 * MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.write(0, b"old");
    rig.write(u64::from(8 * MIB), b"done");
    let told = [worker.next().unwrap(), worker.next().unwrap()];
    for message in &told[2 - growing..] {
        worker.say(FromWorker::Growing { tag: tag_of(message).0 });
    }
    let [_, second] = told;
    worker.serve(second);
    assert_eq!(rig.outcome(), Ok(b"done".to_vec()));
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    rig
}

#[test]
fn all_of_a_volume_waits_while_an_orphan_may_change_its_tree() {
    let mut rig = bereft(2);
    rig.read(u64::from(16 * MIB), 1);
    rig.write(u64::from(32 * MIB), b"new");
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    rig.flush();
    let first = worker.next().unwrap();
    assert!(matches!(first, ToWorker::Flush { .. }), "a flush is not in the way: {first:?}");
    worker.serve(first);
    assert_eq!(rig.data.counters().held, 3, "the repeated one too");
    rig.data.quiet(gateway(), 2, QuietReason::Drained);
    (0..3).for_each(|_| {
        let next = worker.next().unwrap();
        worker.serve(next);
    });
    (0..4).for_each(|_| drop(rig.outcome().unwrap()));
    assert_eq!((rig.data.counters().held, rig.data.counters().fenced_now), (0, 0));
}

/// One that was answered has changed it, and is over.
#[test]
fn without_a_change_under_way_only_objects_are_fenced() {
    let mut rig = bereft(1);
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    let replay = worker.next().unwrap();
    worker.serve(replay);
    assert_eq!(rig.outcome(), Ok(b"old".to_vec()));
    rig.write(u64::from(32 * MIB), b"new");
    let other = worker.next().unwrap();
    worker.serve(other);
    assert_eq!(rig.outcome(), Ok(b"new".to_vec()));
    assert_eq!((rig.data.counters().held, rig.data.counters().fenced_now), (0, 1));
}

/// A discard takes entries out of the tree, which is a change as any other.
#[test]
fn all_of_a_volume_waits_while_a_late_discard_may_change_its_tree() {
    let mut rig = Rig::new(64 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(0, u64::from(8 * MIB));
    let discard = worker.next().unwrap();
    assert!(matches!(discard, ToWorker::Discard { .. }), "{discard:?}");
    worker.say(FromWorker::Growing { tag: tag_of(&discard).0 });
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    rig.read(u64::from(32 * MIB), 1);
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    assert_eq!(rig.data.counters().held, 2, "the repeated one too");
    rig.data.quiet(gateway(), 2, QuietReason::Drained);
    let again = worker.next().unwrap();
    assert!(matches!(again, ToWorker::Discard { again: true, .. }), "{again:?}");
    worker.serve(again);
    let read = worker.next().unwrap();
    worker.serve(read);
    (0..2).for_each(|_| drop(rig.outcome().unwrap()));
    assert_eq!((rig.data.counters().held, rig.data.counters().fenced_now), (0, 0));
}

#[test]
fn a_change_that_nobody_told_of_is_a_lie() {
    let mut rig = Rig::new(MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.read(0, 1);
    let read = worker.next().unwrap();
    worker.say(FromWorker::Growing { tag: tag_of(&read).0 });
    assert!(matches!(rig.event(), Event::WorkerBroken { generation: 1, .. }));
}

/// One that nobody waits for any more changes the tree as well.
#[test]
fn an_abandoned_write_that_changes_the_tree_is_fenced() {
    let mut rig = Rig::new(64 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.write(0, b"abandoned");
    let write = worker.next().unwrap();
    assert_eq!(rig.data.fail_all(), 1);
    assert_eq!(rig.outcome(), Err(Errno::EIO));
    worker.say(FromWorker::Growing { tag: tag_of(&write).0 });
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    rig.read(u64::from(32 * MIB), 1);
    let (_worker, _reader) = rig.connect(2, ARENA_LEN);
    assert_eq!((rig.data.counters().fenced_now, rig.data.counters().held), (2, 1));
}
