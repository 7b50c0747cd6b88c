//! Discards of hyper volumes: what goes, what stays, and that nothing is left.

use super::game::{PLAN, Plan, play};
use super::{BLOCK_LEN, SIZE, SMALL, quiet, read, write};
use crate::simulation::deaths::Supervisor;
use crate::simulation::{Fate, Run, VOLUME, slot};
use sheepfs::ipc::{Failure, FromWorker, Tag, ToWorker};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::inode::INODE_HEADER_LEN;
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::{ObjectId, Opcode, Status};

const CLEARS: Plan = Plan { clears: 45, ..PLAN };

fn discard_of(tag: u64, first: u64, blocks: u64) -> ToWorker {
    let (volume, offset, again) = (VOLUME, first * BLOCK_LEN, false);
    let len = u32::try_from(blocks * BLOCK_LEN).unwrap();
    ToWorker::Discard { tag: Tag(tag), volume, offset, len, again }
}

fn discard(run: &mut Run, tag: u64, first: u64, blocks: u64) -> Result<(), Failure> {
    run.tell(discard_of(tag, first, blocks));
    run.settle();
    run.outcome(tag)
}

fn is(opcode: Opcode) -> impl Fn(&RequestHeader) -> bool {
    move |header| header.opcode == opcode.code()
}

#[test]
fn what_is_cleared_is_zeros_and_no_object_is_left() {
    let (mut removed, mut leaves) = (0, 0);
    for seed in 400..408 {
        let game = play(seed, CLEARS);
        assert_eq!(game.run.cluster.unlisted(), [], "objects are left");
        removed += game.run.cluster.discarded.removed;
        leaves += game.leaves();
    }
    assert!(removed > 200 && leaves > 100, "{removed} removed, {leaves} leaves");
}

/// Also when a supervisor dies with its worker.
#[test]
fn a_death_during_discards_leaves_nothing() {
    let (mut removed, mut deaths, mut late) = (0, 0, 0);
    for seed in 420..436 {
        let game = play(seed, Plan { deaths: 4, ..CLEARS });
        assert_eq!(game.run.cluster.unlisted(), [], "objects are left");
        removed += game.run.cluster.discarded.removed;
        deaths += game.supervisor.deaths;
        late += game.run.late;
    }
    assert!(removed > 200 && deaths > 150 && late > 15, "{removed} {deaths} {late}");
}

#[test]
fn failures_during_discards_of_a_tree_lose_nothing() {
    let mut removed = 0;
    for seed in 460..468 {
        removed += play(seed, Plan { failures: 6, ..CLEARS }).run.cluster.discarded.removed;
        let both = Plan { failures: 4, deaths: 3, ..CLEARS };
        removed += play(seed + 100, both).run.cluster.discarded.removed;
    }
    assert!(removed > 200, "{removed}");
}

/// A worker dies after each number of answers in turn, while blocks are discarded that are
/// written right after that.
#[test]
fn a_death_at_any_step_of_a_discard_harms_nobody() {
    let mut deaths = 0;
    for seed in 0..12 {
        for step in 0.. {
            let mut run = quiet(SMALL);
            run.random.0 = seed;
            let mut supervisor = Supervisor::default();
            supervisor.mortal = seed % 3 == 0;
            supervisor.listen(&run);
            for block in 1..12 {
                assert_eq!(write(&mut run, block, block), Ok(()));
            }
            supervisor.listen(&run);
            run.out.clear();
            let span = slot(41, 512);
            run.arena.fill(run.arena.check(span).unwrap(), &[77; 512]);
            let (volume, offset, again) = (VOLUME, 5 * BLOCK_LEN, false);
            let discard = discard_of(40, 3, 6);
            let rewrite = ToWorker::Write { tag: Tag(41), volume, offset, span, again };
            supervisor.note(Tag(40), discard.clone());
            run.tell(discard);
            let mut steps = 0;
            while steps < step && !run.cluster.sent.is_empty() {
                run.answer_one();
                steps += 1;
            }
            let over = steps < step;
            if !over {
                supervisor.replace(&mut run, 0);
                deaths += 1;
            }
            run.settle();
            assert_eq!(run.outcome(40), Ok(()));
            // Only now: the supervisor lets what overlaps wait.
            run.tell(rewrite);
            run.settle();
            assert_eq!(run.outcome(41), Ok(()));
            run.settle_orphans(|_| true);
            run.out.clear();
            for block in 1..12 {
                let expected = if block == 5 { 77 } else { block };
                let expected = if (3..9).contains(&block) && block != 5 { 0 } else { expected };
                assert_eq!(u64::from(read(&mut run, 42, block)), expected, "{seed} {step}");
                run.out.clear();
            }
            assert_eq!(run.cluster.unlisted(), [], "objects are left: {seed} {step}");
            if over {
                break;
            }
        }
    }
    assert!(deaths > 12 * 8, "{deaths}");
}

/// The entry stays, and names nobody (protocol 5.2): by the worker that knows, and by one
/// that looks.
#[test]
fn a_block_is_a_hole_until_it_is_written_again() {
    let mut run = quiet(SMALL);
    for block in 1..30 {
        assert_eq!(write(&mut run, block, block), Ok(()));
    }
    run.out.clear();
    for (first, blocks) in [(3, 1), (17, 2), (29, 30)] {
        assert_eq!(discard(&mut run, 40, first, blocks), Ok(()));
        run.out.clear();
    }
    assert_eq!(run.cluster.discarded.removed, 4);
    for _ in 0..2 {
        for block in 1..30 {
            let expected = if [3, 17, 18, 29].contains(&block) { 0 } else { block };
            assert_eq!(u64::from(read(&mut run, 41, block)), expected);
            run.out.clear();
        }
        run = Run { cluster: run.cluster, ..quiet(SMALL) };
    }
    for block in [3, 29] {
        assert_eq!(write(&mut run, 42, block), Ok(()));
        assert_eq!(read(&mut run, 43, block), 42);
        run.out.clear();
    }
    assert_eq!(run.cluster.unlisted(), []);
}

