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

fn disks_of(cluster: &Cluster) -> [String; 2] {
    let new = NewVdi { size: DISK_LEN, block_size_shift: 20, ..NewVdi::default() };
    ["from", "to"].map(|hint| cluster.vdi_with(hint, &new))
}

/// What a mount shows of both is in the cluster.
fn compare(cluster: &Cluster, mount: &Mount, disks: &[String; 2]) {
    for disk in disks {
        let shown = fs::read(mount.volume(disk)).unwrap();
        mount.detach(disk);
        assert!(cluster.content(disk) == shown, "{disk}: the wire tells something else");
    }
}

#[test]
fn a_worker_killed_during_copies_is_not_noticed() {
    let cluster = Cluster::mini();
    let disks = disks_of(&cluster);
    let mount = Mount::with_volume(&cluster, &disks[0], &[]);
    mount.attach(&disks[1]);
    let mut random = Random::announced();
    let load = Copying::start(&mount.volume(&disks[0]), &mount.volume(&disks[1]), &mut random);
    for nth in 0..rounds(15, 200) {
        load.wait_for_progress();
        if nth % 5 == 4 {
            cluster.snapshot(&disks[(nth % 2) as usize], &format!("s{nth}"));
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
fn a_gateway_killed_during_copies_costs_nothing() {
    let mut site = Site::start(2);
    let disks = disks_of(&site.cluster);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disks[0], &[]);
    mount.attach(&disks[1]);
    let mut random = Random::announced();
    let load = Copying::start(&mount.volume(&disks[0]), &mount.volume(&disks[1]), &mut random);
    kill_gateways_in_use(&mut site, &mount, &mut random, || load.wait_for_progress());
    load.finish();
    compare(&site.cluster, &mount, &disks);
}
