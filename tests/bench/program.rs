//! A file system under test: a process that was started, its mount, and the processes that belong
//! to it. Unmounted and ended when dropped.

use crate::results::{Failure, Group};
use nix::mount::{MntFlags, umount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READY_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// A running file system.
#[derive(Debug)]
pub struct Program {
    child: Child,
    dir: TempDir,
}

impl Program {
    /// Starts what `command` makes of a mount point, and waits until that is mounted. The
    /// program's directory is one of its own; what it says is in a file there.
    pub fn start(command: impl FnOnce(&Path) -> Command) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let point = dir.path().join("mount");
        fs::create_dir(&point)?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = command(&point);
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let mut program = Self { child, dir };
        program.wait(READY_WITHIN, "the mount", |program| is_mounted(&program.point()))?;
        Ok(program)
    }

    /// Waits until `condition` holds.
    pub fn wait(
        &mut self,
        within: Duration,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + within;
        while !condition(self) {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended with {status}:\n{}", self.log()).into());
            }
            if Instant::now() > deadline {
                let seconds = within.as_secs();
                return Err(format!("waited {seconds} s for {what}:\n{}", self.log()).into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Where it is mounted.
    pub fn point(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// Its processes that live: the one that was started, and those that it has started, the
    /// eldest first.
    pub fn processes(&self) -> Vec<(Group, Pid)> {
        let Ok(pid) = i32::try_from(self.child.id()) else { return Vec::new() };
        let mut processes = vec![(Group::Supervisor, Pid::from_raw(pid))];
        let mut workers = children_of(pid);
        workers.sort_by_key(|pid| pid.as_raw());
        processes.extend(workers.into_iter().map(|pid| (Group::Worker, pid)));
        processes
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn ended(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return true;
            }
            thread::sleep(PAUSE);
        }
        false
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let deadline = Instant::now() + END_WITHIN;
        while umount(&self.point()).is_err() && is_mounted(&self.point()) {
            if Instant::now() > deadline {
                eprintln!("bench: {} stays busy, detaching it", self.point().display());
                let _ = umount2(&self.point(), MntFlags::MNT_DETACH);
                break;
            }
            thread::sleep(PAUSE);
        }
        if self.ended(END_WITHIN) {
            return;
        }
        eprintln!("bench: a file system does not end after its unmount, ending it");
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Whether the kernel lists a mount at `point`; never touches the mount itself.
fn is_mounted(point: &Path) -> bool {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mountinfo.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}

fn children_of(parent: i32) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = lists.flat_map(|list| {
        let words = list.split_whitespace().filter_map(|word| word.parse().ok());
        words.map(Pid::from_raw).collect::<Vec<_>>()
    });
    pids.collect()
}
