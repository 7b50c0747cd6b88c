//! What the processes have in memory under full load.

use crate::MIB;
use crate::cluster::Cluster;
use crate::copies::copy;
use crate::mount::Mount;
use crate::random::Random;
use nix::unistd::Pid;
use sheepfs::wire::request::NewVdi;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Of a supervisor, whose memory is locked: a FUSE thread has 16 MiB.
const SUPERVISOR_KIB_MAX: u64 = 56 << 10;
const WORKER_KIB_MAX: u64 = 32 << 10;
/// What both share, of which each worker has one.
const ARENA_KIB_MAX: u64 = 32 << 10;
const DISK_BYTES: u64 = 256 * MIB;
const LARGE: usize = 1 << 20;
/// Programs with a large request each. What the arena has no room for is held besides, up to
/// a bound of its own, and counted as `queued_bytes`: that is another test's.
const LARGE_PROGRAMS: u64 = 24;
const SMALL_PROGRAMS: u64 = 64;
/// A build for debugging has three times as much code.
const CODE_KIB: u64 = if cfg!(debug_assertions) { 8 << 10 } else { 0 };
const ROUNDS: u64 = 24;
/// Twice as many as the worker has buffers for.
const COPIES: u64 = 16;
const COPY_LEN: usize = 16 << 20;

/// What a process has of its own and of the files that it is made of: not the arena, and not
/// the state that it leaves behind.
fn own_kib(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let value = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    value("RssAnon:") + value("RssFile:")
}

/// Bytes of the arena that a worker has mapped.
fn arena_kib(worker: Pid) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
    let arenas = maps.lines().filter(|line| line.contains("/memfd:")).map(|line| {
        let (first, rest) = line.split_once('-').unwrap();
        let (end, _) = rest.split_once(' ').unwrap();
        let [first, end] = [first, end].map(|number| u64::from_str_radix(number, 16).unwrap());
        (end - first) >> 10
    });
    arenas.sum()
}

/// Writes and reads all over a volume, in pieces of `len` bytes.
fn churn(mount: &Mount, disk: &str, len: usize, program: u64) {
    let file = mount.open(disk);
    let mut piece = vec![program as u8; len];
    for round in 0..ROUNDS {
        let place = (program * 7919 + round * 104_729) * len as u64 % (DISK_BYTES - MIB);
        let place = place - place % 4096;
        if round % 2 == 0 {
            file.write_all_at(&piece, place).unwrap();
        } else {
            file.read_exact_at(&mut piece, place).unwrap();
        }
    }
}

/// Large and small requests of many programs at once, as many as go, without the object cache.
#[test]
fn full_load_stays_within_the_promised_memory() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", DISK_BYTES);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let worker = mount.worker();
    let is_over = AtomicBool::new(false);
    let (mut supervisor_most, mut worker_most, mut in_flight_most) = (0, 0, 0);
    thread::scope(|scope| {
        let large = (0..LARGE_PROGRAMS).map(|program| (LARGE, program));
        let small = (0..SMALL_PROGRAMS).map(|program| (4096, 100 + program));
        let (mount, disk, is_over) = (&mount, &disk, &is_over);
        let programs: Vec<_> = large
            .chain(small)
            .map(|(len, program)| scope.spawn(move || churn(mount, disk, len, program)))
            .collect();
        scope.spawn(move || {
            programs.into_iter().for_each(|program| program.join().unwrap());
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            supervisor_most = own_kib(mount.supervisor()).max(supervisor_most);
            worker_most = own_kib(worker).max(worker_most);
            in_flight_most = mount.count("in_flight").max(in_flight_most);
        }
    });
    println!(
        "with {in_flight_most} in flight: supervisor {supervisor_most} KiB, worker {worker_most} \
         KiB, arena {} KiB",
        arena_kib(worker)
    );
    assert_eq!(mount.worker(), worker, "another worker");
    assert!(in_flight_most > 32, "no full load: {in_flight_most} in flight");
    assert!(supervisor_most <= SUPERVISOR_KIB_MAX + CODE_KIB, "supervisor: {supervisor_most} KiB");
    assert!(worker_most <= WORKER_KIB_MAX + CODE_KIB, "worker: {worker_most} KiB");
    assert!((1..=ARENA_KIB_MAX).contains(&arena_kib(worker)), "{} KiB", arena_kib(worker));
}

/// The worker has so much memory for copies, however much is copied at once. The kernel makes
/// one copy at a time into a volume, so these go to many.
#[test]
fn copies_stay_within_the_promised_memory() {
    let cluster = Cluster::start();
    let new = |size| NewVdi { size, block_size_shift: 20, ..NewVdi::default() };
    let from = cluster.vdi_with("from", &new(32 * MIB));
    let mount = Mount::with_volume(&cluster, &from, &[]);
    let bytes = Random::announced().bytes(32 << 20);
    mount.open(&from).write_all_at(&bytes, 0).unwrap();
    let copy_of = |nth| cluster.vdi_with(&format!("to{nth}"), &new(COPY_LEN as u64));
    let disks: Vec<_> = (0..COPIES).map(copy_of).collect();
    disks.iter().for_each(|disk| mount.attach(disk));
    let worker = mount.worker();
    let (mut worker_most, mut in_flight_most) = (0, 0);
    thread::scope(|scope| {
        let (mount, from) = (&mount, &from);
        let copies = (0..).zip(&disks).map(|(nth, to)| {
            let (source, target) = (mount.open(from), mount.open(to));
            scope.spawn(move || copy(&source, nth * MIB, &target, 0, COPY_LEN))
        });
        let copies: Vec<_> = copies.collect();
        while !copies.iter().all(|copy| copy.is_finished()) {
            worker_most = own_kib(worker).max(worker_most);
            in_flight_most = mount.count("in_flight").max(in_flight_most);
        }
    });
    println!("with {in_flight_most} in flight: worker {worker_most} KiB");
    assert_eq!(mount.worker(), worker, "another worker");
    assert!(in_flight_most > 8, "too few at once: {in_flight_most} in flight");
    assert!(worker_most <= WORKER_KIB_MAX + CODE_KIB, "worker: {worker_most} KiB");
    for (nth, to) in (0..).zip(&disks) {
        let copied = &bytes[nth * MIB as usize..][..COPY_LEN];
        assert!(fs::read(mount.volume(to)).unwrap() == copied, "{to} differs");
    }
}
