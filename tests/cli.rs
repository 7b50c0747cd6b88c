//! The command as a user meets it: what it refuses, in which words and with which
//! exit status, and what is left running afterwards.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use assert_cmd::cargo::cargo_bin;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine; its end fails a test.
const PATIENCE: Duration = Duration::from_secs(60);

fn sheepfs() -> Command {
    let mut command = Command::new(cargo_bin("sheepfs"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs it with these words and a mount point.
fn run(words: &str, mount_point: &Path) -> Output {
    sheepfs().args(words.split_whitespace()).arg(mount_point).output().unwrap()
}

#[track_caller]
fn assert_fails(output: &Output, status: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(words), "{stderr:?} does not say {words:?}");
    assert!(output.stdout.is_empty(), "{:?}", String::from_utf8_lossy(&output.stdout));
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// All processes that have this text in their command line.
fn processes_about(text: &str) -> BTreeSet<i32> {
    let is_about = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_about).collect()
}

/// A directory to mount on, and one for a minisheep; left clean in any case.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("mount")).unwrap();
        Self { dir }
    }

    fn mount_point(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    /// The arguments for a cluster of its own with one VDI.
    fn local(&self) -> Vec<String> {
        let data = self.dir.path().join("data").display().to_string();
        ["--local", &data, "--create", "disk:8M"].map(str::to_owned).to_vec()
    }

    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.mount_point().join(path)).unwrap()
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(self.mount_point().to_str().unwrap())
    }

    fn unmount(&self) {
        let status = Command::new("umount").arg(self.mount_point()).status().unwrap();
        assert!(status.success());
    }

    fn wait_until_nothing_runs(&self) {
        let path = self.dir.path().to_str().unwrap();
        wait_until("all processes have ended", || processes_about(path).is_empty());
        assert!(!self.is_mounted());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(self.mount_point()).status();
        }
    }
}

#[test]
fn a_line_that_makes_no_sense_is_a_usage_error_with_a_hint() {
    let place = Place::new();
    let point = place.mount_point();
    for (line, words) in [
        ("-p 0", "1 to 65535"),
        ("-p 65536", "1 to 65535"),
        ("-p port", "1 to 65535"),
        ("-a host:99999", "1 to 65535"),
        ("-a 1:2:3", "[ADDR]:PORT"),
        ("-a host:7000 -p 7001", "7001"),
        ("--create disk:1G", "--local"),
        ("--local dir --create disk", "disk:10G"),
        ("--local dir -a host", "cannot be used with"),
        ("--attach a/b", "cannot be a file name"),
        ("--mode 999", "octal"),
        ("--cache-size many", "10G"),
        ("--on-outage fail", "error-after=SECONDS"),
        ("--io-timeout 0", "above 0"),
        ("--fence off", "strict"),
        ("--no-such-option", "--no-such-option"),
    ] {
        assert_fails(&run(line, &point), 64, words);
    }
    assert_fails(&sheepfs().output().unwrap(), 64, "MOUNTPOINT");
    assert!(!place.is_mounted());
}

#[test]
fn a_mount_point_that_cannot_be_one_is_refused_by_its_reason() {
    let place = Place::new();
    let missing = place.dir.path().join("missing");
    assert_fails(&run("", &missing), 64, "does not exist");
    let file = place.dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_fails(&run("", &file), 64, "is not a directory");
    symlink("missing", place.dir.path().join("link")).unwrap();
    assert_fails(&run("", &place.dir.path().join("link")), 64, "does not exist");
    assert_fails(&run("", Path::new("/proc")), 64, "is a mount already");
}

/// In the foreground and in the background: whoever calls it gets the words and
/// the exit status either way.
#[test]
fn no_sheep_is_said_at_once_and_leaves_nothing_behind() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for foreground in ["", "-f "] {
        let output = run(&format!("{foreground}-p {port}"), &place.mount_point());
        let words = format!("cannot reach a sheep at 127.0.0.1:{port}: connection refused");
        assert_fails(&output, 69, &words);
        place.wait_until_nothing_runs();
    }
}

#[test]
fn what_is_no_sheep_is_not_taken_for_one() {
    let place = Place::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A whole header of what could be anything.
            let _ = std::io::Write::write_all(&mut stream.unwrap(), &[b'x'; 48]);
        }
    });
    let output = run(&format!("-p {port}"), &place.mount_point());
    assert_fails(&output, 69, &format!("cannot reach a sheep at 127.0.0.1:{port}: "));
    place.wait_until_nothing_runs();
}

