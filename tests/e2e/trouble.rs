//! A sheep that is locked, unformatted, stopped or gone. On a minisheep in any case: nobody may
//! do this to a cluster that others use.

use crate::MIB;
use crate::cluster::Cluster;
use crate::control::errno;
use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::tools::{arg, output, wait_for};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use sheepfs::wire::Status;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

const READERS: usize = 1000;

fn locking() -> Cluster {
    Cluster::Mini(Minisheep::start(&["--format", "--lock"]))
}

#[test]
fn a_vdi_that_another_has_is_busy() {
    let cluster = locking();
    let disk = cluster.vdi("disk", MIB);
    let mut other = cluster.wire();
    assert_eq!(other.lock(&disk), Status::Success);
    let mount = Mount::start(&cluster, &[]);
    assert_eq!(errno(mount.write("vdi/mount", disk.as_bytes())), Some(Errno::EBUSY));
    let words = mount.status("last_error").unwrap();
    assert!(words.contains(cluster.address()), "{words}");
    let log = mount.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("is locked by")).collect();
    assert!(told.len() == 1 && told[0].contains(cluster.address()), "{log}");
    // It still is the other's.
    assert_eq!(other.lock(&disk), Status::VdiLocked);
    let vid = other.vid(&disk);
    other.release(vid);
    mount.attach(&disk);
}

/// Hazard 51: a lock outlives its client, and is taken from it only when that is asked for.
#[test]
fn the_lock_of_a_dead_client_is_taken_when_that_is_asked_for() {
    let cluster = locking();
    let (disk, free) = (cluster.vdi("disk", MIB), cluster.vdi("free", MIB));
    // The connection ends with the statement, the lock does not.
    assert_eq!(cluster.wire().lock(&disk), Status::Success);
    {
        let mount = Mount::start(&cluster, &[]);
        assert_eq!(errno(mount.write("vdi/mount", disk.as_bytes())), Some(Errno::EBUSY));
        let words = mount.status("last_error").unwrap();
        assert!(words.contains("--steal-lock"), "{words}");
    }
    let mount = Mount::start(&cluster, &["--steal-lock", "--attach", &disk]);
    mount.open(&disk).write_all_at(&[7; 4096], 0).unwrap();
    mount.attach(&free);
    for name in [&disk, &free] {
        assert_eq!(cluster.wire().lock(name), Status::VdiLocked, "it is ours now");
    }
    let log = mount.log();
    let thefts: Vec<_> = log.lines().filter(|line| line.contains("--steal-lock")).collect();
    assert_eq!(thefts.len(), 1, "only what was refused is taken: {log}");
    assert!(thefts[0].contains("WARN") && thefts[0].contains(&disk), "{}", thefts[0]);
    assert!(thefts[0].contains(cluster.address()), "{}", thefts[0]);
    mount.detach(&disk);
    assert_eq!(cluster.wire().lock(&disk), Status::Success, "and was given back");
}

/// Said once, since it is so until the cluster is formatted anew.
#[test]
fn a_cluster_without_locks_is_warned_of() {
    for (cluster, times) in [(Cluster::mini(), 1), (locking(), 0)] {
        let mount = Mount::start(&cluster, &[]);
        let before = mount.count("swaps_worker_died");
        nix::sys::signal::kill(mount.worker(), Signal::SIGKILL).unwrap();
        wait_for("a swap", || mount.count("swaps_worker_died") == before + 1);
        wait_for("the next worker", || mount.status("worker_state").as_deref() == Some("serving"));
        assert_eq!(mount.log().matches("keeps no locks").count(), times);
    }
}

