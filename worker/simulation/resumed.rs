//! Volumes that a second worker resumes, and what the first told of them.

use super::cases::{data, quiet};
use super::cluster::{Cluster, GATEWAY, SIZE_OFFSET};
use super::{Fate, Run, SHAPE, VOLUME};
use sheepfs::ipc::{
    self, Failure, FromWorker, Gateways, Labels, Locking, RawSpan, Tag, ToWorker, VolumeFacts,
    VolumeId,
};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::VolumeName;
use sheepfs::wire::{Opcode, Status};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// What a volume was before a snapshot or a death.
fn facts_of(cluster: &Cluster, vid: u32) -> VolumeFacts {
    let header = InodeHeader::decode(&cluster.inodes[&vid].bytes).unwrap();
    VolumeFacts {
        vid,
        size: header.vdi_size,
        create_time: header.create_time,
        copies: header.nr_copies,
        copy_policy: header.copy_policy,
        block_size_shift: header.block_size_shift,
        snap_id: header.snap_id,
        snapshot: header.is_snapshot(),
        hyper: header.is_hyper(),
        locked: !header.is_snapshot(),
        labels: Labels { name: header.name, tag: header.tag, parent: header.parent_vdi_id },
    }
}

/// A new worker on that cluster that is told to resume what was vid 7.
fn one(gateway: SocketAddr) -> Gateways {
    Gateways::default().with(gateway)
}

fn resumed(cluster: Cluster, facts: VolumeFacts, lock_sent: Gateways) -> Run {
    let mut run = quiet();
    run.cluster = cluster;
    let name = VolumeName::parse(b"disk").unwrap();
    run.tell(ToWorker::Resume {
        tag: Tag(9),
        volume: VolumeId(2),
        name,
        facts,
        lock_sent,
        repairing: None,
    });
    run.settle();
    run
}

fn moved_to(run: &Run) -> Option<u32> {
    run.out.iter().find_map(|message| match message {
        FromWorker::Moved { facts, .. } => Some(facts.vid),
        _ => None,
    })
}

#[test]
fn a_volume_goes_on_only_as_what_descends_from_it() {
    let mut cluster = Cluster::new(SHAPE);
    let facts = facts_of(&cluster, 7);
    cluster.snapshot();
    cluster.snapshot();
    let run = resumed(cluster, facts.clone(), Gateways::default());
    assert!(matches!(&run.out[0], FromWorker::Attached { facts: old, .. } if *old == facts));
    assert_eq!(moved_to(&run), Some(9));
    assert_eq!(run.cluster.released, [7]);
    let mut replaced = Cluster::new(SHAPE);
    replaced.snapshot();
    let made_anew = &mut replaced.inodes.get_mut(&8).unwrap().bytes;
    made_anew[564..568].copy_from_slice(&0u32.to_le_bytes());
    let mut run = resumed(replaced, facts.clone(), Gateways::default());
    assert_eq!(moved_to(&run), None);
    let span = RawSpan { offset: 0, len: 1 };
    run.tell(ToWorker::Read { tag: Tag(3), volume: VolumeId(2), offset: 0, span });
    assert_eq!(run.outcome(3), Err(Failure::Replaced));
    // Another VDI that got the vid.
    let mut recycled = Cluster::new(SHAPE);
    recycled.inodes.get_mut(&7).unwrap().bytes[512] = 2;
    let run = resumed(recycled, facts, Gateways::default());
    assert_eq!(run.outcome(9), Err(Failure::Replaced));
}

fn set_size(cluster: &mut Cluster, vid: u32, size: u64) {
    let inode = cluster.inodes.get_mut(&vid).unwrap();
    inode.bytes[SIZE_OFFSET..][..8].copy_from_slice(&size.to_le_bytes());
}

/// Whoever made it had looked at the VDI before that grew, and the worker that knew is dead.
#[test]
fn a_snapshot_that_knows_the_old_size_is_followed() {
    let mut cluster = Cluster::new(SHAPE);
    cluster.snapshot();
    set_size(&mut cluster, 7, 1 << 20);
    let facts = facts_of(&cluster, 7);
    let facts = VolumeFacts { snapshot: false, locked: true, ..facts };
    let run = resumed(cluster, facts, Gateways::default());
    assert_eq!(moved_to(&run), Some(8));
    assert_eq!(facts_of(&run.cluster, 8).size, 1 << 20);
}

/// As it was announced, also when it grew meanwhile; a snapshot by its own vid.
#[test]
fn a_volume_resumes_as_it_was() {
    let mut cluster = Cluster::new(SHAPE);
    let facts = facts_of(&cluster, 7);
    set_size(&mut cluster, 7, 1 << 20);
    let run = resumed(cluster, facts.clone(), Gateways::default());
    assert_eq!(run.out, [FromWorker::Attached { tag: Tag(9), facts }]);
    let mut cluster = Cluster::new(SHAPE);
    cluster.snapshot();
    let snapshot = facts_of(&cluster, 7);
    let mut run = quiet();
    run.cluster = cluster;
    let name = VolumeName::parse(b"disk:1").unwrap();
    let (tag, volume, facts) = (Tag(9), VolumeId(2), snapshot.clone());
    run.tell(ToWorker::Resume {
        tag,
        volume,
        name,
        facts,
        lock_sent: Gateways::default(),
        repairing: None,
    });
    run.settle();
    assert_eq!(run.out, [FromWorker::Attached { tag: Tag(9), facts: snapshot }]);
    assert!(run.cluster.released.is_empty());
}

