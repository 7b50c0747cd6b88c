//! Waiting: one `poll` over everything, and for nothing else anywhere.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::BorrowedFd;
use std::time::Instant;

/// Waits until a descriptor can be read, or written where that is wanted, or the
/// deadline has come. Says of each descriptor whether something is up with it.
///
/// # Errors
/// The system's.
pub fn poll_until(
    watched: &[(BorrowedFd<'_>, bool)],
    deadline: Option<Instant>,
) -> Result<Vec<bool>, Errno> {
    let interest = |send: bool| {
        if send { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN }
    };
    let mut fds: Vec<PollFd> =
        watched.iter().map(|(fd, send)| PollFd::new(*fd, interest(*send))).collect();
    let timeout = deadline.map_or(PollTimeout::NONE, |at| {
        let left = at.saturating_duration_since(Instant::now());
        // A deadline is met late, by up to a millisecond, rather than early and often.
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
        Err(Errno::EINTR) => Ok(vec![false; watched.len()]),
        Err(errno) => Err(errno),
    }
}
