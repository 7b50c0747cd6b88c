//! Many volumes: a supervisor's successor has them all.
//!
//! A hundred volumes by default; a thousand with `SHEEPFS_FAULT_ROUNDS=full`.

use crate::MIB;
use crate::cluster::Cluster;
use crate::load::{Disks, Load};
use crate::random::Random;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::served::{Lives, Served};
use crate::site::random_while;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

const INSTANT_MAX: Duration = Duration::from_millis(40);
/// So many of them stay open.
const OPEN: usize = 10;

#[test]
fn a_supervisor_killed_with_many_volumes_is_not_noticed() {
    let (count, times) = (rounds(100, 1000), rounds(3, 20));
    let cluster = Cluster::mini();
    let disks = Disks::make(&cluster, Plan::SHARED);
    let mut served = Served::<Lives>::start(&cluster, &disks.names(), &[]);
    let idle: Vec<_> = (0..count).map(|n| cluster.vdi(&format!("idle{n}"), 4 * MIB)).collect();
    idle.iter().for_each(|name| served.attach(name));
    let open: Vec<File> = idle.iter().take(OPEN).map(|name| served.open(name)).collect();
    let all = count + disks.names().len() as u64;
    let mut random = Random::announced();
    let mut load = Load::start(&served, &disks);
    for round in 0..times {
        load.wait_for_progress();
        random_while(&mut random, INSTANT_MAX);
        assert_eq!(served.count("takeovers"), round);
        load.fault();
        served.take_over(Signal::SIGKILL);
        load.witness.check(&served);
        assert_eq!(served.count("volumes"), all);
        for file in &open {
            file.write_all_at(&[round as u8; 4096], 0).unwrap();
        }
    }
    load.finish(&format!("sigkill-supervisor-{count}-volumes"), &served, &cluster);
    assert_eq!((served.count("takeovers"), served.count("poisoned")), (times, 0));
    assert_eq!(fs::read_dir(served.path("volume")).unwrap().count() as u64, all);
    // One that goes is gone for the next one too.
    served.detach(&idle[OPEN]);
    served.take_over(Signal::SIGKILL);
    assert_eq!(served.count("volumes"), all - 1);
    assert!(!served.volume(&idle[OPEN]).exists());
}
