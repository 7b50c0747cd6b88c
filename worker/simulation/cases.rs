//! Single situations, step by step.

use super::cluster::Inode;
use super::{Fate, Run, VOLUME, attach_of};
use sheepfs::ipc::{Failure, FromWorker, Query, RawSpan, Tag, ToWorker, VolumeId};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::name::VolumeName;
use sheepfs::wire::{ObjectId, Opcode, Status};
use std::time::Duration;

/// A data object's request of that kind, for that block.
pub fn data(opcode: Opcode, block: u64) -> impl Fn(&RequestHeader) -> bool {
    move |header| header.opcode == opcode.code() && header.obj().oid == 7 << 32 | block
}

/// A read of the whole header.
fn header_read(header: &RequestHeader) -> bool {
    let inode = ObjectId::from_raw(header.obj().oid).raw() >> 63 == 1;
    inode && header.opcode == Opcode::ReadObj.code() && header.data_length == 4664
}

/// A run whose cluster does what it is asked.
pub fn quiet() -> Run {
    let mut run = Run::new(1, 0);
    run.patience = 0;
    run
}

#[test]
fn writes_to_one_absent_object_create_it_once() {
    let mut run = Run::new(1, 0);
    for tag in 1..=16u8 {
        run.write(tag.into(), u64::from(tag - 1) * 256, 256, tag);
    }
    run.settle();
    assert_eq!(run.out.len(), 16);
    let object = &run.cluster.objects[&(7 << 32)];
    let expected: Vec<u8> = (1..=16).flat_map(|value| [value; 256]).collect();
    assert_eq!(object, &expected);
}

#[test]
fn a_vdi_that_was_replaced_gets_an_error_and_never_other_data() {
    let mut run = Run::new(1, 0);
    run.write(1, 0, 512, 1);
    run.settle();
    run.cluster.snapshot();
    // Somebody deleted it and made another of that name.
    let working = run.cluster.working;
    let inode = run.cluster.inodes.get_mut(&working).unwrap();
    inode.bytes[564..568].copy_from_slice(&99u32.to_le_bytes());
    let mut other: Inode = inode.clone();
    other.bytes[564..568].copy_from_slice(&0u32.to_le_bytes());
    run.cluster.inodes.insert(99, other);
    run.write(2, 0, 512, 2);
    run.read(3, 0, 512);
    run.settle();
    assert_eq!(run.outcome(2), Err(Failure::Replaced));
}

/// The header says that the VDI was deleted, while requests are on the wire: each
/// gets one answer, whatever the cluster says to it, and the index stays alone.
#[test]
fn what_is_on_the_wire_when_a_volume_fails_is_answered() {
    for status in [Status::Halt, Status::Readonly, Status::NoObj, Status::Eio] {
        let mut run = quiet();
        run.write(1, 0, 512, 1);
        run.settle();
        let updates = run.cluster.updates;
        run.write(2, 0, 512, 2);
        run.write(3, 5 * 4096, 512, 3);
        run.write(4, 9 * 4096, 512, 4);
        run.now += Duration::from_secs(100);
        run.tick();
        run.cluster.delete();
        let look = run.sent(header_read);
        run.answer(look, Fate::Served);
        let create = run.sent(data(Opcode::CreateAndWriteObj, 5));
        run.answer(create, Fate::Served);
        while !run.cluster.sent.is_empty() {
            run.answer(0, Fate::Refused(status));
        }
        run.settle();
        for tag in 2..=4 {
            assert!(run.outcome(tag).is_err(), "{status:?}");
        }
        assert_eq!(run.cluster.updates, updates, "the index of a deleted VDI was written");
        run.tell(ToWorker::Flush { tag: Tag(5), volume: VOLUME });
        run.tell(ToWorker::Detach { tag: Tag(6), volume: VOLUME });
        run.settle();
        assert_eq!(run.outcome(5), Err(Failure::Replaced));
        assert_eq!(run.outcome(6), Ok(()));
    }
}

/// Reads of a deleted VDI are errors, not zeros, and writes don't revive it.
#[test]
fn a_deleted_vdi_is_not_full_of_zeros() {
    for recreated in [false, true] {
        let mut run = quiet();
        run.write(1, 0, 512, 1);
        run.write(2, 4096, 512, 1);
        run.settle();
        run.cluster.delete();
        if recreated {
            let inode = run.cluster.inodes.get_mut(&7).unwrap();
            inode.bytes[..4].copy_from_slice(b"disk");
            inode.bytes[512] = 2;
        }
        run.read(3, 0, 512);
        run.write(4, 4096, 512, 2);
        run.settle();
        assert_eq!(run.outcome(3), Err(Failure::Replaced));
        assert_eq!(run.outcome(4), Err(Failure::Replaced));
        assert!(run.cluster.objects.is_empty());
    }
}

