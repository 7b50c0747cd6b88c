//! The object cache under single volumes and under several (hazard 7).

use super::cases::data;
use super::cluster::Shape;
use super::{Fate, Run, SHAPE, VOLUME, slot};
use sheepfs::ipc::{FromWorker, Tag, ToWorker, VolumeId};
use sheepfs::wire::{Opcode, Status};

const SNAPSHOT: VolumeId = VolumeId(2);

fn cached() -> Run {
    let mut run = Run::new(1, 1 << 20);
    run.patience = 0;
    run
}

/// Reads a block through a volume; gives its first and its last byte, and how many
/// requests that took.
fn read(run: &mut Run, tag: u64, volume: VolumeId, block: u64) -> ([u8; 2], usize) {
    let (offset, len) = (block * 4096, 4096);
    let before = run.cluster.asked;
    run.tell(ToWorker::Read { tag: Tag(tag), volume, offset, span: slot(tag, len) });
    run.settle();
    assert_eq!(run.outcome(tag), Ok(()));
    let bytes = run.bytes(tag, len);
    ([bytes[0], bytes[4095]], run.cluster.asked - before)
}

#[test]
fn what_was_written_is_there_once_the_write_is_answered() {
    let mut run = cached();
    run.write(1, 0, 4096, 1);
    run.settle();
    assert_eq!(read(&mut run, 2, VOLUME, 0), ([1; 2], 0));
    run.write(3, 0, 4096, 3);
    run.read(4, 0, 4096);
    assert!(run.out.iter().all(|done| !matches!(done, FromWorker::Done { tag: Tag(4), .. })));
    let write = run.sent(data(Opcode::WriteObj, 0));
    run.answer(write, Fate::Served);
    assert_eq!(run.outcome(4), Ok(()));
    assert!(run.bytes(4, 4096).iter().all(|byte| *byte == 3));
    assert!(run.cluster.sent.is_empty(), "the read needed no request");
}

/// A write in part of a block leaves nothing of the block, whoever writes the rest.
#[test]
fn what_was_written_in_part_is_read_again() {
    let mut run = cached();
    run.write(1, 0, 4096, 1);
    run.settle();
    run.write(2, 0, 2048, 2);
    run.write(3, 2048, 2048, 3);
    run.settle();
    assert_eq!(read(&mut run, 4, VOLUME, 0), ([2, 3], 1));
    assert_eq!(read(&mut run, 5, VOLUME, 0), ([2, 3], 0));
}

/// Whether it was carried out or not, nobody knows.
#[test]
fn what_a_failed_write_touched_is_read_again() {
    for fate in [Fate::Refused(Status::Eio), Fate::Lied(Status::Eio)] {
        let mut run = cached();
        run.write(1, 0, 4096, 1);
        run.settle();
        run.write(2, 0, 4096, 2);
        let write = run.sent(data(Opcode::WriteObj, 0));
        run.answer(write, fate);
        assert!(run.outcome(2).is_err());
        let really = run.cluster.objects[&(7 << 32)][0];
        assert_eq!(read(&mut run, 3, VOLUME, 0), ([really; 2], 1));
    }
}

#[test]
fn volumes_share_what_their_snapshot_owns() {
    let mut run = cached();
    run.write(1, 0, 8192, 1);
    run.settle();
    run.cluster.snapshot();
    run.attach(SNAPSHOT, "disk:1");
    // The disk does not know yet: what it has under that vid is its own.
    let (bytes, asked) = read(&mut run, 2, SNAPSHOT, 0);
    assert_eq!(bytes, [1; 2]);
    assert!(asked > 0);
    assert_eq!(read(&mut run, 3, SNAPSHOT, 0), ([1; 2], 1), "it is not kept");
    run.write(4, 4096, 4096, 4);
    run.settle();
    assert_eq!(read(&mut run, 5, SNAPSHOT, 0), ([1; 2], 0));
    assert_eq!(read(&mut run, 6, SNAPSHOT, 1), ([1; 2], 1), "a write that was refused touched it");
    assert_eq!(read(&mut run, 7, VOLUME, 1), ([4; 2], 0));
    run.tell(ToWorker::Detach { tag: Tag(8), volume: SNAPSHOT });
    run.settle();
    assert_eq!(read(&mut run, 9, VOLUME, 0), ([1; 2], 0), "it is still used");
}

/// The object that the write creates has nothing of the one before it.
#[test]
fn a_block_that_others_discarded_is_created_anew() {
    let mut run = Run::of_shape(Shape { shift: 14, ..SHAPE }, 1, 1 << 20);
    run.patience = 0;
    run.write(1, 4096, 4096, 1);
    run.settle();
    run.cluster.objects.clear();
    run.cluster.set_entry(7, 0, 0);
    // What is not cached shows that it is gone.
    run.read(2, 0, 512);
    for _ in 0..200 {
        run.tick();
        run.settle();
    }
    run.write(3, 0, 512, 3);
    run.settle();
    assert_eq!(read(&mut run, 4, VOLUME, 0), ([3, 0], 1));
    assert_eq!(read(&mut run, 5, VOLUME, 1), ([0; 2], 1));
}

/// A block of one volume is a hole by now, but its snapshot's object was only absent for a
/// while: the zeros are not the snapshot's.
#[test]
fn zeros_of_a_hole_are_not_kept_as_what_a_snapshot_owns() {
    let mut run = cached();
    run.write(1, 0, 4096, 1);
    run.settle();
    run.cluster.snapshot();
    run.write(2, 4096, 4096, 2);
    run.settle();
    run.attach(SNAPSHOT, "disk:1");
    run.patience = 0;
    run.tell(ToWorker::SetCache { cache_bytes: 0 });
    run.tell(ToWorker::SetCache { cache_bytes: 1 << 20 });
    // Others discard it, while the snapshot's object can't be found.
    let working = run.cluster.working;
    let object = run.cluster.objects.remove(&(7 << 32)).unwrap();
    run.cluster.set_entry(working, 0, 0);
    run.read(3, 0, 4096);
    for _ in 0..200 {
        run.tick();
        run.settle();
    }
    assert_eq!(run.outcome(3), Ok(()));
    assert!(run.bytes(3, 4096).iter().all(|byte| *byte == 0));
    run.cluster.objects.insert(7 << 32, object);
    assert_eq!(read(&mut run, 4, SNAPSHOT, 0).0, [1; 2]);
}

/// A read that was under way when the cache was turned on, and one that was when it
/// was turned off and on again, harm nothing.
#[test]
fn it_can_be_switched_under_way() {
    let mut run = cached();
    run.write(1, 0, 4096, 1);
    run.settle();
    run.tell(ToWorker::SetCache { cache_bytes: 0 });
    run.read(2, 0, 4096);
    run.tell(ToWorker::SetCache { cache_bytes: 1 << 20 });
    run.write(3, 0, 4096, 3);
    run.settle();
    assert!(run.bytes(2, 4096).iter().all(|byte| *byte == 1));
    assert_eq!(read(&mut run, 4, VOLUME, 0).0, [3; 2]);
}
