//! Locks that others hold, and that the user wants all the same (hazard 51).

use super::cases::quiet;
use super::cluster::{Cluster, GATEWAY};
use super::{Fate, Run, SHAPE};
use sheepfs::ipc::{Failure, FromWorker, Gateways, Tag, ToWorker, VolumeId};
use sheepfs::wire::name::VolumeName;
use sheepfs::wire::{Opcode, Status};
use std::collections::BTreeSet;

/// A worker that is told to attach a VDI, on a cluster with locks, of which that VDI's may be
/// held.
fn attaching(held: bool, lock_sent: Gateways, steal: bool) -> Run {
    let mut run = quiet();
    run.cluster = Cluster::new(SHAPE);
    run.cluster.locks = Some(if held { BTreeSet::from([7]) } else { BTreeSet::new() });
    let name = VolumeName::parse(b"disk").unwrap();
    run.tell(ToWorker::Attach { tag: Tag(1), volume: VolumeId(2), name, lock_sent, steal });
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
    let mut run = attaching(true, Gateways::default(), false);
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::Locked));
    assert!(run.cluster.released.is_empty());
    let mut run = attaching(true, Gateways::default(), true);
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
        let mut run = attaching(held, lock_sent, true);
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
    let mut run = attaching(true, Gateways::default(), true);
    answer_until_release(&mut run);
    run.answer(0, Fate::Served);
    run.cluster.locks = Some(BTreeSet::from([7]));
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::Locked));
    assert_eq!(run.cluster.released, [7], "once");
}

#[test]
fn a_release_that_is_refused_takes_no_lock() {
    let mut run = attaching(true, Gateways::default(), true);
    answer_until_release(&mut run);
    run.answer(0, Fate::Refused(Status::Eio));
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::Locked));
}
