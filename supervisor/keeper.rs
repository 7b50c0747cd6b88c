//! The keeper: what stays behind of `sheepfs MOUNTPOINT` where there is no systemd.
//!
//! It starts the supervisor, keeps the descriptors that the supervisor gives it,
//! and starts it again with them when it dies. Both speak the protocol that the
//! supervisor and systemd speak (sd_notify(3)), so a supervisor can't tell which of
//! them started it, and there is one path to a second life.
//!
//! It does nothing else and holds no other state, so that it hardly has a way to
//! fail: one thread, one loop over three descriptors, no file, no socket on disk.
//! Its own death ends nothing: the supervisor goes on, without a second life.
//!
//! ```text
//! sheepfs ──> keeper ──> supervisor ──> worker
//!    ^  a byte   │  ^        │
//!    └───────────┘  └────────┘ notify socket: READY, FDSTORE, WATCHDOG …
//! ```
//!
//! - `lives` decides what a death means, and is pure; so is `watchdog`.
//! - `mailbox` hears the child, and nobody else.
//! - `store` has what it gave us.
//! - `supervisor` is the child as a process.

mod lives;
mod mailbox;
mod message;
mod signals;
mod starter;
mod store;
mod supervisor;
#[cfg(test)]
mod tests;
mod watchdog;

pub use supervisor::become_supervisor;

use crate::background::{BackgroundError, Role};
use crate::cli::Options;
use crate::exit::{Failed, Status};
use crate::start::start_log;
use lives::{Exit, Lives, Verdict};
use mailbox::{Mailbox, Received};
use message::Message;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use sheepfs::logging::Sink;
use signals::Signals;
use std::collections::BTreeSet;
use std::env;
use std::io;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};
use store::Store;
use supervisor::Supervisor;
use watchdog::{Bite, Watchdog};

/// A supervisor that has said that it is alive and does not repeat it for so long
/// is dead.
const WATCHDOG_LIMIT: Duration = Duration::from_secs(30);
/// How long a supervisor that was just started again may take to be ready for a
/// signal that would kill it otherwise.
const HOLD_MAX: Duration = Duration::from_secs(10);
/// Messages that are heard before anything else gets its turn; strangers can send
/// some too.
const MESSAGES_A_TURN: usize = 64;
/// As many again as the kernel queues for a socket by far.
const LAST_MESSAGES: usize = 4096;

/// In the second process: keeps the mount until it ends for good.
pub fn run(options: &Options) -> Result<Status, Failed> {
    starter::leave_session()?;
    start_log(options, Sink::Background)?;
    let program = env::current_exe().map_err(|e| BackgroundError::Start("itself".to_owned(), e))?;
    // By its path: after an upgrade the next life is one of the new program.
    let supervisor = || Role::Starting.command(&program);
    let keeper = Keeper::new(&supervisor, &starter::tell, WATCHDOG_LIMIT);
    keeper.map_err(BackgroundError::Watch)?.run()
}

struct Keeper<'a> {
    command: &'a dyn Fn() -> Command,
    tell_starter: &'a dyn Fn() -> Result<(), BackgroundError>,
    mailbox: Mailbox,
    signals: Signals,
    store: Store,
    lives: Lives,
    watchdog: Watchdog,
    child: Option<Supervisor>,
    /// When the next one is started, while none lives.
    start_at: Instant,
    /// What is passed on when the child is ready.
    held: BTreeSet<Signal>,
    /// When a request to stop is passed on even if it is not.
    stop_at: Option<Instant>,
}

impl<'a> Keeper<'a> {
    fn new(
        command: &'a dyn Fn() -> Command,
        tell_starter: &'a dyn Fn() -> Result<(), BackgroundError>,
        watchdog_limit: Duration,
    ) -> io::Result<Self> {
        Ok(Self {
            command,
            tell_starter,
            mailbox: Mailbox::open()?,
            signals: Signals::watch()?,
            store: Store::default(),
            lives: Lives::default(),
            watchdog: Watchdog::new(watchdog_limit),
            child: None,
            start_at: Instant::now(),
            held: BTreeSet::new(),
            stop_at: None,
        })
    }

    fn run(mut self) -> Result<Status, Failed> {
        loop {
            if let Some(exit) = self.turn()? {
                tracing::info!(%exit, "the supervisor has ended for good");
                return exit.outcome();
            }
        }
    }

    /// One turn of the loop; at the end of the last one, how the last child ended.
    fn turn(&mut self) -> Result<Option<Exit>, BackgroundError> {
        if self.child.is_none() && Instant::now() >= self.start_at {
            let started = self.start();
            if started.is_some() {
                return Ok(started);
            }
        }
        let is_dead = self.wait().map_err(|e| BackgroundError::Watch(e.into()))?;
        // What a dead child has said counts: all of it is there already.
        self.hear(if is_dead { LAST_MESSAGES } else { MESSAGES_A_TURN });
        let ended = if is_dead { self.bury() } else { None };
        // After that, since a request to stop is none to one that is dead.
        self.hear_signals();
        self.mind_the_time(Instant::now());
        Ok(ended)
    }

