//! Worker and supervisor die together: what the worker said last is lost with the
//! socket, also that it allocated a block, whose entry a snapshot may then lose.

use super::cases::quiet;
use super::cluster::Sent;
use super::deaths::Supervisor;
use super::{Run, VOLUME, slot};
use crate::engine::Engine;
use sheepfs::ipc::{self, FromWorker, Tag, ToWorker};
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::{ObjectId, Opcode};

/// A write of 512 bytes to the first block that the kernel would deliver again.
fn write(run: &mut Run, sup: &mut Supervisor, tag: u64) {
    let span = slot(tag, 512);
    sup.note(Tag(tag), ToWorker::Write { tag: Tag(tag), volume: VOLUME, offset: 0, span });
    run.write(tag, 0, 512, u8::try_from(tag).unwrap());
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
    let (mut run, mut sup) = (quiet(), Supervisor::default());
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
    assert_eq!(told(&said[..done], 7), 1, "said before the write is done: {said:?}");
    run.write(2, 512, 512, 2);
    run.settle();
    assert_eq!(told(&run.said[before..], 7), 1, "once for the block");
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
        let (mut run, mut sup) = (quiet(), Supervisor::default());
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
