//! The count, and what a dead worker has left on the wire.

use super::super::cluster::Sent;
use super::super::deaths::{Supervisor, is_update};
use super::super::{Fate, Run, VOLUME, slot};
use super::changed::{discard, hyper};
use super::{BLOCK_LEN, piece_read, wide};
use sheepfs::ipc::{SeekTarget, Tag, ToWorker};
use sheepfs::wire::cluster::BlockUsage;

const BLOCK: u64 = 9;

fn counted(own: u64) -> Option<BlockUsage> {
    Some(BlockUsage { own, shared: 0 })
}

/// A worker that follows one which died at the update of a block's index entry. The write was
/// answered with an error, so it is not repeated.
fn bereft() -> Run {
    let (mut run, mut supervisor) = (wide(1), Supervisor::default());
    supervisor.listen(&run);
    let (tag, offset, span) = (Tag(1), BLOCK * BLOCK_LEN, slot(1, 100));
    supervisor.note(tag, ToWorker::Write { tag, volume: VOLUME, offset, span, again: false });
    run.write(1, offset, 100, 7);
    while !run.cluster.sent.iter().any(|sent| is_update(&sent.request.header(0))) {
        run.answer(0, Fate::Served);
    }
    let late: Vec<Sent> = std::mem::take(&mut run.cluster.sent);
    supervisor.give_up(tag);
    run.orphans.extend(late);
    supervisor.replace(&mut run, 0);
    run.engine.limit_index_pages(10);
    run.settle();
    run.out.clear();
    run
}

/// What dead workers have left is carried out, and nothing more can come.
fn land(run: &mut Run) {
    for orphan in std::mem::take(&mut run.orphans) {
        run.cluster.execute(&orphan, &run.arena);
    }
    assert_ne!(run.cluster.entry(7, u32::try_from(BLOCK).unwrap()), 0, "nothing has landed");
    run.tick();
}

#[test]
fn what_lands_after_a_death_is_counted_when_nothing_more_can_land() {
    let mut run = bereft();
    assert_eq!(run.usage(), None, "it may land at any time");
    land(&mut run);
    run.settle();
    assert_eq!(run.usage(), counted(1));
}

/// The page with its entry was read before.
#[test]
fn what_lands_in_a_page_that_is_known_is_counted_and_read() {
    let mut run = bereft();
    run.read(2, BLOCK * BLOCK_LEN, 100);
    run.settle();
    assert_eq!((run.outcome(2), run.bytes(2, 1)), (Ok(()), vec![0]));
    assert_eq!(run.usage(), None);
    land(&mut run);
    run.settle();
    assert_eq!(run.usage(), counted(1));
    run.read(3, BLOCK * BLOCK_LEN, 100);
    run.write(4, BLOCK * BLOCK_LEN + 200, 100, 1);
    run.write(5, (BLOCK + 1) * BLOCK_LEN, 100, 1);
    run.settle();
    assert_eq!((run.outcome(3), run.bytes(3, 1)), (Ok(()), vec![7]));
    assert_eq!(run.usage(), counted(2), "each once");
}

/// A seek has asked for the index before the orphans were over.
#[test]
fn what_was_read_before_is_not_counted() {
    let mut run = bereft();
    run.seek(2, 0, SeekTarget::Data);
    let piece = run.sent(piece_read);
    run.answer(piece, Fate::Served);
    land(&mut run);
    assert_eq!(run.cluster.sent.len(), 1, "the header that confirms it");
    run.settle();
    assert_eq!(run.usage(), counted(1));
}

/// A write under way, whose create was not answered when the index was read for the count.
#[test]
fn an_entry_that_is_being_written_is_no_late_one() {
    let mut run = bereft();
    run.read(2, BLOCK * BLOCK_LEN, 100);
    run.settle();
    land(&mut run);
    let piece = run.sent(piece_read);
    let waiting = run.cluster.sent.remove(piece);
    run.write(3, (BLOCK + 1) * BLOCK_LEN, 100, 1);
    run.settle();
    assert_eq!((run.outcome(3), run.usage()), (Ok(()), None));
    run.cluster.sent.push(waiting);
    run.settle();
    assert_eq!(run.usage(), counted(2));
}

/// A write under way on its block finds that a snapshot was made, whose heir has the entry.
#[test]
fn one_that_is_not_believed_is_counted_after_a_snapshot() {
    let mut run = bereft();
    run.write(2, (BLOCK + 1) * BLOCK_LEN, 100, 1);
    run.settle();
    run.write(3, BLOCK * BLOCK_LEN, 100, 1);
    let create = run.cluster.sent.pop().expect("it is sent");
    land(&mut run);
    run.settle();
    assert_eq!((run.outcome(2), run.usage()), (Ok(()), counted(1)), "the write will count it");
    run.cluster.snapshot();
    run.cluster.sent.push(create);
    run.settle();
    let usage = BlockUsage { own: 1, shared: 1 };
    assert_eq!((run.outcome(3), run.usage()), (Ok(()), Some(usage)));
}

/// Reads the index for a seek; gives the request for the header that confirms it.
fn read_index(run: &mut Run, tag: u64) -> Sent {
    run.seek(tag, 0, SeekTarget::Data);
    let piece = run.sent(piece_read);
    run.answer(piece, Fate::Served);
    run.cluster.sent.pop().expect("the header is asked for")
}

/// The index was read just before its entry was cleared, or while that was on its way.
#[test]
fn neither_is_one_that_is_being_discarded() {
    for under_way in [false, true] {
        let mut run = wide(1);
        run.write(1, BLOCK * BLOCK_LEN, 100, 7);
        run.settle();
        let early = (!under_way).then(|| read_index(&mut run, 3));
        discard(&mut run, 2, BLOCK, 1);
        while !run.cluster.sent.iter().any(|sent| is_update(&sent.request.header(0))) {
            run.answer(0, Fate::Served);
        }
        let waiting = early.unwrap_or_else(|| read_index(&mut run, 3));
        run.settle();
        assert_eq!((run.outcome(2), run.usage()), (Ok(()), counted(0)));
        run.cluster.sent.push(waiting);
        run.settle();
        assert_eq!((run.sought(3), run.usage()), (None, counted(0)), "{under_way}");
    }
}

/// A walk over its tree, which a worker before may be about to change, would miss what is moved.
#[test]
fn neither_is_a_hyper_volume_counted_before() {
    let mut run = hyper();
    run.write(1, 5 * BLOCK_LEN, 100, 1);
    run.settle();
    assert_eq!(run.usage(), counted(1));
    let mut supervisor = Supervisor::default();
    supervisor.listen(&run);
    run.write(2, 6 * BLOCK_LEN, 100, 1);
    run.orphans.push(run.cluster.sent.pop().unwrap());
    supervisor.replace(&mut run, 0);
    run.settle();
    assert_eq!(run.usage(), None);
    assert!(!run.cluster.sent.iter().any(|sent| piece_read(&sent.request.header(0))));
    run.orphans.clear();
    run.tick();
    run.settle();
    assert_eq!(run.usage(), counted(1));
}
