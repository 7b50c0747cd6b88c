//! The roles: a keeper, a supervisor that does as it is told, and the test between
//! them.

use crate::exit::Failed;
use crate::keeper::Keeper;
use crate::notify::{Inherited, Manager, StoredName, inherited};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::iterator::Signals;
use std::collections::VecDeque;
use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// What this process plays; none in the test itself.
const ROLE: &str = "SHEEPFS_TEST_ROLE";
/// The directory of the test.
const PLACE: &str = "SHEEPFS_TEST_PLACE";
const WATCHDOG: &str = "SHEEPFS_TEST_WATCHDOG_MILLIS";
/// Longer than anything takes on a busy machine; its end fails a test.
const PATIENCE: Duration = Duration::from_secs(60);
const BARRIER_LIMIT: Duration = Duration::from_secs(60);

/// Where the roles begin. In a run of the tests it has none, and does nothing.
#[test]
fn role() {
    match env::var(ROLE).as_deref() {
        Ok("keeper") => play_keeper(),
        Ok("supervisor") => play_supervisor(),
        Ok("stranger") => play_stranger(),
        other => assert_eq!(other, Err(&env::VarError::NotPresent)),
    }
}

fn in_role(role: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    let name = format!("{}::role", module_path!().split_once("::").unwrap().1);
    command.args(["--exact", &name, "--nocapture"]).env(ROLE, role).stdout(Stdio::null());
    command
}

fn place() -> PathBuf {
    env::var_os(PLACE).unwrap().into()
}

fn play_keeper() {
    let command = || {
        // As systemd has it: the number of the process that finds the descriptors.
        let inner = in_role("supervisor");
        let mut command = Command::new("sh");
        let export = "[ -z \"$LISTEN_FDS\" ] || export LISTEN_PID=$$; exec \"$0\" \"$@\"";
        command.args(["-c", export]);
        command.arg(inner.get_program()).args(inner.get_args());
        command.env(ROLE, "supervisor").stdout(Stdio::null());
        command
    };
    let tell = || {
        UnixStream::connect(place().join("calls")).unwrap().write_all(b"told\n").unwrap();
        Ok(())
    };
    let watchdog = Duration::from_millis(env::var(WATCHDOG).unwrap().parse().unwrap());
    let outcome = Keeper::new(&command, &tell, watchdog).unwrap().run();
    process::exit(match outcome {
        Ok(status) => status as i32,
        Err(failed @ Failed::Killed) => failed.status() as i32,
        Err(other) => panic!("{other}"),
    });
}

fn play_supervisor() {
    let manager = Manager::from_environment().unwrap();
    let hello = format!(
        "life {} fds={} names={} pid_is_ours={} watchdog={}",
        process::id(),
        env::var("LISTEN_FDS").unwrap_or("0".into()),
        env::var("LISTEN_FDNAMES").unwrap_or_default(),
        env::var("LISTEN_PID")
            .map_or("none".into(), |pid| { (pid == process::id().to_string()).to_string() }),
        manager.watchdog_interval().unwrap().as_micros(),
    );
    let inherited = inherited().unwrap();
    let mut calls = UnixStream::connect(place().join("calls")).unwrap();
    say(&mut calls, &hello);
    for order in BufReader::new(calls.try_clone().unwrap()).lines() {
        let order = order.unwrap();
        let words: Vec<&str> = order.split(' ').collect();
        if words == ["hear", "signals"] {
            hear_signals(calls.try_clone().unwrap());
        } else {
            carry_out(&manager, &inherited, &words);
        }
        say(&mut calls, "done");
    }
}

