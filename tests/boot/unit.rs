//! The unit's life: it starts, everybody sees its mount, it logs, and it can be stopped.

use crate::MIB;
use crate::cluster::Cluster;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::scene::under_load;
use crate::service::{POINT, Service};
use crate::systemd::System;
use crate::systemd::process::in_state_d;
use crate::tools::{run, wait_for};
use nix::unistd::{Pid, getpid};
use std::fs;
use std::os::unix::fs::FileExt;

const BLOCK: usize = 4096;

/// The mount is made in the init's own mount namespace, whatever the unit is sandboxed with.
#[test]
fn everybody_sees_the_mount_of_the_unit() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    assert_eq!(service.property("ActiveState"), "active");
    service.open(&disk).write_all_at(&[7; BLOCK], MIB).unwrap();
    let init = system.init().to_string();
    let enter = |words: &[&str]| run("nsenter", &[&["-t", &init, "-m", "--"], words].concat());
    assert!(enter(&["stat", "-f", "-c", "%T", POINT]).contains("fuse"));
    let piece = format!(
        "dd if={POINT}/volume/{disk} bs=4096 skip=256 count=1 status=none | od -An -v -tx1"
    );
    let hex = enter(&["sh", "-c", &piece]);
    assert!(hex.split_whitespace().count() == BLOCK && hex.split_whitespace().all(|x| x == "07"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!(" {POINT} ")), "the test's own namespace must not have it");
    service.systemctl("stop");
    service.assert_ended();
    assert_eq!(cluster.content(&disk)[MIB as usize..][..BLOCK], [7; BLOCK]);
}

/// What the test above would see of a unit that is sandboxed as this one must not be.
#[test]
fn a_mount_namespace_of_the_units_own_would_hide_it() {
    let cluster = Cluster::mini();
    let system = System::boot();
    let service = Service::configure(&system, cluster.address(), &[]);
    service.amend("[Service]\nPrivateTmp=yes\n");
    service.systemctl("start");
    let mounts_of =
        |process: Pid| fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    let sees = |process: Pid| mounts_of(process).contains("fuse.sheepfs");
    wait_for("the mount", || sees(service.supervisor()));
    assert!(!sees(system.init()));
    service.systemctl("stop");
}

#[test]
fn the_journal_has_what_the_unit_says() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    system.succeed(&["journalctl", "--sync"]);
    let journal = system.succeed(&["journalctl", "--quiet", "-u", "sheepfs@mnt-sheep"]);
    let words = ["Started sheepfs@mnt-sheep.service", &disk, POINT];
    for word in words {
        assert!(journal.lines().any(|line| line.contains(word)), "no {word} in:\n{journal}");
    }
    service.systemctl("stop");
    service.assert_ended();
}

/// What is unseen under a mount of a test's own is unseen under the unit, too: nothing in it
/// takes a worker's death for the service's.
#[test]
fn a_dead_worker_is_no_dead_service() {
    under_load("sigkill-worker-of-unit", |scene| {
        let supervisor = scene.service.supervisor();
        for _ in 0..rounds(3, 20) {
            let before = scene.service.count("swaps_worker_died");
            scene.at_any_instant(|service| service.kill_worker());
            wait_for("a swap", || scene.service.count("swaps_worker_died") > before);
            scene.check();
        }
        assert_eq!(scene.service.supervisor(), supervisor);
        assert_eq!(scene.service.property("NRestarts"), "0");
    });
}

/// Registers on the unit's mount, and one more descriptor that stays open.
fn stopped_under_load(before_stop: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::mini();
    let disk = cluster.vdi("registers", Plan::SHARED.size());
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    assert!(service.stored() > 0, "nothing that could be left behind");
    let open = service.open(&disk);
    let load = Registers::start(&service.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    before_stop(&mut cluster);
    service.systemctl("stop");
    service.assert_ended();
    // Whatever was asked has an answer, so that whoever asked can go on, or end.
    wait_for("an error for the load", || load.failure().is_some());
    println!("the load ended with: {}", load.abandon().unwrap());
    assert!(open.read_at(&mut [0; BLOCK], 0).is_err(), "a volume of a mount that is over");
    wait_for("no thread of the load to hang", || !in_state_d(getpid()));
    assert_eq!(service.property("NRestarts"), "0");
}

#[test]
fn a_stop_under_load_unmounts() {
    stopped_under_load(|_| {});
}

#[test]
fn so_does_one_with_the_sheep_dead() {
    stopped_under_load(|cluster| match cluster {
        Cluster::Mini(sheep) => sheep.kill(),
        Cluster::Real(_) => unreachable!("a minisheep was asked for"),
    });
}
