//! Seeks and the count of objects, against a model of which blocks were written.

mod changed;

use super::cases::quiet;
use super::cluster::Shape;
use super::deaths::Supervisor;
use super::{Fate, Run, VOLUME, is_answer};
use sheepfs::ipc::{Failure, FromWorker, SeekTarget, Tag, ToWorker, VolumeId};
use sheepfs::wire::Status;
use sheepfs::wire::cluster::BlockUsage;
use sheepfs::wire::header::RequestHeader;
use std::collections::{BTreeMap, BTreeSet};

const BLOCK_LEN: u64 = 4096;
/// An index of two pieces and a bit.
const BLOCKS: u64 = 2 * 65_536 + 500;
/// The last block is short.
const WIDE: Shape = Shape { shift: 12, len: (2 * 65_536 + 500) * 4096 - 1000, copy_policy: 0 };

impl Run {
    fn seek(&mut self, tag: u64, offset: u64, target: SeekTarget) {
        self.tell(seek_of(tag, offset, target));
    }

    /// Where a seek has ended.
    fn sought(&self, wanted: u64) -> Option<u64> {
        assert_eq!(self.outcome(wanted), Ok(()));
        let sought = self.said.iter().rev().find_map(|message| match message {
            FromWorker::Sought { tag, offset } if tag.0 == wanted => Some(*offset),
            _ => None,
        });
        sought.expect("it was said where the seek has ended")
    }

    /// Seeks, and waits.
    fn look(&mut self, tag: u64, offset: u64, target: SeekTarget) -> Option<u64> {
        self.seek(tag, offset, target);
        self.settle();
        self.sought(tag)
    }

    /// Refuses a piece of the index, which is asked for again when it is time.
    fn refuse_piece(&mut self, refusal: Status) {
        let piece = self.sent(piece_read);
        self.answer(piece, Fate::Refused(refusal));
        self.tick();
    }

    /// What was said last of how many objects there are.
    fn usage(&self) -> Option<BlockUsage> {
        let usage = self.said.iter().rev().find_map(|message| match message {
            FromWorker::Stored { volume: VOLUME, usage, .. } => Some(*usage),
            _ => None,
        });
        usage.expect("something is said at once")
    }
}

fn seek_of(tag: u64, offset: u64, target: SeekTarget) -> ToWorker {
    ToWorker::Seek { tag: Tag(tag), volume: VOLUME, offset, target }
}

fn wide(seed: u64) -> Run {
    let mut run = Run::of_shape(WIDE, seed, 0);
    run.patience = 0;
    run
}

/// A read of more of an index than a page.
fn piece_read(header: &RequestHeader) -> bool {
    header.opcode == 2 && header.obj().oid >> 63 == 1 && header.data_length > 4664
}

#[test]
fn an_empty_volume_is_one_hole() {
    let mut run = wide(1);
    assert_eq!(run.usage(), Some(BlockUsage::default()));
    assert_eq!(run.look(1, 0, SeekTarget::Data), None);
    assert_eq!(run.look(2, 5000, SeekTarget::Hole), Some(5000));
}

/// Data and holes take turns, and each piece of the index is read once.
#[test]
fn a_walk_reads_the_index_once() {
    let mut run = wide(1);
    let blocks: Vec<u64> = (0..40).map(|at| at * 3000 + 7).chain([BLOCKS - 1]).collect();
    for (tag, block) in (1..).zip(&blocks) {
        run.write(tag, block * BLOCK_LEN, 100, 1);
        run.settle();
        run.out.clear();
    }
    let before = run.cluster.asked;
    let (mut at, mut found) = (0, Vec::new());
    while let Some(data) = run.look(1, at, SeekTarget::Data) {
        run.out.clear();
        let hole = run.look(2, data, SeekTarget::Hole).unwrap();
        run.out.clear();
        found.push((data / BLOCK_LEN, hole.div_ceil(BLOCK_LEN)));
        at = hole;
        if hole == WIDE.len as u64 {
            break;
        }
    }
    assert_eq!(found, blocks.iter().map(|block| (*block, block + 1)).collect::<Vec<_>>());
    // A piece costs two requests, with the header that confirms it.
    assert_eq!(run.cluster.asked - before, 2 * 3);
}

/// The piece that is on its way was read before the write.
#[test]
fn a_write_that_is_answered_meanwhile_is_seen() {
    let mut run = wide(1);
    run.read(9, 70_000 * BLOCK_LEN, 1);
    run.settle();
    run.seek(1, 65_536 * BLOCK_LEN, SeekTarget::Data);
    let piece = run.sent(piece_read);
    run.answer(piece, Fate::Served);
    let waiting = run.cluster.sent.pop().expect("the header is asked for");
    run.write(2, 70_000 * BLOCK_LEN, 1, 1);
    run.settle();
    assert_eq!(run.outcome(2), Ok(()));
    assert_eq!(run.usage(), Some(BlockUsage { own: 1, shared: 0 }));
    run.cluster.sent.push(waiting);
    run.settle();
    assert_eq!(run.sought(1), Some(70_000 * BLOCK_LEN));
    assert_eq!(run.usage(), Some(BlockUsage { own: 1, shared: 0 }));
}