/// A lock that a dead worker took on the way is ours, if its gateway holds it.
#[test]
fn a_lock_that_was_asked_for_before_a_death_is_ours() {
    let other = SocketAddr::from(([10, 0, 0, 9], 7000));
    for (lock_sent, goes_on) in
        [(one(GATEWAY), true), (one(other), false), (Gateways::default(), false)]
    {
        let mut cluster = Cluster::new(SHAPE);
        let facts = facts_of(&cluster, 7);
        cluster.locks = Some(BTreeSet::from([7, 8]));
        cluster.snapshot();
        let run = resumed(cluster, facts, lock_sent);
        assert_eq!(moved_to(&run).is_some(), goes_on, "{lock_sent:?}");
    }
    for (lock_sent, goes_on) in
        [(one(GATEWAY), true), (one(other), false), (Gateways::default(), false)]
    {
        let mut run = quiet();
        run.cluster.locks = Some(BTreeSet::from([7]));
        let name = VolumeName::parse(b"disk").unwrap();
        let (tag, volume) = (Tag(1), VolumeId(2));
        run.tell(ToWorker::Attach { tag, volume, name, lock_sent, locking: Locking::Take });
        run.settle();
        assert_eq!(matches!(run.out.last(), Some(FromWorker::Attached { .. })), goes_on);
    }
}

/// Hazard 11: while the cluster recovers, an absent object is waited for.
#[test]
fn an_object_that_is_lost_is_an_error_once_nothing_recovers() {
    let mut run = quiet();
    run.write(1, 0, 512, 1);
    run.settle();
    let object = run.cluster.objects.remove(&(7 << 32)).unwrap();
    run.cluster.recovering = 20;
    run.read(2, 0, 512);
    for _ in 0..10 {
        while !run.cluster.sent.is_empty() {
            run.answer(0, Fate::Served);
        }
        run.tick();
    }
    assert!(run.cluster.recovering < 20, "nobody asked");
    run.cluster.objects.insert(7 << 32, object);
    run.settle();
    assert_eq!(run.outcome(2), Ok(()));
    run.cluster.objects.clear();
    run.read(3, 0, 512);
    run.settle();
    assert_eq!(run.cluster.recovering, 0);
    assert_eq!(run.outcome(3), Err(Failure::ObjectLost));
}

/// One bad answer must not cost a volume.
#[test]
fn a_reload_survives_some_errors_and_not_any_number() {
    for (errors, survives) in [(3, true), (1000, false)] {
        let mut run = quiet();
        run.write(1, 0, 512, 1);
        run.settle();
        run.cluster.snapshot();
        run.write(2, 0, 512, 2);
        run.answer(0, Fate::Served);
        let mut left = errors;
        while !run.cluster.sent.is_empty() || run.engine.next_deadline().is_some() {
            if run.cluster.sent.is_empty() {
                run.tick();
            } else if left > 0 {
                left -= 1;
                run.answer(0, Fate::Refused(Status::Eio));
            } else {
                run.answer(0, Fate::Served);
            }
            if run.out.iter().any(|message| matches!(message, FromWorker::Done { tag: Tag(2), .. }))
            {
                break;
            }
        }
        assert_eq!(run.outcome(2).is_ok(), survives, "{errors} errors");
    }
}

/// What the supervisor must know to repeat a write, in the order in which it must.
#[test]
fn a_create_and_its_entry_are_announced() {
    let mut run = quiet();
    run.write(5, 4096, 512, 1);
    while run.cluster.sent.is_empty()
        || !data(Opcode::CreateAndWriteObj, 1)(&run.cluster.sent[0].request.header(0))
    {
        run.answer(0, Fate::Served);
    }
    assert_eq!(run.said.last(), Some(&FromWorker::Creating { tag: Tag(5), block: 1 }));
    run.settle();
    let allocation = ipc::Allocation { block: 1, owner: 7 };
    let allocated = FromWorker::Allocated { volume: VOLUME, allocation };
    let done = FromWorker::Done { tag: Tag(5), outcome: Ok(()) };
    run.said.retain(|message| !matches!(message, FromWorker::Stored { .. }));
    assert_eq!(run.said[run.said.len() - 2..], [allocated, done]);
}

#[test]
fn what_is_safe_from_snapshots_is_told() {
    let mut run = quiet();
    run.write(5, 0, 512, 1);
    run.settle();
    run.now += Duration::from_secs(100);
    run.tick();
    run.settle();
    let seen = FromWorker::HeaderSeen { volume: VOLUME, age_ms: 0 };
    assert!(run.said.contains(&seen), "{:?}", run.said);
    run.cluster.objects.clear();
    run.cluster.set_entry(7, 0, 0);
    run.read(6, 0, 512);
    run.settle();
    let allocation = ipc::Allocation { block: 0, owner: 0 };
    assert!(run.said.contains(&FromWorker::Allocated { volume: VOLUME, allocation }));
}
