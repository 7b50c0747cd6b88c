//! Reading ahead: that it helps, and that it shows nothing old (hazard 7).

use super::cluster::Shape;
use super::slot;
use super::{Fate, Run, VOLUME};
use crate::frame::Reply;
use sheepfs::ipc::{FromWorker, Tag, ToWorker, VolumeId};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::{Opcode, Status};

/// One object of 64 KiB, and what is behind it.
const LARGE: Shape = Shape { shift: 16, len: 3 << 16, copy_policy: 0 };

/// A volume whose first object holds ones, with a reader that has read half of its
/// first 16 KiB, so that pieces are under way behind it.
fn reader() -> Run {
    let mut run = Run::of_shape(LARGE, 1, 0);
    run.patience = 0;
    for tag in 0..4 {
        run.write(tag, tag * 16384, 16384, 1);
    }
    run.settle();
    run.out.clear();
    for tag in 0..4 {
        run.read(tag, tag * 2048, 2048);
        let read = run.sent(asked(tag * 2048));
        run.answer(read, Fate::Served);
    }
    run.out.clear();
    assert_eq!(run.cluster.sent.len(), 1, "the rest of the object");
    run
}

/// A read of a data object, at that offset.
fn asked(offset: u64) -> impl Fn(&RequestHeader) -> bool {
    move |header| {
        header.opcode == Opcode::ReadObj.code()
            && header.obj().oid >> 63 == 0
            && u64::from(header.obj().offset) == offset
    }
}

fn is_answered(run: &Run, wanted: u64) -> bool {
    run.out.iter().any(|m| matches!(m, FromWorker::Done { tag, .. } if tag.0 == wanted))
}

#[test]
fn a_read_waits_for_what_is_under_way_and_asks_nothing() {
    let mut run = reader();
    run.read(5, 8192, 2048);
    run.read(6, 10240, 2048);
    assert_eq!(run.cluster.sent.len(), 1);
    assert!(!is_answered(&run, 5));
    run.answer(0, Fate::Served);
    for tag in [5, 6] {
        assert_eq!(run.outcome(tag), Ok(()));
        assert!(run.bytes(tag, 2048).iter().all(|byte| *byte == 1));
    }
    run.read(7, 12288, 2048);
    assert_eq!((run.outcome(7), run.cluster.sent.len()), (Ok(()), 0));
}

/// One that overlaps what is under way: what comes is from before it.
#[test]
fn a_write_makes_void_what_is_under_way() {
    let mut run = reader();
    // The sheep has read it, and the answer is late.
    let piece = run.cluster.sent.remove(0);
    let (header, bytes) = run.cluster.execute(&piece, &run.arena);
    run.write(5, 8192, 2048, 5);
    run.settle();
    assert_eq!(run.outcome(5), Ok(()));
    let reply = Reply::new(header, bytes);
    run.step(|engine, around| engine.reply(&reply, around).unwrap());
    run.read(6, 8192, 2048);
    run.settle();
    assert_eq!(run.outcome(6), Ok(()));
    assert!(run.bytes(6, 2048).iter().all(|byte| *byte == 5));
    assert!(run.cluster.sent.is_empty());
}

/// The same when it is there already.
#[test]
fn a_write_makes_void_what_was_read_ahead() {
    let mut run = reader();
    run.answer(0, Fate::Served);
    run.write(5, 9000, 100, 5);
    run.settle();
    run.read(6, 8192, 2048);
    assert_eq!(run.cluster.sent.len(), 1, "it is asked for again");
    run.settle();
    let bytes = run.bytes(6, 2048);
    assert_eq!((bytes[0], bytes[808], bytes[907], bytes[908]), (1, 5, 5, 1));
}

#[test]
fn a_read_asks_itself_when_reading_ahead_fails() {
    for status in [Status::Eio, Status::Halt, Status::NoObj, Status::Readonly] {
        let mut run = reader();
        run.read(5, 8192, 2048);
        run.answer(0, Fate::Refused(status));
        run.settle();
        assert_eq!(run.outcome(5), Ok(()), "{status:?}");
        assert!(run.bytes(5, 2048).iter().all(|byte| *byte == 1));
    }
}