/// In one piece, since two threads have something to say.
fn say(calls: &mut UnixStream, line: &str) {
    calls.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn carry_out(manager: &Manager, inherited: &Inherited, words: &[&str]) {
    match words {
        ["ready"] => manager.ready("played"),
        ["reloading"] => manager.reloading(),
        ["alive"] => manager.alive(),
        ["barrier"] => manager.barrier(BARRIER_LIMIT).unwrap(),
        ["store", name, file] => {
            let file = File::create(place().join(file)).unwrap();
            manager.store(stored_name(name), file.as_fd()).unwrap();
        }
        ["remove", name] => manager.remove(stored_name(name)),
        ["write", name, text] => {
            let found = match stored_name(name) {
                StoredName::Device => &inherited.device,
                StoredName::State => &inherited.state,
            };
            let copy = found.as_ref().unwrap().try_clone().unwrap();
            File::from(copy).write_all(text.as_bytes()).unwrap();
        }
        ["stranger", words @ ..] => {
            let status = in_role("stranger").env("ORDER", words.join(" ")).status().unwrap();
            assert!(status.success());
        }
        ["exit", code] => process::exit(code.parse().unwrap()),
        other => panic!("{other:?}"),
    }
}

/// A process of the same user with the same environment.
fn play_stranger() {
    let order = env::var("ORDER").unwrap();
    let words: Vec<&str> = order.split(' ').collect();
    let nothing = Inherited { device: None, state: None };
    carry_out(&Manager::from_environment().unwrap(), &nothing, &words);
}

fn stored_name(word: &str) -> StoredName {
    StoredName::of_word(&format!("sheepfs-{word}")).unwrap()
}

fn hear_signals(mut calls: UnixStream) {
    let heard = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
    let mut signals = Signals::new(heard.map(|signal| signal as i32)).unwrap();
    thread::spawn(move || {
        for signal in signals.forever() {
            say(&mut calls, &format!("signal {signal}"));
        }
    });
}

/// The test's side: a directory, and a keeper.
pub struct Site {
    dir: TempDir,
    calls: UnixListener,
    keeper: Child,
}

impl Site {
    pub fn new() -> Self {
        Self::with_watchdog("30000")
    }

    pub fn with_watchdog(millis: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let calls = UnixListener::bind(dir.path().join("calls")).unwrap();
        let keeper = in_role("keeper").env(PLACE, dir.path()).env(WATCHDOG, millis).spawn();
        Self { calls, keeper: keeper.unwrap(), dir }
    }

    fn accept(&self) -> UnixStream {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.calls.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut fds, patience), Ok(1), "nobody calls");
        let (stream, _) = self.calls.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The next life of the played supervisor.
    pub fn life(&self) -> Life {
        Life::new(self.accept())
    }

    /// What somebody else says who calls.
    pub fn call(&self) -> String {
        let mut said = String::new();
        BufReader::new(self.accept()).read_line(&mut said).unwrap();
        said
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.keeper.id().try_into().unwrap()), signal).unwrap();
    }

    fn keeper_links(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.keeper.id())).unwrap();
        entries.map(|entry| fs::read_link(entry.unwrap().path()).unwrap()).collect()
    }

    pub fn keeper_fds(&self) -> usize {
        self.keeper_links().len()
    }

    pub fn keeper_has_open(&self, path: &Path) -> bool {
        self.keeper_links().iter().any(|link| link == path)
    }

    /// Waits for the keeper's end; nobody may have called since.
    pub fn end(mut self) -> ExitStatus {
        let status = self.keeper.wait().unwrap();
        self.calls.set_nonblocking(true).unwrap();
        assert!(self.calls.accept().is_err(), "there was another life");
        status
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // After a test that failed; otherwise it has ended.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// One life of the played supervisor. It ends when this is dropped, at the latest.
pub struct Life {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    /// Signals that it has heard, while something else was waited for.
    heard: VecDeque<String>,
    pub hello: String,
}

impl Life {
    fn new(stream: UnixStream) -> Self {
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut life = Self { stream, lines, heard: VecDeque::new(), hello: String::new() };
        life.hello = life.line();
        assert!(life.hello.starts_with("life "), "{}", life.hello);
        life
    }

    /// The next line; an empty one when it has ended.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line that is not about a signal.
    fn answer(&mut self) -> String {
        loop {
            let line = self.line();
            match line.strip_prefix("signal ") {
                Some(signal) => self.heard.push_back(signal.to_owned()),
                None => return line,
            }
        }
    }

    /// Waits until it has heard a signal, and gives that.
    pub fn signal(&mut self) -> Signal {
        let signal = self.heard.pop_front().unwrap_or_else(|| {
            let line = self.line();
            line.strip_prefix("signal ").unwrap_or_else(|| panic!("{line:?}")).to_owned()
        });
        Signal::try_from(signal.parse::<i32>().unwrap()).unwrap()
    }

    /// Whether it told that of what it found.
    pub fn found(&self, what: &str) -> bool {
        self.hello.contains(what)
    }

    pub fn pid(&self) -> i32 {
        self.hello.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Gives an order, and waits for nothing.
    pub fn begin(&mut self, order: &str) {
        writeln!(self.stream, "{order}").unwrap();
    }

    /// Gives an order, and waits until it is carried out.
    pub fn order(&mut self, order: &str) {
        self.begin(order);
        assert_eq!(self.answer(), "done", "{order}");
    }

    /// Gives an order that ends it, and waits for its end.
    pub fn last_order(mut self, order: &str) {
        self.begin(order);
        assert_eq!(self.answer(), "", "{order}");
    }

    /// Kills it, and waits for its end.
    pub fn kill(mut self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
        assert_eq!(self.answer(), "");
    }
}
