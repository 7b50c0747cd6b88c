//! Programs that are asked to take over, and don't.

use crate::cluster::Cluster;
use crate::load::{Disks, Load};
use crate::register::plan::Plan;
use crate::served::{Lives, Manager, Served};
use crate::tools::{arg, wait_for};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Puts a program with that text in the place of `path`, as an installation does: the file that
/// runs stays what it is.
fn install(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// A copy of both programs in `dir`, to be replaced by others.
fn copy_programs(dir: &Path) -> PathBuf {
    for program in [env!("CARGO_BIN_EXE_sheepfs"), env!("CARGO_BIN_EXE_sheepfs-worker")] {
        let program = Path::new(program);
        fs::copy(program, dir.join(program.file_name().unwrap())).unwrap();
    }
    dir.join("sheepfs")
}

/// A mount by a program that can be replaced, under load.
fn on_an_upgrade(row: &str, body: impl FnOnce(&mut Served<Lives>, &mut Load, &Path)) {
    let cluster = Cluster::mini();
    let disks = Disks::make(&cluster, Plan::SHARED);
    let dir = tempfile::tempdir().unwrap();
    let program = copy_programs(dir.path());
    let mut served = Served::start_by(&cluster, &disks.names(), &[], |dir, options| {
        Lives::start_as(&program, dir, options)
    });
    let mut load = Load::start(&served, &disks);
    body(&mut served, &mut load, &program);
    load.finish(row, &served, &cluster);
}

/// An installed program that can't go on with the state: nothing is given up for it.
///
/// An upgrade that is refused changes nothing.
#[test]
fn an_upgrade_that_is_refused_changes_nothing() {
    on_an_upgrade("upgrade-refused", |served, load, program| {
        let process = served.supervisor();
        for (times, text) in (2..).zip(["exit 1", "exit 78", "kill -9 $$"]) {
            install(program, text);
            load.fault();
            kill(process, Signal::SIGUSR1).unwrap();
            served.manager().store().wait_until_said("READY=1", times);
            load.wait_for_progress();
            load.witness.check(served);
        }
        assert_eq!(served.manager().store().count("RELOADING=1"), 3);
        let log = served.manager().log();
        let said = log.lines().filter(|line| line.contains("does not take over")).count();
        assert_eq!(said, 3, "{log}");
        assert_eq!((served.supervisor(), served.count("takeovers")), (process, 0));
    });
}

/// An installed program that accepts the state and then fails: the manager starts the next one.
#[test]
fn an_upgrade_that_promised_too_much_is_a_crash_like_any() {
    on_an_upgrade("upgrade-fails", |served, load, program| {
        let before = served.supervisor();
        install(program, "[ \"$1\" = --check-state ] && exit 0\nexit 70");
        load.fault();
        kill(before, Signal::SIGUSR1).unwrap();
        let lives = served.manager_mut();
        assert_eq!(lives.bury().code(), Some(70));
        lives.set_program(Path::new(env!("CARGO_BIN_EXE_sheepfs")));
        lives.start_next(before);
        served.wait_for_take_over(0);
        load.witness.check(served);
    });
}

/// What is in flight waits for a program that works.
///
/// However many successors fail, the requests wait for one that does not.
#[test]
fn six_that_fail_and_a_good_one_lose_nothing() {
    let cluster = Cluster::mini();
    let disks = Disks::make(&cluster, Plan::SHARED);
    let dir = tempfile::tempdir().unwrap();
    let failing = dir.path().join("failing");
    install(&failing, &format!("echo >> {}\nexit 1", arg(&dir.path().join("runs"))));
    let mut served = Served::<Lives>::start(&cluster, &disks.names(), &[]);
    let mut load = Load::start(&served, &disks);
    load.fault();
    let open = served.open(disks.names()[2]);
    served.manager_mut().set_program(&failing);
    served.replace(Signal::SIGKILL);
    // As each program does that is started meanwhile by one that has a volume open.
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        drop(open);
        tell.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(60)).expect("a close waits for the successor");
    for nth in 1..=6 {
        let lives = served.manager_mut();
        assert_eq!(lives.bury().code(), Some(1), "failure {nth}");
        if nth == 6 {
            lives.set_program(Path::new(env!("CARGO_BIN_EXE_sheepfs")));
        }
        lives.spawn();
    }
    let runs = fs::read_to_string(dir.path().join("runs")).unwrap();
    assert_eq!(runs.lines().count(), 6);
    wait_for("the take-over", || served.count("takeovers") == 1);
    load.finish("six-failures", &served, &cluster);
}

/// A program that can't be started at all is none that was asked.
#[test]
fn a_program_that_is_gone_is_refused_as_well() {
    on_an_upgrade("upgrade-missing", |served, load, program| {
        fs::remove_file(program).unwrap();
        load.fault();
        kill(served.supervisor(), Signal::SIGUSR1).unwrap();
        served.manager().store().wait_until_said("READY=1", 2);
        load.witness.check(served);
        assert_eq!(served.count("takeovers"), 0);
    });
}
