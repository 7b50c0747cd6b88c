//! Others at work on a snapshot while what it has lost is repaired.

use super::{Fate, Run};
use sheepfs::ipc::Failure;
use sheepfs::wire::inode::INDEX_OFFSET;
use sheepfs::wire::{ObjectId, Opcode, Status, VdiId};

fn start() -> Run {
    let mut run = Run::new(1, 0);
    run.patience = 0;
    run.cluster.counts = true;
    run
}

/// Whether the next request writes an inode's index, or its counts.
fn repairs(run: &Run) -> bool {
    let header = run.cluster.sent[0].request.header(0);
    let inodes = [7, 8].map(|vid| ObjectId::inode(VdiId::new(vid).unwrap()).raw());
    let fields = header.obj();
    let inode = inodes.contains(&fields.oid) && fields.offset >= INDEX_OFFSET;
    inode && header.opcode == Opcode::WriteObj.code()
}

fn answer_until(run: &mut Run, mut stop: impl FnMut(&Run) -> bool) {
    loop {
        if run.cluster.sent.is_empty() {
            run.tick();
        } else if stop(run) {
            return;
        } else {
            run.answer(0, Fate::Served);
        }
    }
}

/// Block 0 is written while a snapshot is made that loses its entry. Then another block is,
/// and the first thing that the repair is about to tell an inode waits.
fn repairing(run: &mut Run) {
    run.cluster.loses = true;
    run.write(11, 0, 4096, 2);
    answer_until(run, |run| {
        run.cluster.sent[0].request.header(0).opcode == Opcode::WriteObj.code()
    });
    run.cluster.begin_snapshot();
    run.answer(0, Fate::Served);
    run.settle();
    assert_eq!(run.outcome(11), Ok(()));
    run.cluster.end_snapshot();
    run.write(12, 5 * 4096, 4096, 3);
    answer_until(run, repairs);
}

/// A snapshot has a block that it does not count.
fn uncounted(run: &mut Run) {
    run.write(1, 0, 4096, 1);
    run.settle();
    run.cluster.snapshot();
    run.cluster.set_gref(7, 0, (0, 0));
    assert_eq!(run.cluster.gref(8, 0), (1, 0));
}

fn holds(run: &Run, vid: u32, value: u8) {
    assert!(run.cluster.content(vid)[..4096] == [value; 4096], "{vid} is another");
}

#[test]
fn a_repaired_snapshot_can_be_deleted() {
    let mut run = start();
    repairing(&mut run);
    run.settle();
    holds(&run, 7, 2);
    run.cluster.delete_one(7);
    holds(&run, 8, 2);
    let mut run = start();
    uncounted(&mut run);
    run.write(12, 5 * 4096, 4096, 3);
    run.settle();
    assert_eq!(run.cluster.gref(7, 0), (0, 1));
    run.cluster.delete_one(7);
    holds(&run, 8, 1);
}

/// Whoever makes it writes back the counts as they were before the repair.
#[test]
fn a_clone_that_is_made_meanwhile_costs_nothing() {
    let mut run = start();
    repairing(&mut run);
    assert_eq!(run.cluster.entry(7, 0), 0);
    let base = run.cluster.inodes[&7].clone();
    run.answer(0, Fate::Served);
    assert_eq!(run.cluster.gref(7, 0), (0, 1));
    run.cluster.end_clone(&base, 7, 100);
    run.settle();
    assert_eq!((run.cluster.entry(7, 0), run.cluster.gref(7, 0)), (7, (0, 1)));
    run.cluster.delete_one(7);
    holds(&run, 8, 2);
}

/// It is deleted in the middle of the repair, or the client's host dies there, and it is
/// deleted later: an older snapshot keeps what both had.
#[test]
fn a_deletion_in_the_middle_costs_an_older_snapshot_nothing() {
    for steps in 0..4 {
        let mut run = start();
        run.write(1, 0, 4096, 1);
        run.settle();
        run.cluster.snapshot();
        run.write(2, 7 * 4096, 4096, 1);
        run.settle();
        repairing(&mut run);
        assert_eq!((run.cluster.entry(8, 0), run.cluster.gref(8, 0)), (7, (1, 1)));
        for _ in 0..steps {
            run.answer(0, Fate::Served);
        }
        run.cluster.delete_one(8);
        holds(&run, 7, 1);
    }
}

/// Its inode has no name any more. Nobody will let go of what it would list.
#[test]
fn a_deleted_snapshot_is_told_nothing() {
    let mut run = start();
    run.cluster.loses = true;
    run.write(11, 0, 4096, 2);
    answer_until(&mut run, |run| {
        run.cluster.sent[0].request.header(0).opcode == Opcode::WriteObj.code()
    });
    run.cluster.begin_snapshot();
    run.settle();
    run.cluster.end_snapshot();
    run.cluster.inodes.get_mut(&7).unwrap().bytes[..256].fill(0);
    run.write(12, 5 * 4096, 4096, 3);
    run.settle();
    assert_eq!((run.outcome(11), run.outcome(12)), (Ok(()), Ok(())));
    assert_eq!((run.cluster.entry(7, 0), run.cluster.gref(7, 0)), (0, (0, 0)));
    holds(&run, 8, 2);
}

/// The vid to go on with becomes a snapshot, too, at any step: the next reload puts right what
/// this one could not.
#[test]
fn a_snapshot_in_the_middle_of_a_repair_costs_nothing() {
    for steps in 0..8 {
        let mut run = start();
        repairing(&mut run);
        for _ in 0..steps {
            if run.cluster.sent.is_empty() {
                run.tick();
            } else {
                run.answer(0, Fate::Served);
            }
        }
        run.cluster.snapshot();
        run.settle();
        run.write(13, 6 * 4096, 4096, 4);
        run.settle();
        holds(&run, 8, 2);
        run.cluster.delete_one(7);
        run.cluster.delete_one(8);
        holds(&run, 9, 2);
    }
}

/// The second is counted once more, by a clone.
#[test]
fn two_snapshots_in_a_row_are_repaired_both() {
    let mut run = start();
    uncounted(&mut run);
    run.cluster.snapshot();
    let base = run.cluster.inodes[&8].clone();
    run.cluster.end_clone(&base, 8, 100);
    assert_eq!(run.cluster.gref(8, 0), (1, 2));
    run.write(12, 5 * 4096, 4096, 3);
    run.settle();
    for vid in [7, 8, 100] {
        run.cluster.delete_one(vid);
    }
    holds(&run, 9, 1);
}

/// An inode that is not found is there all the same, as long as one that was made of it is.
#[test]
fn an_inode_that_is_not_found_is_waited_for_and_missed() {
    for (refusals, outcome) in [(100, Ok(())), (1000, Err(Failure::Replaced))] {
        let mut run = start();
        uncounted(&mut run);
        run.write(12, 5 * 4096, 4096, 3);
        let mut refused = 0;
        for _ in 0..5000 {
            let Some(sent) = run.cluster.sent.first() else {
                run.tick();
                continue;
            };
            let header = sent.request.header(0);
            let old = header.obj().oid == ObjectId::inode(VdiId::new(7).unwrap()).raw();
            let miss = old && header.opcode == Opcode::ReadObj.code() && refused < refusals;
            refused += u32::from(miss);
            run.answer(0, if miss { Fate::Refused(Status::NoObj) } else { Fate::Served });
        }
        assert_eq!(run.outcome(12), outcome);
        let counted = run.cluster.gref(7, 0).1;
        assert_eq!(counted, i32::from(outcome.is_ok()));
    }
}
