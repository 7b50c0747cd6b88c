//! What is left of a predecessor of this process: workers, and a minisheep of its own,
//! that are about to die.

use crate::descriptors;
use crate::state::SavedProcess;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a worker that was killed may take to die.
const DEATH_TIME: Duration = Duration::from_secs(30);
/// The place of the start time in /proc/PID/stat, behind the name
/// (proc_pid_stat(5)).
const STARTED_AT: usize = 19;

/// What tells a process from a later one of the same number. `None`: there is none.
pub fn identity(pid: i32) -> Option<SavedProcess> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let started = behind_name.split(' ').nth(STARTED_AT)?.parse().ok()?;
    Some(SavedProcess { pid, started })
}

/// Kills the workers of a predecessor and waits for their deaths: two workers that
/// may write never live at once (hazard 4).
///
/// # Errors
/// When one does not die, or nobody can tell.
pub fn bury(workers: &[SavedProcess]) -> io::Result<()> {
    let until = Instant::now() + DEATH_TIME;
    for worker in workers {
        let Some(process) = descriptors::pidfd_open(worker.pid)? else { continue };
        // Looked at while the descriptor is there, so it is of the same process.
        if identity(worker.pid) != Some(*worker) {
            continue;
        }
        let _ = descriptors::kill_process(&process);
        wait_for_death(&process, until)?;
    }
    Ok(())
}

fn wait_for_death(process: &OwnedFd, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn workers_are_killed_and_others_of_their_number_are_not() {
        let start = || Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (mut worker, mut other) = (start(), start());
        let pid = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        let left = identity(pid(&worker)).unwrap();
        let confused = SavedProcess { started: 1, ..identity(pid(&other)).unwrap() };
        let gone = SavedProcess { pid: i32::MAX - 1, started: 1 };
        bury(&[confused, gone, left]).unwrap();
        assert!(!worker.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
    }
}
