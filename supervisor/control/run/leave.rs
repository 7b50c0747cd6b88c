//! Leaving the mount to a successor: to another process, or to this one as the program
//! that is installed now.
//!
//! Nothing is dropped on the way: what waits in memory is delivered again by the
//! kernel, and a parked reply that is dropped would answer an error (hazard 55).

use super::keep::BARRIER_TIME;
use super::{Input, Leave, Shell, workers::WORKER_STOP_SECONDS};
use crate::descriptors::FIRST_FD;
use crate::events::Event;
use crate::exit::Status;
use crate::notify::{self, StoredName};
use crate::programs;
use crate::spawn::wait_or_kill;
use command_fds::{CommandFdExt, FdMapping};
use nix::libc;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::thread;

/// How long the installed program may take to look at the state.
const CHECK_SECONDS: u64 = 10;

impl Shell {
    /// Asks the program that is installed now whether it can go on with the state. On
    /// a thread of its own, since it takes its time; nothing is given up before.
    pub(super) fn check_upgrade(&mut self) -> Input {
        if self.mount.is_none() {
            tracing::warn!("there is no mount yet to go on with");
            return Input::Tick;
        }
        if let Some(manager) = &self.parts.manager {
            manager.reloading();
        }
        let events = self.parts.events.clone();
        let check = self.checking_command().and_then(|mut command| {
            let check = move || {
                let status =
                    command.spawn().and_then(|mut child| wait_or_kill(&mut child, CHECK_SECONDS));
                let accepted = status.is_ok_and(|status| status.success());
                events.tell(Event::UpgradeChecked(accepted));
            };
            thread::Builder::new().name("upgrade".to_owned()).spawn(check)
        });
        if let Err(cause) = check {
            tracing::error!(%cause, "the installed program can't be asked");
            return self.upgrade_checked(false);
        }
        Input::Tick
    }

    fn checking_command(&self) -> io::Result<Command> {
        let (_, state) = self.kept().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(programs::own_path());
        notify::hide_from(&mut command);
        command.arg("--check-state").stdin(state.as_fd().try_clone_to_owned()?);
        Ok(command)
    }

    pub(super) fn upgrade_checked(&mut self, accepted: bool) -> Input {
        if accepted {
            return Input::Leave(Leave::ToUpgrade);
        }
        tracing::error!("the installed program does not take over; this one goes on");
        self.say_serving();
        Input::Tick
    }

    /// Ends the workers, and this process or its program. Does not return, unless the
    /// program can't be started.
    pub(super) fn leave(&mut self, how: Leave) {
        for (_, link) in self.links.drain() {
            link.hang_up();
        }
        self.parts.workers.end_all(WORKER_STOP_SECONDS);
        self.save();
        if how == Leave::ToUpgrade {
            tracing::info!("going on as the installed program");
            let cause = self.become_installed();
            tracing::error!(%cause, "the installed program can't be started; leaving to a successor");
        }
        if let Some(manager) = &self.parts.manager {
            let _ = manager.barrier(BARRIER_TIME);
        }
        tracing::info!("left the mount to a successor");
        // Not by returning, which would drop what waits.
        // SAFETY: ends the process at once; no handler of ours is to run.
        #[expect(unsafe_code, reason = "the standard library's exit runs handlers")]
        unsafe {
            libc::_exit(Status::Left as i32)
        }
    }

    fn become_installed(&self) -> io::Error {
        let command = || {
            let (device, state) = self.kept().ok_or(io::ErrorKind::NotFound)?;
            let mut command = Command::new(programs::own_path());
            command.args(std::env::args_os().skip(1));
            let device = device.as_fd().try_clone_to_owned()?;
            let state = state.as_fd().try_clone_to_owned()?;
            hand_on(&mut command, vec![(StoredName::State, state), (StoredName::Device, device)])?;
            Ok::<_, io::Error>(command)
        };
        match command() {
            Ok(mut command) => command.exec(),
            Err(cause) => cause,
        }
    }
}

/// Descriptors for a program in the place of this one, as a manager would hand them on.
fn hand_on(command: &mut Command, kept: Vec<(StoredName, OwnedFd)>) -> io::Result<()> {
    let names: Vec<&str> = kept.iter().map(|(name, _)| name.word()).collect();
    command.env("LISTEN_FDS", kept.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
    // For this process, which stays what it is.
    command.env("LISTEN_PID", process::id().to_string());
    let numbered = (FIRST_FD..).zip(kept);
    let mappings = numbered.map(|(child_fd, (_, parent_fd))| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mappings.collect()).map_err(io::Error::other)?;
    Ok(())
}
