//! Hyper volumes, with trees that are split early: as they are to be, and as they are not.

mod discards;
mod game;

use super::cluster::{Cluster, Sent};
use super::{Fate, Run, slot};
use game::{PLAN, Plan, play};
use sheepfs::ipc::{Failure, FromWorker, Tag, ToWorker};
use sheepfs::wire::btree::{Limits, Root};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::inode::{INODE_HEADER_LEN, InodeHeader};
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::{ObjectId, Status};

const BLOCK_LEN: u64 = 4096;
/// All blocks that there can be.
const SIZE: u64 = BLOCK_LEN << 32;
const SMALL: Limits = Limits { leaf: 6, root: 1000 };

#[test]
fn a_hyper_volume_equals_its_model_whatever_the_order_of_replies() {
    let leaves: Vec<usize> = (0..12).map(|seed| play(seed, PLAN).leaves()).collect();
    assert!(leaves.iter().all(|leaves| *leaves > 20), "{leaves:?}");
    for seed in 20..24 {
        let game = play(seed, Plan { limits: Limits::REAL, ..PLAN });
        assert_eq!(game.leaves(), 0, "one leaf has room for all");
    }
}

/// Workers die at any instant, in the middle of a split too.
#[test]
fn a_death_loses_nothing_of_a_tree() {
    let (mut deaths, mut replays) = (0, 0);
    for seed in 100..116 {
        let game = play(seed, Plan { deaths: 4, ..PLAN });
        deaths += game.supervisor.deaths;
        replays += game.supervisor.replays;
        assert!(game.leaves() > 10);
    }
    assert!(deaths > 150 && replays > 150, "{deaths} deaths, {replays} replays");
}

#[test]
fn failures_lose_nothing_of_a_tree() {
    for seed in 200..207 {
        drop(play(seed, Plan { failures: 6, ..PLAN }));
        drop(play(seed + 100, Plan { deaths: 3, failures: 4, ..PLAN }));
    }
}

fn quiet(limits: Limits) -> Run {
    let mut run = Run::of_cluster(Cluster::of_hyper(SIZE), limits, 1, 0);
    run.patience = 0;
    run
}

fn write(run: &mut Run, tag: u64, block: u64) -> Result<(), Failure> {
    run.write(tag, block * BLOCK_LEN, 512, u8::try_from(tag).unwrap());
    run.settle();
    run.outcome(tag)
}

fn read(run: &mut Run, tag: u64, block: u64) -> u8 {
    run.read(tag, block * BLOCK_LEN, 512);
    run.settle();
    assert_eq!(run.outcome(tag), Ok(()));
    run.bytes(tag, 1)[0]
}

fn is_tree_write(header: &RequestHeader) -> bool {
    let kind = ObjectId::from_raw(header.obj().oid).kind();
    header.has_payload() && header.opcode <= 3 && kind != ObjectKind::Data
}

/// What waits together goes out as one.
#[test]
fn many_new_blocks_are_one_write_of_the_tree() {
    let mut run = quiet(Limits::REAL);
    for number in 0..20_u64 {
        run.write(number, (number * 7919 % 1000) * BLOCK_LEN, 512, 1);
    }
    let is_create = |header: &RequestHeader| header.opcode == 1;
    // The page of the index, then all creates, before anything of the tree is answered.
    while run.cluster.sent.iter().all(|sent| !is_create(&sent.request.header(0))) {
        run.answer(0, Fate::Served);
    }
    let first = run.sent(is_create);
    run.answer(first, Fate::Served);
    while let Some(at) = run.cluster.sent.iter().position(|sent| is_create(&sent.request.header(0)))
    {
        run.answer(at, Fate::Served);
    }
    run.settle();
    assert!((0..20).all(|tag| run.outcome(tag).is_ok()));
    assert_eq!(run.cluster.node_writes, 2, "the first alone, and all the others");
}

/// The supervisor must know before anything leaves.
#[test]
fn a_write_says_that_the_tree_grows() {
    let mut run = quiet(Limits::REAL);
    assert_eq!(write(&mut run, 1, 5), Ok(()));
    assert_eq!(write(&mut run, 2, 5), Ok(()));
    let growing = |message: &&FromWorker| matches!(message, FromWorker::Growing { .. });
    let told: Vec<_> = run.said.iter().filter(growing).collect();
    assert_eq!(told, [&FromWorker::Growing { tag: Tag(1) }]);
    let allocated = |message: &FromWorker| matches!(message, FromWorker::Allocated { .. });
    assert!(!run.said.iter().any(allocated), "no snapshot of it can be repaired");
}

