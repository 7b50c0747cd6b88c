//! The package for Debian on a system that runs: its scripts ask a real systemd for what
//! `tests/package.rs` only sees them ask for.

use crate::cluster::Cluster;
use crate::deb;
use crate::scene::started_under_load;
use crate::service::{CONFIGURATION, Service, UNIT};
use crate::systemd::System;
use crate::tools::wait_for;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// What a system has of the programs and the unit without any package.
const UNPACKAGED: [&str; 4] = [
    "/etc/systemd/system/sheepfs@.service",
    "/usr/bin/minisheep",
    "/usr/bin/sheepfs",
    "/usr/bin/sheepfs-worker",
];

/// Has dpkg do something inside, which must succeed.
fn dpkg(system: &System, words: &[&str]) {
    const ENVIRONMENT: [&str; 3] =
        ["env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"];
    let said = system.succeed(&[&ENVIRONMENT[..], &["dpkg"], words].concat());
    println!("dpkg {words:?}: {said}");
}

fn install(system: &System, package: &Path) {
    fs::copy(package, system.path("/root/package.deb")).unwrap();
    dpkg(system, &["--install", "/root/package.deb"]);
}

fn installed_version(system: &System) -> String {
    system.succeed(&["dpkg-query", "--show", "--showformat=${Version}", "sheepfs"])
}

/// Every file that has our name, where packages leave theirs.
fn files_of_ours(system: &System) -> String {
    system.succeed(&["find", "/etc", "/usr", "/var", "-xdev", "-iname", "*sheep*"])
}

/// Whether each process of the unit runs a program that still has its name: not one that an
/// upgrade has replaced.
fn runs_what_is_installed(service: &Service) -> bool {
    let processes = service.system.processes_of(UNIT);
    let mut programs = processes.iter().map(|pid| fs::read_link(format!("/proc/{pid}/exe")));
    let is_there = |path: &Path| !path.to_string_lossy().ends_with(" (deleted)");
    programs.all(|program| program.is_ok_and(|path| is_there(&path)))
}

fn upgraded_under_load<'a>(system: &'a System, cluster: &Cluster, package: &Path) -> Service<'a> {
    let address = cluster.address();
    started_under_load(system, cluster, address, "dpkg-upgrade", |scene| {
        scene.replaced_in_the_course_of(|service| install(service.system, package));
        assert_eq!(installed_version(system), deb::LATER);
        assert_eq!(scene.service.property("NRestarts"), "0", "a crash is no upgrade");
        wait_for("the new programs", || runs_what_is_installed(scene.service));
        scene.check();
    })
}

#[test]
fn an_upgrade_under_load_is_not_noticed_and_a_removal_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let package = deb::build(dir.path());
    let later = deb::later(&package, dir.path());
    let (cluster, system) = (Cluster::mini(), System::boot());
    system.succeed(&[&["rm"], &UNPACKAGED[..]].concat());
    let files_before = files_of_ours(&system);

    install(&system, &package);
    assert_ne!(installed_version(&system), deb::LATER);
    assert_ne!(files_of_ours(&system), files_before);
    let service = upgraded_under_load(&system, &cluster, &later);
    // Without /usr on systems where /lib was a directory of its own once.
    let unit = service.property("FragmentPath");
    assert!(unit.ends_with("/lib/systemd/system/sheepfs@.service"), "not the package's: {unit}");
    service.systemctl("enable");
    assert!(!system.processes_named("sheepfs").is_empty());
    service.mount();

    dpkg(&system, &["--remove", "sheepfs"]);
    service.assert_ended();
    assert_eq!(system.processes_named("sheepfs"), []);
    system.succeed(&["journalctl", "--sync"]);
    let journal = system.journal(UNIT);
    assert!(!journal.contains("Failed with result"), "{journal}");

    system.succeed(&["rm", CONFIGURATION]);
    dpkg(&system, &["--purge", "sheepfs"]);
    assert_eq!(files_of_ours(&system), files_before);
}
