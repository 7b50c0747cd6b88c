//! The descriptors with which the supervisor starts a worker.
//!
//! Fixed numbers, since the worker is a program of its own: the channel is its standard
//! input, the arena its standard output. Those are what a process can be given without
//! being forked first, and a fork would write-protect the supervisor's memory for a
//! moment, into which the kernel copies requests (hazard 16). They are taken once, at
//! the start, before anything else is opened.
#![expect(unsafe_code, reason = "inherited descriptors are bare numbers")]

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::sockopt::SockType;
use nix::sys::socket::{self, getsockopt};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The worker's end of the channel.
const CHANNEL_FD: RawFd = 0;
/// The arena.
const ARENA_FD: RawFd = 1;

/// Takes the channel and the arena, once. `None` when they are not there, or
/// were taken already.
#[must_use]
pub fn take() -> Option<(OwnedFd, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return None;
    }
    is_channel().then_some(())?;
    Some((take_fd(CHANNEL_FD)?, take_fd(ARENA_FD)?))
}

/// Whoever starts the program by hand gives it a terminal or a file.
fn is_channel() -> bool {
    getsockopt(&io::stdin(), SockType).is_ok_and(|kind| kind == socket::SockType::SeqPacket)
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