/// Protocol 5.3: what the C programs make of a split.
#[test]
fn a_damaged_tree_is_read_and_overwritten_but_not_added_to() {
    let mut run = quiet(SMALL);
    for block in 1..30 {
        assert_eq!(write(&mut run, block, block * 3), Ok(()));
    }
    let mut root = Root::decode(run.cluster.top()).unwrap().entries().to_vec();
    root[1].last = 0;
    root.sort_by_key(|entry| entry.last);
    let vid = run.cluster.working;
    let bytes = &mut run.cluster.inodes.get_mut(&vid).unwrap().bytes;
    for (entry, place) in root.iter().zip((INODE_HEADER_LEN + 8..).step_by(16)) {
        bytes[place..place + 4].copy_from_slice(&entry.last.to_le_bytes());
        bytes[place + 8..place + 16].copy_from_slice(&entry.leaf.raw().to_le_bytes());
    }
    let damaged = run.cluster.top().to_vec();
    let facts = run.said.iter().find_map(|message| match message {
        FromWorker::Attached { facts, .. } => Some(facts.clone()),
        _ => None,
    });
    assert!(facts.unwrap().hyper);
    // A worker that has seen nothing yet.
    let mut run = Run { cluster: run.cluster, ..quiet(SMALL) };
    for block in 1..30 {
        assert_eq!(read(&mut run, 30, block * 3), u8::try_from(block).unwrap());
        run.out.clear();
    }
    assert_eq!(write(&mut run, 1, 9), Ok(()));
    let refused = write(&mut run, 2, 10);
    assert!(matches!(refused, Err(Failure::TreeDamaged(_))), "{refused:?}");
    assert_eq!(run.cluster.top(), damaged);
    run.out.clear();
    assert_eq!(read(&mut run, 3, 9), 1);
}

/// A tree that makes no sense is an error, never zeros.
#[test]
fn rubbish_is_no_hole() {
    let mut run = quiet(Limits::REAL);
    let vid = run.cluster.working;
    run.cluster.inodes.get_mut(&vid).unwrap().bytes[INODE_HEADER_LEN] = 9;
    run.read(1, 0, 512);
    run.settle();
    assert!(matches!(run.outcome(1), Err(Failure::TreeDamaged(_))));
    assert!(matches!(write(&mut run, 2, 1), Err(Failure::TreeDamaged(_))));
}

/// Protocol 5.5: nobody counts the references of its objects.
#[test]
fn a_snapshot_of_a_hyper_volume_is_its_end() {
    let mut run = quiet(Limits::REAL);
    assert_eq!(write(&mut run, 1, 5), Ok(()));
    let vid = run.cluster.working;
    let bytes = &mut run.cluster.inodes.get_mut(&vid).unwrap().bytes;
    bytes[520..528].copy_from_slice(&9_u64.to_le_bytes());
    assert_eq!(write(&mut run, 2, 5), Err(Failure::HyperFrozen));
    assert_eq!(write(&mut run, 3, 6), Err(Failure::HyperFrozen));
}

/// It can be looked at all the same.
#[test]
fn a_snapshot_of_a_hyper_volume_is_read_only() {
    let mut run = quiet(SMALL);
    for block in 1..20 {
        assert_eq!(write(&mut run, block, block), Ok(()));
    }
    let mut cluster = run.cluster;
    let vid = cluster.working;
    let inode = cluster.inodes.get_mut(&vid).unwrap();
    let mut header = InodeHeader::decode(&inode.bytes).unwrap();
    header.snap_ctime = 9;
    inode.bytes[..INODE_HEADER_LEN].copy_from_slice(&header.encode());
    cluster.working = 0;
    let mut run = quiet(SMALL);
    run.cluster = cluster;
    run.attach(sheepfs::ipc::VolumeId(2), "disk:1");
    let (tag, volume, offset) = (Tag(40), sheepfs::ipc::VolumeId(2), 19 * BLOCK_LEN);
    let span = slot(40, 512);
    run.tell(ToWorker::Read { tag, volume, offset, span });
    run.settle();
    assert_eq!((run.outcome(40), run.bytes(40, 1)), (Ok(()), vec![19]));
    run.tell(ToWorker::Write { tag: Tag(41), volume, offset, span, again: false });
    run.settle();
    assert_eq!(run.outcome(41), Err(Failure::ReadOnly));
}

/// Hazard 10: as with an array, an index that is cleared is not believed.
#[test]
fn the_tree_of_a_deleted_vdi_is_not_written() {
    let mut run = quiet(Limits::REAL);
    assert_eq!(write(&mut run, 1, 5), Ok(()));
    run.write(2, 9000 * BLOCK_LEN, 512, 2);
    while run.cluster.sent.iter().all(|sent: &Sent| !is_tree_write(&sent.request.header(0))) {
        run.answer(0, Fate::Served);
    }
    // Its answer is lost, and meanwhile somebody deletes the VDI.
    let at = run.sent(is_tree_write);
    run.answer(at, Fate::Refused(Status::Again));
    run.cluster.delete();
    run.settle();
    assert_eq!(run.outcome(2), Err(Failure::Replaced));
}
