//! What both programs log, and where it goes: to a journal of the test's own, or to stderr.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

#[path = "support/journal.rs"]
mod journal;
#[allow(dead_code, reason = "each test program uses the part that it needs")]
#[path = "support/minisheep.rs"]
mod minisheep;
#[allow(dead_code, reason = "each test program uses the part that it needs")]
#[path = "support/tools.rs"]
mod tools;
#[allow(dead_code, reason = "each test program uses the part that it needs")]
#[path = "support/wire.rs"]
mod wire;

use journal::{Entry, Journal, with_journal, without_journal};
use minisheep::Minisheep;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sheepfs::logging::{self, Filter, Sink};
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tools::{arg, holds_in_time, start, wait_for, wait_until};
use wire::Wire;

const MIB: u64 = 1 << 20;

/// Who started sheepfs, as it can see.
enum Starter {
    /// A service manager that led stderr to the journal.
    Systemd,
    /// Another manager.
    Manager,
    /// Nobody of that kind.
    Shell,
}

/// A sheepfs in the foreground, in the namespace of the thread that started it.
struct Sheepfs {
    child: Child,
    dir: TempDir,
}

impl Sheepfs {
    fn start(sheep: &Minisheep, starter: &Starter, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("mount");
        fs::create_dir(&point).unwrap();
        let stderr = File::create(dir.path().join("stderr")).unwrap();
        let stat = stderr.metadata().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheepfs"));
        command.args(["-f", "--address", sheep.address()]).args(options).arg(arg(&point));
        for variable in ["RUST_LOG", "JOURNAL_STREAM", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        match starter {
            Starter::Systemd => {
                command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino()));
                // Said on stderr by both programs, whatever becomes of their lines.
                command.env("RUST_LOG", "info,target=loud");
            }
            Starter::Manager => drop(command.env("NOTIFY_SOCKET", "/nowhere")),
            Starter::Shell => {}
        }
        let child = start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr));
        let sheepfs = Self { child, dir };
        wait_for("the mount", || is_mounted(&point));
        sheepfs
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("mount").join(below)
    }

    fn attach(&self, name: &str) -> io::Result<()> {
        fs::write(self.path("vdi/mount"), name)
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    /// Ends it in order; what it said on stderr.
    fn stop(mut self) -> String {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let status = wait_until(&mut self.child, Instant::now() + Duration::from_secs(60));
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.stderr());
        self.stderr()
    }
}

impl Drop for Sheepfs {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            println!("--- sheepfs's stderr\n{}", self.stderr());
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = umount2(&self.path(""), MntFlags::MNT_DETACH);
        }
    }
}

/// In the namespace of this thread.
fn is_mounted(point: &Path) -> bool {
    let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    mountinfo.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}

fn minisheep() -> Minisheep {
    let sheep = Minisheep::start(&["--format"]);
    let new = NewVdi {
        size: 4 * MIB,
        copies: 1,
        copy_policy: 0,
        block_size_shift: 20,
        base: 0,
        snapshot: false,
        store_policy: 0,
    };
    Wire::connect(sheep.address()).new_vdi("disk", &new);
    sheep
}

/// What the programs do at `SIGHUP`: a journal that was not there at the start is found, and the
/// filter's file is read again; what can't be used changes nothing.
#[test]
fn a_reload_finds_the_journal_and_reads_the_filter_again() {
    without_journal(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| fs::write(file.path(), text).unwrap();
        write("info");
        logging::start(Sink::Background, Filter::new(false, Some(file.path().to_owned())));
        tracing::error!("nobody hears this");

        let mut journal = Journal::begin();
        assert_eq!(logging::reload(), "info");
        journal.saying("the log was opened anew");
        tracing::debug!("too little");
        write("debug");
        assert_eq!(logging::reload(), "debug");
        tracing::debug!(errno = 5, volume = %"disk", "little");
        let little = journal.saying("little");
        assert_has(&little, &[("ERRNO", "5"), ("SHEEPFS_VOLUME", "disk"), ("PRIORITY", "7")]);

        write("target=loud");
        assert_eq!(logging::reload(), "debug", "it stays");
        let refused = journal.saying("the log filter \"target=loud\" makes no sense");
        assert_has(&refused, &[("PRIORITY", "4"), ("SHEEPFS_FILTER", "debug")]);
        fs::remove_file(file.path()).unwrap();
        assert_eq!(logging::reload(), "debug", "it stays");
        assert_has(&journal.saying("cannot read the log filter"), &[("ERRNO", "2")]);

        // As the worker does.
        logging::set_sheep("127.0.0.1:7000".parse().unwrap());
        logging::set_filter("error");
        tracing::warn!("too little");
        tracing::error!("much");
        assert_has(&journal.saying("much"), &[("SHEEPFS_SHEEP", "127.0.0.1:7000")]);
        let unheard = ["nobody hears this", "too little"];
        let said = journal.entries().iter().map(|entry| entry["MESSAGE"].as_str());
        assert!(!said.into_iter().any(|said| unheard.contains(&said)), "{journal:?}");
    });
}

