//! Workers and gateways die while ranges are copied between volumes: what was copied is what the
//! source was, and stays.

use crate::cluster::Cluster;
use crate::copying::{Copying, DISK_LEN};
use crate::discards::kill_gateways_in_use;
use crate::mount::Mount;
use crate::random::Random;
use crate::rounds::rounds;
use crate::site::{Site, random_while, send, wait_for_swap};
use nix::sys::signal::Signal;
use sheepfs::wire::request::NewVdi;
use std::fs;
use std::time::Duration;

const INSTANT_MAX: Duration = Duration::from_millis(30);

/// Both volumes, each of which is a hyper volume if `hyper` says so.
fn disks_of(cluster: &Cluster, hyper: [bool; 2]) -> [String; 2] {
    let new = NewVdi { size: DISK_LEN, block_size_shift: 20, ..NewVdi::default() };
    let make = |hint, hyper| match hyper {
        true => cluster.hyper(hint, &new),
        false => cluster.vdi_with(hint, &new),
    };
    [make("from", hyper[0]), make("to", hyper[1])]
}

/// What a mount shows of both is in the cluster.
fn compare(cluster: &Cluster, mount: &Mount, disks: &[String; 2]) {
    for disk in disks {
        let shown = fs::read(mount.volume(disk)).unwrap();
        mount.detach(disk);
        assert!(cluster.content(disk) == shown, "{disk}: the wire tells something else");
    }
}

fn worker_kills(hyper: [bool; 2], times: u64) {
    let cluster = Cluster::mini();
    let disks = disks_of(&cluster, hyper);
    let mount = Mount::with_volume(&cluster, &disks[0], &[]);
    mount.attach(&disks[1]);
    let mut random = Random::announced();
    let load = Copying::start(&mount.volume(&disks[0]), &mount.volume(&disks[1]), &mut random);
    for nth in 0..times {
        load.wait_for_progress();
        let disk = (nth % 2) as usize;
        // Hyper volumes have no snapshots.
        if nth % 5 == 4 && !hyper[disk] {
            cluster.snapshot(&disks[disk], &format!("s{nth}"));
        }
        random_while(&mut random, INSTANT_MAX);
        let before = mount.count("swaps_worker_died");
        send(Signal::SIGKILL, mount.worker());
        wait_for_swap(&mount, "swaps_worker_died", before);
    }
    load.wait_for_progress();
    load.finish();
    assert!(mount.count("replayed") > 0, "no kill met a request");
    assert_eq!(mount.count("poisoned"), 0);
    compare(&cluster, &mount, &disks);
}

#[test]
fn a_worker_killed_during_copies_is_not_noticed() {
    worker_kills([false; 2], rounds(15, 200));
}

#[test]
fn a_worker_killed_during_copies_of_hyper_volumes_is_not_noticed() {
    for hyper in [[true, true], [false, true], [true, false]] {
        worker_kills(hyper, rounds(10, 100));
    }
}

#[test]
fn a_gateway_killed_during_copies_costs_nothing() {
    let mut site = Site::start(2);
    let disks = disks_of(&site.cluster, [false; 2]);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disks[0], &[]);
    mount.attach(&disks[1]);
    let mut random = Random::announced();
    let load = Copying::start(&mount.volume(&disks[0]), &mount.volume(&disks[1]), &mut random);
    kill_gateways_in_use(&mut site, &mount, &mut random, || load.wait_for_progress());
    load.finish();
    compare(&site.cluster, &mount, &disks);
}
