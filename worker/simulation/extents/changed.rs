//! Seeks and the count while an index changes: by writes under way, by discards, and of hyper
//! volumes.

use super::super::cluster::Cluster;
use super::super::{Fate, Run, VOLUME};
use super::{BLOCK_LEN, piece_read, wide};
use sheepfs::ipc::{FromWorker, SeekTarget, Tag, ToWorker};
use sheepfs::wire::Status;
use sheepfs::wire::btree::Limits;
use sheepfs::wire::cluster::BlockUsage;
use sheepfs::wire::header::RequestHeader;
use std::collections::BTreeSet;

/// Tags of its own, which nobody else gives.
const TAG: u64 = 1 << 50;

impl Run {
    /// The blocks that seeks call data, and how many there are by the count.
    pub fn data_blocks(&mut self, len: u64, block_len: u64) -> (BTreeSet<u64>, Option<BlockUsage>) {
        let (failures, patience) = (self.failures, self.patience);
        (self.failures, self.patience) = (0, 0);
        let (mut at, mut blocks) = (0, BTreeSet::new());
        while at < len
            && let Some(data) = self.seek_through(at, SeekTarget::Data)
        {
            let hole = self.seek_through(data, SeekTarget::Hole).unwrap();
            assert!(hole > data && data >= at, "from {at} data at {data}, a hole at {hole}");
            blocks.extend(data / block_len..hole.div_ceil(block_len));
            at = hole;
        }
        self.settle();
        (self.failures, self.patience) = (failures, patience);
        (blocks, self.usage())
    }

    /// Seeks, however often what it needs is delayed.
    fn seek_through(&mut self, offset: u64, target: SeekTarget) -> Option<u64> {
        assert!(self.out.is_empty(), "some have not been heard");
        self.seek(TAG, offset, target);
        self.settle();
        for _ in 0..100 {
            if self.out.is_empty() {
                self.tick();
                self.settle();
            }
        }
        let found = self.sought(TAG);
        self.out.clear();
        found
    }
}

pub fn discard(run: &mut Run, tag: u64, first: u64, count: u64) {
    let len = u32::try_from(count * BLOCK_LEN).unwrap();
    let offset = first * BLOCK_LEN;
    run.tell(ToWorker::Discard { tag: Tag(tag), volume: VOLUME, offset, len, again: false });
}

fn is_create(header: &RequestHeader) -> bool {
    header.opcode == 1
}

/// Whether it is answered or not: nobody can know which came first.
#[test]
fn a_block_that_is_being_written_is_data() {
    let mut run = wide(1);
    assert_eq!(run.look(1, 0, SeekTarget::Data), None);
    for (tag, block) in [(10, 7), (11, 8), (12, 70_000)] {
        run.write(tag, block * BLOCK_LEN, 100, 1);
    }
    while !run.cluster.sent.iter().any(|sent| is_create(&sent.request.header(0))) {
        run.answer(0, Fate::Served);
    }
    run.seek(2, 0, SeekTarget::Data);
    run.seek(3, 7 * BLOCK_LEN, SeekTarget::Hole);
    let piece = run.sent(piece_read);
    run.answer(piece, Fate::Served);
    let header = run.cluster.sent.len() - 1;
    run.answer(header, Fate::Served);
    assert_eq!((run.sought(2), run.sought(3)), (Some(7 * BLOCK_LEN), Some(9 * BLOCK_LEN)));
    run.seek(4, 9 * BLOCK_LEN, SeekTarget::Data);
    run.settle();
    assert_eq!(run.sought(4), Some(70_000 * BLOCK_LEN));
}

