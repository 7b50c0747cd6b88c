//! The protocol between a service and whoever started it and listens to
//! `$NOTIFY_SOCKET` (sd_notify(3)): systemd, or our own keeper. It is told when we
//! are ready and that we are alive, and it keeps descriptors for our successor.
//!
//! The words are the crate's, `sd_notify`; the sending is ours. The crate's would
//! wait for a manager that does not read, and does not know addresses that begin
//! with `@`.
//!
//! Nothing here is ever worth the mount: a manager that can't be told is logged
//! once, and sending waits for a short time at most.

mod address;
mod inherited;
#[cfg(test)]
mod tests;

pub use inherited::{Inherited, inherited};

use address::Address;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sd_notify::NotifyState;
use std::env;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What the manager tells us in the environment. It is meant for this process and
/// no other.
pub const VARIABLES: [&str; 7] = [
    SOCKET_VARIABLE,
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// Where the manager listens.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// How long a message that matters waits for a manager with a full queue.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps the manager's words from a child.
pub fn hide_from(command: &mut Command) -> &mut Command {
    VARIABLES.iter().fold(command, |command, variable| command.env_remove(variable))
}

/// Whether the manager gave us anything, whatever became of it.
pub fn was_given_descriptors() -> bool {
    let is_ours = |pid: String| pid == process::id().to_string();
    env::var_os("LISTEN_FDS").is_some() && env::var("LISTEN_PID").is_ok_and(is_ours)
}

/// What the manager keeps for us, and under which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredName {
    /// The open `/dev/fuse`, and so the mount.
    Device,
    /// The memory file with what a successor must know.
    State,
}

impl StoredName {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Device, Self::State];

    /// As the manager knows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Device => "sheepfs-device",
            Self::State => "sheepfs-state",
        }
    }

    fn assignment(self) -> String {
        format!("FDNAME={}", self.word())
    }

    /// The name of what is ours.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.word() == word)
    }
}

/// How many descriptors are handed from one life to the next.
pub const STORED_COUNT: RawFd = 2;
const _: () = assert!(STORED_COUNT as usize == StoredName::ALL.len());

/// Who started us and listens. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Manager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: UnixDatagram,
    address: Address,
    watchdog: Option<Duration>,
    has_failed: AtomicBool,
}

/// Whether a message may wait for room in the manager's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// No: the next one says the same anew.
    Never,
    /// For [`SEND_TIMEOUT`].
    Shortly,
}

impl Manager {
    /// The manager that the environment names. `None`: nobody listens, or at an
    /// address that can't be used, which is logged.
    ///
    /// The environment stays as it is; [`hide_from`] keeps it from children.
    pub fn from_environment() -> Option<Self> {
        let value = env::var_os(SOCKET_VARIABLE)?;
        let watchdog = sd_notify::watchdog_enabled();
        match Address::parse(&value).and_then(|address| Self::at(address, watchdog)) {
            Ok(manager) => Some(manager),
            Err(cause) => {
                let address = value.display();
                tracing::warn!(%address, %cause, "cannot notify the service manager");
                None
            }
        }
    }

    fn at(address: Address, watchdog: Option<Duration>) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let has_failed = AtomicBool::new(false);
        Ok(Self { inner: Arc::new(Inner { socket, address, watchdog, has_failed }) })
    }

    /// We are ready; `status` is for whoever asks how we are.
    pub fn ready(&self, status: &str) {
        let status = one_line(status);
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status)], Wait::Shortly);
    }

    /// How we are, in one line.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&one_line(status))], Wait::Never);
    }

    /// We begin to reload; [`Manager::ready`] says that it is done.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now], Wait::Shortly),
            Err(cause) => self.failed(&cause),
        }
    }

    /// We begin to stop.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping], Wait::Shortly);
    }

    /// What is under way, a start or a stop, needs that much longer from now on.
    pub fn extend_timeout(&self, by: Duration) {
        let micros = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
        self.tell(&[NotifyState::ExtendTimeoutUsec(micros)], Wait::Never);
    }

    /// We are alive. To be said every [`Manager::watchdog_interval`].
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog], Wait::Never);
    }

    /// How often to say that we are alive: twice in the time after which we are
    /// taken for dead. `None`: the manager does not want to know.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.inner.watchdog.map(|limit| limit / 2).filter(|interval| !interval.is_zero())
    }

    /// Gives the manager a descriptor to keep, whatever becomes of us. It does not
    /// watch it (`FDPOLL=0`, hazard 30). It came to be kept only when a
    /// [`Manager::barrier`] after it succeeded. systemd keeps several of one name,
    /// unless they are one open file, and the keeper the last one: so never two.
    ///
    /// # Errors
    /// When it could not be sent.
    pub fn store(&self, name: StoredName, fd: BorrowedFd<'_>) -> io::Result<()> {
        let name = name.assignment();
        let words = ["FDSTORE=1", &name, "FDPOLL=0"].map(NotifyState::Custom);
        self.send(&words, Some(fd), Wait::Shortly)
    }

    /// Lets the manager close what it keeps under a name.
    pub fn remove(&self, name: StoredName) {
        let name = name.assignment();
        self.tell(&["FDSTOREREMOVE=1", &name].map(NotifyState::Custom), Wait::Shortly);
    }

    /// Waits until the manager has carried out all that it was told before.
    ///
    /// # Errors
    /// `TimedOut` when that is not so within `limit`; otherwise as sendmsg(2).
    pub fn barrier(&self, limit: Duration) -> io::Result<()> {
        let (ours, theirs) = io::pipe()?;
        let words = [NotifyState::Custom("BARRIER=1")];
        self.send(&words, Some(theirs.as_fd()), Wait::Shortly)?;
        drop(theirs);
        wait_for_hang_up(ours.as_fd(), Instant::now() + limit)
    }

    fn tell(&self, words: &[NotifyState<'_>], wait: Wait) {
        match self.send(words, None, wait) {
            Ok(()) => {}
            // The manager has much to read, and the next one says it anew.
            Err(cause) if wait == Wait::Never && cause.kind() == ErrorKind::WouldBlock => {}
            Err(cause) => self.failed(&cause),
        }
    }

    fn failed(&self, cause: &io::Error) {
        if !self.inner.has_failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(%cause, "cannot notify the service manager; this is said once");
        }
    }

    fn send(
        &self,
        words: &[NotifyState<'_>],
        fd: Option<BorrowedFd<'_>>,
        wait: Wait,
    ) -> io::Result<()> {
        let text: String = words.iter().map(|word| format!("{word}\n")).collect();
        let numbers: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let control: &[_] = match fd {
            Some(_) => &[ControlMessage::ScmRights(&numbers)],
            None => &[],
        };
        let flags = match wait {
            Wait::Never => MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            Wait::Shortly => MsgFlags::MSG_NOSIGNAL,
        };
        let bytes = [IoSlice::new(text.as_bytes())];
        let socket = self.inner.socket.as_raw_fd();
        loop {
            match sendmsg(socket, &bytes, control, flags, Some(self.inner.address.as_ref())) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// A line break would begin another word of the protocol.
fn one_line(text: &str) -> String {
    text.replace('\n', " ")
}

fn wait_for_hang_up(pipe: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // A hang-up is told without being asked for.
        match poll(&mut [PollFd::new(pipe, PollFlags::empty())], timeout) {
            Ok(0) if left.is_zero() => return Err(ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
