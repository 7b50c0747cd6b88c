//! The supervisor is killed, restarted, replaced, and the mount outlives it: whoever uses a
//! volume sees a pause and nothing else.

use crate::cluster::Cluster;
use crate::minisheep::Gateway;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::scene::{image_of, sigkill, under_load, under_load_on, wait_for_exec};
use crate::service::{POINT, Service, UNIT};
use crate::systemd::System;
use crate::tools::wait_for;
use nix::errno::Errno;
use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

/// Between two faults of the row in which they chase each other.
const CHASE: Duration = Duration::from_millis(100);

#[test]
fn the_store_holds_the_mount() {
    under_load("sigkill-once", |scene| {
        let service = scene.service;
        assert!(service.stored() > 0);
        let holders = service.system.holders_of("/dev/fuse");
        let (init, supervisor) = (service.system.init(), service.supervisor());
        for expected in [init, supervisor] {
            assert!(holders.contains(&expected), "{expected} has no device: {holders:?}");
        }
        assert_eq!(holders.len(), 2, "a device that leaks keeps the connection alive");
        scene.replaced_by(|service| sigkill(service.supervisor()));
        let holders = service.system.holders_of("/dev/fuse");
        assert!(!holders.contains(&supervisor));
        assert_eq!(holders.len(), 2);
    });
}

#[test]
fn a_supervisor_killed_at_any_instant_is_not_noticed() {
    let times = rounds(5, 100);
    under_load("sigkill-supervisor", |scene| {
        for _ in 0..times {
            scene.replaced_by(|service| sigkill(service.supervisor()));
        }
        assert_eq!(scene.service.property("NRestarts"), times.to_string());
    });
}

#[test]
fn nor_is_one_that_is_killed_with_its_worker() {
    let times = rounds(5, 50);
    under_load("sigkill-supervisor-and-worker", |scene| {
        for _ in 0..times {
            scene.replaced_by(|service| {
                service.systemctl_with(&["kill", "--signal=KILL", "--kill-who=all"]);
            });
        }
        assert_eq!(scene.service.property("NRestarts"), times.to_string());
    });
}

/// Supervisor, worker and sheep die one after another, each while the last death is dealt with.
#[test]
fn deaths_that_chase_each_other_are_not_noticed() {
    let cluster = Cluster::mini();
    let mut gateways = [(); 2].map(|()| Gateway::start(cluster.minisheep()));
    let address = gateways[0].address().to_owned();
    under_load_on(&cluster, &address, "chase", |scene| {
        // Thirty seconds at least.
        let times = rounds(5, 60);
        for round in 0..times {
            let supervisor = scene.service.supervisor();
            scene.at_any_instant(|service| {
                sigkill(service.supervisor());
                thread::sleep(CHASE);
                service.kill_worker();
                thread::sleep(CHASE);
                let gateway = &mut gateways[(round % 2) as usize];
                gateway.kill();
                thread::sleep(CHASE);
                gateway.restart();
            });
            scene.service.wait_for_another_than(supervisor);
        }
        assert_eq!(scene.service.property("NRestarts"), times.to_string());
    });
}

/// `systemctl` with that verb replaces the supervisor, which is no crash.
fn replaced_by_verb(verb: &str, times: u64) {
    under_load(&format!("systemctl-{verb}"), |scene| {
        for _ in 0..times {
            scene.replaced_by(|service| service.systemctl(verb));
        }
        assert_eq!(scene.service.property("NRestarts"), "0");
    });
}

#[test]
fn a_restart_is_not_noticed() {
    replaced_by_verb("restart", rounds(5, 20));
}

#[test]
fn nor_is_a_try_restart() {
    replaced_by_verb("try-restart", rounds(5, 20));
}

/// A reload is an upgrade in place: the same process, running the program anew.
#[test]
fn nor_is_a_reload() {
    under_load("systemctl-reload", |scene| {
        for _ in 0..rounds(5, 20) {
            let supervisor = scene.service.supervisor();
            let image = image_of(supervisor);
            scene.at_any_instant(|service| service.systemctl("reload"));
            wait_for_exec(supervisor, &image);
            scene.check();
            assert_eq!(scene.service.supervisor(), supervisor);
        }
        assert_eq!(scene.service.property("NRestarts"), "0");
    });
}

