//! The control group that holds a system, and becomes the root of the system's own.

use crate::minisheep::fail;
use crate::tools::holds_in_time;
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// A control group of the unified hierarchy, which becomes the root of the system's own.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
}

impl ControlGroup {
    /// Makes one, for a system that is to be started in it.
    ///
    /// # Panics
    /// With words when there is no unified hierarchy, or no right to it.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = unified_hierarchy().join(format!("sheepfs-test-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!("making the control group {} failed: {error}; run as root", path.display())
        });
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes of the group `below` it, named as the system in it does.
    pub fn processes_of(&self, below: &str) -> Vec<Pid> {
        processes_in(&self.path.join(below))
    }

    /// All processes in it.
    pub fn all_processes(&self) -> Vec<Pid> {
        self.with_those_below().iter().flat_map(|group| processes_in(group)).collect()
    }

    /// It and all groups below it, a parent before its children.
    fn with_those_below(&self) -> Vec<PathBuf> {
        let mut groups = vec![self.path.clone()];
        let mut next = 0;
        while let Some(group) = groups.get(next) {
            let entries = fs::read_dir(group).into_iter().flatten().flatten();
            let inner: Vec<_> = entries.map(|entry| entry.path()).filter(|p| p.is_dir()).collect();
            groups.extend(inner);
            next += 1;
        }
        groups
    }
}

impl Drop for ControlGroup {
    /// A group whose last process has just ended may be busy for a moment.
    fn drop(&mut self) {
        let mut last = Ok(());
        let removed = holds_in_time(|| {
            last = self.with_those_below().iter().rev().try_for_each(fs::remove_dir);
            last.is_ok()
        });
        if !removed {
            fail(&format!("removing the control group {} failed: {last:?}", self.path.display()));
        }
    }
}

/// Where the unified hierarchy is mounted: on its own, or beside the older ones.
fn unified_hierarchy() -> PathBuf {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified = mountinfo.lines().find(|line| line.contains(" - cgroup2 "));
    let point = unified.and_then(|line| line.split(' ').nth(4));
    point.expect("no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup").into()
}

fn processes_in(group: &Path) -> Vec<Pid> {
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.lines().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}
