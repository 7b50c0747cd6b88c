//! The worker as a process: how it is started, and how its end is made sure of.
//!
//! It inherits two descriptors, under fixed numbers, and nothing else. It is
//! started from the control thread only, which lives as long as the process: the
//! worker's parent-death signal is bound to the thread that started it
//! (hazard 33). Two workers never live at once, so the next one is not started
//! before the kernel has buried the last (hazard 4).

use crate::programs;
use crate::words::Listener;
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sheepfs::ipc::arena::ARENA_LEN;
use sheepfs::ipc::inherited::{ARENA_FD, CHANNEL_FD};
use sheepfs::ipc::{Arena, ChannelError, SupervisorEnd, channel};
use sheepfs::logging::{FILTER_VARIABLE, SINK_VARIABLE, Sink};
use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use thiserror::Error;

/// The worker's program.
const PROGRAM: &str = "sheepfs-worker";

/// Why there is no worker.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The last one is not dead yet, in spite of its kill signal.
    #[error("the last worker has not ended yet")]
    Alive,
    /// The kernel gave no memory or descriptors for the arena.
    #[error("cannot make the shared memory: {0}")]
    Arena(io::Error),
    /// The kernel gave no socket.
    #[error("cannot make the socket to the worker: {0}")]
    Channel(#[from] ChannelError),
    /// There is no descriptor or thread to listen to it.
    #[error("cannot listen to the worker: {0}")]
    Link(io::Error),
    /// The program can't be started.
    #[error("cannot start {program}: {cause}")]
    Start {
        /// Which program.
        program: String,
        /// Why.
        cause: io::Error,
    },
}

/// Starts workers, one at a time.
#[derive(Debug)]
pub struct Worker {
    sink: Sink,
    debug: bool,
    child: Option<Child>,
}

impl Worker {
    /// No worker yet; those to come log to `sink`.
    pub fn new(sink: Sink, debug: bool) -> Self {
        Self { sink, debug, child: None }
    }

    /// Starts the next worker: our end of its channel, and its arena, which is new
    /// for each.
    pub fn start(&mut self) -> Result<(SupervisorEnd, Arena), SpawnError> {
        if !self.is_buried() {
            return Err(SpawnError::Alive);
        }
        let arena = Arena::create(ARENA_LEN).map_err(SpawnError::Arena)?;
        let (channel, theirs) = channel::pair()?;
        let their_arena = arena.as_fd().try_clone_to_owned().map_err(SpawnError::Arena)?;
        self.child = Some(self.spawn(theirs, their_arena)?);
        Ok((channel, arena))
    }

    /// Sends the kill signal, if there is a worker.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // It fails only for one that is dead.
            let _ = child.kill();
        }
    }

    /// Whether there is no worker any more. Says once how the last one ended.
    pub fn is_buried(&mut self) -> bool {
        let Some(child) = &mut self.child else { return true };
        match child.try_wait() {
            Ok(None) => return false,
            Ok(Some(status)) => tracing::debug!(%status, "the worker has ended"),
            // Somebody else has reaped it: it is dead.
            Err(cause) => tracing::debug!(%cause, "the worker has ended"),
        }
        self.child = None;
        true
    }

    /// Waits for its end, but not longer than `seconds`; then kills it.
    pub fn wait_or_kill(&mut self, seconds: u64) {
        let Some(mut child) = self.child.take() else { return };
        match wait_or_kill(&mut child, seconds) {
            Ok(status) => tracing::debug!(%status, "the worker has ended"),
            Err(cause) => tracing::warn!(%cause, "cannot wait for the worker"),
        }
    }

    fn spawn(&self, channel: OwnedFd, arena: OwnedFd) -> Result<Child, SpawnError> {
        let program = programs::path_of(PROGRAM);
        let failed = |cause| SpawnError::Start { program: program.display().to_string(), cause };
        let mut command = Command::new(&program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
        // A Ctrl-C at the terminal is for us alone.
        command.process_group(0);
        command.env(SINK_VARIABLE, self.sink.word());
        if self.debug && env::var_os(FILTER_VARIABLE).is_none() {
            command.env(FILTER_VARIABLE, "debug");
        }
        let channel = FdMapping { parent_fd: channel, child_fd: CHANNEL_FD };
        let arena = FdMapping { parent_fd: arena, child_fd: ARENA_FD };
        command
            .fd_mappings(vec![channel, arena])
            .map_err(|_| failed(io::ErrorKind::AlreadyExists.into()))?;
        if self.sink == Sink::Journal {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(failed)?;
        if let Some(stderr) = child.stderr.take() {
            Listener::start(PROGRAM, stderr);
        }
        Ok(child)
    }
}

/// Asks a child to end.
pub fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// Waits for a child's end, but not longer than `seconds`; then kills it.
pub fn wait_or_kill(child: &mut Child, seconds: u64) -> io::Result<ExitStatus> {
    use std::time::{Duration, Instant};
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            return child.wait();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
