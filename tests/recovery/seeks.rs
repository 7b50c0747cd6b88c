//! Searches for data, while workers die.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::rounds::rounds;
use crate::site::{send, wait_for_swap};
use crate::tools::wait_for;
use nix::sys::signal::Signal;
use nix::unistd::{Whence, lseek};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;

/// It waits for the next worker, and finds what was written before.
#[test]
fn a_seek_outlives_its_worker() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 256 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let blocks = || fs::metadata(mount.volume(&disk)).unwrap().blocks();
    for round in 0..rounds(3, 20) {
        // What the last seek has read is kept for a while.
        mount.detach(&disk);
        mount.attach(&disk);
        let place = (250 - 4 * (round % 40)) * MIB / 4 * 4;
        mount.open(&disk).write_all_at(b"sheep", place).unwrap();
        let counted = || blocks() == (round % 40 + 1) * 4 * MIB / 512;
        // Else the fault could meet the count instead of the seek.
        wait_for("the count", counted);
        let fault = cluster.minisheep().fault("delay ms=3600000 kind=inode opcode=read count=1");
        let file = mount.open(&disk);
        let seek = thread::spawn(move || lseek(&file, 0, Whence::SeekData));
        wait_for("the seek to be on the wire", || cluster.minisheep().fired(&fault) == 1);
        let before = mount.count("swaps_worker_died");
        send(Signal::SIGKILL, mount.worker());
        wait_for_swap(&mount, "swaps_worker_died", before);
        let object = place / (4 * MIB) * 4 * MIB;
        assert_eq!(seek.join().unwrap(), Ok(i64::try_from(object).unwrap()));
        wait_for("the count", counted);
        cluster.minisheep().control("clear");
        cluster.minisheep().control("hurry");
    }
    let replayed = mount.count("replayed");
    assert!(replayed >= rounds(3, 20), "{replayed} seeks were replayed: kills met none");
}

/// What a dead worker has asked for may make an object at any time, so until that is over the
/// volume counts as full.
#[test]
fn nothing_is_counted_while_an_object_may_still_be_made() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 64 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let blocks = || fs::metadata(mount.volume(&disk)).unwrap().blocks();
    wait_for("the count", || blocks() == 0);
    let fault = cluster.minisheep().fault("delay ms=3600000 kind=inode opcode=write count=1");
    let file = mount.open(&disk);
    let write = thread::spawn(move || file.write_all_at(b"sheep", 33 * MIB));
    wait_for("the index update to be on the wire", || cluster.minisheep().fired(&fault) == 1);
    let before = mount.count("swaps_worker_died");
    send(Signal::SIGKILL, mount.worker());
    wait_for_swap(&mount, "swaps_worker_died", before);
    write.join().unwrap().unwrap();
    assert!(mount.count("fenced_now") > 0, "nothing can be late");
    assert_eq!(blocks(), 64 * MIB / 512);
    cluster.minisheep().control("hurry");
    wait_for("the count", || blocks() == 4 * MIB / 512);
}
