//! Space comes back: holes are punched and ranges zeroed, whole objects go from the cluster,
//! and what is written again stays, however late the cluster gives references up.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::random::Random;
use crate::tools::{arg, run};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{ObjectId, Request, VdiId};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// A hole.
pub const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
/// Zeros.
pub const ZERO: FallocateFlags = FallocateFlags::FALLOC_FL_ZERO_RANGE;

/// `fallocate(2)`, which must succeed.
pub fn clear(file: &File, mode: FallocateFlags, from: u64, len: u64) {
    fallocate(file, mode, from.try_into().unwrap(), len.try_into().unwrap()).unwrap();
}

/// The owners of the first blocks of a VDI.
fn entries(cluster: &Cluster, vid: VdiId, count: u32) -> Vec<u32> {
    let (_, bytes) = cluster.wire().done(&Request::read_index(vid, 0, count), &[]);
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Whether an object is there, whatever the index says.
pub fn exists(cluster: &Cluster, vid: VdiId, block: u32) -> bool {
    let one = sheepfs::wire::request::Extent::new(0, 1, 22).unwrap();
    cluster.wire().ask(&Request::read(vid, block, one), &[]).0.status.is_success()
}

#[test]
fn whole_objects_go_and_edges_are_zeros() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 26 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    file.write_all_at(&vec![7; 26 << 20], 0).unwrap();
    clear(&file, PUNCH, 3 * MIB, 10 * MIB);
    let vid = cluster.wire().vid(&disk);
    let own = vid.get();
    assert_eq!(entries(&cluster, vid, 7), [own, 0, 0, own, own, own, own]);
    assert!(!exists(&cluster, vid, 1) && !exists(&cluster, vid, 2) && exists(&cluster, vid, 3));
    // The last object is short.
    clear(&file, ZERO, 24 * MIB, 2 * MIB);
    // Beyond the end there is nothing, as with any file.
    clear(&file, PUNCH, 20 * MIB, 1 << 40);
    assert_eq!(entries(&cluster, vid, 7), [own, 0, 0, own, own, 0, 0]);
    let mut expected = vec![7; 26 << 20];
    expected[3 << 20..13 << 20].fill(0);
    expected[20 << 20..].fill(0);
    assert!(fs::read(mount.volume(&disk)).unwrap() == expected);
    drop(file);
    mount.reattach(&disk);
    assert!(cluster.content(&disk) == expected);
    let grows = fallocate(mount.open(&disk), ZERO, 25 << 20, 2 << 20);
    assert_eq!(grows, Err(Errno::EINVAL));
}

/// A hole stays one: zeros are written only where something is.
#[test]
fn nothing_is_made_by_clearing() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 1 << 40);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    clear(&file, PUNCH, 100, (1 << 40) - 200);
    clear(&file, ZERO, 5, 10);
    assert_eq!(entries(&cluster, cluster.wire().vid(&disk), 1024), [0; 1024]);
}

/// What inherits from a snapshot goes, and the snapshot stays; when all is deleted, nothing
/// is left.
#[test]
fn snapshots_keep_what_is_discarded() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 16 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    file.write_all_at(&vec![1; 16 << 20], 0).unwrap();
    let old = cluster.wire().vid(&disk);
    let new = cluster.snapshot(&disk, "old");
    clear(&file, PUNCH, 0, 8 * MIB);
    file.write_all_at(&[2; 4096], 0).unwrap();
    assert_eq!(entries(&cluster, new, 4), [new.get(), 0, old.get(), old.get()]);
    assert_eq!(entries(&cluster, old, 4), [old.get(); 4]);
    mount.attach(&format!("{disk}:old"));
    assert!(fs::read(mount.volume(&format!("{disk}:old"))).unwrap() == vec![1; 16 << 20]);
    let snapshot = File::open(mount.volume(&format!("{disk}:old"))).unwrap();
    assert!(fallocate(&snapshot, PUNCH, 0, 4096).is_err());
    // Twice discarded, each reference is given up once: the snapshot's is the last.
    clear(&file, PUNCH, 0, 16 * MIB);
    clear(&file, PUNCH, 0, 16 * MIB);
    assert!((0..4).all(|block| exists(&cluster, old, block)));
    let ledger = |block| ObjectId::ledger(old, block);
    let words = |block| {
        let (_, bytes) = cluster.wire().done(&Request::read_tree_node(ledger(block), 8), &[]);
        [0, 4].map(|at| i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    assert!((0..4).all(|block| words(block) == [1, -1]), "{:?}", words(0));
}

/// The protocol's own discard loses what is written again; this one has nothing that could
/// come late.
#[test]
fn what_is_written_again_at_once_stays() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 16 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    cluster.minisheep().control("late-reclaim ms=600000");
    for round in 1..=50u8 {
        file.write_all_at(&[round; 4096], 4 * MIB).unwrap();
        clear(&file, PUNCH, 4 * MIB, 4 * MIB);
        let mut seen = [1; 4096];
        file.read_exact_at(&mut seen, 4 * MIB).unwrap();
        assert_eq!(seen, [0; 4096]);
        file.write_all_at(&[round; 100], 4 * MIB + 50).unwrap();
        cluster.minisheep().control("hurry");
        file.read_exact_at(&mut seen, 4 * MIB).unwrap();
        assert!(seen[50..150] == [round; 100] && seen[150..] == [0; 4096 - 150]);
    }
    assert_eq!(cluster.minisheep().served("RemoveObj"), 50);
}