/// A deleted VDI's index is all zeros.
#[test]
fn a_deleted_vdi_is_no_hole() {
    let mut run = quiet();
    run.write(1, 0, 512, 1);
    run.settle();
    for _ in 0..100 {
        run.tick();
        run.settle();
    }
    run.cluster.delete();
    run.seek(2, 0, SeekTarget::Data);
    run.settle();
    assert_eq!(run.outcome(2), Err(Failure::Replaced));
    run.seek(3, 0, SeekTarget::Hole);
    assert_eq!(run.outcome(3), Err(Failure::Replaced));
    assert_eq!(run.usage(), Some(BlockUsage { own: 1, shared: 0 }));
}

#[test]
fn a_piece_that_is_refused_is_asked_for_again_and_not_for_ever() {
    for (refusal, times) in [(Status::Eio, 20), (Status::Halt, 300)] {
        let mut run = wide(1);
        run.seek(1, 0, SeekTarget::Data);
        (0..times).for_each(|_| run.refuse_piece(refusal));
        run.settle();
        assert_eq!(run.sought(1), None);
    }
    let mut run = wide(1);
    run.seek(1, 0, SeekTarget::Data);
    run.seek(2, 0, SeekTarget::Hole);
    (0..=150).for_each(|_| run.refuse_piece(Status::Eio));
    assert!(run.outcome(1).is_err() && run.outcome(2).is_err());
    assert_eq!(run.look(3, 0, SeekTarget::Hole), Some(0), "the volume goes on");
}

/// The entry of an answered write is lost in the old inode and in the new one.
#[test]
fn what_a_snapshot_loses_is_no_hole() {
    let mut run = wide(1);
    run.cluster.lose_entry = true;
    run.write(1, 5 * BLOCK_LEN, 100, 1);
    run.settle();
    run.cluster.snapshot();
    assert_eq!(run.cluster.entry(8, 5), 0);
    assert_eq!(run.look(2, 0, SeekTarget::Data), Some(5 * BLOCK_LEN));
    assert_eq!(run.cluster.entry(8, 5), 7, "the seek has seen the snapshot");
    assert_eq!(run.usage(), Some(BlockUsage { own: 0, shared: 1 }));
    run.write(3, 5 * BLOCK_LEN, 100, 2);
    run.settle();
    assert_eq!(run.usage(), Some(BlockUsage { own: 1, shared: 0 }));
}

#[test]
fn a_detach_waits_for_seeks() {
    let mut run = wide(1);
    run.seek(1, 0, SeekTarget::Data);
    run.tell(ToWorker::Detach { tag: Tag(2), volume: VOLUME });
    run.settle();
    assert_eq!((run.sought(1), run.outcome(2)), (None, Ok(())));
}

/// A few at a time, and all come to it.
#[test]
fn volumes_that_are_attached_at_once_count_in_turns() {
    let mut run = wide(1);
    for volume in 2..=7 {
        let name = sheepfs::wire::name::VolumeName::parse(b"disk").unwrap();
        run.tell(super::attach_of(Tag(volume.into()), VolumeId(volume), name));
    }
    let (mut most, mut steps) = (0, 0);
    while !run.cluster.sent.is_empty() {
        let pieces = run.cluster.sent.iter().filter(|sent| piece_read(&sent.request.header(0)));
        most = most.max(pieces.count());
        run.answer_one();
        steps += 1;
        assert!(steps < 1000, "no end");
    }
    assert_eq!(most, 2);
    for id in 2..=7 {
        let counted = |message: &FromWorker| matches!(message, FromWorker::Stored { volume, usage: Some(_), .. } if volume.0 == id);
        assert!(run.said.iter().any(counted), "volume {id} is not counted");
    }
}

/// Which blocks were written, as those see it who wait for the answers.
#[derive(Default)]
struct Model {
    /// Their writes are answered.
    present: BTreeSet<u64>,
    /// Their writes may be.
    under_way: BTreeMap<u64, u64>,
    /// Seeks, with what was there when they began.
    seeks: BTreeMap<u64, (u64, SeekTarget, BTreeSet<u64>)>,
}

impl Model {
    /// Takes what the worker has answered.
    fn hear(&mut self, run: &mut Run) {
        for message in std::mem::take(&mut run.out) {
            let FromWorker::Done { tag: Tag(tag), outcome } = message else { continue };
            assert_eq!(outcome, Ok(()), "{tag}");
            if let Some(block) = self.under_way.remove(&tag) {
                self.present.insert(block);
            }
            if let Some((offset, target, there)) = self.seeks.remove(&tag) {
                let said = run.said.iter().rev().find_map(|message| match message {
                    FromWorker::Sought { tag: said, offset } if said.0 == tag => Some(*offset),
                    _ => None,
                });
                self.check(offset, target, &there, said.unwrap());
            }
        }
    }

