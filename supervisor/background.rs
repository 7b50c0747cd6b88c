//! Going to the background: the command starts itself again in a session of its
//! own, waits until the mount is ready or the attempt is over, and ends with the
//! right exit status.
//!
//! Starting anew, rather than forking, keeps this free of what a fork does to
//! threads, locks and the parent-death signals of children. The second process is
//! the [`keeper`](crate::keeper), and the supervisor is its child. The keeper has
//! one end of a pipe as its stdin: a byte through it says that the mount is ready;
//! its end without one says that it failed, and the words are on the caller's
//! stderr already, which both still share at that time.

use nix::unistd::{dup2_stderr, dup2_stdout};
use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use thiserror::Error;

/// Says which of the processes this is.
const ROLE_VARIABLE: &str = "SHEEPFS_IN_BACKGROUND";
/// The directory in which the caller wrote the paths on the command line. A path,
/// since none of us may stay in it.
const DIRECTORY_VARIABLE: &str = "SHEEPFS_CALLER_DIRECTORY";

/// Why it could not go to the background.
#[derive(Debug, Error)]
pub enum BackgroundError {
    /// The second process could not be started, or the third.
    #[error("cannot start {0} again in the background: {1}")]
    Start(String, io::Error),
    /// The second process could not be waited for.
    #[error("cannot wait for the process in the background: {0}")]
    Wait(io::Error),
    /// The first process was ended while it waited.
    #[error("the caller did not wait for the mount")]
    GivenUp,
    /// The caller's terminal could not be let go of.
    #[error("cannot leave the caller's terminal: {0}")]
    Leave(io::Error),
    /// The keeper has no way to hear of its child.
    #[error("cannot keep watch in the background: {0}")]
    Watch(io::Error),
}

/// Which of the processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What the user started.
    First,
    /// The second, which stays.
    Keeper,
    /// The keeper's child on its way: it does not know its own number yet.
    Starting,
    /// What the keeper's child becomes.
    Supervisor,
}

impl Role {
    /// What the environment says.
    pub fn of_this_process() -> Self {
        let value = env::var_os(ROLE_VARIABLE);
        let told = [Self::Keeper, Self::Starting, Self::Supervisor];
        told.into_iter()
            .find(|role| value == role.word().map(OsString::from))
            .unwrap_or(Self::First)
    }

    fn word(self) -> Option<&'static str> {
        match self {
            Self::First => None,
            Self::Keeper => Some("keeper"),
            Self::Starting => Some("starting"),
            Self::Supervisor => Some("supervisor"),
        }
    }

    /// This command once more, with the same arguments, in another role.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(env::args_os().skip(1));
        if let Some(word) = self.word() {
            command.env(ROLE_VARIABLE, word);
        }
        command
    }
}

/// How the attempt in the background went.
#[derive(Debug)]
pub enum Outcome {
    /// The mount is ready.
    Ready,
    /// It ended with this exit status; `None` when a signal killed it.
    Ended(Option<i32>),
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
    let mut command = Role::Keeper.command(&program);
    if let Ok(directory) = env::current_dir() {
        command.env(DIRECTORY_VARIABLE, directory);
    }
    command
        .stdin(Stdio::from(ready))
        .spawn()
        .map_err(|e| BackgroundError::Start(program.display().to_string(), e))
}

/// What the paths on the command line are relative to. Empty, which joins to the
/// path itself, when this process was started where they were written.
pub fn directory_of_paths() -> OsString {
    match Role::of_this_process() {
        Role::Supervisor => env::var_os(DIRECTORY_VARIABLE).unwrap_or_default(),
        Role::First | Role::Keeper | Role::Starting => OsString::new(),
    }
}

/// Lets go of the caller's terminal and working directory. What is given back goes
/// nowhere.
pub fn let_go() -> Result<File, BackgroundError> {
    let leave = |e: io::Error| BackgroundError::Leave(e);
    env::set_current_dir("/").map_err(leave)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(leave)?;
    dup2_stdout(&null).map_err(|e| leave(e.into()))?;
    dup2_stderr(&null).map_err(|e| leave(e.into()))?;
    Ok(null)
}