/// `--no-lock`: for somebody who knows better, and is told once what that means.
#[test]
fn a_vdi_is_attached_without_its_lock_when_that_is_asked_for() {
    let cluster = locking();
    let (disk, free) = (cluster.vdi("disk", MIB), cluster.vdi("free", MIB));
    assert_eq!(cluster.wire().lock(&disk), Status::Success);
    let mount = Mount::start(&cluster, &["--no-lock", "--attach", &disk]);
    mount.attach(&free);
    assert_eq!(mount.count("volumes_unlocked"), 2);
    mount.open(&disk).write_all_at(&[7; 4096], 0).unwrap();
    // Nobody's before it is taken here, so it was not taken.
    assert_eq!(cluster.wire().lock(&free), Status::Success);
    mount.detach(&disk);
    mount.detach(&free);
    for name in [&disk, &free] {
        assert_eq!(cluster.wire().lock(name), Status::VdiLocked, "nor is it given back");
    }
    let log = mount.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("--no-lock")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("WARN"), "{log}");
}

/// Whoever gets the working VDI's lock after a snapshot keeps it: only an attach takes locks.
#[test]
fn a_volume_whose_lock_is_lost_takes_it_back_from_nobody() {
    let cluster = locking();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &["--steal-lock", "--attach", &disk]);
    cluster.snapshot(&disk, "before");
    let mut other = cluster.wire();
    assert_eq!(other.lock(&disk), Status::Success, "the new vid is nobody's at first");
    let written = mount.open(&disk).write_all_at(&[7; 512], 0);
    assert_eq!(errno(written), Some(Errno::EIO));
    assert_eq!(other.lock(&disk), Status::VdiLocked, "it still is the other's");
}

#[test]
fn the_lock_is_held_from_attach_to_detach() {
    let cluster = locking();
    let disk = cluster.vdi("disk", MIB);
    let mut other = cluster.wire();
    let mount = Mount::start(&cluster, &[]);
    for _ in 0..3 {
        mount.attach(&disk);
        assert_eq!(other.lock(&disk), Status::VdiLocked);
        mount.attach(&disk);
        mount.detach(&disk);
        assert_eq!(other.lock(&disk), Status::Success);
        let vid = other.vid(&disk);
        other.release(vid);
    }
    mount.attach(&disk);
    drop(mount);
    assert_eq!(other.lock(&disk), Status::Success, "an unmount gives the locks back");
}

#[test]
fn a_snapshot_is_attached_without_a_lock() {
    let cluster = locking();
    let disk = cluster.vdi("disk", MIB);
    cluster.snapshot(&disk, "before");
    let mount = Mount::start(&cluster, &[]);
    mount.attach(&format!("{disk}:before"));
    assert_eq!(cluster.wire().lock(&disk), Status::Success);
}

#[test]
fn a_cluster_without_a_format_says_try_again() {
    let cluster = Cluster::Mini(Minisheep::start(&[]));
    let mount = Mount::start(&cluster, &[]);
    assert_eq!(errno(mount.write("vdi/mount", b"disk")), Some(Errno::EAGAIN));
    assert_eq!(
        mount.read("cluster/info").lines().next(),
        Some("Cluster status: Waiting for cluster to be formatted")
    );
    assert!(mount.read("node/list").contains(cluster.address()));
    assert_eq!(mount.read("config/sheep_info"), format!("{}\n", cluster.address()));
}

#[test]
fn when_the_sheep_is_gone_the_mount_says_so_and_stays() {
    let mut minisheep = Minisheep::start(&["--format", "--create", "disk:8M"]);
    let cluster = Cluster::named(minisheep.address());
    let mount = Mount::start(&cluster, &[]);
    minisheep.kill();
    wait_for("the loss", || !mount.read("config/status").contains("worker_state serving"));
    assert_eq!(errno(mount.write("vdi/mount", b"disk")), Some(Errno::EHOSTUNREACH));
    for report in ["cluster/info", "node/list", "node/info", "vdi/list"] {
        assert_eq!(errno(fs::read(mount.path(report))), Some(Errno::EHOSTUNREACH), "{report}");
    }
    assert_eq!(mount.read("config/sheep_info"), format!("{}\n", cluster.address()));
    let status = mount.read("config/status");
    assert!(status.contains("last_error") && !status.contains("last_error none"), "{status}");
    // What it says is not fixed, that it says something is.
    output(Command::new("df").arg(arg(&mount.path(""))));
}

