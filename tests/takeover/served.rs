//! A mount that one supervisor serves after another.
//!
//! When it goes it must go in order, however many lives it had: the supervisor ends with success,
//! nothing is mounted, nothing is kept, no process is left. A watchdog aborts the connection when
//! a test takes for ever, so that the test fails instead of hanging.

#[path = "served/keeper.rs"]
mod keeper;
#[path = "served/lives.rs"]
mod lives;

pub use self::keeper::Keeper;
pub use self::lives::Lives;

use crate::cluster::Cluster;
use crate::minisheep::fail;
use crate::mount::tree::Tree;
use crate::mount::{children_of, is_alive, is_mounted, unmounted, workers_of};
use crate::tools::{holds_in_time, wait_for};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// After so long a test hangs.
const LIFE_SECONDS_MAX: u64 = 400;

/// Whoever starts supervisors and keeps descriptors for them.
pub trait Manager {
    /// Starts the first one, with `options`, for the mount point in `dir`.
    fn start(dir: &Path, options: &[&str]) -> Self;
    /// The supervisor's process: it may be dead already, and there may be none.
    fn supervisor(&self) -> Option<Pid>;
    /// Waits until the supervisor `before` is dead, and another one is started.
    fn start_next(&mut self, before: Pid);
    /// Waits until the last supervisor has ended, and looks whether that was in order.
    fn assert_ended(&mut self);
    /// Ends all by force.
    fn abandon(&mut self);
    /// What was logged, where that can be read.
    fn log(&self) -> String;
}

/// A mount, under a manager.
#[derive(Debug)]
pub struct Served<M: Manager> {
    manager: M,
    tree: Tree,
    dir: TempDir,
    /// Dropped with the mount, which ends the watchdog.
    _watchdog: Sender<()>,
}

/// Where the mount is, below the directory of a [`Served`].
pub fn point_in(dir: &Path) -> PathBuf {
    dir.join("mount")
}

impl<M: Manager> Served<M> {
    /// Mounts what is at the sheep of `cluster`, and attaches `volumes`.
    pub fn start(cluster: &Cluster, volumes: &[&str], options: &[&str]) -> Self {
        Self::start_by(cluster, volumes, options, M::start)
    }

    /// As [`Served::start`], with a manager that begins as `start` says.
    pub fn start_by(
        cluster: &Cluster,
        volumes: &[&str],
        options: &[&str],
        start: impl FnOnce(&Path, &[&str]) -> M,
    ) -> Self {
        let attach = volumes.iter().flat_map(|name| ["--attach", name]);
        let address = ["--address", cluster.address()];
        let options: Vec<_> =
            address.into_iter().chain(attach).chain(options.iter().copied()).collect();
        let dir = tempfile::tempdir().unwrap();
        let point = point_in(dir.path());
        fs::create_dir(&point).unwrap();
        let manager = start(dir.path(), &options);
        let watchdog = watch(point.clone());
        let served = Self { manager, tree: Tree::at(&point), dir, _watchdog: watchdog };
        wait_for("the mount", || is_mounted(&point));
        served
    }

    /// A directory outside the mount that lives as long as it.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The supervisor's process.
    pub fn supervisor(&self) -> Pid {
        self.manager.supervisor().expect("a supervisor")
    }

    /// The worker's process: the eldest, since a spare one was started after it.
    pub fn worker(&self) -> Option<Pid> {
        workers_of(self.manager.supervisor()?).first().copied()
    }

    /// Sends the supervisor a signal that ends it, and has the next one started.
    pub fn replace(&mut self, signal: Signal) {
        let before = self.supervisor();
        kill(before, signal).unwrap();
        self.manager.start_next(before);
        assert_ne!(self.supervisor(), before, "the fault did not happen");
    }

    /// Waits until the next supervisor serves.
    pub fn wait_for_take_over(&self, before: u64) {
        wait_for("the take-over", || self.count("takeovers") > before);
    }

    /// Replaces the supervisor, and waits until the next one serves.
    pub fn take_over(&mut self, signal: Signal) {
        let before = self.count("takeovers");
        self.replace(signal);
        self.wait_for_take_over(before);
    }

    /// What mountinfo says of the mount: its id, and the number of its device.
    pub fn mounted(&self) -> Mounted {
        Mounted::find(self.tree.point()).expect("a mount")
    }

    /// Kills the supervisor, and has no other one started.
    pub fn kill(&self) {
        kill(self.supervisor(), Signal::SIGKILL).unwrap();
    }

    /// Unmounts, after which all must end in order.
    fn end(&mut self) {
        let children = self.manager.supervisor().map(children_of).unwrap_or_default();
        if !holds_in_time(|| unmounted(self.tree.point())) {
            self.give_up();
            return fail(&format!("{} stays busy", self.tree.point().display()));
        }
        self.manager.assert_ended();
        let left = || children.iter().filter(|pid| is_alive(**pid)).count();
        assert!(holds_in_time(|| left() == 0), "left behind, of {children:?}: {}", left());
    }

    fn give_up(&mut self) {
        println!("--- the supervisors' log\n{}", self.manager.log());
        give_up(self.tree.point());
        self.manager.abandon();
    }
}

impl<M: Manager> Deref for Served<M> {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.tree
    }
}

/// The manager itself, for what only one kind of it can do.
impl<M: Manager> Served<M> {
    /// The manager.
    pub fn manager(&self) -> &M {
        &self.manager
    }

    /// The manager.
    pub fn manager_mut(&mut self) -> &mut M {
        &mut self.manager
    }
}

impl<M: Manager> Drop for Served<M> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.give_up();
        } else if is_mounted(self.tree.point()) {
            self.end();
        }
    }
}

/// A mount as mountinfo has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The mount's number.
    pub id: u64,
    /// The device's minor number, which is the connection's name in fusectl.
    pub connection: u32,
}

impl Mounted {
    /// The one at `point`, if there is one; never touches it.
    pub fn find(point: &Path) -> Option<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let lines = mountinfo.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut found: Vec<_> = lines.filter(|words| words[4] == point.to_str().unwrap()).collect();
        let words = found.pop()?;
        assert!(found.is_empty(), "one above the other");
        assert!(words.contains(&"fuse.sheepfs"), "{words:?}");
        let (_, connection) = words[2].split_once(':').unwrap();
        Some(Self { id: words[0].parse().unwrap(), connection: connection.parse().unwrap() })
    }
}

/// How a supervisor ended, in words that a failure shows.
pub fn assert_success(ended: ExitStatus, log: &str) {
    assert!(ended.success(), "sheepfs ended with {ended}\n{log}");
}

/// Aborts the connection unless the returned sender is dropped in time.
fn watch(point: PathBuf) -> Sender<()> {
    let (sender, receiver) = channel::<()>();
    thread::spawn(move || {
        let life = Duration::from_secs(LIFE_SECONDS_MAX);
        if receiver.recv_timeout(life) == Err(RecvTimeoutError::Timeout) {
            println!("a test hangs: aborting its mount after {LIFE_SECONDS_MAX} s");
            give_up(&point);
        }
    });
    sender
}

/// Aborts the connection, so that nobody waits for it, and detaches the mount.
pub fn give_up(point: &Path) {
    let _ = umount2(point, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
}
