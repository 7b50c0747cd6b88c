//! The keeper that `sheepfs MOUNTPOINT` leaves behind, around the real supervisor, and the
//! service manager that stands in for systemd in other tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "each test program uses the part that it needs")]
#[path = "support/notify.rs"]
mod notify;
#[path = "support/tools.rs"]
mod tools;

use assert_cmd::cargo::cargo_bin;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use notify::Store;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tools::{arg, run, succeed, wait_for};

/// A mount of a cluster of its own, in the background.
struct Mounted {
    dir: TempDir,
}

impl Mounted {
    fn start() -> Self {
        let mounted = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(mounted.point()).unwrap();
        let data = mounted.dir.path().join("data");
        let words = ["--local", arg(&data), "--create", "disk:8M", "--attach", "disk"];
        succeed(Command::new(cargo_bin("sheepfs")).args(words).arg(mounted.point()));
        mounted
    }

    fn point(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(arg(&self.point()))
    }

    /// All processes that name its directory, but for the worker, which names nothing.
    fn processes(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let names_it = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(arg(self.dir.path()))
        };
        pids.filter(names_it).collect()
    }

    fn keeper(&self) -> i32 {
        let keepers = self.processes().into_iter().filter(|pid| name_of(*pid) == "sheepfs-keeper");
        let [keeper] = <[i32; 1]>::try_from(keepers.collect::<Vec<_>>()).unwrap();
        keeper
    }

    fn supervisor(&self) -> i32 {
        let [supervisor] = <[i32; 1]>::try_from(children_of(self.keeper())).unwrap();
        assert_eq!(name_of(supervisor), "sheepfs");
        supervisor
    }

    fn unmount(&self) {
        run("umount", &[arg(&self.point())]);
        self.wait_until_nothing_is_left();
    }

    fn wait_until_nothing_is_left(&self) {
        wait_for("the end of all processes", || self.processes().is_empty());
        assert!(!self.is_mounted());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(self.point()).status();
        }
    }
}

fn name_of(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn children_of(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let lists = threads.map(|task| fs::read_to_string(task.path().join("children")).unwrap());
    lists.collect::<String>().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn environment_of(pid: i32) -> BTreeMap<String, String> {
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let pairs = environment.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn open_files_of(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.map(|link| arg(&link).to_owned()).collect()
}

/// `kill -TERM` to the keeper is `stop`.
#[test]
fn a_signal_to_the_keeper_unmounts_and_ends_all() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mounted = Mounted::start();
        let supervisor = mounted.supervisor();
        kill(Pid::from_raw(mounted.keeper()), signal).unwrap();
        mounted.wait_until_nothing_is_left();
        assert!(!Path::new(&format!("/proc/{supervisor}")).exists());
    }
}

#[test]
fn an_unmount_ends_all() {
    let mounted = Mounted::start();
    mounted.unmount();
}

/// What a keeper is there for.
const KEPT: [&str; 2] = ["/dev/fuse", "/memfd:sheepfs-state (deleted)"];

/// No file but /dev/null and what it keeps, no socket with a path, no working directory: nothing
/// that a keeper could be in the way of.
#[test]
fn the_keeper_holds_nothing_but_its_sockets_and_what_it_keeps() {
    let mounted = Mounted::start();
    let keeper = mounted.keeper();
    // It lets go of the caller before that is told.
    let cwd = fs::read_link(format!("/proc/{keeper}/cwd")).unwrap();
    assert_eq!(cwd, Path::new("/"));
    wait_for("the keeper to let go of its starter", || {
        open_files_of(keeper).iter().all(|file| !file.starts_with("pipe:"))
    });
    let may_be = |file: &&String| {
        ["/dev/null", "anon_inode:[pidfd]"].contains(&file.as_str())
            || file.starts_with("socket:")
            || file.starts_with("pidfd:")
    };
    let files = open_files_of(keeper);
    let (others, kept): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| !KEPT.contains(&file.as_str()));
    assert_eq!(kept.len(), KEPT.len(), "each is kept once: {files:?}");
    assert!(others.iter().all(may_be), "{files:?}");
    let sockets = fs::read_to_string(format!("/proc/{keeper}/net/unix")).unwrap();
    let inodes: Vec<&str> =
        files.iter().filter_map(|file| file.strip_prefix("socket:[")?.strip_suffix(']')).collect();
    let ours = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours: Vec<_> = ours.filter(|words| words.len() > 6 && inodes.contains(&words[6])).collect();
    assert!(!ours.is_empty());
    for socket in ours {
        assert!(socket.get(7).is_none_or(|path| path.starts_with('@')), "{socket:?}");
    }
    assert_eq!(fs::read_dir(format!("/proc/{keeper}/task")).unwrap().count(), 1);
    mounted.unmount();
}

