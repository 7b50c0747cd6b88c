//! Discards that end badly or in a roundabout way.

use super::{Fate, Run, VOLUME};
use sheepfs::ipc::{Failure, Tag, ToWorker};
use sheepfs::wire::{Opcode, Status};
use std::collections::BTreeSet;

/// A discard of the first block, which was written, or of the first two.
fn discarding(blocks: u32) -> Run {
    let mut run = Run::new(1, 0);
    run.patience = 0;
    run.cluster.counts = true;
    run.write(1, 0, 4096 * blocks, 1);
    run.settle();
    discard(&mut run, blocks);
    run
}

fn discard(run: &mut Run, blocks: u32) {
    let (tag, volume, offset, again) = (Tag(2), VOLUME, 0, false);
    run.tell(ToWorker::Discard { tag, volume, offset, len: 4096 * blocks, again });
}

fn answer_until(run: &mut Run, opcode: Opcode) {
    while run.cluster.sent[0].request.header(0).opcode != opcode.code() {
        run.answer(0, Fate::Served);
    }
}

/// What is cleared too late is put back before anything else is looked for: nothing need come
/// of that.
#[test]
fn a_snapshot_keeps_its_block_when_the_volume_fails() {
    let mut run = discarding(1);
    answer_until(&mut run, Opcode::WriteObj);
    run.cluster.snapshot();
    run.answer(0, Fate::Served);
    assert_eq!((run.cluster.entry(7, 0), run.cluster.entry(8, 0)), (0, 7));
    // The new vid's lock is somebody else's.
    run.cluster.locks = Some(BTreeSet::from([7, 8]));
    run.settle();
    assert_eq!(run.outcome(2), Err(Failure::LockLost));
    assert_eq!(run.cluster.discarded.restored, 1);
    assert!(run.cluster.content(7)[..4096] == [1; 4096], "the snapshot has lost a block");
}

/// Somebody has written an entry back, which no snapshot explains: all over again, and what
/// was cleared the first time goes as well.
#[test]
fn what_an_earlier_round_has_cleared_is_let_go_of() {
    let mut run = Run::new(1, 0);
    run.patience = 0;
    run.cluster.counts = true;
    run.write(1, 0, 8192, 1);
    run.settle();
    run.cluster.snapshot();
    run.write(3, 3 * 4096, 1, 3);
    run.settle();
    discard(&mut run, 2);
    answer_until(&mut run, Opcode::GetVdiInfo);
    assert_eq!([0, 1].map(|block| run.cluster.entry(8, block)), [0, 0]);
    run.cluster.set_entry(8, 1, 7);
    run.settle();
    assert_eq!(run.outcome(2), Ok(()));
    assert_eq!(run.cluster.discarded.dropped, 2);
    assert!(run.cluster.content(7)[..8192] == [1; 8192]);
    assert_eq!(run.cluster.delete_all(), []);
}

/// The name has moved, and then it has not: nothing is waited for that will never come.
#[test]
fn a_name_that_comes_back_is_believed() {
    let mut run = discarding(1);
    answer_until(&mut run, Opcode::GetVdiInfo);
    let working = std::mem::replace(&mut run.cluster.working, 6);
    run.answer(0, Fate::Served);
    run.cluster.working = working;
    run.settle();
    assert_eq!(run.outcome(2), Ok(()));
    assert_eq!(run.cluster.delete_all(), []);
}

/// As patient as a small one: it asks many questions at once.
#[test]
fn a_large_discard_is_refused_as_often_as_a_small_one() {
    let mut run = discarding(40);
    answer_until(&mut run, Opcode::WriteObj);
    for _ in 0..20 {
        assert_eq!(run.cluster.sent.len(), 40);
        (0..40).for_each(|_| run.answer(0, Fate::Refused(Status::NoObj)));
        run.tick();
    }
    run.settle();
    assert_eq!(run.outcome(2), Ok(()));
    assert_eq!(run.cluster.discarded.removed, 40);
}