/// The same where the index was never read: a deleted VDI's index is all zeros.
#[test]
fn a_deleted_vdi_is_not_full_of_holes() {
    let mut run = quiet();
    run.cluster.delete();
    run.read(1, 0, 512);
    run.write(2, 4096, 512, 2);
    run.settle();
    assert_eq!(run.outcome(1), Err(Failure::Replaced));
    assert_eq!(run.outcome(2), Err(Failure::Replaced));
    assert!(run.cluster.objects.is_empty());
}

/// Where vids are used again, another VDI may have taken the place of ours. Its
/// objects are not shown for longer than half a minute.
#[test]
fn a_recycled_vid_is_noticed_by_a_volume_that_only_reads() {
    let mut run = quiet();
    run.write(1, 0, 512, 1);
    run.settle();
    for _ in 0..400 {
        run.tick();
        run.settle();
    }
    run.cluster.inodes.get_mut(&7).unwrap().bytes[512] = 2;
    run.read(2, 0, 512);
    run.settle();
    for _ in 0..200 {
        run.tick();
        run.settle();
    }
    run.read(3, 0, 512);
    run.settle();
    assert_eq!(run.outcome(3), Err(Failure::Replaced));
}

/// It is a snapshot from the beginning, so its header says nothing new.
#[test]
fn an_attached_snapshot_stays_that_snapshot() {
    let mut run = quiet();
    run.write(1, 0, 512, 1);
    run.settle();
    run.cluster.snapshot();
    let snapshot = VolumeId(2);
    run.attach(snapshot, "disk:1");
    run.write(2, 0, 512, 2);
    run.settle();
    for tag in 3..6 {
        let span = super::slot(tag, 512);
        run.tell(ToWorker::Read { tag: Tag(tag), volume: snapshot, offset: 0, span });
        for _ in 0..200 {
            run.tick();
            run.settle();
        }
        assert_eq!(run.bytes(tag, 512), vec![1; 512], "read {tag}");
    }
}

/// A block that somebody discarded under the mount is a hole (protocol 2).
#[test]
fn a_discarded_block_reads_as_zeros_and_is_created_again() {
    let mut run = quiet();
    run.write(1, 0, 512, 1);
    run.settle();
    run.cluster.objects.clear();
    run.cluster.set_entry(7, 0, 0);
    run.read(2, 0, 512);
    run.settle();
    run.write(3, 0, 512, 3);
    for _ in 0..200 {
        run.tick();
        run.settle();
    }
    assert_eq!((run.outcome(2), run.outcome(3)), (Ok(()), Ok(())));
    assert_eq!(run.bytes(2, 512), vec![0; 512]);
    assert_eq!(run.cluster.objects[&(7 << 32)][..512], [3; 512]);
}

/// Also while the parts wait for one before them, or for a reload.
#[test]
fn a_delay_that_is_over_does_not_make_the_loop_spin() {
    let mut run = quiet();
    run.write(1, 0, 512, 1);
    run.write(2, 0, 512, 2);
    run.answer(0, Fate::Refused(Status::WaitForJoin));
    run.tick();
    run.answer(0, Fate::Served);
    run.tick();
    run.tick();
    assert_eq!(run.cluster.sent.len(), 1, "the second waits for the first");
    run.answer(0, Fate::Refused(Status::Halt));
    run.write(3, 4096, 512, 3);
    run.answer(0, Fate::Refused(Status::Readonly));
    run.tick();
    run.tick();
    run.settle();
}

#[test]
fn a_flush_that_must_wait_is_not_sent_again_at_once() {
    let mut run = quiet();
    run.tell(ToWorker::Flush { tag: Tag(1), volume: VOLUME });
    run.answer(0, Fate::Refused(Status::WaitForJoin));
    assert!(run.cluster.sent.is_empty());
    run.settle();
    assert_eq!(run.outcome(1), Ok(()));
}

#[test]
fn an_attach_that_must_wait_is_not_sent_again_at_once() {
    let mut run = quiet();
    let name = VolumeName::parse(b"disk").unwrap();
    run.tell(attach_of(Tag(1), VolumeId(2), name));
    run.answer(0, Fate::Refused(Status::CollectingCinfo));
    assert!(run.cluster.sent.is_empty());
    run.settle();
    assert!(matches!(run.out[..], [FromWorker::Attached { tag: Tag(1), .. }]));
}