/// The supervisor finds what systemd's child would find, and hands none of it on.
#[test]
fn the_words_of_the_manager_are_for_the_supervisor_alone() {
    let mounted = Mounted::start();
    let supervisor = mounted.supervisor();
    let found = environment_of(supervisor);
    assert!(found["NOTIFY_SOCKET"].starts_with('@'), "{found:?}");
    assert_eq!(found["WATCHDOG_USEC"], "30000000");
    assert_eq!(found["WATCHDOG_PID"], supervisor.to_string());
    assert!(!found.contains_key("LISTEN_FDS"));
    let mut children = children_of(supervisor);
    // The spare worker may just be starting: until then it is a copy of its parent.
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    children.retain(|child| program(*child) != program(supervisor));
    assert!(children.len() >= 2, "a worker and a minisheep: {children:?}");
    for child in children {
        let theirs = environment_of(child);
        let leaked = found.keys().filter(|name| {
            let ours = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
            ours.contains(&name.as_str()) && theirs.contains_key(*name)
        });
        assert_eq!(leaked.count(), 0, "{theirs:?}");
    }
    mounted.unmount();
}

/// Its parent can't know its number, and so it writes that down itself, before it becomes the
/// supervisor.
#[test]
fn what_was_kept_is_for_the_process_that_finds_it() {
    let mounted = Mounted { dir: tempfile::tempdir().unwrap() };
    fs::create_dir(mounted.point()).unwrap();
    let data = mounted.dir.path().join("data");
    let mut command = Command::new(cargo_bin("sheepfs"));
    command.env("SHEEPFS_IN_BACKGROUND", "starting").env("LISTEN_FDS", "0");
    command.args(["--local", arg(&data)]).arg(mounted.point());
    let mut child = tools::start(&mut command);
    wait_for("the mount", || mounted.is_mounted());
    let found = environment_of(child.id().cast_signed());
    assert_eq!(found["LISTEN_PID"], child.id().to_string());
    assert!(!found.contains_key("WATCHDOG_PID"), "nobody watches it: {found:?}");
    run("umount", &[arg(&mounted.point())]);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The keeper's own death ends nothing.
#[test]
fn the_mount_outlives_its_keeper() {
    let mounted = Mounted::start();
    kill(Pid::from_raw(mounted.keeper()), Signal::SIGKILL).unwrap();
    wait_for("its death", || {
        !mounted.processes().iter().any(|pid| name_of(*pid) == "sheepfs-keeper")
    });
    let status = fs::read_to_string(mounted.point().join("config/status")).unwrap();
    assert!(status.contains("\nworker_state serving\n"), "{status}");
    mounted.unmount();
}

/// What the tests' service manager understands is what systemd's own client says.
#[test]
fn the_stand_in_hears_what_systemd_says() {
    for (store, first) in [(Store::start(), '/'), (Store::start_abstract(), '@')] {
        assert!(store.address().starts_with(first));
        let mut child = store.spawn("systemd-notify", &["--ready", "--status=all well"]);
        assert!(child.wait().unwrap().success());
        store.wait_until_said("READY=1", 1);
        let messages = store.messages();
        let ready = messages.iter().find(|message| message.says("READY=1")).unwrap();
        assert_eq!(ready.value("STATUS"), Some("all well"));
        // It waits for a barrier on its own account, and so has this been lifted.
        assert_eq!(store.count("BARRIER=1"), 1);
    }
}

const STORING: &str = "
import os, socket, sys
to = os.environ['NOTIFY_SOCKET']
to = '\\0' + to[1:] if to[0] == '@' else to
client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
client.connect(to)
for name, path in zip(sys.argv[1::2], sys.argv[2::2]):
    with open(path, 'w') as file:
        for _ in range(2):
            socket.send_fds(client, [b'FDSTORE=1\\nFDNAME=' + name.encode()], [file.fileno()])
ours, theirs = os.pipe()
socket.send_fds(client, [b'BARRIER=1'], [theirs])
os.close(theirs)
assert os.read(ours, 1) == b''
";

const TELLING: &str = "
echo \"$LISTEN_FDS $LISTEN_FDNAMES $((LISTEN_PID - $$)) $WATCHDOG_USEC $((WATCHDOG_PID - $$))\"
echo newest >&3; echo oldest >&5";

#[test]
fn the_stand_in_keeps_descriptors_and_hands_them_on_as_systemd_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| arg(&dir.path().join(name)).to_owned();
    let store = Store::start().with_watchdog(Duration::from_secs(30));
    let (one, two, three) = (path("one"), path("two"), path("three"));
    let mut child = store.spawn("python3", &["-c", STORING, "a", &one, "b", &two, "a", &three]);
    assert!(child.wait().unwrap().success());
    assert_eq!(store.names(), ["a", "b", "a"]);
    let told = succeed(store.command("sh").args(["-c", TELLING]));
    assert_eq!(told, "3 a:b:a 0 30000000 0\n");
    assert_eq!(fs::read_to_string(&one).unwrap(), "oldest\n");
    assert_eq!(fs::read_to_string(&three).unwrap(), "newest\n");
    File::from(store.descriptor("b").unwrap()).write_all(b"b").unwrap();
    assert_eq!(fs::read_to_string(&two).unwrap(), "b");
    let stored = |message: &&notify::Message| message.says("FDSTORE=1");
    let messages = store.messages();
    assert!(messages.iter().filter(stored).all(|message| message.descriptors == 1));
    assert!(messages.iter().all(|message| message.pid == child.id().cast_signed()));
    store.lose();
    assert!(store.names().is_empty());
}