    fn check(&self, offset: u64, target: SeekTarget, there: &BTreeSet<u64>, end: Option<u64>) {
        let len = WIDE.len as u64;
        let end_offset = end.unwrap_or(len);
        assert!((offset..=len).contains(&end_offset), "{offset} to {end_offset}");
        let [first, last] = [offset / BLOCK_LEN, end_offset / BLOCK_LEN];
        let may_be = |block: &u64| {
            self.present.contains(block) || self.under_way.values().any(|b| b == block)
        };
        match target {
            SeekTarget::Data => {
                let behind = if end.is_some() { last } else { BLOCKS };
                assert_eq!(there.range(first..behind).next(), None, "data was passed");
                assert!(end.is_none() || may_be(&last), "no data at {end_offset}");
            }
            SeekTarget::Hole => {
                assert!((first..last).all(|block| may_be(&block)), "a hole was passed");
                assert!(end_offset == len || !there.contains(&last), "no hole at {end_offset}");
            }
        }
    }
}

/// One of the blocks that the test is about: around the borders of pieces.
fn any_block(run: &mut Run) -> u64 {
    let base = [0, 65_530, 131_066, BLOCKS - 12][run.random.below(4)];
    base + run.random.below(12) as u64
}

/// Gives the workers that died, the snapshots and the seeks.
fn play(seed: u64, deaths: usize) -> (usize, usize, usize) {
    let mut run = wide(seed);
    run.patience = 5;
    run.cluster.lose_entry = seed.is_multiple_of(3);
    run.cluster.lies = deaths > 0;
    let (mut model, mut supervisor) = (Model::default(), Supervisor::default());
    supervisor.listen(&run);
    let (mut tag, mut seeks) = (0, 0);
    for _ in 0..150 {
        for _ in 0..run.random.below(4) {
            tag += 1;
            let block = any_block(&mut run);
            if run.random.below(2) == 0 {
                let span = super::slot(tag, 40);
                model.under_way.insert(tag, block);
                let offset = block * BLOCK_LEN + (tag % 64) * 40;
                supervisor.note(
                    Tag(tag),
                    ToWorker::Write { tag: Tag(tag), volume: VOLUME, offset, span, again: false },
                );
                run.write(tag, offset, 40, 1);
            } else {
                seeks += 1;
                let offset = block * BLOCK_LEN + run.random.below(3000) as u64;
                let offset = offset.min(WIDE.len as u64 - 1);
                let target = [SeekTarget::Data, SeekTarget::Hole][run.random.below(2)];
                model.seeks.insert(tag, (offset, target, model.present.clone()));
                supervisor.note(Tag(tag), seek_of(tag, offset, target));
                run.seek(tag, offset, target);
            }
        }
        for _ in 0..run.random.below(20) {
            if !run.cluster.sent.is_empty() {
                run.answer_one();
            }
            if run.random.below(120) == 0 {
                run.cluster.snapshot();
            }
            model.hear(&mut run);
            if run.random.below(100) < deaths {
                supervisor.replace(&mut run, 0);
                model.hear(&mut run);
            }
        }
        run.tick();
        if run.random.below(5) == 0 {
            run.settle();
            run.settle_orphans(|_| true);
            model.hear(&mut run);
            supervisor.listen(&run);
            assert!(model.under_way.is_empty() && model.seeks.is_empty(), "some have no answer");
            let usage = run.usage().expect("all is counted");
            assert_eq!(usage.own + usage.shared, model.present.len() as u64, "seed {seed}");
        }
    }
    (supervisor.deaths, run.cluster.snapshots, seeks)
}

/// Whatever the order of replies, with snapshots that lose entries in between, no
/// answered write is in a hole, and the count is right when all is quiet.
#[test]
fn seeks_agree_with_what_was_written() {
    let totals = (0..12)
        .map(|seed| play(seed, 0))
        .fold((0, 0), |sum, (_, snapshots, seeks)| (sum.0 + snapshots, sum.1 + seeks));
    assert!(totals.0 > 10 && totals.1 > 500, "{totals:?}");
}

/// The same over workers that die at any instant.
#[test]
fn seeks_agree_with_what_was_written_over_deaths() {
    let deaths: usize = (100..112).map(|seed| play(seed, 2).0).sum();
    assert!(deaths > 50, "{deaths}");
}

/// Before a write is answered that made an object, it is counted.
#[test]
fn an_object_is_counted_before_its_write_is_answered() {
    let mut run = wide(1);
    for tag in 1..=20 {
        run.write(tag, tag * 3 * BLOCK_LEN, 10, 1);
    }
    run.settle();
    let (mut counted, mut answered) = (0, 0);
    for message in &run.said {
        match message {
            FromWorker::Stored { usage: Some(usage), .. } => counted = usage.own,
            message if is_answer(message) => {
                answered += u64::from(matches!(message, FromWorker::Done { .. }));
            }
            _ => {}
        }
        assert!(counted >= answered, "{answered} answered, {counted} counted");
    }
    assert_eq!((counted, answered), (20, 20));
}