/// Against a vector, with new attaches between.
fn model(options: &[&str], new: &NewVdi) {
    let cluster = Cluster::start();
    let disk = cluster.vdi_with("disk", new);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let mut random = Random::announced();
    let mut bytes = vec![0u8; new.size as usize];
    for _ in 0..600 {
        let len_max = [9000, 6 * MIB][usize::from(random.within(0..3) == 0)];
        let start = random.within(0..new.size);
        let end = (start + random.within(1..len_max)).min(new.size);
        let range = start as usize..end as usize;
        let file = mount.open(&disk);
        match random.within(0..20) {
            0 => {
                drop(file);
                mount.reattach(&disk);
            }
            choice @ 1..=7 => {
                clear(&file, if choice < 5 { PUNCH } else { ZERO }, start, end - start);
                bytes[range].fill(0);
            }
            8..=12 => {
                let mut seen = vec![0xee; range.len()];
                file.read_exact_at(&mut seen, start).unwrap();
                assert!(seen == bytes[range.clone()], "{range:?} differs");
            }
            _ => {
                let fresh = random.bytes(range.len().min(70_000));
                file.write_all_at(&fresh, start).unwrap();
                bytes[range.start..][..fresh.len()].copy_from_slice(&fresh);
            }
        }
    }
    assert!(fs::read(mount.volume(&disk)).unwrap() == bytes, "the volume differs");
    mount.detach(&disk);
    assert!(cluster.content(&disk) == bytes, "the wire tells something else");
}

const SMALL: NewVdi = NewVdi {
    size: 21 * MIB + 333,
    copies: 0,
    copy_policy: 0,
    block_size_shift: 20,
    base: 0,
    snapshot: false,
    store_policy: 0,
};

#[test]
fn a_volume_with_holes_holds_what_a_vector_does() {
    model(&[], &SMALL);
}

#[test]
fn a_volume_with_holes_in_both_caches_holds_what_a_vector_does() {
    model(&["-k", "-o"], &SMALL);
}

#[test]
fn a_volume_of_large_objects_with_holes_holds_what_a_vector_does() {
    model(&[], &NewVdi { block_size_shift: 23, ..SMALL });
}

#[test]
fn fstrim_gives_back_what_a_file_system_has_deleted() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 256 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let volume = mount.volume(&disk);
    run("mkfs.ext4", &["-q", "-F", "-b", "4096", arg(&volume)]);
    let point = mount.scratch().join("inner");
    fs::create_dir_all(&point).unwrap();
    run("mount", &["-o", "loop", arg(&volume), arg(&point)]);
    let objects = || {
        let vid = cluster.wire().vid(&disk);
        entries(&cluster, vid, 64).iter().filter(|owner| **owner != 0).count()
    };
    let kept = vec![3; 5 << 20];
    fs::write(point.join("kept"), &kept).unwrap();
    fs::write(point.join("deleted"), vec![5; 100 << 20]).unwrap();
    run("sync", &["-f", arg(&point)]);
    let full = objects();
    fs::remove_file(point.join("deleted")).unwrap();
    run("sync", &["-f", arg(&point)]);
    run("fstrim", &[arg(&point)]);
    let trimmed = objects();
    assert!(fs::read(point.join("kept")).unwrap() == kept);
    run("umount", &[arg(&point)]);
    assert!(full >= 25 && trimmed + 20 <= full, "{full} objects before, {trimmed} after");
    run("e2fsck", &["-fn", arg(&volume)]);
}

#[test]
fn a_loop_device_is_discarded_to_nothing() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 64 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.open(&disk).write_all_at(&vec![9; 64 << 20], 0).unwrap();
    let device = run("losetup", &["--find", "--show", "--direct-io=on", arg(&mount.volume(&disk))]);
    run("blkdiscard", &[device.trim()]);
    run("losetup", &["--detach", device.trim()]);
    assert_eq!(entries(&cluster, cluster.wire().vid(&disk), 16), [0; 16]);
}

#[test]
fn qemu_img_discards() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 32 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let volume = mount.volume(&disk);
    run(
        "qemu-io",
        &[
            "-f",
            "raw",
            "-d",
            "unmap",
            "-c",
            "write -P 5 0 32M",
            "-c",
            "discard 4M 8M",
            arg(&volume),
        ],
    );
    let owners = entries(&cluster, cluster.wire().vid(&disk), 8);
    assert_eq!(owners.iter().filter(|owner| **owner == 0).count(), 2, "{owners:?}");
    run(
        "qemu-io",
        &["-f", "raw", "-c", "read -P 0 4M 8M", "-c", "read -P 5 12M 20M", arg(&volume)],
    );
}