/// And what is written again is data again.
#[test]
fn what_is_discarded_is_a_hole_and_does_not_count() {
    let mut run = wide(1);
    for block in 5..9 {
        run.write(block, block * BLOCK_LEN, 100, 1);
    }
    run.settle();
    assert_eq!(run.look(20, 0, SeekTarget::Data), Some(5 * BLOCK_LEN));
    discard(&mut run, 21, 5, 2);
    run.settle();
    assert_eq!(run.outcome(21), Ok(()));
    assert_eq!(run.usage(), Some(BlockUsage { own: 2, shared: 0 }));
    assert_eq!(run.look(22, 0, SeekTarget::Data), Some(7 * BLOCK_LEN));
    run.write(23, 6 * BLOCK_LEN, 100, 1);
    run.settle();
    assert_eq!(run.look(24, 0, SeekTarget::Data), Some(6 * BLOCK_LEN));
    assert_eq!(run.usage(), Some(BlockUsage { own: 3, shared: 0 }));
    run.out.clear();
    assert_eq!(run.data_blocks(super::WIDE.len as u64, BLOCK_LEN).0, BTreeSet::from([6, 7, 8]));
}

/// What is stored then is not known: the volume counts as full, and the block as data.
#[test]
fn after_a_discard_that_failed_nothing_is_taken_for_a_hole() {
    let mut run = wide(1);
    run.write(1, 5 * BLOCK_LEN, 100, 1);
    run.settle();
    discard(&mut run, 2, 5, 1);
    for _ in 0..2000 {
        let Some(sent) = run.cluster.sent.first() else {
            run.tick();
            continue;
        };
        let header = sent.request.header(0);
        let clears = header.has_payload() && header.opcode == 3;
        run.answer(0, if clears { Fate::Refused(Status::Eio) } else { Fate::Served });
        if run.out.len() == 2 {
            break;
        }
    }
    assert!(run.outcome(2).is_err());
    assert_eq!(run.usage(), None);
    assert_eq!(run.look(3, 0, SeekTarget::Data), Some(5 * BLOCK_LEN));
}

/// A dead worker's entry may land after the count: the write that is repeated finds it.
#[test]
fn an_entry_that_appears_after_the_count_is_counted() {
    let mut run = wide(1);
    run.settle();
    assert_eq!(run.usage(), Some(BlockUsage::default()));
    run.cluster.lies = true;
    run.cluster.set_entry(7, 9, 7);
    run.cluster.objects.insert(7 << 32 | 9, vec![0; 4096]);
    let span = super::super::slot(1, 10);
    let (tag, offset) = (Tag(1), 9 * BLOCK_LEN);
    run.tell(ToWorker::Write { tag, volume: VOLUME, offset, span, again: true });
    run.settle();
    assert_eq!(run.outcome(1), Ok(()));
    assert_eq!(run.usage(), Some(BlockUsage { own: 1, shared: 0 }));
    let said = run.said.iter().position(|m| matches!(m, FromWorker::Done { tag: Tag(1), .. }));
    let empty = Some(BlockUsage::default());
    let last = run.said[..said.unwrap()].iter().rev().find_map(|message| match message {
        FromWorker::Stored { usage, .. } => Some(*usage),
        _ => None,
    });
    assert_ne!(last, Some(empty), "too few were counted when the write was answered");
}

pub fn hyper() -> Run {
    let limits = Limits { leaf: 6, root: 1000 };
    let mut run = Run::of_cluster(Cluster::of_hyper(BLOCK_LEN << 32), limits, 1, 0);
    run.patience = 0;
    run
}

/// A walk over all blocks that there can be takes the time of those that are there.
#[test]
fn the_largest_hyper_volume_is_searched_by_its_tree() {
    let mut run = hyper();
    let last = (1_u64 << 32) - 1;
    let blocks = (0..40).map(|at| at * 100_000_007).chain([last - 2, last]);
    let blocks: BTreeSet<u64> = blocks.collect();
    for (tag, block) in (1..).zip(&blocks) {
        run.write(tag, block * BLOCK_LEN, 100, 1);
        run.settle();
        run.out.clear();
    }
    assert!(run.cluster.is_split());
    let before = run.cluster.asked;
    let (found, usage) = run.data_blocks(BLOCK_LEN << 32, BLOCK_LEN);
    assert_eq!(found, blocks);
    assert_eq!(usage, Some(BlockUsage { own: blocks.len() as u64, shared: 0 }));
    let asked = run.cluster.asked - before;
    assert!(asked < 100, "{asked} requests");
}
