//! Going to the background: the command starts itself again in a session of its
//! own, waits until the mount is ready or the attempt is over, and ends with the
//! right exit status.
//!
//! Starting anew, rather than forking, keeps this free of what a fork does to
//! threads, locks and the parent-death signals of children. The second process
//! has one end of a pipe as its stdin: a byte through it says that the mount is
//! ready; its end without one says that it failed, and the words are on the
//! caller's stderr already, which it still shares at that time.

use nix::errno::Errno;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid, write};
use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use thiserror::Error;

/// Set in the second process.
const VARIABLE: &str = "SHEEPFS_IN_BACKGROUND";

/// Why it could not go to the background.
#[derive(Debug, Error)]
pub enum BackgroundError {
    /// The second process could not be started.
    #[error("cannot start {0} again in the background: {1}")]
    Start(String, io::Error),
    /// The second process could not be waited for.
    #[error("cannot wait for the process in the background: {0}")]
    Wait(io::Error),
    /// The first process was ended while it waited.
    #[error("the caller did not wait for the mount")]
    GivenUp,
    /// The second process could not let go of the caller's terminal.
    #[error("cannot leave the caller's terminal: {0}")]
    Leave(io::Error),
}

/// How the attempt in the background went.
#[derive(Debug)]
pub enum Outcome {
    /// The mount is ready.
    Ready,
    /// It ended with this exit status; `None` when a signal killed it.
    Ended(Option<i32>),
}

/// Whether this is the second process.
pub fn is_second() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Starts this command again, with the same arguments and working directory, and
/// waits until it is ready or over.
pub fn start_again() -> Result<Outcome, BackgroundError> {
    let (mut ready, theirs) = io::pipe().map_err(BackgroundError::Wait)?;
    let mut child = spawn(theirs)?;
    let mut byte = [0];
    match ready.read(&mut byte).map_err(BackgroundError::Wait)? {
        0 => Ok(Outcome::Ended(child.wait().map_err(BackgroundError::Wait)?.code())),
        _ => Ok(Outcome::Ready),
    }
}

fn spawn(ready: io::PipeWriter) -> Result<Child, BackgroundError> {
    let program = env::current_exe().map_err(|e| BackgroundError::Start("itself".into(), e))?;
    Command::new(&program)
        .args(env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stdin(Stdio::from(ready))
        .spawn()
        .map_err(|e| BackgroundError::Start(program.display().to_string(), e))
}

/// In the second process, first of all: leaves the caller's session, so that
/// neither its terminal nor its end concerns the mount.
pub fn leave_session() -> Result<(), BackgroundError> {
    setsid().map(drop).map_err(|errno| BackgroundError::Leave(errno.into()))
}

/// In the second process, when the mount is ready: lets go of the caller's
/// terminal and working directory, then tells the first one. In this order,
/// since `$(sheepfs …)` waits for whoever has its pipe open.
pub fn say_ready() -> Result<(), BackgroundError> {
    let leave = |e: io::Error| BackgroundError::Leave(e);
    env::set_current_dir("/").map_err(leave)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(leave)?;
    dup2_stdout(&null).map_err(|e| leave(e.into()))?;
    dup2_stderr(&null).map_err(|e| leave(e.into()))?;
    match write(io::stdin(), b"\n") {
        Ok(_) => {}
        Err(Errno::EPIPE) => return Err(BackgroundError::GivenUp),
        Err(errno) => return Err(leave(errno.into())),
    }
    dup2_stdin(&null).map_err(|e| leave(e.into()))
}
