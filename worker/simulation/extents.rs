//! Seeks and the count of objects.

mod changed;
mod model;
mod orphans;

use super::cases::quiet;
use super::cluster::Shape;
use super::{Fate, Run, VOLUME, is_answer};
use sheepfs::ipc::{Failure, FromWorker, SeekTarget, Tag, ToWorker, VolumeId};
use sheepfs::wire::Status;
use sheepfs::wire::cluster::BlockUsage;
use sheepfs::wire::header::RequestHeader;

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
