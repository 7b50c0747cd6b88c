//! Copies between volumes: told without bytes, with what overlaps them, over deaths.

use super::*;
use crate::state::State;
use sheepfs::ipc::VolumeId;
use std::net::SocketAddr;

const OBJECT: u64 = 4 << 20;
const SOURCE: u32 = 2;

fn gateway() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7000))
}

impl Rig {
    /// From the other volume, which has the same disk.
    fn copy(&mut self, at: u64, offset: u64, len: u32) {
        let source = volume(SOURCE, "source", self.volume.size(), false);
        let waiter = self.waiter();
        self.data.copy((&source, at), (&self.volume, offset), len, waiter);
    }
}

fn is_copy(message: &ToWorker, again: bool) -> bool {
    matches!(message, ToWorker::Copy { from: VolumeId(SOURCE), volume: VolumeId(1), again: said, .. } if *said == again)
}

#[test]
fn no_byte_of_a_copy_is_in_the_arena() {
    let mut rig = Rig::new(64 * MIB);
    // Smaller than the copy.
    let (mut worker, _reader) = rig.connect(1, MIB);
    worker.disk[5..10].copy_from_slice(b"sheep");
    rig.copy(5, 2 * OBJECT + 7, 16 * MIB);
    let copy = worker.next().unwrap();
    let expected = ToWorker::Copy {
        tag: tag_of(&copy).0,
        from: VolumeId(SOURCE),
        at: 5,
        volume: VolumeId(1),
        offset: 2 * OBJECT + 7,
        len: 16 * MIB,
        again: false,
    };
    assert_eq!(copy, expected);
    worker.serve(copy);
    assert!(rig.outcome().is_ok());
    assert_eq!(&worker.disk[(8 << 20) + 7..][..5], b"sheep");
    assert!(rig.data.is_idle() && rig.data.counters().queued_bytes == 0);
}

#[test]
fn what_overlaps_the_destination_waits_and_the_rest_does_not() {
    let mut rig = Rig::new(64 * MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.copy(0, OBJECT, 2 * MIB);
    rig.write(OBJECT + 9, b"after");
    rig.write(OBJECT + u64::from(2 * MIB), b"beside");
    rig.copy(12 * OBJECT, OBJECT + u64::from(MIB), 2 * MIB);
    let (copy, beside) = (worker.next().unwrap(), worker.next().unwrap());
    assert!(is_copy(&copy, false) && matches!(beside, ToWorker::Write { .. }));
    assert_eq!(rig.data.counters().held, 2);
    worker.serve(copy);
    assert!(rig.outcome().is_ok());
    let after = worker.next().unwrap();
    assert!(matches!(after, ToWorker::Write { offset, .. } if offset == OBJECT + 9));
    worker.serve(after);
    worker.serve(beside);
    (0..2).for_each(|_| drop(rig.outcome().unwrap()));
    let second = worker.next().unwrap();
    assert!(is_copy(&second, false), "it overlaps the write beside as well");
    worker.serve(second);
    assert!(rig.outcome().is_ok());
}

/// Its source may have changed since, so what is late of the first try are other bytes.
#[test]
fn a_repeated_copy_waits_for_what_is_late_of_itself() {
    let mut rig = Rig::new(64 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.copy(0, 2 * OBJECT - 5, 10);
    rig.write(5 * OBJECT, b"repeated");
    let copy = worker.next().unwrap();
    assert!(is_copy(&copy, false));
    worker.next().unwrap();
    worker.say(FromWorker::Creating { tag: tag_of(&copy).0, block: 2 });
    drop(worker);
    rig.gone(1);
    assert_eq!(rig.lose(1, Some(gateway())).len(), 2);
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    let write = worker.next().unwrap();
    assert!(matches!(write, ToWorker::Write { again: true, .. }), "{write:?}");
    worker.serve(write);
    assert!(rig.outcome().is_ok());
    let counters = rig.data.counters();
    assert_eq!((counters.fenced_now, counters.held), (3, 1), "two objects, and the write's");
    rig.data.quiet(gateway(), 2, QuietReason::Drained);
    let repeated = worker.next().unwrap();
    assert!(is_copy(&repeated, true), "{repeated:?}");
    worker.serve(repeated);
    assert!(rig.outcome().is_ok());
}

#[test]
fn a_copy_is_of_both_its_volumes() {
    let mut rig = Rig::new(64 * MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    let (source, to) = (VolumeId(SOURCE), VolumeId(1));
    for absent in [source, to] {
        rig.data.volume_absent(absent, true);
        rig.copy(0, OBJECT, 10);
        assert_eq!(rig.data.counters().held, 1);
        rig.data.volume_absent(absent, false);
        let copy = worker.next().unwrap();
        worker.serve(copy);
        assert!(rig.outcome().is_ok());
    }
    rig.copy(0, OBJECT, 10);
    let copy = worker.next().unwrap();
    rig.data.volume_replaced(source);
    assert_eq!(rig.outcome(), Err(Errno::EIO));
    worker.serve(copy);
    rig.copy(0, OBJECT, 10);
    assert_eq!(rig.outcome(), Err(Errno::EIO));
}

/// The kernel delivers it again.
#[test]
fn a_successor_fences_what_a_copy_may_still_change() {
    let state = State::create().unwrap();
    let data = |told| {
        let allocations = Arc::new(Allocations::new(Arc::default(), state.allocations()));
        Arc::new(DataPath::new(Some(DEADLINE), told, allocations))
    };
    let mut rig = Rig::new(64 * MIB);
    rig.data = data(state.told());
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.copy(0, 3 * OBJECT - 1, 2);
    assert!(is_copy(&worker.next().unwrap(), false));
    let mut successor = Rig::new(64 * MIB);
    successor.data = data(state.told());
    successor.data.take_over(&[], Some((1, vec![gateway()])), &[], Instant::now());
    assert_eq!(successor.data.counters().fenced_now, 2);
    successor.copy(0, 3 * OBJECT - 1, 2);
    let (mut worker, _reader) = successor.connect(2, ARENA_LEN);
    assert_eq!(successor.data.counters().held, 1);
    successor.data.quiet(gateway(), 2, QuietReason::Gone);
    let repeated = worker.next().unwrap();
    assert!(is_copy(&repeated, true), "{repeated:?}");
    worker.serve(repeated);
    assert!(successor.outcome().is_ok());
}
