//! The supervisor dies while ranges are copied between volumes: the kernel delivers the copies
//! again, and what was copied is what the source was.

use crate::cluster::Cluster;
use crate::copying::{Copying, DISK_LEN};
use crate::random::Random;
use crate::rounds::rounds;
use crate::served::{Lives, Served};
use crate::site::random_while;
use nix::sys::signal::{Signal, kill};
use sheepfs::wire::request::NewVdi;
use std::fs;
use std::time::Duration;

const INSTANT_MAX: Duration = Duration::from_millis(30);

/// Alone, and together with its worker.
#[test]
fn a_supervisor_killed_during_copies_is_not_noticed() {
    let cluster = Cluster::mini();
    let new = NewVdi { size: DISK_LEN, block_size_shift: 20, ..NewVdi::default() };
    let disks = ["from", "to"].map(|hint| cluster.vdi_with(hint, &new));
    let names = disks.each_ref().map(String::as_str);
    let mut served = Served::<Lives>::start(&cluster, &names, &[]);
    let mut random = Random::announced();
    let paths = names.map(|name| served.volume(name));
    let load = Copying::start(&paths[0], &paths[1], &mut random);
    let times = rounds(8, 100);
    for round in 0..times {
        load.wait_for_progress();
        random_while(&mut random, INSTANT_MAX);
        if round % 2 == 1 {
            kill(served.worker().expect("a worker serves"), Signal::SIGKILL).unwrap();
        }
        served.take_over(Signal::SIGKILL);
    }
    load.wait_for_progress();
    load.finish();
    assert_eq!((served.count("takeovers"), served.count("poisoned")), (times, 0));
    for (name, path) in names.iter().zip(paths) {
        assert!(cluster.content(name) == fs::read(path).unwrap(), "{name} differs");
    }
}
