//! `--local DIR`: a minisheep of our own, for a first try without a cluster.
//!
//! It is started before anything else, tells its port on stdout, and is stopped
//! last. Its other lines go to our log. When we die it dies with us: it asks the
//! kernel for that itself (`--with-parent`), and it is started from the main
//! thread, to whose end that request is bound.

use crate::cli::NewVdi;
use crate::notify;
use crate::predecessor;
use crate::programs;
use crate::spawn::{terminate, wait_or_kill};
use crate::state::SavedProcess;
use crate::words::Listener;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use thiserror::Error;

const PROGRAM: &str = "minisheep";
/// What its first line on stdout begins with.
const GREETING: &str = "minisheep: listening on ";
/// How long it may take to write down what it has in memory.
const STOP_SECONDS: u64 = 10;

/// Why there is no minisheep.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The program can't be started.
    #[error("cannot start {program}: {cause}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// It ended before it said where it listens.
    #[error("the minisheep on {dir} did not start: {words}")]
    Ended {
        /// The directory.
        dir: PathBuf,
        /// Its last words.
        words: String,
    },
}

impl Local {
    /// Its process, for a successor.
    pub fn process(&self) -> Option<SavedProcess> {
        predecessor::identity(i32::try_from(self.child.id()).ok()?)
    }
}

/// A running minisheep; stopped when dropped.
#[derive(Debug)]
pub struct Local {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Local {
    /// Starts a minisheep on `dir`, made and formatted if new, with those VDIs
    /// made if missing, and waits until it listens.
    pub fn start(dir: &Path, create: &[NewVdi]) -> Result<Self, LocalError> {
        let mut child = spawn(dir, create)?;
        let stderr = child.stderr.take().map(|stderr| Listener::start(PROGRAM, stderr));
        let stdout = child.stdout.take().map(BufReader::new);
        match stdout.and_then(|mut stdout| greeting(&mut stdout).map(|found| (found, stdout))) {
            Some((address, stdout)) => {
                Listener::start(PROGRAM, stdout);
                tracing::info!(sheep = %address, dir = %dir.display(), "a minisheep serves the directory");
                Ok(Self { child, address })
            }
            None => Err(ended(dir, &mut child, stderr)),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        terminate(&self.child);
        match wait_or_kill(&mut self.child, STOP_SECONDS) {
            Ok(status) => tracing::debug!(%status, "the minisheep has ended"),
            Err(cause) => {
                let errno = cause.raw_os_error();
                tracing::warn!(errno, "cannot wait for the minisheep: {cause}");
            }
        }
    }
}

fn spawn(dir: &Path, create: &[NewVdi]) -> Result<Child, LocalError> {
    let program = programs::path_of(PROGRAM);
    let mut command = Command::new(&program);
    command.args(["--port", "0", "--format", "--with-parent"]);
    command.arg(process::id().to_string());
    // A Ctrl-C at the terminal is for us alone: this one is stopped last.
    command.process_group(0);
    for vdi in create {
        command.arg("--create").arg(format!("{}:{}", vdi.name, vdi.size));
    }
    notify::hide_from(&mut command)
        .arg("--")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| LocalError::Start { program, cause })
}

/// Reads lines until the one that says where it listens; none when it ends before.
fn greeting(stdout: &mut impl BufRead) -> Option<SocketAddr> {
    stdout.lines().map_while(Result::ok).find_map(|line| listening_on(&line))
}

fn listening_on(line: &str) -> Option<SocketAddr> {
    line.strip_prefix(GREETING)?.split_whitespace().next()?.parse().ok()
}

fn ended(dir: &Path, child: &mut Child, stderr: Option<Listener>) -> LocalError {
    let status = wait_or_kill(child, STOP_SECONDS);
    let mut words = stderr.map(Listener::last_line).unwrap_or_default();
    if words.is_empty() {
        words = status.map_or_else(|cause| cause.to_string(), |status| status.to_string());
    }
    LocalError::Ended { dir: dir.to_owned(), words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_the_address() {
        let line = "minisheep: listening on 127.0.0.1:40001";
        assert_eq!(listening_on(line), Some("127.0.0.1:40001".parse().unwrap()));
        assert_eq!(listening_on("minisheep: listening on nothing"), None);
        assert_eq!(listening_on("listening on 127.0.0.1:40001"), None);
        let mut lines = &b"hello\nminisheep: listening on 127.0.0.1:7\nmore\n"[..];
        assert_eq!(greeting(&mut lines), Some("127.0.0.1:7".parse().unwrap()));
        assert_eq!(lines, b"more\n");
        assert_eq!(greeting(&mut &b"hello\n"[..]), None);
    }
}
