//! The workers as processes: how they are started, and how their end is made sure
//! of.
//!
//! A worker inherits two descriptors, as its standard input and output. It is
//! started from the control thread only, which lives as long as the process: the
//! worker's parent-death signal is bound to the thread that started it
//! (hazard 33). At most two live at once: one in use, and a spare that has no
//! address. That the next one gets an address only when the kernel has buried the
//! last is the control loop's business (hazard 4); the descriptor of the process
//! that each start gives tells when that is.

use crate::control::poison::Exit;
use crate::descriptors::pidfd_of;
use crate::notify;
use crate::predecessor;
use crate::programs::Program;
use crate::state::SavedProcess;
use crate::words::Listener;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sheepfs::ipc::arena::ARENA_LEN;
use sheepfs::ipc::{Arena, ChannelError, SupervisorEnd, channel};
use sheepfs::logging::{self, FILTER_VARIABLE, SINK_VARIABLE, Sink, WORKER_VARIABLE};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use thiserror::Error;

/// The worker's program.
const PROGRAM: &str = "sheepfs-worker";

/// One in use, and a spare.
const WORKERS_MAX: usize = 2;

/// Why there is no worker.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// There are two, of which one is not dead yet in spite of its kill signal.
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

impl SpawnError {
    /// The system's error, if it was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Arena(cause) | Self::Link(cause) | Self::Start { cause, .. } => {
                cause.raw_os_error()
            }
            Self::Alive | Self::Channel(_) => None,
        }
    }
}

/// What a new worker is reached by.
#[derive(Debug)]
pub struct Started {
    /// Our end of its channel.
    pub channel: SupervisorEnd,
    /// Its arena, which is new for each.
    pub arena: Arena,
    /// Becomes readable when its process is dead.
    pub pidfd: OwnedFd,
}

/// The workers that were started and not buried, by generation.
#[derive(Debug)]
pub struct Workers {
    sink: Sink,
    program: Program,
    children: BTreeMap<u64, Child>,
    /// What tells each from a later process of its number.
    identities: BTreeMap<u64, SavedProcess>,
}

impl Workers {
    /// No worker yet; those to come log to `sink`.
    pub fn new(sink: Sink) -> Self {
        let program = Program::open(PROGRAM);
        Self { sink, program, children: BTreeMap::new(), identities: BTreeMap::new() }
    }

    /// Starts a worker.
    pub fn start(&mut self, generation: u64) -> Result<Started, SpawnError> {
        if self.children.len() >= WORKERS_MAX {
            return Err(SpawnError::Alive);
        }
        let arena = Arena::create(ARENA_LEN).map_err(SpawnError::Arena)?;
        let (channel, theirs) = channel::pair()?;
        let their_arena = arena.as_fd().try_clone_to_owned().map_err(SpawnError::Arena)?;
        let mut child = self.spawn(generation, theirs, their_arena)?;
        match pidfd_of(&child) {
            Ok(pidfd) => {
                let pid = i32::try_from(child.id()).ok();
                let identity = pid.and_then(predecessor::identity);
                self.identities.extend(identity.map(|identity| (generation, identity)));
                self.children.insert(generation, child);
                Ok(Started { channel, arena, pidfd })
            }
            Err(cause) => {
                // Without a way to see its end it can't be used.
                let _ = child.kill().and_then(|()| child.wait());
                Err(SpawnError::Link(cause))
            }
        }
    }

    /// Sends the kill signal, if that worker is not buried.
    pub fn kill(&mut self, generation: u64) {
        if let Some(child) = self.children.get_mut(&generation) {
            // It fails only for one that is dead.
            let _ = child.kill();
        }
    }

    /// Asks the kernel how a worker ended that is known to be dead.
    pub fn bury(&mut self, generation: u64) -> Exit {
        self.identities.remove(&generation);
        let Some(mut child) = self.children.remove(&generation) else { return Exit::Unknown };
        // For one that is dead this changes nothing, and for one that is not it
        // makes sure that it is waited for in vain by nobody.
        let _ = child.kill();
        match child.wait() {
            Ok(status) => {
                tracing::debug!(worker = generation, %status, "the worker has ended");
                status.into()
            }
            // Somebody else has reaped it: it is dead.
            Err(_) => Exit::Unknown,
        }
    }

    /// Waits for the end of all, but not longer than `seconds`; then kills them.
    pub fn end_all(&mut self, seconds: u64) {
        self.identities.clear();
        for (generation, mut child) in std::mem::take(&mut self.children) {
            match wait_or_kill(&mut child, seconds) {
                Ok(status) => tracing::debug!(worker = generation, %status, "the worker has ended"),
                Err(cause) => {
                    let errno = cause.raw_os_error();
                    tracing::warn!(
                        worker = generation,
                        errno,
                        "cannot wait for the worker: {cause}"
                    );
                }
            }
        }
    }

    /// Those that live, for a successor.
    pub fn saved(&self) -> Vec<SavedProcess> {
        self.identities.values().copied().collect()
    }

    fn spawn(
        &self,
        generation: u64,
        channel: OwnedFd,
        arena: OwnedFd,
    ) -> Result<Child, SpawnError> {
        let path = self.program.path();
        let failed = |cause| SpawnError::Start { program: path.display().to_string(), cause };
        let mut command = self.program.command();
        // Nothing here may need a fork: see `sheepfs::ipc::inherited`.
        command.stdin(channel).stdout(arena).current_dir("/");
        // A Ctrl-C at the terminal is for us alone.
        command.process_group(0);
        notify::hide_from(&mut command);
        command.env(SINK_VARIABLE, self.sink.word());
        command.env(FILTER_VARIABLE, logging::present_filter());
        command.env(WORKER_VARIABLE, generation.to_string());
        if self.sink.hears_workers() {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(failed)?;
        offer_to_oom_killer(&child);
        if let Some(stderr) = child.stderr.take() {
            Listener::of_worker(PROGRAM, generation, stderr);
        }
        Ok(child)
    }
}

/// A worker can be replaced, and we can't: where we are protected from the
/// out-of-memory killer, it is not.
fn offer_to_oom_killer(child: &Child) {
    let score = format!("/proc/{}/oom_score_adj", child.id());
    let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if ours.trim().starts_with('-')
        && let Err(cause) = fs::write(score, "0")
    {
        tracing::debug!(%cause, "the worker stays protected from the out-of-memory killer");
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
