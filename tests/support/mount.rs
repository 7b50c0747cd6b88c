//! A mounted sheepfs, started as a user would start it.
//!
//! It is ready when the kernel lists the mount, and when it goes it must go in order: sheepfs
//! ends with success, the mount is gone, and no process is left. When the test fails, the log is
//! printed. A watchdog kills sheepfs when a test takes for ever: then the kernel ends all that
//! waits for the mount, and the test fails instead of hanging.

#[path = "tree.rs"]
pub mod tree;

use self::tree::Tree;
use crate::cluster::Cluster;
use crate::minisheep::fail;
use crate::tools::{arg, holds_in_time, start, wait_for, wait_until};
use nix::mount::{MntFlags, umount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// After so long a test hangs.
const LIFE_SECONDS_MAX: u64 = 400;
const STOP_SECONDS_MAX: u64 = 30;

/// A mounted sheepfs.
#[derive(Debug)]
pub struct Mount<'a> {
    child: Child,
    dir: TempDir,
    tree: Tree,
    /// Dropped with the mount, which ends the watchdog.
    _watchdog: Sender<()>,
    /// The mount goes before its cluster does.
    _cluster: PhantomData<&'a Cluster>,
}

impl<'a> Mount<'a> {
    /// Mounts `cluster` with `options`, and waits until the mount is ready.
    pub fn start(cluster: &'a Cluster, options: &[&str]) -> Self {
        Self::start_by(&[], &[&["--address", cluster.address()], options].concat())
    }

    /// Mounts with `options`, which name a sheep; `before` are the words of a program that
    /// starts what follows them, in a namespace for example.
    pub fn start_by(before: &[&str], options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("mount");
        fs::create_dir(&point).unwrap();
        let child = spawn(before, &dir.path().join("log"), &point, options);
        let watchdog = watch(pid_of(&child));
        let tree = Tree::at(&point);
        let mut mount = Self { child, dir, tree, _watchdog: watchdog, _cluster: PhantomData };
        mount.wait_until_ready();
        mount
    }

    /// Mounts with that volume attached.
    pub fn with_volume(cluster: &'a Cluster, volume: &str, options: &[&str]) -> Self {
        let mount = Self::start(cluster, options);
        mount.attach(volume);
        mount
    }

    fn wait_until_ready(&mut self) {
        let (point, child) = (self.tree.point(), &mut self.child);
        wait_for("the mount", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "sheepfs ended: {ended:?}");
            is_mounted(point)
        });
    }

    /// What sheepfs logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A directory outside the mount that lives as long as it.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The supervisor's process.
    pub fn supervisor(&self) -> Pid {
        pid_of(&self.child)
    }

    /// The worker's process: the eldest, since a spare one was started after it.
    pub fn worker(&self) -> Pid {
        self.workers().first().copied().expect("sheepfs has a worker")
    }

    /// The workers that live, the eldest first.
    pub fn workers(&self) -> Vec<Pid> {
        workers_of(self.supervisor())
    }

    fn stop(&mut self) {
        let children = children_of(self.supervisor());
        if !holds_in_time(|| unmounted(self.tree.point())) {
            self.abandon();
            fail(&format!("{} stays busy", self.tree.point().display()));
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        match wait_until(&mut self.child, deadline) {
            Some(status) if status.success() => {}
            other => {
                self.abandon();
                fail(&format!("sheepfs ended so after an unmount: {other:?}\n{}", self.log()));
            }
        }
        let left = || children.iter().filter(|pid| is_alive(**pid)).count();
        if !holds_in_time(|| left() == 0) {
            fail(&format!("sheepfs left processes behind, of {children:?}"));
        }
    }

    /// Ends it by force.
    fn abandon(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = umount2(self.tree.point(), MntFlags::MNT_DETACH);
    }
}

impl Deref for Mount<'_> {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- sheepfs's log\n{}", self.log());
            self.abandon();
        } else {
            self.stop();
        }
    }
}

fn spawn(before: &[&str], log: &Path, point: &Path, options: &[&str]) -> Child {
    let log = File::create(log).unwrap();
    // A test run that is killed takes its mounts with it.
    start(
        Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .args(before)
            .args([env!("CARGO_BIN_EXE_sheepfs"), "-f"])
            .args(options)
            .arg(arg(point))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log),
    )
}

/// Kills `supervisor` unless the returned sender is dropped in time.
fn watch(supervisor: Pid) -> Sender<()> {
    let (sender, receiver) = channel::<()>();
    thread::spawn(move || {
        let life = Duration::from_secs(LIFE_SECONDS_MAX);
        if receiver.recv_timeout(life) == Err(RecvTimeoutError::Timeout) {
            println!("a test hangs: killing sheepfs after {LIFE_SECONDS_MAX} s");
            let _ = kill(supervisor, Signal::SIGKILL);
        }
    });
    sender
}

/// The workers of a supervisor that live, the eldest first.
pub fn workers_of(supervisor: Pid) -> Vec<Pid> {
    let mut workers = children_of(supervisor);
    workers.retain(|pid| name_of(*pid) == "sheepfs-worker" && is_alive(*pid));
    workers.sort_by_key(|pid| started_at(*pid));
    workers
}

/// Unmounts, if that can be; whether nothing is mounted there then.
pub fn unmounted(point: &Path) -> bool {
    let _ = umount(point);
    !is_mounted(point)
}

/// Whether the kernel lists a mount at `point`; never touches the mount itself.
pub fn is_mounted(point: &Path) -> bool {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mountinfo.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}

/// A child's process.
pub fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// What a process has started.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .map(Pid::from_raw)
        .collect()
}

/// The name that a process goes by.
pub fn name_of(pid: Pid) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Whether a process runs; one that only waits to be reaped does not.
pub fn is_alive(pid: Pid) -> bool {
    stat_of(pid).first().is_some_and(|state| state != "Z")
}

/// When a process was started, in the kernel's ticks.
fn started_at(pid: Pid) -> u64 {
    stat_of(pid).get(19).map_or(u64::MAX, |ticks| ticks.parse().unwrap())
}

/// The words of `/proc/PID/stat` from the third on, which is the state; none when it is gone.
fn stat_of(pid: Pid) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split_whitespace().map(str::to_owned).collect()
}
