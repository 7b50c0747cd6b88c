//! The supervisor as the keeper's child.
//!
//! It finds in its environment what a service of systemd's finds. Among that is its
//! own process number, which its parent does not know before it runs: so it is
//! started in a role in which it only writes that down and starts the program once
//! more in its own place.

use super::lives::Exit;
use super::store::Store;
use crate::background::{BackgroundError, Role};
use crate::descriptors::pidfd_of;
use command_fds::CommandFdExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

/// In the process that the keeper has started, before anything else: becomes the
/// supervisor. Its result says why it could not.
pub fn become_supervisor() -> BackgroundError {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(cause) => return BackgroundError::Start("itself".to_owned(), cause),
    };
    let pid = process::id().to_string();
    let mut command = Role::Supervisor.command(&program);
    for (counted, owner) in [("LISTEN_FDS", "LISTEN_PID"), ("WATCHDOG_USEC", "WATCHDOG_PID")] {
        match env::var_os(counted) {
            Some(_) => command.env(owner, &pid),
            None => command.env_remove(owner),
        };
    }
    BackgroundError::Start(program.display().to_string(), command.exec())
}

/// A supervisor that was started and not buried.
#[derive(Debug)]
pub struct Supervisor {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    since: Instant,
}

impl Supervisor {
    /// Starts one, with all that is in the store.
    ///
    /// # Errors
    /// When there is no process to be had, or no way to see its end.
    pub fn start(
        mut command: Command,
        address: &str,
        store: &Store,
        watchdog: Duration,
    ) -> io::Result<Self> {
        crate::notify::hide_from(&mut command)
            .env("NOTIFY_SOCKET", address)
            .env("WATCHDOG_USEC", watchdog.as_micros().to_string())
            .stdin(Stdio::null());
        if !store.is_empty() {
            command.env("LISTEN_FDS", store.len().to_string());
            command.env("LISTEN_FDNAMES", store.names());
        }
        command.fd_mappings(store.mappings()?).map_err(io::Error::other)?;
        let mut child = command.spawn()?;
        let watched = pidfd_of(&child).and_then(|pidfd| Ok((pidfd, number(&child)?)));
        match watched {
            Ok((pidfd, pid)) => Ok(Self { child, pid, pidfd, since: Instant::now() }),
            Err(cause) => {
                let _ = child.kill().and_then(|()| child.wait());
                Err(cause)
            }
        }
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Becomes readable when it is dead.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Sends it a signal.
    pub fn send(&self, signal: Signal) {
        // It fails only for one that is dead, which is noticed otherwise: until it is
        // buried its number is nobody else's.
        let _ = kill(self.pid, signal);
    }

    /// How it ended, when it is known to be dead.
    pub fn bury(mut self) -> Exit {
        self.child.wait().map_or(Exit::NotStarted, Exit::from)
    }
}

fn number(child: &Child) -> io::Result<Pid> {
    i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)
}
