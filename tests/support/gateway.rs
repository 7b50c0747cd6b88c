//! Gateways of a test's own, in front of its minisheep: a cluster whose nodes can be killed and
//! stopped. Their faults are theirs alone; rules are counted by the minisheep.

#![allow(dead_code, reason = "each test program uses the part that it needs")]

use crate::tools::{arg, start, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What its first line begins with.
const GREETING: &str = "minisheep: listening on ";
const STOP_SECONDS_MAX: u64 = 30;

/// What a gateway can stand in front of.
pub trait Behind {
    /// Where it listens.
    fn listens_on(&self) -> SocketAddr;
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    address: String,
    behind: SocketAddr,
    dir: TempDir,
}

impl Gateway {
    /// Starts one at any port; a node of the cluster when this returns.
    pub fn start(behind: &impl Behind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let behind = behind.listens_on();
        let child = spawn(&dir, behind, "0");
        let mut gateway = Self { child, address: String::new(), behind, dir };
        gateway.wait_for_greeting();
        gateway
    }

    fn wait_for_greeting(&mut self) {
        let path = self.log_path();
        let child = &mut self.child;
        let mut found = None;
        wait_for("a gateway's greeting", || {
            let log = fs::read_to_string(&path).unwrap();
            found = log.lines().find_map(|line| line.strip_prefix(GREETING)).map(str::to_owned);
            let ended = child.try_wait().unwrap();
            assert!(found.is_some() || ended.is_none(), "a gateway ended: {ended:?}\n{log}");
            found.is_some() && log.ends_with('\n')
        });
        self.address = found.unwrap();
    }

    /// Starts it again, after its death, on the same port: another process, without faults.
    pub fn restart(&mut self) {
        let (_, port) = self.address.rsplit_once(':').unwrap();
        fs::rename(self.log_path(), self.dir.path().join("log.before")).unwrap();
        self.child = spawn(&self.dir, self.behind, port);
        self.wait_for_greeting();
    }

    /// Kills it as `kill -9` does. Its connections have ended when this returns.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Stops it, and returns when it is.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid());
        wait_for("the gateway to be stopped", || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        });
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// How many threads serve clients: two each, one that ends with the client and one that ends
    /// when all that was read of it is finished.
    pub fn threads(&self) -> usize {
        threads_named(self.pid().as_raw(), &["requests", "replies"])
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Says a line on the control socket and returns all that it answers.
    pub fn control(&self, line: &str) -> String {
        let answer = self.try_control(line);
        assert!(!answer.starts_with("error"), "{line}: {answer}");
        answer
    }

    /// As [`Gateway::control`], errors too.
    pub fn try_control(&self, line: &str) -> String {
        let mut socket = UnixStream::connect(self.dir.path().join("control")).unwrap();
        writeln!(socket, "{line}").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
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

    /// How many requests are held at present.
    pub fn held(&self) -> u64 {
        count_of(&self.control("held"), "requests")
    }

    /// How many replies are held at present.
    pub fn held_replies(&self) -> u64 {
        count_of(&self.control("held"), "replies")
    }

    /// How many requests of an opcode it has received, by its name in the library.
    pub fn served(&self, opcode: &str) -> u64 {
        count_of(&self.control("stats"), opcode)
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        wait_until(&mut self.child, deadline).expect("the gateway ends")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- log of the gateway {}\n{}", self.address, self.log());
            return self.end();
        }
        if self.child.try_wait().unwrap().is_some() {
            return;
        }
        // It may have been stopped by a test, and then it has to hear the rest.
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        let ended = wait_until(&mut self.child, deadline);
        self.end();
        let ended = ended.unwrap_or_else(|| panic!("no end in {STOP_SECONDS_MAX} s"));
        assert!(ended.success(), "the gateway ended with {ended}:\n{}", self.log());
    }
}

/// How many threads of a process have one of those names.
pub fn threads_named(pid: i32, names: &[&str]) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    // A thread may end while we look.
    let named = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    named.filter(|name| names.contains(&name.trim_end())).count()
}

fn spawn(dir: &TempDir, behind: SocketAddr, port: &str) -> Child {
    let log = File::create(dir.path().join("log")).unwrap();
    start(
        // A test run that is killed takes its servers with it.
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_minisheep"), "--port", port])
            .args(["--gateway-of", &behind.to_string()])
            .args(["--control", arg(&dir.path().join("control"))])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log),
    )
}

/// The number in the line of `lines` that begins with `word`; 0 when there is none.
fn count_of(lines: &str, word: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok();
    lines.lines().find_map(number).unwrap_or(0)
}