#[test]
fn a_start_without_a_sheep_says_so() {
    let mut minisheep = Minisheep::start(&["--format"]);
    let address = minisheep.address().to_owned();
    minisheep.kill();
    let dir = tempfile::tempdir().unwrap();
    for options in [&["-f"][..], &[]] {
        let result = output(Command::new(env!("CARGO_BIN_EXE_sheepfs")).args(options).args([
            "--address",
            &address,
            arg(dir.path()),
        ]));
        assert_eq!(result.status.code(), Some(69), "{}", result.stderr);
        assert!(result.stderr.contains(&address), "{}", result.stderr);
        assert!(!crate::mount::is_mounted(dir.path()));
    }
}

#[test]
fn a_volume_to_attach_that_is_missing_ends_the_start() {
    let cluster = Cluster::mini();
    let dir = tempfile::tempdir().unwrap();
    let result = output(Command::new(env!("CARGO_BIN_EXE_sheepfs")).args([
        "-f",
        "--address",
        cluster.address(),
        "--attach",
        "missing",
        arg(dir.path()),
    ]));
    assert_eq!(result.status.code(), Some(78), "{}", result.stderr);
    assert!(result.stderr.contains("missing"), "{}", result.stderr);
    assert!(!crate::mount::is_mounted(dir.path()));
}

/// Hazard 32: with the sheep stopped and a thousand reads outstanding, the control files that
/// need no sheep still answer, and when it goes on, every read ends as it should.
#[test]
fn control_files_answer_while_a_thousand_reads_wait() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    let block = |number: usize| [u8::try_from(number % 251).unwrap(); 4096];
    for number in 0..READERS {
        file.write_all_at(&block(number), number as u64 * 4096).unwrap();
    }
    cluster.minisheep().signal(Signal::SIGSTOP);
    let finished = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..READERS {
            let (file, finished) = (&file, &finished);
            let reader = thread::Builder::new().stack_size(64 << 10);
            let read = move || {
                let mut room = [0; 4096];
                file.read_exact_at(&mut room, number as u64 * 4096).unwrap();
                assert!(room == block(number));
                finished.fetch_add(1, Ordering::Relaxed);
            };
            reader.spawn_scoped(scope, read).unwrap();
        }
        wait_for("a thousand reads", || mount.read("config/status").contains("in_flight 1000\n"));
        answers_at_once(&mount, "config/sheep_info");
        answers_at_once(&mount, "config/status");
        mount.write("config/page_cache", b"0").unwrap();
        assert_eq!(finished.load(Ordering::Relaxed), 0, "a read was answered by nobody");
        cluster.minisheep().signal(Signal::SIGCONT);
    });
    assert_eq!(finished.load(Ordering::Relaxed), READERS);
}

/// Reads a control file with `cat`; how long that took is printed, and not judged here.
fn answers_at_once(mount: &Mount, file: &str) {
    let before = Instant::now();
    crate::tools::run("cat", &[arg(&mount.path(file))]);
    println!("cat {file}: {} ms, with {READERS} reads outstanding", before.elapsed().as_millis());
}

/// What was answered is there after minisheep's `kill -9`, and the mount finds the way back.
#[test]
fn the_volumes_come_back_with_the_sheep() {
    let mut minisheep = Minisheep::start(&["--format", "--create", "disk:8M"]);
    let cluster = Cluster::named(minisheep.address());
    let mount = Mount::with_volume(&cluster, "disk", &[]);
    mount.open("disk").write_all_at(&[9; 5000], 4 * MIB - 100).unwrap();
    minisheep.kill();
    wait_for("the loss", || !mount.read("config/status").contains("worker_state serving"));
    minisheep.restart(&["--format"]);
    wait_for("the way back", || mount.read("config/status").contains("worker_state serving"));
    let mut room = [0; 5000];
    mount.open("disk").read_exact_at(&mut room, 4 * MIB - 100).unwrap();
    assert_eq!(room, [9; 5000]);
    mount.open("disk").write_all_at(&[8; 10], 0).unwrap();
}
