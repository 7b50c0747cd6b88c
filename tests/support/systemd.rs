//! A machine of a test's own, as far as systemd sees: a real systemd as the init of private PID,
//! mount, cgroup, UTS and IPC namespaces, on the machine's root directory under an overlay in
//! memory, with the programs under test in /usr/bin and the shipped unit installed.
//!
//! The network is the machine's, so sheep on loopback are reached. What is inside can be used
//! from outside by [`System::path`], since /proc/PID/root crosses the mount namespace, and
//! process ids are given as the test sees them. There is no D-Bus: root's `systemctl` asks
//! systemd directly.
//!
//! When it goes, all its processes are killed with their init, the kernel takes down its mounts
//! with the last of them, and its control groups are removed; anything left fails the test.

#[path = "systemd/control_group.rs"]
mod control_group;
#[path = "systemd/process.rs"]
pub mod process;

use self::control_group::ControlGroup;
use self::process::{has_open, id_inside, in_state_d, name_of, users_of};
use crate::minisheep::fail;
use crate::tools::{Output, arg, holds_in_time, output, start, succeed, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Prepares the root directory and becomes systemd.
const ROOT_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/systemd-root");
/// The unit as it is shipped.
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/sheepfs@.service");
/// What comes to /usr/bin.
const PROGRAMS: [&str; 3] = [
    env!("CARGO_BIN_EXE_sheepfs"),
    env!("CARGO_BIN_EXE_sheepfs-worker"),
    env!("CARGO_BIN_EXE_minisheep"),
];
const NAMESPACES: [&str; 5] = ["--mount", "--pid", "--cgroup", "--uts", "--ipc"];
/// After so long a test hangs.
const LIFE_SECONDS_MAX: u64 = 500;
const STOP_SECONDS_MAX: u64 = 30;

/// A booted systemd.
#[derive(Debug)]
pub struct System {
    /// `unshare`, which ends when the init has ended.
    child: Child,
    init: Pid,
    cgroup: ControlGroup,
    dir: TempDir,
    /// Dropped with the system, which ends the watchdog.
    _watchdog: Sender<()>,
}

impl System {
    /// Boots one, and waits until all it starts by itself has been started.
    pub fn boot() -> Self {
        let (cgroup, dir) = (ControlGroup::new(), tempfile::tempdir().unwrap());
        let mut child = spawn(&cgroup, &dir);
        let init = wait_for_init(&mut child, &dir.path().join("log"));
        let watchdog = watch(init);
        let system = Self { child, init, cgroup, dir, _watchdog: watchdog };
        let state = system.succeed(&["systemctl", "is-system-running", "--wait"]);
        assert_eq!(state.trim(), "running");
        system
    }

    /// Its init.
    pub fn init(&self) -> Pid {
        self.init
    }

    /// The directory outside that it needs.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// The control group that holds all its processes, as seen from outside.
    pub fn control_group(&self) -> &Path {
        self.cgroup.path()
    }

    /// A path inside, as it can be used from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.init)).join(inside.trim_start_matches('/'))
    }

    /// Writes a file inside, and the directories above it.
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// Puts a script in the place of a program under test, which is called NAME.good from now on.
    pub fn replace_program(&self, name: &str, script: &str) {
        let program = format!("/usr/bin/{name}");
        let (new, good) = (format!("{program}.new"), format!("{program}.good"));
        // Under another name first, since a program that runs can't be written to.
        self.write(&new, script);
        self.succeed(&["chmod", "755", &new]);
        self.succeed(&["cp", &program, &good]);
        self.succeed(&["mv", &new, &program]);
    }

    /// Runs a program inside to its end, however it ends.
    pub fn run(&self, words: &[&str]) -> Output {
        output(&mut self.command(words))
    }

    /// Runs a program inside, which must succeed; what it wrote to standard output.
    pub fn succeed(&self, words: &[&str]) -> String {
        succeed(&mut self.command(words))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(NAMESPACES)
            .args(["--root", "--wd"]);
        command.arg("--").args(words);
        command
    }

    /// What systemd knows of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        let value = self.succeed(&["systemctl", "show", "--value", "--property", name, unit]);
        value.trim_end().to_owned()
    }

    /// What the journal has of a unit, without its decoration.
    pub fn journal(&self, unit: &str) -> String {
        self.succeed(&["journalctl", "--quiet", "--output=cat", "--unit", unit])
    }

    /// The main process of a unit, if it has one.
    pub fn main_process(&self, unit: &str) -> Option<Pid> {
        let inside = self.property(unit, "MainPID");
        let found = |pid: &Pid| id_inside(*pid).as_deref() == Some(&*inside);
        self.processes_of(unit).into_iter().find(found)
    }

    /// The processes of a unit, in no particular order.
    pub fn processes_of(&self, unit: &str) -> Vec<Pid> {
        match self.property(unit, "ControlGroup").strip_prefix('/') {
            Some(below) => self.cgroup.processes_of(below),
            None => Vec::new(),
        }
    }

    /// All processes of the system whose programs have a name that begins so.
    pub fn processes_named(&self, prefix: &str) -> Vec<Pid> {
        let processes = self.cgroup.all_processes().into_iter();
        processes.filter(|pid| name_of(*pid).starts_with(prefix)).collect()
    }

    /// All processes of the system that wait for a device or a file system and can't be
    /// interrupted.
    pub fn uninterruptible(&self) -> Vec<Pid> {
        self.cgroup.all_processes().into_iter().filter(|pid| in_state_d(*pid)).collect()
    }

    /// The processes that have `file` open.
    pub fn holders_of(&self, file: &str) -> Vec<Pid> {
        self.cgroup.all_processes().into_iter().filter(|pid| has_open(*pid, file)).collect()
    }

    /// The line of mountinfo for what is mounted at `point`, the latest first.
    pub fn mounts_at(&self, point: &str) -> Vec<String> {
        let mountinfo = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap();
        let at = |line: &&str| line.split(' ').nth(4) == Some(point);
        mountinfo.lines().rev().filter(at).map(str::to_owned).collect()
    }

    fn stop(&mut self) {
        let namespace = fs::read_link(format!("/proc/{}/ns/mnt", self.init)).ok();
        let _ = kill(self.init, Signal::SIGKILL);
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        if wait_until(&mut self.child, deadline).is_none() {
            fail(&format!("systemd, killed, is not gone; left: {:?}", self.uninterruptible()));
            return;
        }
        if !holds_in_time(|| namespace.as_deref().is_none_or(|link| users_of(link).is_empty())) {
            fail(&format!("processes still use the mounts of a system that ended: {namespace:?}"));
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- {}", fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
            let journal = self.command(&["journalctl", "--no-pager"]).output();
            let journal = journal.map(|output| output.stdout).unwrap_or_default();
            println!("--- the system's journal\n{}", String::from_utf8_lossy(&journal));
        }
        self.stop();
    }
}