#[test]
fn a_volume_that_cannot_be_attached_is_said_and_leaves_nothing_behind() {
    let place = Place::new();
    let output = sheepfs()
        .args(place.local())
        .args(["--attach", "disk", "--attach", "nothing"])
        .arg(place.mount_point())
        .output()
        .unwrap();
    assert_fails(&output, 78, "cannot attach nothing: the cluster has no such VDI");
    place.wait_until_nothing_runs();
}

#[test]
fn a_minisheep_that_cannot_start_says_why() {
    let place = Place::new();
    let file = place.dir.path().join("file");
    fs::write(&file, "").unwrap();
    let line = format!("--local {}", file.display());
    assert_fails(&run(&line, &place.mount_point()), 78, "minisheep");
    place.wait_until_nothing_runs();
}

/// Every option of the documentation, and no other, with its short form.
#[test]
fn help_lists_exactly_what_there_is() {
    let output = sheepfs().arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
    let help = String::from_utf8(output.stdout).unwrap();
    let option = |line: &str| {
        let line = line.trim_start();
        let words = line.strip_prefix('-').map(|_| line.split("  ").next().unwrap_or_default());
        words.map(str::to_owned)
    };
    let listed: Vec<String> = help.lines().filter_map(option).collect();
    let expected = [
        "-a, --address <ADDR>",
        "-p, --port <PORT>",
        "-d, --debug",
        "--log-filter-file <FILE>",
        "-f, --foreground",
        "-k, --pagecache",
        "-o, --objectcache",
        "--attach <NAME>",
        "--local <DIR>",
        "--create <NAME:SIZE>",
        "--allow-other",
        "--uid <UID>",
        "--gid <GID>",
        "--mode <MODE>",
        "--cache-size <SIZE>",
        "--on-outage <POLICY>",
        "--io-timeout <SECONDS>",
        "--fence <HOW>",
        "--steal-lock",
        "--no-lock",
        "--read-only",
        "--source <WORDS>",
        "--route <WAY>",
        "--max-connections <COUNT>",
        "--check-state",
        "-h, --help",
        "-V, --version",
    ];
    assert_eq!(listed, expected);
    assert!(help.contains("[OPTIONS] <MOUNTPOINT>"));
}

/// The manual page's list of options is that of the program.
#[test]
fn the_manual_page_knows_every_option_and_no_other() {
    let help = String::from_utf8(sheepfs().arg("--help").output().unwrap().stdout).unwrap();
    let is_option = |line: &&str| line.trim_start().starts_with('-');
    let listed = help.lines().filter(is_option).map(|line| {
        let option = line.trim_start().split("  ").next().unwrap_or_default();
        option.replace(['<', '>'], "")
    });
    let page = include_str!("../man/sheepfs.8");
    let described = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Fl "))
        .map(|option| format!("-{option}").replace(" , Fl ", ", -").replace(" Ar ", " "));
    let listed: BTreeSet<String> = listed.collect();
    assert!(listed.len() > 12, "{listed:?}");
    assert_eq!(described.collect::<BTreeSet<_>>(), listed);
}

/// What the manual promises of a successor, each sentence of it, is what a test's comment says.
#[test]
fn each_sentence_on_succession_is_a_tests() {
    let page = include_str!("../man/sheepfs.8");
    let section = page.split(".Sh ").find_map(|section| section.strip_prefix("SUCCESSION\n"));
    let text: Vec<String> = section.unwrap().lines().filter_map(plain).collect();
    let text = text.join(" ").replace(" ,", ",").replace(" .", ".");
    let sentences: Vec<&str> = text.split_inclusive(". ").map(str::trim).collect();
    assert!(sentences.len() > 12, "{sentences:?}");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/takeover");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let sources = files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap());
    let comments: String = sources.flat_map(|source| comments_of(&source)).collect();
    for sentence in sentences {
        assert!(comments.contains(sentence), "no test says: {sentence}");
    }
}

