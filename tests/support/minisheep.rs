//! A minisheep of a test's own: on a directory of its own, at a port of its own, with the
//! control socket that normal use does not open. When it goes, it must not have counted one
//! request that a client of a real sheep must not send.
//!
//! With [`Gateway`]s in front of it, it is a cluster for tests of failover.

use crate::tools::{arg, start, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[path = "gateway.rs"]
mod gateway;

#[allow(unused_imports, reason = "each test program uses the part that it needs")]
pub use gateway::{Behind, Gateway};

/// What its first line begins with.
const GREETING: &str = "minisheep: listening on ";
const STOP_SECONDS_MAX: u64 = 30;

/// A running minisheep.
#[derive(Debug)]
pub struct Minisheep {
    child: Child,
    address: String,
    dir: TempDir,
}

impl Minisheep {
    /// Starts one with `options` besides what every one has.
    pub fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(&dir, "0", options);
        let mut minisheep = Self { child, address: String::new(), dir };
        minisheep.wait_for_greeting();
        minisheep
    }

    fn wait_for_greeting(&mut self) {
        let path = self.log_path();
        let child = &mut self.child;
        let mut found = None;
        wait_for("minisheep's greeting", || {
            found = greeting(&fs::read_to_string(&path).unwrap());
            let ended = child.try_wait().unwrap();
            assert!(found.is_some() || ended.is_none(), "minisheep ended: {ended:?}");
            found.is_some()
        });
        self.address = found.unwrap();
    }

    /// Starts it again, after its death, on the same directory and port.
    pub fn restart(&mut self, options: &[&str]) {
        let (_, port) = self.address.rsplit_once(':').unwrap();
        fs::rename(self.log_path(), self.dir.path().join("log.before")).unwrap();
        self.child = spawn(&self.dir, port, options);
        self.wait_for_greeting();
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends it a signal.
    ///
    /// One that is stopped has stopped when this returns, with all its threads.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        while signal == Signal::SIGSTOP && !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which ends with the last parenthesis.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Says a line on the control socket and returns all that it answers.
    pub fn control(&self, line: &str) -> String {
        let mut socket = UnixStream::connect(self.dir.path().join("control")).unwrap();
        writeln!(socket, "{line}").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(!answer.starts_with("error"), "{line}: {answer}");
        answer
    }

    /// Asks for a fault; returns the name under which it counts.
    pub fn fault(&self, line: &str) -> String {
        let answer = self.control(line);
        answer.strip_prefix("ok ").unwrap_or_else(|| panic!("{line}: {answer}")).trim().to_owned()
    }

    /// How often a fault has fired.
    pub fn fired(&self, fault: &str) -> u64 {
        count_of(&self.control("fired"), fault)
    }

    /// How many requests of an opcode were served, by its name in the library.
    pub fn served(&self, opcode: &str) -> u64 {
        count_of(&self.control("stats"), opcode)
    }

    /// How often clients broke which rule, a line for each; empty when none did.
    pub fn bugs(&self) -> String {
        self.control("bugs")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn stop(&mut self) {
        // It may have been stopped by a test, and then it has to hear the rest.
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        if wait_until(&mut self.child, deadline).is_none() {
            self.kill();
            fail(&format!("minisheep did not end in {STOP_SECONDS_MAX} s"));
        }
    }
}

impl Behind for Minisheep {
    fn listens_on(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }
}

impl Drop for Minisheep {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- minisheep's log\n{}", self.log());
            let _ = self.child.kill();
            let _ = self.child.wait();
            return;
        }
        if self.is_alive() {
            self.signal(Signal::SIGCONT);
            let bugs = self.bugs();
            self.stop();
            assert_eq!(bugs, "", "sheepfs broke the client's rules:\n{}", self.log());
        }
    }
}

/// Fails the test, unless it fails already.
pub fn fail(words: &str) {
    if thread::panicking() {
        println!("{words}");
    } else {
        panic!("{words}");
    }
}

fn spawn(dir: &TempDir, port: &str, options: &[&str]) -> Child {
    let log = File::create(dir.path().join("log")).unwrap();
    start(
        // A test run that is killed takes its servers with it.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_minisheep"), "--port", port])
            .args(["--control", arg(&dir.path().join("control"))])
            .args(options)
            .arg(dir.path().join("store"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log),
    )
}

/// The number in the line of `lines` that begins with `word`; 0 when there is none.
fn count_of(lines: &str, word: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(word)?.trim().parse().ok();
    lines.lines().find_map(number).unwrap_or(0)
}

fn greeting(log: &str) -> Option<String> {
    let line = log.lines().find_map(|line| line.strip_prefix(GREETING))?;
    line.split_whitespace().next().map(str::to_owned)
}