fn spawn(cgroup: &ControlGroup, dir: &TempDir) -> Child {
    let log = File::create(dir.path().join("log")).unwrap();
    let scratch = dir.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    // Everything that is started belongs to the group from its first instruction on.
    let join = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
    // A test run that is killed takes its systems with it.
    start(
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-c", join, arg(cgroup.path()), "unshare"])
            .args(NAMESPACES)
            .args(["--fork", "--kill-child", "--propagation", "private", "--"])
            .args(["sh", ROOT_SCRIPT, arg(&scratch), UNIT])
            .args(PROGRAMS)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log),
    )
}

/// Waits until the one child of `unshare` is a systemd that can be asked.
fn wait_for_init(child: &mut Child, log: &Path) -> Pid {
    let mut init = None;
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let booted = holds_in_time(|| {
        let pids = fs::read_to_string(&children).unwrap_or_default();
        init = pids.trim().parse().ok().map(Pid::from_raw);
        child.try_wait().unwrap().is_some() || init.is_some_and(is_ready)
    });
    match init.filter(|init| booted && is_ready(*init)) {
        Some(init) => init,
        None => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no boot: {}", fs::read_to_string(log).unwrap_or_default());
        }
    }
}

/// The name is looked at first: until then the root directory is the machine's, where another
/// systemd may run.
fn is_ready(init: Pid) -> bool {
    let socket = format!("/proc/{init}/root/run/systemd/private");
    name_of(init) == "systemd" && Path::new(&socket).exists()
}

/// Kills `init` unless the returned sender is dropped in time: then the kernel ends the mounts
/// inside, and with them every call that hangs.
fn watch(init: Pid) -> Sender<()> {
    let (sender, receiver) = channel::<()>();
    thread::spawn(move || {
        let life = Duration::from_secs(LIFE_SECONDS_MAX);
        if receiver.recv_timeout(life) == Err(RecvTimeoutError::Timeout) {
            println!("a test hangs: killing its systemd after {LIFE_SECONDS_MAX} s");
            let _ = kill(init, Signal::SIGKILL);
        }
    });
    sender
}
