//! The signals that a keeper passes on, as something to poll.

use nix::sys::signal::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// All that is not passed on ends us; SIGCHLD only wakes.
const WATCHED: [i32; 6] = [SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2];

/// What has arrived. Not a signalfd, since signals that are blocked for it would be
/// blocked in the child, too.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// As socketpair(2) and sigaction(2).
    pub fn watch() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        Ok(Self { delivery: SignalDelivery::with_pipe(read, write, SignalOnly, WATCHED)? })
    }

    /// Those that arrived since the last call, each once.
    pub fn pending(&mut self) -> Vec<Signal> {
        self.delivery.pending().filter_map(|number| Signal::try_from(number).ok()).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}
