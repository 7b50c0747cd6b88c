//! Volumes come and go while the worker or the sheep dies: each is there once, or not at all, and
//! its lock says the same.

use crate::MIB;
use crate::mount::Mount;
use crate::random::Random;
use crate::rounds::rounds;
use crate::site::{Site, random_while, send, wait_until_serving};
use crate::tools::{holds_in_time, wait_for};
use nix::sys::signal::{Signal, kill};
use sheepfs::wire::Status;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

const INSTANT_MAX: Duration = Duration::from_millis(15);

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Sheep,
}

/// What becomes of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Mount,
    Unmount,
}

impl Change {
    fn file(self) -> &'static str {
        match self {
            Self::Mount => "vdi/mount",
            Self::Unmount => "vdi/unmount",
        }
    }
}

/// Writes to the control file, and has the victim die at some instant of that.
fn crash_during(
    site: &mut Site,
    mount: &Mount,
    disk: &str,
    change: Change,
    victim: Victim,
    random: &mut Random,
) -> std::io::Result<usize> {
    let sheep = site.in_use(mount);
    let done = thread::scope(|scope| {
        let change = scope.spawn(|| mount.write(change.file(), disk.as_bytes()));
        random_while(random, INSTANT_MAX);
        match victim {
            // It may be gone by itself, if its sheep was.
            Victim::Worker => drop(kill(mount.worker(), Signal::SIGKILL)),
            Victim::Sheep => site.gateways[sheep].kill(),
        }
        change.join().unwrap()
    });
    if victim == Victim::Sheep {
        site.gateways[sheep].restart();
    }
    done
}

/// Fails unless the volume is there once and locked, or neither.
fn assert_consistent(site: &Site, mount: &Mount, disk: &str, words: &str) {
    let listed = fs::read_dir(mount.path("volume")).unwrap().count();
    let is_there = mount.volume(disk).exists();
    assert_eq!(listed, usize::from(is_there), "{words}");
    assert_eq!(mount.count("volumes"), listed as u64, "{words}");
    let mut wire = site.cluster.wire();
    let mut answer = Status::Success;
    // A lock may be given back a moment after the answer.
    let fits = holds_in_time(|| {
        answer = wire.lock(disk);
        if answer == Status::Success {
            let vid = wire.vid(disk);
            wire.release(vid);
        }
        answer == if is_there { Status::VdiLocked } else { Status::Success }
    });
    assert!(fits, "{words}: there: {is_there}, another's lock: {answer:?}\n{}", mount.log());
}

fn crashes(victim: Victim, times: u64) {
    let mut site = Site::start_with(2, &["--format", "--lock"]);
    let disk = site.cluster.vdi("disk", 4 * MIB);
    let through = site.through(0);
    let mount = Mount::start(&through, &[]);
    let mut random = Random::announced();
    let (mut done, mut refused) = (0, 0);
    for round in 0..times {
        wait_until_serving(&mount);
        wait_for("both candidates", || mount.count("candidates") >= 2);
        let change = if mount.volume(&disk).exists() { Change::Unmount } else { Change::Mount };
        let generation = mount.count("worker_generation");
        let written = crash_during(&mut site, &mount, &disk, change, victim, &mut random);
        wait_for("the next worker", || mount.count("worker_generation") > generation);
        wait_until_serving(&mount);
        let words = format!("round {round}: {victim:?} died in {change:?}: {written:?}");
        assert_consistent(&site, &mount, &disk, &words);
        let was_done = mount.volume(&disk).exists() == (change == Change::Mount);
        assert!(was_done || written.is_err(), "{words}: it claims success");
        if was_done { done += 1 } else { refused += 1 }
    }
    println!("{victim:?}: {done} were done, {refused} refused");
    assert!(done > 0, "no change came through");
    if !mount.volume(&disk).exists() {
        mount.attach(&disk);
    }
    mount.open(&disk).write_all_at(&[7; 4096], 0).unwrap();
    mount.detach(&disk);
    assert_eq!(site.cluster.wire().lock(&disk), Status::Success);
}

#[test]
fn a_worker_that_dies_while_volumes_come_and_go() {
    crashes(Victim::Worker, rounds(16, 100));
}

#[test]
fn a_sheep_that_dies_while_volumes_come_and_go() {
    crashes(Victim::Sheep, rounds(8, 100));
}

/// A lock is ours, whoever of our workers took it: a swap needs no second one.
#[test]
fn locks_outlive_workers_and_sheep() {
    let mut site = Site::start_with(2, &["--format", "--lock"]);
    let disk = site.cluster.vdi("disk", 4 * MIB);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    for _ in 0..2 {
        let generation = mount.count("worker_generation");
        send(Signal::SIGKILL, mount.worker());
        wait_for("the next worker", || mount.count("worker_generation") > generation);
        wait_until_serving(&mount);
        assert_eq!(site.cluster.wire().lock(&disk), Status::VdiLocked);
        mount.open(&disk).write_all_at(&[7; 4096], 0).unwrap();
    }
    let victim = site.in_use(&mount);
    wait_for("both candidates", || mount.count("candidates") >= 2);
    site.gateways[victim].kill();
    wait_for("the loss", || mount.count("swaps_sheep_lost") > 0);
    wait_until_serving(&mount);
    assert_eq!(site.cluster.wire().lock(&disk), Status::VdiLocked);
    mount.open(&disk).write_all_at(&[8; 4096], 0).unwrap();
    site.gateways[victim].restart();
    mount.detach(&disk);
    assert_eq!(site.cluster.wire().lock(&disk), Status::Success);
}
