//! What attached volumes and the caches cost, and what the caches save.

use crate::cluster::Cluster;
use crate::holes::wait_until_counted;
use crate::mount::Mount;
use crate::tools::wait_for;
use crate::{KIB, MIB};
use nix::unistd::Pid;
use sheepfs::wire::inode::INODE_HEADER_LEN;
use std::fs;
use std::os::unix::fs::FileExt;

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

/// minisheep only, since only its answers can be counted here: an attach reads the header once.
/// Afterwards the index is read once, in few large pieces, each with the header, to count what
/// is stored.
#[test]
fn an_attach_reads_the_header_and_counting_reads_the_index_once() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 << 40);
    let mount = Mount::start(&cluster, &[]);
    let before = cluster.minisheep().served("ReadObj");
    mount.attach(&disk);
    wait_until_counted(&mount, &disk);
    let reads = cluster.minisheep().served("ReadObj") - before;
    let pieces = (4 * MIB) / (256 * KIB);
    assert_eq!(reads, 1 + 2 * pieces, "an attach needs {INODE_HEADER_LEN} bytes of the inode");
}

/// How many reads of data objects it takes to read the same block twice.
fn reads_of_one_block(cluster: &Cluster, mount: &Mount, disk: &str) -> u64 {
    let before = cluster.minisheep().served("ReadObj");
    for _ in 0..2 {
        mount.open(disk).read_exact_at(&mut [0; 4096], MIB).unwrap();
    }
    cluster.minisheep().served("ReadObj") - before
}

/// minisheep only, since only its answers can be counted here.
#[test]
fn the_object_cache_saves_reads_while_it_is_on() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.open(&disk).write_all_at(&[1; 2 << 20], 0).unwrap();
    assert_eq!(reads_of_one_block(&cluster, &mount, &disk), 2);
    mount.write("config/object_cache", b"1").unwrap();
    assert_eq!(reads_of_one_block(&cluster, &mount, &disk), 1);
    assert_eq!(reads_of_one_block(&cluster, &mount, &disk), 0);
    // The worker says so within a second, when it is asked nothing more too.
    wait_for("three hits", || mount.count("cache_hits") == 3);
    assert_eq!(mount.count("cache_misses"), 1);
    assert_eq!(mount.count("cache_hit_percent"), 75);
    assert_eq!(mount.count("cache_bytes"), 4096);
    mount.write("config/object_cache", b"0").unwrap();
    assert_eq!(reads_of_one_block(&cluster, &mount, &disk), 2);
    wait_for("an empty cache", || mount.count("cache_bytes") == 0);
}

#[test]
fn the_page_cache_saves_reads_while_it_is_on() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.write("config/page_cache", b"1").unwrap();
    mount.open(&disk).write_all_at(&[1; 2 << 20], 0).unwrap();
    mount.reattach(&disk);
    let file = mount.open(&disk);
    let reads = || {
        let before = cluster.minisheep().served("ReadObj");
        file.read_exact_at(&mut [0; 4096], MIB).unwrap();
        cluster.minisheep().served("ReadObj") - before
    };
    assert!(reads() > 0);
    assert_eq!(reads(), 0);
    mount.write("config/page_cache", b"0").unwrap();
    assert_eq!(reads(), 0, "a file that is open goes on as it was opened");
    drop(file);
    wait_for("a close", || reads_of_one_block(&cluster, &mount, &disk) == 2);
}

#[test]
fn the_object_cache_stays_within_its_size() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 96 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["-o", "--cache-size", "8M"]);
    let piece = vec![3; 1 << 20];
    let file = mount.open(&disk);
    (0..96).for_each(|number| file.write_all_at(&piece, number * MIB).unwrap());
    let before = private_kib(mount.worker());
    assert!(fs::read(mount.volume(&disk)).unwrap().iter().all(|byte| *byte == 3));
    let grown = private_kib(mount.worker()).saturating_sub(before);
    println!("a cache of 8 MiB costs {grown} KiB");
    assert!(grown < 16 << 10, "a cache of 8 MiB costs {grown} KiB");
}
