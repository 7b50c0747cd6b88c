//! The process that started the keeper and waits for a byte from it.

use crate::background::{BackgroundError, let_go};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{dup2_stdin, setsid, write};
use std::io;

/// First of all: leaves the caller's session, so that neither its terminal nor its
/// end concerns the mount; and takes a name that can be found beside the
/// supervisor's.
pub fn leave_session() -> Result<(), BackgroundError> {
    setsid().map_err(|errno| BackgroundError::Leave(errno.into()))?;
    prctl::set_name(c"sheepfs-keeper").map_err(|errno| BackgroundError::Leave(errno.into()))
}

/// When the mount is ready: lets go of the caller, then tells it. In this order,
/// since `$(sheepfs …)` waits for whoever has its pipe open.
pub fn tell() -> Result<(), BackgroundError> {
    let leave = |e: io::Error| BackgroundError::Leave(e);
    let null = let_go()?;
    match write(io::stdin(), b"\n") {
        Ok(_) => {}
        Err(Errno::EPIPE) => return Err(BackgroundError::GivenUp),
        Err(errno) => return Err(leave(errno.into())),
    }
    dup2_stdin(&null).map_err(|e| leave(e.into()))
}