#[track_caller]
fn assert_has(entry: &Entry, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        assert_eq!(entry.get(*name).map(String::as_str), Some(*value), "{name} of {entry:#?}");
    }
}

fn is_of(entry: &Entry, program: &str) -> bool {
    entry.get("TARGET").is_some_and(|target| target.split("::").next() == Some(program))
}

/// `journalctl SHEEPFS_VOLUME=disk` finds what concerns a volume, and `ERRNO` says what a program
/// got.
#[test]
fn the_journal_gets_fields_from_both_programs_under_one_identifier() {
    let sheep = minisheep();
    with_journal(|journal| {
        let sheepfs = Sheepfs::start(&sheep, &Starter::Systemd, &[]);
        sheepfs.attach("disk").unwrap();
        let attached = journal.saying("attached");
        assert!(is_of(&attached, "sheepfs"), "{attached:#?}");
        let fields =
            [("SHEEPFS_VOLUME", "disk"), ("SYSLOG_IDENTIFIER", "sheepfs"), ("PRIORITY", "6")];
        assert_has(&attached, &fields);
        let connected = journal.saying("connected");
        assert_has(&connected, &[("SHEEPFS_SHEEP", sheep.address()), ("SHEEPFS_WORKER", "1")]);

        let refused = sheepfs.attach("missing").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(2));
        let refused = journal.saying("attach missing: ");
        assert_has(&refused, &[("SHEEPFS_VOLUME", "missing"), ("ERRNO", "2"), ("PRIORITY", "4")]);

        // The worker finds that it became a snapshot.
        Wire::connect(sheep.address()).snapshot("disk", "tag");
        let volume = File::options().write(true).open(sheepfs.path("volume/disk")).unwrap();
        volume.write_all_at(&[7; 4096], 0).unwrap();
        let moved = journal.find("word of the worker", |entry| {
            is_of(entry, "sheepfs_worker") && entry.contains_key("SHEEPFS_VOLUME")
        });
        let fields = [("SHEEPFS_VOLUME", "disk"), ("SYSLOG_IDENTIFIER", "sheepfs")];
        assert_has(&moved, &fields);
        assert_has(&moved, &[("SHEEPFS_SHEEP", sheep.address()), ("SHEEPFS_WORKER", "1")]);
        drop(volume);

        let stderr = sheepfs.stop();
        assert!(stderr.lines().all(|line| line.contains("loud")), "not in the journal: {stderr}");
    });
}

/// What a library, or the system's, says on the worker's stderr is in the log too.
#[test]
fn what_the_worker_says_on_stderr_is_in_the_journal() {
    let sheep = minisheep();
    with_journal(|journal| {
        let sheepfs = Sheepfs::start(&sheep, &Starter::Systemd, &[]);
        let heard = journal.find("word from stderr", |entry| {
            entry.get("MESSAGE").is_some_and(|said| said.contains("loud"))
        });
        assert_has(&heard, &[("SHEEPFS_PROGRAM", "sheepfs-worker"), ("SHEEPFS_WORKER", "1")]);
        sheepfs.stop();
    });
}

