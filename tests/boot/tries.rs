//! What is not a plain restart: the mount is left by hand, the configuration is broken, the
//! start is stopped, what is kept is of no use; and what the journal then has.

use crate::MIB;
use crate::cluster::Cluster;
use crate::scene::{sigkill, under_load};
use crate::service::{CONFIGURATION, POINT, Service, UNIT};
use crate::systemd::System;
use crate::tools::wait_for;
use std::fs;
use std::net::TcpListener;

/// A mount that is left without a job for systemd is served by a successor all the same.
#[test]
fn a_mount_that_is_left_by_hand_is_taken_over() {
    under_load("kill-usr2", |scene| {
        for _ in 0..3 {
            scene.replaced_by(|service| {
                service.systemctl_with(&["kill", "--signal=USR2", "--kill-who=main"]);
            });
        }
        assert_eq!(scene.service.property("NRestarts"), "3");
    });
}

/// A program that notes each start, and then is sheepfs.
const NOTES_STARTS: &str = "#!/bin/sh
echo >>/run/starts
exec /usr/bin/sheepfs.good \"$@\"
";

/// Requests wait until somebody has put the configuration right. Meanwhile the test starts no
/// process: to close its copy of a file of the mount, that would have to wait as well.
#[test]
fn a_restart_with_a_broken_configuration_does_not_lose_the_mount() {
    under_load("broken-configuration", |scene| {
        let system = scene.service.system;
        let good = fs::read_to_string(system.path(CONFIGURATION)).unwrap();
        system.replace_program("sheepfs", NOTES_STARTS);
        system.write(CONFIGURATION, "SHEEPFS_OPTIONS=--no-such-option\n");
        let before = scene.service.supervisor();
        // Without that it would return when the configuration is right.
        scene.at_any_instant(|service| service.systemctl_with(&["restart", "--no-block"]));
        let starts = || fs::read(system.path("/run/starts")).unwrap_or_default().len();
        wait_for("several tries", || starts() >= 3);
        system.write(CONFIGURATION, &good);
        scene.check();
        assert_ne!(scene.service.supervisor(), before);
    });
}

/// The first start with the same configuration is not tried for ever.
#[test]
fn a_first_start_with_a_broken_configuration_fails_once() {
    let cluster = Cluster::mini();
    let system = System::boot();
    for (options, status) in [("--no-such-option", "64"), ("--attach missing", "78")] {
        let service = Service::configure(&system, cluster.address(), &[options]);
        let start = system.run(&["systemctl", "start", UNIT]);
        assert!(!start.status.success());
        assert_eq!(service.property("ActiveState"), "failed", "{options}");
        assert_eq!(service.property("ExecMainStatus"), status);
        assert_eq!(service.property("NRestarts"), "0");
        service.systemctl("reset-failed");
    }
}

/// A sheep that takes connections and says nothing.
#[test]
fn a_start_that_is_stopped_is_no_failure() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let system = System::boot();
    let address = silent.local_addr().unwrap().to_string();
    let service = Service::configure(&system, &address, &[]);
    service.systemctl_with(&["start", "--no-block"]);
    let _connection = silent.accept().unwrap();
    assert_eq!(service.property("ActiveState"), "activating");
    service.systemctl("stop");
    assert_eq!(service.property("ActiveState"), "inactive");
    assert_eq!(service.property("Result"), "success");
    assert_eq!(service.property("NRestarts"), "0");
    assert_eq!(system.processes_of(UNIT), []);
}

/// Between two processes somebody unmounts: what is kept is of no use, and must not be taken
/// for the next mount's.
#[test]
fn what_is_kept_of_a_mount_that_is_gone_is_let_go() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    let (stored, before) = (service.stored(), service.supervisor());
    assert!(stored > 0);
    service.amend("[Service]\nRestartSec=2s\n");
    sigkill(before);
    wait_for("the death", || service.property("SubState") == "auto-restart");
    system.succeed(&["umount", "-l", "-c", POINT]);
    service.wait_for_another_than(before);
    wait_for("the volume", || service.volume(&disk).exists());
    let journal = system.journal(UNIT);
    assert!(journal.contains("the mount that was kept is gone"), "{journal}");
    assert_eq!(service.stored(), stored);
    // The order of what is kept is another one after this.
    let mount = service.mount();
    system.succeed(&["systemctl", "daemon-reexec"]);
    let before = service.supervisor();
    sigkill(before);
    service.wait_for_another_than(before);
    assert!(service.volume(&disk).exists());
    assert_eq!(service.mount(), mount);
    service.systemctl("stop");
    service.assert_ended();
}

#[test]
fn what_systemctl_shows_says_how_it_is() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    let line = format!("sheep {} (", cluster.address());
    wait_for("a volume in the status", || service.property("StatusText").contains(", 1 volumes"));
    assert!(service.property("StatusText").starts_with(&line));
    let status = system.succeed(&["systemctl", "status", "--no-pager", UNIT]);
    assert!(status.contains(&format!("Status: \"{line}")), "{status}");
    assert_eq!(service.property("NFileDescriptorStore"), "2");
    assert_eq!(service.property("Type"), "notify");
    service.systemctl("stop");
    service.assert_ended();
}

/// Both processes' lines can be found by what they are about, and a failure by its number.
#[test]
fn the_journal_has_fields() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    let error = fs::write(system.path("/mnt/sheep/vdi/mount"), "missing").unwrap_err();
    let find = |matches: &[&str]| {
        system.succeed(&["journalctl", "--sync"]);
        let words = ["journalctl", "--quiet", "--output=json", "-u", "sheepfs@mnt-sheep"];
        system.succeed(&[&words[..], matches].concat())
    };
    let volume = format!("SHEEPFS_VOLUME={disk}");
    let about = find(&[&volume]);
    assert!(about.contains("\"MESSAGE\":\"attached\""), "{about}");
    let errno = format!("ERRNO={}", error.raw_os_error().unwrap());
    let failed = find(&[&errno]);
    assert!(failed.contains("missing"), "{}", find(&[]));
    service.systemctl("stop");
    service.assert_ended();
}

/// A worker has something to say when it follows one that left requests unanswered.
#[test]
fn the_journal_has_the_fields_of_workers() {
    under_load("journal-of-workers", |scene| {
        scene.replaced_by(|service| sigkill(service.supervisor()));
        let system = scene.service.system;
        wait_for("the words of a worker", || {
            system.succeed(&["journalctl", "--sync"]);
            let words = ["journalctl", "--quiet", "--output=json", "_COMM=sheepfs-worker"];
            let words = system.succeed(&[&words[..], &["-u", "sheepfs@mnt-sheep"]].concat());
            words.contains("\"SHEEPFS_") && words.contains("\"SYSLOG_IDENTIFIER\":\"sheepfs")
        });
    });
}
