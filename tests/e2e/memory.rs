//! What attached volumes cost.

use crate::cluster::Cluster;
use crate::mount::Mount;
use nix::unistd::Pid;
use sheepfs::wire::inode::INODE_HEADER_LEN;
use std::fs;

const VOLUMES: usize = 100;
const COST_KIB_MAX: u64 = 16 << 10;

/// The memory of a process that is in no file, in KiB.
fn private_kib(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Volumes of the largest size there is, whose inodes are 12 MiB each.
#[test]
fn a_hundred_untouched_volumes_cost_next_to_nothing() {
    let cluster = Cluster::start();
    let names: Vec<_> =
        (0..VOLUMES).map(|number| cluster.vdi(&format!("disk{number}"), 4 << 40)).collect();
    let mount = Mount::start(&cluster, &["-o"]);
    let worker = mount.worker();
    let before = private_kib(worker);
    for name in &names {
        mount.attach(name);
    }
    let cost = private_kib(worker).saturating_sub(before);
    println!("{VOLUMES} volumes cost {cost} KiB");
    assert_eq!(mount.worker(), worker);
    assert!(cost < COST_KIB_MAX, "{VOLUMES} volumes cost {cost} KiB");
}

/// minisheep only, since only its answers can be counted here: an attach reads the header once
/// and nothing else of the inode.
#[test]
fn an_attach_reads_the_header_and_no_more() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 << 40);
    let mount = Mount::start(&cluster, &[]);
    let before = cluster.minisheep().served("ReadObj");
    mount.attach(&disk);
    let reads = cluster.minisheep().served("ReadObj") - before;
    assert_eq!(reads, 1, "an attach needs {INODE_HEADER_LEN} bytes of the inode");
}
