//! The descriptors with which the supervisor starts a worker.
//!
//! Fixed numbers, since the worker is a program of its own: the channel is 3, the
//! arena 4. They are taken once, at the start, before anything else is opened.
#![expect(unsafe_code, reason = "inherited descriptors are bare numbers")]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The worker's end of the channel.
pub const CHANNEL_FD: RawFd = 3;
/// The arena.
pub const ARENA_FD: RawFd = 4;

/// Takes the channel and the arena, once. `None` when they are not there, or
/// were taken already.
#[must_use]
pub fn take() -> Option<(OwnedFd, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    Some((take_fd(CHANNEL_FD)?, take_fd(ARENA_FD)?))
}

fn take_fd(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the number is only used to ask the kernel whether it is open, and
    // to set its close-on-exec flag, while nothing else runs in this process.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, as just seen; it was inherited, so nothing in this
    // process owns it, and `take` gives it out once.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}
