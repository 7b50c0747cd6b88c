//! What a cluster in trouble answers, and what a program on the volume sees of it. minisheep
//! only: it is asked for each trouble, and each test proves that its trouble came.

use crate::cluster::Cluster;
use crate::control::errno;
use crate::mount::Mount;
use crate::random::Random;
use crate::tools::wait_for;
use crate::{KIB, MIB};
use nix::errno::Errno;
use sheepfs::wire::VdiId;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;

const HALT: &str = "0x19";
const NO_SPACE: &str = "0x15";
const WAIT_FOR_JOIN: &str = "0x17";

#[test]
fn while_the_cluster_halts_writes_wait() {
    for code in [HALT, WAIT_FOR_JOIN] {
        let cluster = Cluster::mini();
        let disk = cluster.vdi("disk", 8 * MIB);
        let mount = Mount::with_volume(&cluster, &disk, &[]);
        let sheep = cluster.minisheep();
        mount.open(&disk).write_all_at(&[1; 100], 0).unwrap();
        let create = sheep.fault(&format!("status code={code} opcode=create count=3"));
        let write = sheep.fault(&format!("status code={code} opcode=write count=3"));
        // An overwrite, a create, and the create's index update.
        mount.open(&disk).write_all_at(&[2; 100], 0).unwrap();
        mount.open(&disk).write_all_at(&[3; 100], 5 * MIB).unwrap();
        mount.open(&disk).sync_all().unwrap();
        assert_eq!((sheep.fired(&create), sheep.fired(&write)), (3, 3));
        let content = fs::read(mount.volume(&disk)).unwrap();
        assert_eq!((content[99], content[(5 << 20) + 99]), (2, 3));
        assert!(cluster.content(&disk) == content);
    }
}

#[test]
fn a_full_cluster_is_no_space() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 12 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    file.write_all_at(&[1; 100], 0).unwrap();
    let fault = cluster.minisheep().fault(&format!("status code={NO_SPACE} opcode=create"));
    assert_eq!(errno(file.write_all_at(&[2; 100], 5 * MIB)), Some(Errno::ENOSPC));
    file.write_all_at(&[3; 100], 0).unwrap();
    assert!(cluster.minisheep().fired(&fault) > 0);
    cluster.minisheep().control("clear");
    assert_eq!(fs::read(mount.volume(&disk)).unwrap()[5 << 20], 0, "a refused write is not read");
    file.write_all_at(&[4; 100], 5 * MIB).unwrap();
    assert_eq!(fs::read(mount.volume(&disk)).unwrap()[5 << 20], 4);
}

/// An object that the index names and no node has is lost data, not a hole.
#[test]
fn a_lost_object_is_an_error_and_never_zeros() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 12 * MIB);
    for options in [&[][..], &["-k"], &["-o"]] {
        let mount = Mount::with_volume(&cluster, &disk, options);
        mount.open(&disk).write_all_at(&[1; 100], 5 * MIB).unwrap();
        mount.detach(&disk);
        let vid: VdiId = cluster.wire().vid(&disk);
        cluster.wire().remove_object(vid, 1);
        mount.attach(&disk);
        let mut room = [0xee; 100];
        assert_eq!(errno(mount.open(&disk).read_exact_at(&mut room, 5 * MIB)), Some(Errno::EIO));
        let write = mount.open(&disk).write_all_at(&[2; 100], 5 * MIB);
        assert_eq!(errno(write), Some(Errno::EIO), "{options:?}");
        // Other objects, and holes, are what they were.
        mount.open(&disk).read_exact_at(&mut room, 9 * MIB).unwrap();
        assert_eq!(room, [0; 100]);
        mount.detach(&disk);
        // The operator gives the block up: as `dog vdi check` can't, so by hand.
        cluster.wire().write_inode(vid, sheepfs::wire::inode::index_offset(1), &[0; 4]);
        cluster.minisheep().control("clear-bugs");
    }
}

/// Answers that come late and out of order change nothing but the time.
#[test]
fn the_order_of_answers_does_not_matter() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 24 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let sheep = cluster.minisheep();
    // The first that fits a request is the one that happens to it.
    let delayed = sheep.fault("delay ms=15 when=after opcode=create");
    let reordered = sheep.fault("reorder ms=5");
    let late = sheep.fault("delay ms=10 kind=inode opcode=write");
    let size = 24 * MIB;
    let piece = 70_001;
    thread::scope(|scope| {
        for writer in 0..8 {
            let file = mount.open(&disk);
            scope.spawn(move || {
                for offset in (writer * piece..size).step_by(8 * piece as usize) {
                    let len = piece.min(size - offset) as usize;
                    file.write_all_at(&Random::seeded(offset).bytes(len), offset).unwrap();
                }
            });
        }
    });
    let content = fs::read(mount.volume(&disk)).unwrap();
    for offset in (0..size).step_by(piece as usize) {
        let expected = Random::seeded(offset).bytes(piece.min(size - offset) as usize);
        assert!(content[offset as usize..].starts_with(&expected), "at {offset}");
    }
    for fault in [reordered, delayed, late] {
        assert!(sheep.fired(&fault) > 0, "{fault} never came");
    }
    sheep.control("clear");
    assert!(cluster.content(&disk) == content);
}

/// A write is answered when its index entry is there, and so is an fsync.
#[test]
fn an_answered_write_is_in_the_index() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 64 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    let late = cluster.minisheep().fault("delay ms=100 kind=inode opcode=write");
    let vid = cluster.wire().vid(&disk);
    file.write_all_at(&[5; 100], MIB).unwrap();
    assert_eq!(cluster.wire().index(vid)[0], vid.get(), "the write came before the index");
    thread::scope(|scope| {
        let writer = scope.spawn(|| file.write_all_at(&[5; 100], 13 * MIB).unwrap());
        wait_for("the index update", || cluster.minisheep().fired(&late) > 1);
        file.sync_all().unwrap();
        assert_eq!(cluster.wire().index(vid)[3], vid.get(), "fsync came before the index");
        writer.join().unwrap();
    });
}

/// Neighbouring index entries that wait at the same time go out as one, and each entry goes out
/// once: so many creates don't mean as many index updates.
#[test]
fn neighbouring_index_updates_go_out_together() {
    let cluster = Cluster::mini();
    let new = sheepfs::wire::request::NewVdi {
        size: 4 * MIB,
        block_size_shift: 12,
        ..Default::default()
    };
    let disk = cluster.vdi_with("disk", &new);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let before = cluster.minisheep().served("WriteObj");
    mount.open(&disk).write_all_at(&[7; 1 << 20], 64 * KIB).unwrap();
    let updates = cluster.minisheep().served("WriteObj") - before;
    assert!(updates < 128, "{updates} updates for 256 new objects");
}