/// A line of a manual page as one reads it; none for what is only form.
fn plain(line: &str) -> Option<String> {
    if line.starts_with(".\\\"") || line == ".Pp" {
        return None;
    }
    let Some(macro_line) = line.strip_prefix('.') else { return Some(line.to_owned()) };
    let (name, words) = macro_line.split_once(' ').unwrap_or((macro_line, ""));
    Some(match name {
        "Nm" => "sheepfs".to_owned(),
        "Fl" => format!("-{words}"),
        _ => words.to_owned(),
    })
}

/// The doc comments of a source, each line with a space behind.
fn comments_of(source: &str) -> Vec<String> {
    let text = source.lines().filter_map(|line| line.strip_prefix("///"));
    text.map(|line| format!("{} ", line.trim())).collect()
}

#[test]
fn version_is_that_of_the_package() {
    let output = sheepfs().arg("-V").output().unwrap();
    let expected = format!("sheepfs {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

/// `output` reads stdout and stderr to their end, as `$(sheepfs …)` does: it
/// returns although the mount and its children live on.
#[test]
fn in_the_background_it_returns_when_the_mount_is_ready() {
    let place = Place::new();
    // Paths are relative to a working directory that is left later.
    let output = sheepfs()
        .current_dir(place.dir.path())
        .args(["--local", "data", "--create", "disk:8M", "--attach", "disk", "mount"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    assert_eq!(fs::metadata(place.mount_point().join("volume/disk")).unwrap().len(), 8 << 20);
    assert!(place.file("config/status").contains("\nworker_state serving\n"));
    assert!(place.file("config/status").contains("\nvolumes 1\n"));
    place.unmount();
    place.wait_until_nothing_runs();
}

/// A mount in the foreground.
struct Foreground {
    child: Child,
}

impl Foreground {
    fn start(place: &Place) -> Self {
        let mut command = sheepfs();
        command.arg("-f").args(place.local()).args(["--attach", "disk"]).arg(place.mount_point());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let volume = place.mount_point().join("volume/disk");
        wait_until("the volume is there", || volume.exists());
        Self { child }
    }

    fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    fn children(&self) -> Vec<i32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let pids = fs::read_to_string(path).unwrap();
        pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// Waits for its end; its exit code and what it logged.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

#[test]
fn a_signal_unmounts_and_is_no_error() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::new();
        let mounted = Foreground::start(&place);
        kill(Pid::from_raw(mounted.pid()), signal).unwrap();
        let (code, log) = mounted.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("detached"), "{log}");
        place.wait_until_nothing_runs();
    }
}

#[test]
fn a_mount_in_use_does_not_keep_a_signal_from_ending_it() {
    let place = Place::new();
    let mounted = Foreground::start(&place);
    let volume = fs::File::open(place.mount_point().join("volume/disk")).unwrap();
    kill(Pid::from_raw(mounted.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(mounted.end().0, Some(0));
    drop(volume);
    place.wait_until_nothing_runs();
}

/// Hazards 29 and 33: the children have neither the device nor anything of the
/// caller's, and don't outlive their parent, however it ends.
#[test]
fn the_children_have_no_device_and_die_with_their_parent() {
    let place = Place::new();
    let mounted = Foreground::start(&place);
    let program = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let started = |pid: &&i32| program(**pid) != program(mounted.pid());
    wait_until("the spare worker", || mounted.children().iter().filter(started).count() == 3);
    let children = mounted.children();
    for pid in &children {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let target = fs::read_link(fd.unwrap().path()).unwrap_or_default();
            assert_ne!(target, Path::new("/dev/fuse"), "{pid}");
        }
    }
    kill(Pid::from_raw(mounted.pid()), Signal::SIGKILL).unwrap();
    assert_eq!(mounted.end().0, None);
    let lives = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
    wait_until("the children have ended", || !children.iter().any(lives));
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_the_mount_goes_on() {
    let place = Place::new();
    let mounted = Foreground::start(&place);
    let is_worker = |pid: &&i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("sheepfs-worker")
    };
    let children = mounted.children();
    let worker = children.iter().find(is_worker).unwrap();
    kill(Pid::from_raw(*worker), Signal::SIGKILL).unwrap();
    wait_until("the next worker serves", || {
        place.file("config/status").contains("worker_generation 2\nworker_state serving\n")
    });
    assert!(place.file("config/sheep_info").starts_with("127.0.0.1:"));
    assert_eq!(fs::read(place.mount_point().join("volume/disk")).unwrap(), vec![0; 8 << 20]);
    kill(Pid::from_raw(mounted.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(mounted.end().0, Some(0));
}