#[test]
fn a_detach_does_not_wait_for_it() {
    let mut run = reader();
    run.tell(ToWorker::Detach { tag: Tag(9), volume: VOLUME });
    let look = run.sent(|header| header.obj().oid >> 63 == 1);
    run.answer(look, Fate::Served);
    let release = run.sent(|header| header.opcode == Opcode::ReleaseVdi.code());
    run.answer(release, Fate::Served);
    assert_eq!(run.outcome(9), Ok(()));
    assert_eq!(run.cluster.sent.len(), 1, "it is still under way");
    run.settle();
}

/// What comes for volumes that are gone has its place no longer: reading ahead goes on.
#[test]
fn what_is_under_way_at_a_detach_is_not_counted_for_ever() {
    let mut run = reader();
    let mut volume = VOLUME;
    for number in 2..20 {
        run.tell(ToWorker::Detach { tag: Tag(9), volume });
        let piece = run.cluster.sent.remove(0);
        run.settle();
        let (header, bytes) = run.cluster.execute(&piece, &run.arena);
        let reply = Reply::new(header, bytes);
        run.step(|engine, around| engine.reply(&reply, around).unwrap());
        run.out.clear();
        volume = VolumeId(number);
        run.attach(volume, "disk");
        run.patience = 0;
        for tag in 0..4 {
            let (offset, span) = (tag * 2048, slot(tag, 2048));
            run.tell(ToWorker::Read { tag: Tag(tag), volume, offset, span });
            while run.cluster.sent.iter().any(|sent| !asked(8192)(&sent.request.header(0))) {
                let other = run.sent(|header| !asked(8192)(header));
                run.answer(other, Fate::Served);
            }
        }
        run.out.clear();
        assert_eq!(run.cluster.sent.len(), 1, "volume {number} is not read ahead of");
    }
}

/// More readers than there is room for: what was read ahead is not read again.
#[test]
fn many_readers_ask_for_little_twice() {
    const READERS: u64 = 8;
    const READ_LEN: u32 = 16 << 10;
    let shape = Shape { shift: 22, len: 64 << 20, copy_policy: 0 };
    let mut run = Run::of_shape(shape, 1, 0);
    run.patience = 0;
    for object in 0..16 {
        run.write(object, object << 22, 4096, 1);
        run.settle();
    }
    run.out.clear();
    let (mut asked, mut read) = (0, 0);
    for step in 0..(6 << 20) / u64::from(READ_LEN) {
        for reader in 0..READERS {
            run.read(1, (reader << 23) + step * u64::from(READ_LEN), READ_LEN);
            read += READ_LEN;
            while let Some(sent) = run.cluster.sent.first() {
                asked += sent.request.header(0).data_length;
                run.answer(0, Fate::Served);
            }
            assert_eq!(run.outcome(1), Ok(()));
            run.out.clear();
        }
    }
    assert!(asked < read * 3 / 2, "{asked} bytes were asked for, and {read} read");
}

/// Nor does a reload, and what comes afterwards is not used.
#[test]
fn a_reload_does_not_wait_for_it() {
    let mut run = reader();
    run.cluster.snapshot();
    run.write(5, 0, 512, 5);
    let moved = |run: &Run| run.out.iter().any(|m| matches!(m, FromWorker::Moved { .. }));
    while !moved(&run) {
        let other = run.sent(|header| !asked(8192)(header));
        run.answer(other, Fate::Served);
    }
    run.settle();
    run.write(6, 8192, 512, 6);
    run.settle();
    run.read(7, 8192, 2048);
    run.settle();
    let bytes = run.bytes(7, 2048);
    assert_eq!((bytes[0], bytes[511], bytes[512]), (6, 6, 1));
}

#[test]
fn nothing_is_asked_over_holes_or_behind_the_end() {
    let mut run = Run::of_shape(LARGE, 1, 0);
    run.patience = 0;
    run.write(0, 2 << 16, 16384, 1);
    run.settle();
    for tag in 1..40 {
        run.read(tag, (tag - 1) * 4096, 4096);
        run.settle();
        assert_eq!(run.outcome(tag), Ok(()));
    }
    // Beside the index and the header: the third object's rest, once.
    let before = run.cluster.asked;
    for tag in 40..49 {
        run.read(tag, (tag - 1) * 4096, 4096);
        run.settle();
    }
    assert_eq!(run.cluster.asked, before, "all of it was there");
}