/// What systemd holds for the unit outlives systemd's own upgrade, as a crash after it shows.
#[test]
fn nor_is_a_systemd_that_runs_itself_anew() {
    let times = rounds(2, 5);
    under_load("systemctl-daemon-reexec", |scene| {
        let init = scene.service.system.init();
        for _ in 0..times {
            let (supervisor, stored) = (scene.service.supervisor(), scene.service.stored());
            let image = image_of(init);
            scene.at_any_instant(|service| {
                service.system.succeed(&["systemctl", "daemon-reexec"]);
            });
            wait_for_exec(init, &image);
            scene.check();
            assert_eq!(scene.service.supervisor(), supervisor);
            assert_eq!(scene.service.stored(), stored);
            scene.replaced_by(|service| sigkill(service.supervisor()));
        }
        assert_eq!(scene.service.property("NRestarts"), times.to_string());
    });
}

/// As many crashes as fit, each of a supervisor that has only just begun.
#[test]
fn ten_crashes_in_a_row_are_not_noticed() {
    const CRASHES: u32 = 10;
    under_load("ten-crashes", |scene| {
        let begun = Instant::now();
        scene.at_any_instant(|service| {
            for _ in 0..CRASHES {
                let supervisor = service.supervisor();
                sigkill(supervisor);
                service.wait_for_another_than(supervisor);
            }
        });
        println!("{CRASHES} crashes in {} ms", begun.elapsed().as_millis());
        assert_eq!(scene.service.property("NRestarts"), CRASHES.to_string());
    });
}

/// A program that ends with 1 the first six times it is started, and then is sheepfs.
const FAILS_AT_FIRST: &str = "#!/bin/sh
count=$(($(cat /run/starts 2>/dev/null || echo 0) + 1))
echo $count >/run/starts
[ $count -gt 6 ] || exit 1
exec /usr/bin/sheepfs.good \"$@\"
";

#[test]
fn six_take_overs_that_fail_lose_no_request() {
    under_load("failed-take-overs", |scene| {
        let system = scene.service.system;
        system.replace_program("sheepfs", FAILS_AT_FIRST);
        let supervisor = scene.service.supervisor();
        scene.at_any_instant(|_| sigkill(supervisor));
        let starts = || fs::read_to_string(system.path("/run/starts")).unwrap_or_default();
        wait_for("six starts that fail, and a good one", || starts() == "7\n");
        scene.check();
        assert_eq!(starts(), "7\n");
        assert_eq!(scene.service.property("NRestarts"), "7");
    });
}

/// Hazard 22: nothing is kept, and the mount that answers nothing is in the way.
#[test]
fn a_start_cleans_a_stale_mount_by_itself() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("registers", Plan::SHARED.size());
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    // Nobody but the next supervisor shall clean up, and that one only when told to.
    service.amend("[Service]\nRestart=no\nExecStopPost=\n");
    let stale = service.mount();
    let load = Registers::start(&service.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    service.systemctl_with(&["kill", "--signal=KILL", "--kill-who=all"]);
    wait_for("the end of the service", || service.property("ActiveState") == "failed");
    wait_for("an error for the load", || load.failure().is_some());
    println!("the load ended with: {}", load.abandon().unwrap());
    assert_eq!(service.stored(), 0);
    assert_eq!(service.mount(), stale);
    let error = File::open(system.path(POINT).join("config/status")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOTCONN as i32));
    service.start_again(&disk);
    // The new mount may have the old one's number.
    system.succeed(&["journalctl", "--sync"]);
    let journal = system.journal(UNIT);
    assert!(journal.contains("a mount that no process serves any more is in the way"), "{journal}");
    service.mount();
    // The registers themselves are no zeros any more.
    let fresh = cluster.vdi("fresh", Plan::SHARED.size());
    fs::write(system.path(POINT).join("vdi/mount"), &fresh).unwrap();
    let load = Registers::start(&service.volume(&fresh), Plan::SHARED);
    load.wait_for_progress();
    load.finish().compare(&cluster.content(&fresh));
    service.systemctl("stop");
    service.assert_ended();
}