/// A flood of equal messages is limited, and counted.
#[test]
fn a_flood_is_counted_in_the_journal() {
    let sheep = minisheep();
    with_journal(|journal| {
        let sheepfs = Sheepfs::start(&sheep, &Starter::Systemd, &[]);
        for _ in 0..100 {
            sheepfs.attach("missing").unwrap_err();
        }
        let mut muted = 0;
        let mut logged = 0;
        let all = |journal: &mut Journal| {
            journal.find("count of the flood", |entry| entry.contains_key("SHEEPFS_COUNT"));
            let is_flood = |entry: &&Entry| entry["MESSAGE"].contains("attach missing");
            let flood: Vec<_> = journal.entries().iter().filter(is_flood).cloned().collect();
            flood
        };
        wait_for("all to be logged or counted", || {
            let flood = all(journal);
            let count = |entry: &Entry| entry.get("SHEEPFS_COUNT")?.parse::<usize>().ok();
            muted = flood.iter().filter_map(count).sum();
            logged = flood.iter().filter(|entry| count(entry).is_none()).count();
            logged + muted == 100
        });
        // On a slow machine they fall into more than one window.
        assert!(logged >= 20 && muted > 0, "{logged} logged, {muted} counted");
        let counted = journal.find("count", |entry| entry.contains_key("SHEEPFS_COUNT"));
        assert_has(&counted, &[("PRIORITY", "4")]);
        assert!(counted["MESSAGE"].contains("more like this were not logged: attach missing"));
        sheepfs.stop();
    });
}

/// Without a journal a manager gets lines with their priority, from both programs, and a filter's
/// file holds for both.
#[test]
fn without_a_journal_lines_have_their_priority_on_stderr() {
    let sheep = minisheep();
    without_journal(|| {
        let filter = tempfile::NamedTempFile::new().unwrap();
        // The worker says that the supervisor has gone at that level.
        fs::write(filter.path(), "info,sheepfs_worker=debug\n").unwrap();
        let options = ["--log-filter-file", arg(filter.path())];
        let sheepfs = Sheepfs::start(&sheep, &Starter::Manager, &options);
        sheepfs.attach("disk").unwrap();
        sheepfs.attach("missing").unwrap_err();
        let stderr = sheepfs.stop();
        assert_says(&stderr, "<6>attached", "volume=disk");
        assert_says(&stderr, "<4>attach missing: ", "errno=2");
        assert_says(&stderr, "<7>the supervisor is gone", "");
    });
}

/// Where stderr leads to a journal whose own socket is not there, that gets them so too.
#[test]
fn without_the_journals_socket_its_stream_gets_the_lines() {
    let sheep = minisheep();
    without_journal(|| {
        let sheepfs = Sheepfs::start(&sheep, &Starter::Systemd, &[]);
        sheepfs.attach("disk").unwrap();
        wait_for("the worker's words", || sheepfs.stderr().contains("program=sheepfs-worker"));
        let stderr = sheepfs.stop();
        assert_says(&stderr, "<6>attached", "volume=disk");
        assert_says(&stderr, "<6>ignoring", "worker=1");
    });
}

/// One of the lines begins and goes on like that.
#[track_caller]
fn assert_says(stderr: &str, begin: &str, words: &str) {
    let is_it = |line: &str| line.starts_with(begin) && line.contains(words);
    assert!(stderr.lines().any(is_it), "no {begin:?} with {words:?} in: {stderr}");
}

/// A filter's file that can't be used is said so, and changes nothing.
#[test]
fn a_filter_that_cannot_be_read_is_said_so() {
    let sheep = minisheep();
    without_journal(|| {
        let options = ["--log-filter-file", "/run/missing"];
        let sheepfs = Sheepfs::start(&sheep, &Starter::Shell, &options);
        assert!(holds_in_time(|| sheepfs.stderr().contains("mounted")));
        let stderr = sheepfs.stop();
        let said = stderr.lines().find(|line| line.contains("/run/missing"));
        let said = said.unwrap_or_else(|| panic!("nothing of the file in: {stderr}"));
        assert!(said.contains("WARN") && said.contains("errno=2"), "{said}");
    });
}
