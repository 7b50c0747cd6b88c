//! A search for data that is under way when the supervisor dies.

use crate::MIB;
use crate::cluster::Cluster;
use crate::served::{Lives, Served};
use crate::tools::wait_for;
use nix::sys::signal::Signal;
use nix::unistd::{Whence, lseek};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;

/// The kernel delivers it again, and the next worker finds out anew. The objects are counted
/// again too.
#[test]
fn a_seek_is_answered_by_the_successor() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 64 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    served.open(&disk).write_all_at(b"sheep", 33 * MIB).unwrap();
    let blocks = |served: &Served<Lives>| fs::metadata(served.volume(&disk)).unwrap().blocks();
    wait_for("the count", || blocks(&served) == 4 * MIB / 512);
    // For ever, or until `hurry`.
    let fault = cluster.minisheep().fault("delay ms=3600000 kind=inode opcode=read count=1");
    let file = served.open(&disk);
    let seek = thread::spawn(move || lseek(&file, 5, Whence::SeekData));
    wait_for("the seek to be on the wire", || cluster.minisheep().fired(&fault) == 1);
    assert_eq!(served.count("in_flight"), 1);
    served.take_over(Signal::SIGKILL);
    assert_eq!(seek.join().unwrap(), Ok(32 << 20));
    wait_for("the count", || blocks(&served) == 4 * MIB / 512);
    cluster.minisheep().control("hurry");
}
