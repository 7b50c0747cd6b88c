//! Worker and supervisor die together: what the worker said last is lost with the
//! socket, also that it allocated a block, whose entry a snapshot may then lose.

use super::cases::quiet;
use super::cluster::Sent;
use super::deaths::Supervisor;
use super::{Run, VOLUME, slot};
use crate::engine::Engine;
use sheepfs::ipc::{self, FromWorker, Tag, ToWorker};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::{ObjectId, Opcode};

/// A run in which an index update may be repeated by the next worker.
fn dying() -> Run {
    let mut run = quiet();
    run.cluster.lies = true;
    run
}

/// A worker that follows one which has allocated the first block.
fn allocated_before() -> Run {
    let mut run = dying();
    let mut sup = Supervisor::default();
    sup.listen(&run);
    run.write(1, 0, 512, 1);
    run.settle();
    run.engine = Engine::new(0, true);
    sup.resume(&mut run);
    run.settle();
    run
}

/// A write of 512 bytes to the first block that the kernel would deliver again.
fn write(run: &mut Run, sup: &mut Supervisor, tag: u64) {
    let span = slot(tag, 512);
    sup.note(
        Tag(tag),
        ToWorker::Write { tag: Tag(tag), volume: VOLUME, offset: 0, span, again: false },
    );
    run.write(tag, 0, 512, u8::try_from(tag).unwrap());
}

/// The update of the first block's index entry.
fn is_update(header: &RequestHeader) -> bool {
    let object = header.obj();
    header.opcode == Opcode::WriteObj.code() && object.oid >> 63 == 1 && object.offset == 4664
}

/// How often it was said that this vid owns the first block.
fn told(said: &[FromWorker], owner: u32) -> usize {
    let allocation = ipc::Allocation { block: 0, owner };
    let wanted = FromWorker::Allocated { volume: VOLUME, allocation };
    said.iter().filter(|message| **message == wanted).count()
}

/// The write is done, its block allocated, and nobody hears of either.
fn die_unheard(run: &mut Run, sup: &mut Supervisor, tag: u64, owner: u32) {
    assert!(told(&run.said, owner) == 1 && run.outcome(tag) == Ok(()));
    sup.lose(run);
    assert!(sup.unheard >= 2 && run.out.is_empty(), "{} words lost", sup.unheard);
    run.engine = Engine::new(0, true);
}

fn changes_data(sent: &Sent) -> bool {
    let header = sent.request.header(0);
    let data = ObjectId::from_raw(header.obj().oid).kind() == ObjectKind::Data;
    header.opcode <= 3 && header.has_payload() && data
}

#[test]
fn an_answered_write_whose_entry_nobody_heard_of_survives_a_snapshot() {
    let (mut run, mut sup) = (dying(), Supervisor::default());
    run.cluster.lose_entry = true;
    sup.listen(&run);
    write(&mut run, &mut sup, 1);
    run.settle();
    die_unheard(&mut run, &mut sup, 1, 7);
    let before = run.said.len();
    sup.resume(&mut run);
    sup.replay(&mut run);
    run.settle();
    assert_eq!(run.outcome(1), Ok(()));
    let said = &run.said[before..];
    let done = FromWorker::Done { tag: Tag(1), outcome: Ok(()) };
    let done = said.iter().position(|message| *message == done).unwrap();
    let first = told(&said[..done], 7);
    assert!(first > 0, "said before the write is done: {said:?}");
    run.write(2, 512, 512, 2);
    run.settle();
    assert_eq!(told(&run.said[before..], 7), first, "once for the block");
    run.cluster.snapshot();
    assert_eq!(run.cluster.entry(8, 0), 0, "the snapshot that began before loses the entry");
    run.write(3, 4096, 512, 3);
    run.read(4, 0, 1024);
    run.settle();
    assert_eq!(run.cluster.repaired, 1);
    assert_eq!(run.bytes(4, 1024), [[1; 512], [2; 512]].concat());
}

/// A block that moved to a new vid, unheard: what is remembered of it is older than its
/// entry. Its object is neither made anew nor given up for the one before.
#[test]
fn an_entry_that_is_newer_than_what_is_remembered_counts() {
    for again in [false, true] {
        let (mut run, mut sup) = (dying(), Supervisor::default());
        write(&mut run, &mut sup, 1);
        run.settle();
        run.cluster.snapshot();
        run.write(2, 4096, 512, 2);
        run.settle();
        sup.listen(&run);
        run.out.clear();
        write(&mut run, &mut sup, 3);
        run.settle();
        die_unheard(&mut run, &mut sup, 3, 8);
        let before = run.said.len();
        if again {
            run.cluster.snapshot();
        }
        sup.resume(&mut run);
        sup.replay(&mut run);
        while !run.cluster.sent.iter().any(changes_data) {
            if run.cluster.sent.is_empty() {
                run.tick();
            } else {
                run.answer_one();
            }
        }
        let change = run.cluster.sent.iter().find(|sent| changes_data(sent)).unwrap();
        let opcode = change.request.header(0).opcode;
        let expected = if again { Opcode::CreateAndWriteObj } else { Opcode::WriteObj };
        assert_eq!(opcode, expected.code());
        assert_eq!(told(&run.said[before..], 8), 1);
        assert_eq!(run.cluster.entry(run.cluster.working, 0), 8);
        run.settle();
        assert_eq!((run.outcome(3), run.cluster.repaired), (Ok(()), 0));
    }
}

/// Its gateway may have died when only the node that is asked now had it.
#[test]
fn an_entry_that_an_earlier_worker_wrote_is_written_again_before_a_repeated_write_is_done() {
    let mut run = allocated_before();
    let before = run.cluster.updates;
    let write = |tag: u64, again| {
        let span = super::slot(tag, 512);
        ToWorker::Write { tag: Tag(tag), volume: VOLUME, offset: 0, span, again }
    };
    run.tell(write(2, true));
    while run.out.iter().all(|done| !matches!(done, FromWorker::Done { tag: Tag(2), .. })) {
        assert!(run.cluster.updates <= before + 1);
        run.answer(0, super::Fate::Served);
    }
    assert_eq!(run.cluster.updates, before + 1);
    for (tag, again) in [(3, true), (4, false)] {
        run.tell(write(tag, again));
        run.settle();
        assert_eq!(run.outcome(tag), Ok(()));
    }
    assert_eq!(run.cluster.updates, before + 1, "once is enough");
}

/// What it wrote again in what is a snapshot by then has lost its count.
#[test]
fn an_entry_that_was_written_again_is_counted_once_by_a_snapshot() {
    for late in [false, true] {
        let mut run = allocated_before();
        let span = super::slot(2, 512);
        run.tell(ToWorker::Write { tag: Tag(2), volume: VOLUME, offset: 0, span, again: true });
        while !run.cluster.sent.iter().any(|sent| is_update(&sent.request.header(0))) {
            run.answer(0, super::Fate::Served);
        }
        if late {
            run.cluster.snapshot();
        }
        run.settle();
        if !late {
            run.cluster.snapshot();
        }
        run.write(3, 512, 512, 3);
        run.settle();
        assert_eq!(run.outcome(3), Ok(()));
        let grefs = &run.cluster.inodes[&7].grefs;
        let counts: Vec<_> = grefs.values().map(|gref| gref[4..].to_vec()).collect();
        assert_eq!(counts, [1i32.to_le_bytes()], "late: {late}");
    }
}