#[test]
fn a_cluster_of_no_nodes_is_reported_as_that() {
    for query in [Query::Totals, Query::Nodes] {
        let mut run = quiet();
        run.tell(ToWorker::Query { tag: Tag(1), query });
        run.settle();
        assert!(matches!(run.out[..], [FromWorker::ReportChunk { last: true, .. }]), "{query:?}");
    }
}

/// The last writes before a detach may be what a snapshot loses (protocol 7.4).
#[test]
fn a_detach_repairs_what_a_snapshot_lost() {
    let mut run = quiet();
    run.cluster.lose_entry = true;
    run.write(1, 0, 512, 1);
    run.settle();
    run.cluster.snapshot();
    assert_eq!(run.cluster.entry(8, 0), 0);
    run.tell(ToWorker::Detach { tag: Tag(2), volume: VOLUME });
    run.settle();
    assert_eq!(run.outcome(2), Ok(()));
    assert_eq!(run.cluster.entry(8, 0), 7);
    assert_eq!(run.cluster.released, [7, 8]);
}

/// Whatever is under way, each request and each detach gets its answer, and the
/// lock is given back last.
#[test]
fn a_detach_in_the_middle_loses_no_answer() {
    for steps in 0..40 {
        let mut run = Run::new(steps, 0);
        run.write(1, 0, 512, 1);
        run.write(2, 100, 5000, 2);
        run.read(3, 0, 9000);
        for step in 0..steps {
            if step == 6 {
                run.cluster.snapshot();
            }
            if run.cluster.sent.is_empty() {
                run.tick();
            } else {
                run.answer_one();
            }
        }
        run.patience = 0;
        run.tell(ToWorker::Flush { tag: Tag(4), volume: VOLUME });
        run.tell(ToWorker::Detach { tag: Tag(5), volume: VOLUME });
        run.tell(ToWorker::Detach { tag: Tag(6), volume: VOLUME });
        run.settle();
        for tag in 1..=5 {
            assert_eq!(run.outcome(tag), Ok(()), "{steps} steps");
        }
        let _ = run.outcome(6);
        assert_eq!(run.cluster.released.last(), Some(&run.cluster.working), "{steps} steps");
        let span = RawSpan { offset: 0, len: 1 };
        run.tell(ToWorker::Read { tag: Tag(7), volume: VOLUME, offset: 0, span });
        assert_eq!(run.outcome(7), Err(Failure::NotAttached));
    }
}

/// Also what asks whether the cluster recovers.
#[test]
fn a_question_for_recovery_is_answered_when_its_volume_fails() {
    let mut run = quiet();
    run.write(1, 0, 512, 1);
    run.settle();
    run.cluster.objects.remove(&(7 << 32)).unwrap();
    run.read(2, 0, 512);
    // READ -> NO_OBJ, entry read again, READ -> NO_OBJ, then STAT_RECOVERY.
    for _ in 0..3 {
        run.answer(0, Fate::Served);
    }
    assert_eq!(run.cluster.sent[0].request.header(0).opcode, Opcode::StatRecovery.code());
    run.now += Duration::from_secs(100);
    run.tick();
    run.cluster.delete();
    let look = run.sent(header_read);
    run.answer(look, Fate::Served);
    run.settle();
    for _ in 0..1000 {
        run.tick();
        run.settle();
    }
    assert_eq!(run.outcome(2), Err(Failure::Replaced));
}

/// An inherited entry without a count costs the snapshot its object when it is
/// copied on write.
#[test]
fn a_repair_that_a_death_cut_short_is_completed() {
    let mut run = quiet();
    let mut sup = super::deaths::Supervisor::default();
    run.cluster.lose_entry = true;
    sup.listen(&run);
    run.write(1, 0, 512, 1);
    run.settle();
    run.cluster.snapshot();
    assert_eq!(run.cluster.entry(8, 0), 0);
    run.write(2, 0, 512, 2);
    sup.note(
        Tag(2),
        ToWorker::Write {
            tag: Tag(2),
            volume: VOLUME,
            offset: 0,
            span: super::slot(2, 512),
            again: true,
        },
    );
    while run.cluster.entry(8, 0) == 0 {
        run.answer(0, Fate::Served);
    }
    run.cluster.sent.clear();
    sup.listen(&run);
    run.engine = crate::engine::Engine::new(0, true);
    sup.resume(&mut run);
    // Stop before the replayed write: only the reload.
    run.settle();
    assert_eq!(gref(&run, 8), Some([1i32.to_le_bytes(), 0i32.to_le_bytes()].concat()));
}

fn gref(run: &Run, vid: u32) -> Option<Vec<u8>> {
    run.cluster.inodes[&vid].grefs.values().next().cloned()
}
