//! Workers that die under the requests.

use super::*;

use sheepfs::wire::cluster::BlockUsage;
use std::net::SocketAddr;

fn gateway() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 7000))
}

fn offset_of(message: &ToWorker) -> u64 {
    match message {
        ToWorker::Read { offset, .. } | ToWorker::Write { offset, .. } => *offset,
        other => panic!("{other:?}"),
    }
}

/// A rig whose first worker was told of `requests` and is dead.
fn bereft(requests: impl FnOnce(&mut Rig), gateway: Option<SocketAddr>) -> Rig {
    let mut rig = Rig::new(64 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    requests(&mut rig);
    drop(worker);
    rig.gone(1);
    rig.lose(1, gateway);
    rig
}

#[test]
fn what_a_worker_left_is_told_to_the_next_one_before_anything_newer() {
    let mut rig = bereft(
        |rig| {
            rig.write(0, b"one");
            rig.write(8192, b"two");
            rig.read(MIB.into(), 5);
            rig.flush();
        },
        None,
    );
    assert_eq!(rig.data.outstanding(), 0);
    rig.write(4096, b"new");
    rig.read(0, 1);
    assert!(rig.answers.1.try_recv().is_err(), "nobody can have answered");
    let worker = rig.connect(2, ARENA_LEN).0.serve_all();
    let answers: Vec<Answer> = (0..6).map(|_| rig.answer()).collect();
    let bytes = |text: &str| Ok(text.as_bytes().to_vec());
    let expected = [
        (1, bytes("one")),
        (2, bytes("two")),
        (3, Ok(vec![0; 5])),
        (4, Ok(Vec::new())),
        (5, bytes("new")),
        (6, bytes("o")),
    ];
    assert_eq!(answers, expected);
    assert_eq!(rig.data.counters().replayed, 4);
    drop(rig);
    assert_eq!(&worker.join().unwrap().disk[..3], b"one");
}

#[test]
fn a_write_that_overlaps_an_unanswered_one_waits_for_it() {
    let mut rig = Rig::new(MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.write(0, b"first");
    rig.write(3, b"second");
    rig.write(512, b"beside");
    let first = worker.next().unwrap();
    let beside = worker.next().unwrap();
    assert_eq!((offset_of(&first), offset_of(&beside)), (0, 512));
    assert_eq!((rig.data.counters().held, rig.data.outstanding()), (1, 2));
    worker.serve(first);
    let second = worker.next().unwrap();
    assert_eq!(offset_of(&second), 3);
    worker.serve(second);
    worker.serve(beside);
    (0..3).for_each(|_| drop(rig.outcome().unwrap()));
    assert_eq!(&worker.disk[..9], b"firsecond");
}

#[test]
fn newer_writes_to_an_orphans_object_wait_until_it_is_known_to_be_over() {
    let mut rig = bereft(|rig| rig.write(0, b"old"), Some(gateway()));
    assert_eq!(rig.data.watched(), [gateway()]);
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    let replay = worker.next().unwrap();
    worker.serve(replay);
    assert_eq!(rig.outcome(), Ok(b"old".to_vec()));
    rig.write(8192, b"same object");
    rig.write(4 * u64::from(MIB), b"next object");
    rig.read(8192, 1);
    let (next, read) = (worker.next().unwrap(), worker.next().unwrap());
    assert_eq!((offset_of(&next), offset_of(&read)), (4 * u64::from(MIB), 8192));
    let counters = rig.data.counters();
    assert_eq!((counters.fenced_now, counters.held), (1, 1));
    rig.data.quiet(gateway(), 1, QuietReason::Drained);
    assert_eq!(rig.data.counters().held, 1, "a proof by the dead worker itself is none");
    rig.data.quiet(gateway(), 2, QuietReason::Gone);
    assert_eq!(offset_of(&worker.next().unwrap()), 8192);
    let counters = rig.data.counters();
    assert_eq!((counters.fenced, counters.released_gone, counters.held), (1, 1, 0));
    assert!(rig.data.deadline().is_none() && rig.data.watched().is_empty());
}

/// What may still be carried out makes an object, also when its write fails meanwhile.
#[test]
fn a_volume_with_orphans_is_not_counted_any_more() {
    let usage = Some(BlockUsage { own: 1, shared: 0 });
    for (writes, expected) in [(1, None), (0, usage)] {
        let requests = |rig: &mut Rig| {
            assert!(rig.data.allocations.volumes().add(Arc::clone(&rig.volume)));
            assert!(rig.data.note_stored(1, VolumeId(1), 1, usage));
            rig.read(0, 1);
            (0..writes).for_each(|_| rig.write(4 * u64::from(MIB), b"new"));
        };
        let rig = bereft(requests, Some(gateway()));
        rig.data.fail_all();
        assert_eq!(rig.volume.usage(), expected);
        assert!(rig.data.note_stored(2, VolumeId(1), 1, usage));
        assert_eq!(rig.volume.usage(), usage);
    }
}

/// It waited in the worker until its block's entry was repaired: a late repair would undo it.
#[test]
fn a_write_to_a_block_that_was_being_repaired_is_no_repetition() {
    let mut rig = Rig::new(64 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.write(0, b"newer");
    rig.write(4 * u64::from(MIB), b"beside");
    (0..2).for_each(|_| drop(worker.next().unwrap()));
    rig.data.note_repairing(VolumeId(1), 0);
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    let (worker, _reader) = rig.connect(2, ARENA_LEN);
    assert_eq!(offset_of(&worker.next().unwrap()), 4 * u64::from(MIB));
    assert_eq!((rig.data.counters().fenced_now, rig.data.counters().held), (2, 1));
    rig.data.quiet(gateway(), 2, QuietReason::Gone);
    assert_eq!(offset_of(&worker.next().unwrap()), 0);
}

/// It failed for its caller while the worker was at it. What overlaps it may have waited for
/// it in the worker, and is newer than what is on the wire.
#[test]
fn what_was_told_beside_an_abandoned_write_is_no_repetition() {
    let mut rig = Rig::new(64 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.write(0, b"abandoned");
    worker.next().unwrap();
    assert_eq!(rig.data.fail_all(), 1);
    assert_eq!(rig.outcome(), Err(Errno::EIO));
    rig.write(0, b"newer");
    worker.next().unwrap();
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    let (worker, _reader) = rig.connect(2, ARENA_LEN);
    assert_eq!((rig.data.counters().fenced_now, rig.data.counters().held), (1, 1));
    rig.data.quiet(gateway(), 2, QuietReason::Gone);
    assert_eq!(offset_of(&worker.next().unwrap()), 0);
}

#[test]
fn a_fence_ends_by_time_when_nothing_is_known() {
    let mut rig = bereft(|rig| rig.write(0, b"old"), Some(gateway()));
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    let replay = worker.next().unwrap();
    worker.serve(replay);
    rig.outcome().unwrap();
    rig.write(0, b"new");
    let deadline = rig.data.deadline().unwrap();
    rig.data.tick(deadline - Duration::from_millis(1));
    assert_eq!(rig.data.counters().held, 1);
    rig.data.tick(deadline);
    let new = worker.next().unwrap();
    worker.serve(new);
    assert_eq!(rig.outcome(), Ok(b"new".to_vec()));
    assert_eq!(rig.data.counters().released_time, 1);
}

#[test]
fn what_waited_for_a_create_is_not_repeated_before_the_creates_fence() {
    let mut rig = Rig::new(MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.write(0, b"creates");
    rig.write(8192, b"waits for it");
    let (tag, _) = tag_of(&worker.next().unwrap());
    worker.say(FromWorker::Creating { tag, block: 0 });
    drop(worker);
    rig.gone(1);
    rig.lose(1, Some(gateway()));
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    let create = worker.next().unwrap();
    assert_eq!(offset_of(&create), 0);
    assert_eq!((rig.data.outstanding(), rig.data.counters().held), (1, 1));
    worker.serve(create);
    assert_eq!(rig.outcome(), Ok(b"creates".to_vec()));
    assert_eq!(rig.data.outstanding(), 0, "the object is fenced still");
    rig.data.quiet(gateway(), 2, QuietReason::Drained);
    let waited = worker.next().unwrap();
    worker.serve(waited);
    assert_eq!(rig.outcome(), Ok(b"waits for it".to_vec()));
}

#[test]
fn a_lie_about_a_create_ends_the_link() {
    let mut rig = Rig::new(MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.read(0, 1);
    let (tag, _) = tag_of(&worker.next().unwrap());
    worker.say(FromWorker::Creating { tag, block: 0 });
    assert!(matches!(rig.event(), Event::WorkerBroken { nonsense: true, .. }));
}

#[test]
fn an_index_entry_under_repair_fences_its_object_until_the_volume_has_moved() {
    for moved in [false, true] {
        let mut rig = Rig::new(MIB);
        let (worker, _reader) = rig.connect(1, ARENA_LEN);
        let (volume, facts) = (rig.volume.id, rig.volume.facts());
        worker.say(FromWorker::Repairing { volume, block: 3 });
        assert!(matches!(rig.event(), Event::Worker { .. }));
        if moved {
            worker.say(FromWorker::Moved { volume, facts });
            assert!(matches!(rig.event(), Event::Worker { .. }));
        }
        let begun = || rig.data.outstanding();
        while begun() != usize::from(!moved) {
            std::thread::yield_now();
        }
        drop(worker);
        rig.gone(1);
        rig.lose(1, Some(gateway()));
        assert_eq!(rig.data.counters().fenced_now, u64::from(!moved));
    }
}

#[test]
fn a_vdi_that_is_attached_again_is_fenced_still() {
    let mut rig = bereft(|rig| rig.write(0, b"old"), Some(gateway()));
    let name = rig.volume.name.clone();
    rig.data.volume_attached(rig.volume.id, name.clone());
    assert!(rig.data.is_fenced(rig.volume.id));
    rig.volume = volume(9, name.as_str(), MIB.into(), false);
    rig.data.volume_attached(rig.volume.id, name);
    assert!(rig.data.is_fenced(rig.volume.id));
    rig.write(0, b"new");
    let (mut worker, _reader) = rig.connect(2, ARENA_LEN);
    let replay = worker.next().unwrap();
    worker.serve(replay);
    assert_eq!(rig.outcome(), Ok(b"old".to_vec()));
    assert_eq!(rig.data.counters().held, 1);
}

#[test]
fn suspects_go_one_at_a_time_and_the_guilty_one_fails() {
    let mut rig = bereft(|rig| (0..3).for_each(|at| rig.read(at, 1)), None);
    let (mut worker, _reader) = rig.connect_at(2, ARENA_LEN, Pace::Single);
    rig.read(3, 1);
    for expected in 0..2 {
        let message = worker.next().unwrap();
        assert_eq!((offset_of(&message), rig.data.outstanding()), (expected, 1));
        worker.serve(message);
        rig.outcome().unwrap();
    }
    let (guilty, _) = tag_of(&worker.next().unwrap());
    drop(worker);
    rig.gone(2);
    assert_eq!(rig.lose(2, None), [guilty]);
    rig.data.poison(guilty);
    assert_eq!(rig.outcome(), Err(Errno::EIO));
    let worker = rig.connect_at(3, ARENA_LEN, Pace::Single).0.serve_all();
    assert_eq!(rig.outcome(), Ok(vec![0]));
    assert_eq!(rig.data.counters().poisoned, 1);
    drop(rig);
    worker.join().unwrap();
}

#[test]
fn beyond_the_bound_writes_are_kept_in_part_unless_they_must_be_whole() {
    let mut rig = Rig::new(8 * MIB);
    let full = KEPT_LEN_MAX / MIB as usize;
    let megabyte = vec![7; MIB as usize];
    (0..full).for_each(|_| rig.write(0, &megabyte));
    rig.write(u64::from(MIB), &megabyte);
    let waiter = rig.waiter();
    rig.data.write(&rig.volume, 2 * u64::from(MIB), &megabyte, Cut::Never, waiter);
    rig.write(3 * u64::from(MIB), b"small");
    let counters = rig.data.counters();
    assert_eq!(counters.short_writes, 1);
    let kept = KEPT_LEN_MAX + SHORT_LEN as usize + MIB as usize + 5;
    assert_eq!(counters.queued_bytes, kept as u64);
    let worker = rig.connect(1, ARENA_LEN).0.serve_all();
    let mut lens: Vec<(u64, usize)> = (0..full + 3)
        .map(|_| rig.answer())
        .map(|(number, bytes)| (number, bytes.unwrap().len()))
        .collect();
    lens.sort_unstable();
    let lens: Vec<usize> = lens.into_iter().map(|(_, len)| len).collect();
    let mib = MIB as usize;
    assert!(lens[..full].iter().all(|len| *len == mib));
    assert_eq!(lens[full..], [SHORT_LEN as usize, mib, 5]);
    assert_eq!(rig.data.counters().queued_bytes, 0);
    drop(rig);
    worker.join().unwrap();
}

#[test]
fn requests_of_an_absent_volume_wait_and_those_of_a_replaced_one_fail() {
    let mut rig = Rig::new(MIB);
    let worker = rig.connect(1, ARENA_LEN).0.serve_all();
    let id = rig.volume.id;
    rig.data.volume_absent(id, true);
    rig.read(0, 1);
    rig.write(0, b"x");
    assert_eq!((rig.data.outstanding(), rig.data.counters().held), (0, 2));
    rig.data.volume_absent(id, false);
    assert_eq!(rig.outcome(), Ok(vec![0]));
    assert_eq!(rig.outcome(), Ok(b"x".to_vec()));
    rig.data.volume_absent(id, true);
    rig.read(0, 1);
    rig.data.volume_replaced(id);
    rig.all_failed(1);
    rig.flush();
    rig.all_failed(1);
    drop(rig);
    worker.join().unwrap();
}

#[test]
fn a_held_worker_gets_nothing_new_and_finishes_what_it_has() {
    let mut rig = Rig::new(MIB);
    let (mut worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.read(0, 1);
    rig.data.hold();
    rig.read(1, 1);
    assert_eq!((rig.data.outstanding(), rig.data.in_flight()), (1, 2));
    let message = worker.next().unwrap();
    worker.serve(message);
    rig.outcome().unwrap();
    assert_eq!((rig.data.outstanding(), rig.data.in_flight()), (0, 1));
    drop(worker);
    rig.gone(1);
    assert_eq!(rig.lose(1, None), []);
    let worker = rig.connect(2, ARENA_LEN).0.serve_all();
    rig.outcome().unwrap();
    assert_eq!(rig.data.counters().replayed, 0);
    drop(rig);
    worker.join().unwrap();
}

#[test]
fn failing_all_leaves_the_worker_in_use_and_the_orphans_fenced() {
    let mut rig = Rig::new(MIB);
    let (mut worker, _reader) = rig.connect(1, MIB);
    rig.write(0, &vec![1; MIB as usize]);
    rig.read(0, 1);
    assert_eq!(rig.data.fail_all(), 2);
    rig.all_failed(2);
    rig.data.refuse_new(true);
    rig.read(0, 1);
    rig.all_failed(1);
    rig.data.refuse_new(false);
    rig.read(0, MIB);
    let late = worker.next().unwrap();
    worker.serve(late);
    // The slot has come back with the answer that nobody waited for.
    let message = worker.next().unwrap();
    worker.serve(message);
    assert_eq!(rig.outcome().unwrap().len(), MIB as usize);
    rig.write(0, b"x");
    assert!(matches!(worker.next(), Some(ToWorker::Write { .. })));
    rig.data.fail_all();
    drop(worker);
    rig.gone(1);
    assert_eq!(rig.lose(1, Some(gateway())), []);
    assert_eq!(rig.data.counters().fenced_now, 1);
}

#[test]
fn an_earlier_worker_has_no_say() {
    let mut rig = Rig::new(MIB);
    let (first, _reader) = rig.connect(1, MIB);
    rig.read(0, 10);
    let (tag, _) = tag_of(&first.next().unwrap());
    rig.lose(1, None);
    let (mut second, _reader) = rig.connect(2, MIB);
    assert_eq!(rig.data.complete(1, vec![(tag, Ok(())), (Tag(tag.0 + 1), Ok(()))]), Ok(()));
    assert_eq!(rig.data.in_flight(), 1);
    let message = second.next().unwrap();
    second.serve(message);
    assert_eq!(rig.outcome(), Ok(vec![0; 10]));
}
