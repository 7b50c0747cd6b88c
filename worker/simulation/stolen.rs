//! Locks that others hold, and that the user wants all the same (hazard 51), or doesn't want.

use super::cases::quiet;
use super::cluster::{Cluster, GATEWAY};
use super::{Fate, Run, SHAPE, slot};
use sheepfs::ipc::{Failure, FromWorker, Gateways, Locking, Tag, ToWorker, VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use sheepfs::wire::{Opcode, Status};
use std::collections::BTreeSet;

/// A worker that is told to attach a VDI, on a cluster with locks, of which that VDI's may be
/// held.
fn attaching(held: bool, lock_sent: Gateways, locking: Locking) -> Run {
    let mut run = quiet();
    run.cluster = Cluster::new(SHAPE);
    run.cluster.locks = Some(if held { BTreeSet::from([7]) } else { BTreeSet::new() });
    let name = VolumeName::parse(b"disk").unwrap();
    run.tell(ToWorker::Attach { tag: Tag(1), volume: VolumeId(2), name, lock_sent, locking });
    run
}

fn is_attached(run: &Run) -> bool {
    matches!(run.out[..], [FromWorker::Attached { tag: Tag(1), .. }])
}

/// How often a lock request was announced.
fn asked_for_lock(run: &Run) -> usize {
    run.said.iter().filter(|m| **m == FromWorker::LockSent { volume: VolumeId(2) }).count()
}

#[test]
fn a_lock_is_taken_from_another_only_when_asked_for() {
    let mut run = attaching(true, Gateways::default(), Locking::Take);
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::LockedBy(GATEWAY)));
    assert!(run.cluster.released.is_empty());
    let mut run = attaching(true, Gateways::default(), Locking::Steal);
    run.settle();
    assert!(is_attached(&run), "{:?}", run.out);
    assert_eq!(run.cluster.released, [7]);
    assert_eq!(run.cluster.locks, Some(BTreeSet::from([7])), "the lock is held again, by us");
    assert_eq!(asked_for_lock(&run), 2, "each is announced, the one after the theft too");
}

/// Nothing is released that nobody refused, nor what an earlier worker took for us.
#[test]
fn what_is_free_or_ours_is_not_stolen() {
    for (held, lock_sent) in
        [(false, Gateways::default()), (true, Gateways::default().with(GATEWAY))]
    {
        let mut run = attaching(held, lock_sent, Locking::Steal);
        run.settle();
        assert!(is_attached(&run), "{:?}", run.out);
        assert!(run.cluster.released.is_empty());
    }
}

/// Answers until the only request on the wire is the one that ends the other's lock.
fn answer_until_release(run: &mut Run) {
    while run.cluster.sent[0].request.opcode() != Some(Opcode::ReleaseVdi) {
        run.answer(0, Fate::Served);
    }
}

/// Two who steal from each other would go on for ever: who comes first keeps it.
#[test]
fn a_lock_that_somebody_else_gets_in_between_is_theirs() {
    let mut run = attaching(true, Gateways::default(), Locking::Steal);
    answer_until_release(&mut run);
    run.answer(0, Fate::Served);
    run.cluster.locks = Some(BTreeSet::from([7]));
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::LockedBy(GATEWAY)));
    assert_eq!(run.cluster.released, [7], "once");
}

#[test]
fn a_release_that_is_refused_takes_no_lock() {
    let mut run = attaching(true, Gateways::default(), Locking::Steal);
    answer_until_release(&mut run);
    run.answer(0, Fate::Refused(Status::Eio));
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::LockedBy(GATEWAY)));
}

/// Who wants no lock takes none, whoever has it, and gives none back: not at a snapshot either,
/// nor under the next worker.
#[test]
fn without_locks_none_is_touched() {
    for held in [false, true] {
        let locks = || Some(if held { BTreeSet::from([7]) } else { BTreeSet::new() });
        let mut run = attaching(held, Gateways::default(), Locking::Without);
        run.settle();
        let [FromWorker::Attached { facts, .. }] = &run.out[..] else { panic!("{:?}", run.out) };
        assert!(!facts.locked && !facts.snapshot);
        let facts = facts.clone();
        run.cluster.snapshot();
        let (tag, volume, span) = (Tag(3), VolumeId(2), slot(3, 512));
        run.tell(ToWorker::Write { tag, volume, offset: 0, span, again: false });
        run.settle();
        assert_eq!(run.outcome(3), Ok(()));
        run.tell(ToWorker::Detach { tag: Tag(4), volume: VolumeId(2) });
        run.settle();
        assert_eq!(run.outcome(4), Ok(()));
        assert_eq!((asked_for_lock(&run), &run.cluster.locks), (0, &locks()));

        let mut next = attaching(held, Gateways::default(), Locking::Without);
        next = resumed(next, facts);
        assert_eq!((asked_for_lock(&next), &next.cluster.locks), (0, &locks()));
    }
}

/// A new worker goes on with such a volume and lets go of it.
fn resumed(mut run: Run, facts: VolumeFacts) -> Run {
    let mut next = quiet();
    std::mem::swap(&mut next.cluster, &mut run.cluster);
    next.cluster.sent.clear();
    next.cluster.snapshot();
    next.tell(ToWorker::Resume {
        tag: Tag(5),
        volume: VolumeId(2),
        name: VolumeName::parse(b"disk").unwrap(),
        facts,
        lock_sent: Gateways::default(),
        repairing: None,
    });
    next.settle();
    let moved = |message: &FromWorker| matches!(message, FromWorker::Moved { facts, .. } if facts.vid == 8 && !facts.locked);
    assert!(next.out.iter().any(moved), "{:?}", next.out);
    next.tell(ToWorker::Detach { tag: Tag(6), volume: VolumeId(2) });
    next.settle();
    assert_eq!(next.outcome(6), Ok(()));
    assert!(next.cluster.released.is_empty());
    next
}

/// A cluster that refuses a lock which it says nobody has is not asked for ever.
#[test]
fn a_lock_that_is_refused_and_held_by_nobody_is_given_up() {
    let mut run = attaching(true, Gateways::default(), Locking::Take);
    run.cluster.hides_owners = true;
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::Locked));
}
