//! Searches for data and holes, over workers that die, and such that lie.

use super::*;
use sheepfs::ipc::SeekTarget;

impl Rig {
    fn seek(&mut self, offset: u64, target: SeekTarget) {
        let waiter = self.waiter();
        self.data.seek(&self.volume, offset, target, waiter);
    }
}

fn place(offset: u64) -> Result<Vec<u8>, Errno> {
    Ok(offset.to_le_bytes().to_vec())
}

#[test]
fn a_seek_ends_where_the_worker_says() {
    let mut rig = Rig::new(12 * MIB);
    let _worker = rig.connect(1, ARENA_LEN).0.serve_all();
    rig.write(5 * u64::from(MIB), b"sheep");
    assert!(rig.outcome().is_ok());
    rig.seek(1, SeekTarget::Data);
    assert_eq!(rig.outcome(), place((4 * MIB).into()));
    rig.seek((4 * MIB).into(), SeekTarget::Hole);
    assert_eq!(rig.outcome(), place((8 * MIB).into()));
    rig.seek((8 * MIB).into(), SeekTarget::Data);
    assert_eq!(rig.outcome(), Err(Errno::ENXIO));
}

/// What the dead worker had said of it does not count.
#[test]
fn a_seek_outlives_its_worker() {
    let mut rig = Rig::new(12 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.seek(7, SeekTarget::Hole);
    let (tag, _) = tag_of(&worker.next().unwrap());
    worker.say(FromWorker::Sought { tag, offset: Some(9) });
    drop(worker);
    rig.gone(1);
    assert_eq!(rig.lose(1, None), [tag]);
    assert!(rig.answers.1.try_recv().is_err());
    let _next = rig.connect(2, ARENA_LEN).0.serve_all();
    assert_eq!(rig.outcome(), place(7));
    assert_eq!(rig.data.counters().replayed, 1);
}

/// In front of where it began, or of what is no seek.
#[test]
fn a_worker_that_says_what_can_not_be_is_ended() {
    for lie in 0..3 {
        let mut rig = Rig::new(12 * MIB);
        let (worker, _reader) = rig.connect(1, ARENA_LEN);
        let offset = Some(if lie == 0 { 6 } else { 8 });
        if lie == 1 {
            rig.flush()
        } else {
            rig.seek(7, SeekTarget::Hole)
        }
        let (tag, _) = tag_of(&worker.next().unwrap());
        let tag = if lie == 2 { Tag(99) } else { tag };
        worker.say(FromWorker::Sought { tag, offset });
        match rig.event() {
            Event::WorkerBroken { generation: 1, nonsense } => assert!(nonsense),
            other => panic!("{other:?}"),
        }
        drop(worker);
        rig.gone(1);
    }
}

#[test]
fn a_seek_without_an_end_fails() {
    let mut rig = Rig::new(12 * MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    rig.seek(7, SeekTarget::Hole);
    let (tag, _) = tag_of(&worker.next().unwrap());
    worker.done(tag, Ok(()));
    assert!(rig.outcome().is_err());
}
