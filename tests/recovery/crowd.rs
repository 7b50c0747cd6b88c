//! Many volumes: a new worker takes them all up again, and their users notice nothing.
//!
//! A hundred volumes by default; a thousand with `SHEEPFS_FAULT_ROUNDS=full`.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::random::Random;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::site::{random_while, send, vdi_for, wait_for_swap};
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const INSTANT_MAX: Duration = Duration::from_millis(40);

/// minisheep only, since only its answers can be counted here.
#[test]
fn a_worker_killed_with_many_volumes_is_not_noticed() {
    let (count, times) = (rounds(100, 1000), rounds(3, 20));
    let cluster = Cluster::mini();
    let disk = vdi_for(&cluster, Plan::SHARED);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let idle: Vec<_> = (0..count).map(|n| cluster.vdi(&format!("idle{n}"), 4 * MIB)).collect();
    idle.iter().for_each(|name| mount.attach(name));
    for (number, name) in idle.iter().enumerate() {
        mount.open(name).write_all_at(&[number as u8; 4096], 0).unwrap();
    }
    let mut random = Random::announced();
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    let mut faults = Vec::new();
    for _ in 0..times {
        load.wait_for_progress();
        random_while(&mut random, INSTANT_MAX);
        let before = mount.count("swaps_worker_died");
        faults.push(Instant::now());
        send(Signal::SIGKILL, mount.worker());
        wait_for_swap(&mount, "swaps_worker_died", before);
    }
    load.wait_for_progress();
    assert_eq!(mount.count("swaps_worker_died"), times);
    assert!(mount.count("replayed") > 0, "no kill met a request");
    assert_eq!((mount.count("volumes"), mount.count("poisoned")), (count + 1, 0));
    for (number, name) in idle.iter().enumerate() {
        let mut room = [0; 4096];
        mount.open(name).read_exact_at(&mut room, 0).unwrap();
        assert_eq!(room, [number as u8; 4096], "{name}");
    }
    let report = load.finish();
    report.print_stalls(&format!("sigkill-worker-{count}-volumes"), &faults);
    report.compare(&cluster.content(&disk));
}