    fn start(&mut self) -> Option<Exit> {
        let command = (self.command)();
        let started =
            Supervisor::start(command, self.mailbox.address(), &self.store, self.watchdog.limit());
        self.lives.began();
        self.watchdog.rest();
        match started {
            Ok(child) => {
                self.stop_at = self.lives.is_stopping().then(|| Instant::now() + HOLD_MAX);
                self.child = Some(child);
                None
            }
            Err(cause) => {
                if !self.lives.was_ever_ready() {
                    eprintln!("sheepfs: cannot start the supervisor: {cause}");
                }
                tracing::error!(%cause, "cannot start the supervisor");
                self.after(Exit::NotStarted, Duration::ZERO)
            }
        }
    }

    /// Waits for something to happen; tells whether the child is dead.
    fn wait(&self) -> Result<bool, Errno> {
        let mut fds = vec![
            PollFd::new(self.mailbox.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.child.as_ref().map(|child| PollFd::new(child.pidfd(), PollFlags::POLLIN)));
        match poll(&mut fds, self.timeout()) {
            Ok(_) => Ok(fds.get(2).and_then(PollFd::any).unwrap_or(false)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn timeout(&self) -> PollTimeout {
        let next = match &self.child {
            Some(_) => [self.watchdog.deadline(), self.stop_at].into_iter().flatten().min(),
            None => Some(self.start_at),
        };
        let Some(next) = next else { return PollTimeout::NONE };
        // Rounded up, so that nothing is due too early by part of a millisecond.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn hear_signals(&mut self) {
        for signal in self.signals.pending() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT => self.stop(),
                // The child's own descriptor tells of its death.
                Signal::SIGCHLD => {}
                signal => self.pass_on(signal),
            }
        }
    }

    /// Asks the child to stop, which it does when and how it thinks right. One that
    /// was just started again is left to become ready first; a second request does
    /// not wait for that.
    fn stop(&mut self) {
        let is_repeated = self.lives.is_stopping();
        self.lives.stop();
        self.held.clear();
        match &self.child {
            None => self.start_at = Instant::now(),
            Some(child) if self.lives.is_ready() || is_repeated || !self.lives.was_ever_ready() => {
                child.send(Signal::SIGTERM);
            }
            Some(_) => self.stop_at = Some(Instant::now() + HOLD_MAX),
        }
    }

    fn pass_on(&mut self, signal: Signal) {
        match &self.child {
            Some(child) if self.lives.is_ready() => child.send(signal),
            _ => drop(self.held.insert(signal)),
        }
    }

    fn hear(&mut self, messages_max: usize) {
        let pid = self.child.as_ref().map(Supervisor::pid);
        for _ in 0..messages_max {
            match self.mailbox.receive(pid) {
                Received::Message(message) => self.obey(message),
                Received::Refused => {}
                Received::Nothing => return,
            }
        }
    }

    /// What came with the message and is not stored is closed here, which is all
    /// that a barrier wants.
    fn obey(&mut self, message: Message) {
        if message.is_alive {
            self.watchdog.pet(Instant::now());
        }
        self.store.obey(message.ask, message.fds);
        if message.is_reloading {
            self.lives.said_reloading();
        }
        if message.is_ready && !self.lives.is_ready() {
            self.ready();
        }
    }

    fn ready(&mut self) {
        let is_first = !self.lives.was_ever_ready();
        self.lives.said_ready();
        self.stop_at = None;
        if is_first && let Err(error) = (self.tell_starter)() {
            tracing::warn!("{error}; stopping");
            self.lives.stop();
        }
        if self.lives.is_stopping() {
            self.stop();
        }
        for signal in std::mem::take(&mut self.held) {
            self.pass_on(signal);
        }
    }

    fn mind_the_time(&mut self, now: Instant) {
        let Some(child) = &self.child else { return };
        if self.stop_at.is_some_and(|at| now >= at) {
            self.stop_at = None;
            child.send(Signal::SIGTERM);
        }
        match self.watchdog.check(now) {
            None => {}
            Some(Bite::Abort) => {
                tracing::error!("the supervisor does not say that it is alive; aborting it");
                child.send(Signal::SIGABRT);
            }
            Some(Bite::Kill) => child.send(Signal::SIGKILL),
        }
    }

    fn bury(&mut self) -> Option<Exit> {
        let child = self.child.take()?;
        let lived = child.age();
        self.after(child.bury(), lived)
    }

    fn after(&mut self, exit: Exit, lived: Duration) -> Option<Exit> {
        match self.lives.ended(exit, lived, !self.store.is_empty()) {
            Verdict::End => Some(exit),
            Verdict::Again(pause) => {
                let (lives, kept) = (self.lives.begun(), self.store.len());
                tracing::warn!(%exit, lives, kept, ?pause, "the supervisor died; starting anew");
                self.start_at = Instant::now() + pause;
                None
            }
        }
    }
}
