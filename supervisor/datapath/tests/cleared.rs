//! Ranges that are cleared: in steps, with what overlaps them, over the deaths of workers and
//! of this process.

use super::*;
use crate::fence::Object;
use crate::state::State;
use sheepfs::ipc::{SeekTarget, VolumeFacts, VolumeId};
use std::net::SocketAddr;

fn gateway() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7000))
}

impl Rig {
    pub(super) fn clear(&mut self, from: u64, to: u64) {
        let waiter = self.waiter();
        self.data.clear(&self.volume, from..to, waiter);
    }
}

const OBJECT: u64 = 4 << 20;

#[test]
fn a_range_is_cleared_in_steps_for_one_answer() {
    let mut rig = Rig::new(16 * MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    worker.disk.fill(7);
    let (from, to) = (OBJECT - 100, 3 * OBJECT + 5);
    rig.clear(from, to);
    let head = worker.next().unwrap();
    assert!(matches!(head, ToWorker::Zero { offset, again: false, .. } if offset == from));
    worker.serve(head);
    let middle = worker.next().unwrap();
    let whole = |m: &ToWorker| matches!(m, ToWorker::Discard { offset, len, again: false, .. } if (*offset, u64::from(*len)) == (OBJECT, 2 * OBJECT));
    assert!(whole(&middle), "{middle:?}");
    assert!(rig.answers.1.try_recv().is_err(), "it is not through");
    assert!(!rig.data.is_idle(), "nor is there a moment at which nothing is under way");
    worker.serve(middle);
    let tail = worker.next().unwrap();
    assert!(matches!(tail, ToWorker::Zero { span, .. } if span.len == 5), "{tail:?}");
    worker.serve(tail);
    assert!(rig.outcome().is_ok());
    assert!(rig.data.is_idle());
    let cleared = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
    assert!(worker.disk[cleared.clone()].iter().all(|byte| *byte == 0));
    assert!(worker.disk[cleared.end..].iter().all(|byte| *byte == 7));
    assert_eq!(worker.disk[cleared.start - 1], 7);
    assert_eq!(rig.data.counters().queued_bytes, 0);
}

/// Like any file's, a hole may begin behind the end, and end there.
#[test]
fn behind_the_end_there_is_nothing_to_clear() {
    let mut rig = Rig::new(16 * MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(64 << 20, 65 << 20);
    assert!(rig.outcome().is_ok());
    rig.clear(3 * OBJECT, 65 << 20);
    let last = worker.next().unwrap();
    assert!(matches!(last, ToWorker::Discard { len, .. } if u64::from(len) == OBJECT), "{last:?}");
    worker.serve(last);
    assert!(rig.outcome().is_ok());
}

/// The supervisor had cut it for the old end.
#[test]
fn the_old_end_of_a_volume_that_grows_meanwhile_is_zeroed() {
    let mut rig = Rig::new(16 * MIB - 5);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(2 * OBJECT, 64 << 20);
    let all = worker.next().unwrap();
    let len = 2 * OBJECT - 5;
    assert!(
        matches!(all, ToWorker::Discard { len: told, .. } if u64::from(told) == len),
        "{all:?}"
    );
    worker.done(tag_of(&all).0, Err(Failure::Grown));
    let whole = worker.next().unwrap();
    let first = |m: &ToWorker| matches!(m, ToWorker::Discard { offset, len, .. } if (*offset, u64::from(*len)) == (2 * OBJECT, OBJECT));
    assert!(first(&whole), "{whole:?}");
    worker.serve(whole);
    let mut zeroed = 0;
    while zeroed < OBJECT - 5 {
        let step = worker.next().unwrap();
        assert!(matches!(step, ToWorker::Zero { offset, .. } if offset == 3 * OBJECT + zeroed));
        zeroed += u64::from(tag_of(&step).1.unwrap().len);
        worker.serve(step);
    }
    assert_eq!(zeroed, OBJECT - 5);
    assert!(rig.outcome().is_ok());
}

/// A volume that grows while its last, short object is discarded: what is written behind the
/// old end is in that object, and no repetition of anything. Nor may it be told before.
#[test]
fn a_write_behind_the_old_end_waits_for_the_discard_of_its_object_and_for_its_fence() {
    let mut rig = Rig::new(16 * MIB - 512);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(3 * OBJECT, 64 << 20);
    assert!(matches!(worker.next().unwrap(), ToWorker::Discard { .. }));
    let size = 4 * OBJECT;
    rig.volume.set_facts(VolumeFacts { size, ..rig.volume.facts() });
    rig.write(size - 512, b"newer");
    rig.write(0, b"beside");
    assert!(matches!(worker.next().unwrap(), ToWorker::Write { offset: 0, .. }));
    assert_eq!(rig.data.counters().held, 1);
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    worker.disk.resize(usize::try_from(size).unwrap(), 0);
    let beside = worker.next().unwrap();
    worker.serve(beside);
    assert!(rig.outcome().is_ok());
    assert_eq!(rig.data.counters().held, 2, "a late removal would take the newer write along");
    rig.data.quiet(gateway(), 2, QuietReason::Drained);
    let repeated = worker.next().unwrap();
    assert!(matches!(repeated, ToWorker::Discard { again: true, .. }), "{repeated:?}");
    worker.serve(repeated);
    assert!(rig.outcome().is_ok());
    let newer = worker.next().unwrap();
    assert!(matches!(newer, ToWorker::Write { offset, .. } if offset == size - 512), "{newer:?}");
    worker.serve(newer);
    assert!(rig.outcome().is_ok());
}

#[test]
fn what_fails_ends_it() {
    let mut rig = Rig::new(16 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(0, OBJECT + 1);
    let (tag, _) = tag_of(&worker.next().unwrap());
    worker.done(tag, Err(Failure::NoSpace));
    assert_eq!(rig.outcome(), Err(Errno::ENOSPC));
    assert!(rig.data.is_idle());
}

#[test]
fn writes_and_discards_that_overlap_wait_for_each_other() {
    let mut rig = Rig::new(16 * MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.write(OBJECT + 9, b"before");
    rig.clear(OBJECT, 2 * OBJECT);
    rig.write(OBJECT + 9, b"after");
    rig.write(0, b"beside");
    let (before, beside) = (worker.next().unwrap(), worker.next().unwrap());
    assert_eq!(rig.data.counters().held, 2);
    worker.serve(beside);
    worker.serve(before);
    let discard = worker.next().unwrap();
    assert!(matches!(discard, ToWorker::Discard { .. }), "{discard:?}");
    worker.serve(discard);
    let after = worker.next().unwrap();
    worker.serve(after);
    (0..4).for_each(|_| drop(rig.outcome().unwrap()));
    assert_eq!(&worker.disk[4 << 20..][..15], b"\0\0\0\0\0\0\0\0\0after\0");
}

/// The repeated one too: what the first one may still clear would be missing in a snapshot that
/// was made meanwhile, and nobody would look at that any more.
#[test]
fn a_dead_workers_step_is_repeated_and_fences_its_objects() {
    let mut rig = Rig::new(16 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(0, 3 * OBJECT + 7);
    assert!(matches!(worker.next().unwrap(), ToWorker::Discard { again: false, .. }));
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    rig.write(2 * OBJECT, b"newer");
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    let counters = rig.data.counters();
    assert_eq!((counters.fenced_now, counters.held), (3, 2));
    rig.data.quiet(gateway(), 2, QuietReason::Drained);
    let repeated = worker.next().unwrap();
    let is_whole = matches!(repeated, ToWorker::Discard { again: true, len, .. } if u64::from(len) == 3 * OBJECT);
    assert!(is_whole, "{repeated:?}");
    worker.serve(repeated);
    let newer = worker.next().unwrap();
    assert!(matches!(newer, ToWorker::Write { .. }), "it waited for the discard: {newer:?}");
    let next = worker.next().unwrap();
    assert!(matches!(next, ToWorker::Zero { again: false, .. }), "a new step: {next:?}");
    worker.serve(next);
    assert!(rig.outcome().is_ok());
    worker.serve(newer);
    assert!(rig.outcome().is_ok());
    assert_eq!(&worker.disk[8 << 20..][..5], b"newer");
}

/// The kernel delivers it again, and nobody knows how far it was.
#[test]
fn a_successor_fences_what_a_discard_may_still_change_and_repeats_all_of_it() {
    let state = State::create().unwrap();
    let data = |told| {
        let allocations = Arc::new(Allocations::new(Arc::default(), state.allocations()));
        Arc::new(DataPath::new(Some(DEADLINE), told, allocations))
    };
    let mut rig = Rig::new(16 * MIB);
    rig.data = data(state.told());
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(OBJECT, 3 * OBJECT);
    assert!(matches!(worker.next().unwrap(), ToWorker::Discard { .. }));
    let mut successor = Rig::new(16 * MIB);
    successor.data = data(state.told());
    successor.data.take_over(&[], Some((1, vec![gateway()])), &[], Instant::now());
    assert_eq!(successor.data.counters().fenced_now, 2);
    let fenced = |block| successor.data.lock().fences.holds(Object { volume: VolumeId(1), block });
    assert_eq!([0, 1, 2, 3].map(fenced), [false, true, true, false]);
    successor.clear(OBJECT, 4 * OBJECT - 1);
    let (mut worker, _reader) = successor.connect(2, ARENA_LEN);
    assert_eq!(successor.data.counters().held, 1);
    successor.data.quiet(gateway(), 2, QuietReason::Gone);
    // Two objects, and zeros in four pieces.
    for _ in 0..5 {
        let step = worker.next().unwrap();
        let again = matches!(
            step,
            ToWorker::Discard { again: true, .. } | ToWorker::Zero { again: true, .. }
        );
        assert!(again, "{step:?}");
        worker.serve(step);
    }
    assert!(successor.outcome().is_ok());
}

/// Says where a seek ends.
fn lead(worker: &FakeWorker, seek: &ToWorker, from: u64, to: Option<u64>) {
    let asked =
        matches!(seek, ToWorker::Seek { offset, target: SeekTarget::Data, .. } if *offset == from);
    assert!(asked, "{seek:?}");
    let tag = tag_of(seek).0;
    worker.say(FromWorker::Sought { tag, offset: to });
    worker.done(tag, Ok(()));
}

fn is_discard(message: &ToWorker, objects: std::ops::Range<u64>) -> bool {
    let range = (objects.start * OBJECT, (objects.end - objects.start) * OBJECT);
    matches!(message, ToWorker::Discard { offset, len, .. } if (*offset, u64::from(*len)) == range)
}

#[test]
fn of_a_large_range_only_what_has_data_is_cleared() {
    let mut rig = Rig::new(1024 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(0, 1 << 30);
    lead(&worker, &worker.next().unwrap(), 0, Some(100 * OBJECT));
    let data = worker.next().unwrap();
    assert!(is_discard(&data, 100..164), "{data:?}");
    worker.done(tag_of(&data).0, Ok(()));
    let seek = worker.next().unwrap();
    assert!(!rig.data.is_idle());
    lead(&worker, &seek, 164 * OBJECT, None);
    assert!(rig.outcome().is_ok());
    assert!(rig.data.is_idle());
}

/// A worker that dies leaves the search to the next one, and where data can't be looked for,
/// all is cleared.
#[test]
fn a_search_for_what_is_to_be_cleared_may_fail() {
    let mut rig = Rig::new(260 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.clear(0, 65 * OBJECT);
    assert!(matches!(worker.next().unwrap(), ToWorker::Seek { .. }));
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    let (worker, _reader) = rig.connect(2, ARENA_LEN);
    let seek = worker.next().unwrap();
    assert!(matches!(seek, ToWorker::Seek { offset: 0, .. }), "{seek:?}");
    worker.done(tag_of(&seek).0, Err(Failure::TimedOut));
    for objects in [0..64, 64..65] {
        let step = worker.next().unwrap();
        assert!(is_discard(&step, objects), "{step:?}");
        worker.done(tag_of(&step).0, Ok(()));
    }
    assert!(rig.outcome().is_ok());
}