/// The largest volume has as many blocks as there are numbers.
#[test]
fn the_last_block_of_all_is_discarded() {
    let mut run = quiet(SMALL);
    let last = SIZE / BLOCK_LEN - 1;
    assert_eq!(write(&mut run, 1, last), Ok(()));
    assert_eq!(discard(&mut run, 2, last - 1, 2), Ok(()));
    assert_eq!(read(&mut run, 3, last), 0);
    assert_eq!((run.cluster.discarded.removed, run.cluster.unlisted()), (1, vec![]));
}

/// One step is one change of the tree, and holes cost nothing.
#[test]
fn entries_are_cleared_together_and_holes_not_at_all() {
    let mut run = quiet(SMALL);
    let rest = run.cluster.asked;
    assert_eq!(discard(&mut run, 1, 0, 64), Ok(()));
    assert_eq!(run.cluster.asked - rest, 2, "the page of the index, and the header");
    for block in 1..6 {
        assert_eq!(write(&mut run, block + 10, block), Ok(()));
    }
    let written = run.cluster.node_writes;
    assert_eq!(discard(&mut run, 2, 0, 64), Ok(()));
    assert_eq!(run.cluster.node_writes - written, 1);
    assert_eq!(run.cluster.discarded.removed, 5);
}

/// The supervisor must know before the tree is written (hazard 52).
#[test]
fn a_discard_says_that_the_tree_changes() {
    let mut run = quiet(SMALL);
    assert_eq!(write(&mut run, 1, 5), Ok(()));
    run.tell(discard_of(2, 5, 1));
    let told = |run: &Run| run.said.contains(&FromWorker::Growing { tag: Tag(2) });
    while !run.cluster.sent.iter().any(|sent| super::is_tree_write(&sent.request.header(0))) {
        run.answer(0, Fate::Served);
    }
    assert!(told(&run), "{:?}", run.said);
    run.settle();
    assert_eq!(run.outcome(2), Ok(()));
}

/// Its answer may be lost, and not it.
#[test]
fn what_failed_half_way_goes_with_the_next_discard() {
    let mut run = quiet(SMALL);
    assert_eq!(write(&mut run, 1, 5), Ok(()));
    run.tell(discard_of(2, 5, 1));
    let refused = || Fate::Refused(Status::Eio);
    for _ in 0..10_000 {
        if run.cluster.sent.is_empty() && !run.out.iter().any(|said| is_done(said, 2)) {
            run.tick();
            continue;
        }
        let Some(sent) = run.cluster.sent.first() else { break };
        let removes = is(Opcode::RemoveObj)(&sent.request.header(0));
        run.answer(0, if removes { refused() } else { Fate::Served });
    }
    assert!(run.outcome(2).is_err(), "{:?}", run.outcome(2));
    assert_eq!(run.cluster.unlisted().len(), 1, "its entry went first");
    assert_eq!(read(&mut run, 3, 5), 0);
    assert_eq!(discard(&mut run, 4, 5, 1), Ok(()));
    assert_eq!(run.cluster.unlisted(), []);
}

fn is_done(message: &FromWorker, wanted: u64) -> bool {
    matches!(message, FromWorker::Done { tag, .. } if tag.0 == wanted)
}

/// Nobody knows whose its objects are then (protocol 5.5).
#[test]
fn nothing_is_removed_under_a_snapshot() {
    // Made before the header is read, or before the name is asked for.
    for before in [Opcode::ReadObj, Opcode::GetVdiInfo] {
        let mut run = quiet(SMALL);
        assert_eq!(write(&mut run, 1, 5), Ok(()));
        run.tell(discard_of(2, 5, 1));
        while !is(before)(&run.cluster.sent[0].request.header(0)) {
            run.answer(0, Fate::Served);
        }
        freeze(&mut run);
        run.settle();
        assert_eq!(run.outcome(2), Err(Failure::HyperFrozen));
        let is_data = |oid: &u64| ObjectId::from_raw(*oid).kind() == ObjectKind::Data;
        assert_eq!(run.cluster.objects.keys().filter(|oid| is_data(oid)).count(), 1);
    }
}

/// The VDI becomes a snapshot, and its name another's.
fn freeze(run: &mut Run) {
    let old = run.cluster.working;
    let mut next = run.cluster.inodes[&old].clone();
    next.bytes[INODE_HEADER_LEN..].fill(0);
    run.cluster.inodes.insert(old + 1, next);
    run.cluster.inodes.get_mut(&old).unwrap().bytes[520..528].copy_from_slice(&9_u64.to_le_bytes());
    run.cluster.working = old + 1;
}

#[test]
fn a_vdi_that_was_deleted_is_left_alone() {
    for before in [Opcode::ReadObj, Opcode::GetVdiInfo] {
        let mut run = quiet(SMALL);
        assert_eq!(write(&mut run, 1, 5), Ok(()));
        run.tell(discard_of(2, 5, 1));
        while !is(before)(&run.cluster.sent[0].request.header(0)) {
            run.answer(0, Fate::Served);
        }
        run.cluster.delete();
        run.settle();
        assert_eq!(run.outcome(2), Err(Failure::Replaced));
        assert_eq!(run.cluster.discarded.removed, 0);
    }
}
