//! The mount is left to a successor (SIGUSR2), or the process goes on as the program that is
//! installed now (SIGUSR1): what is on the wire comes to its end first.

use crate::cluster::Cluster;
use crate::load::{Disks, Load};
use crate::random::Random;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::served::{Keeper, Lives, Manager, Served};
use crate::site::random_while;
use nix::sys::signal::{Signal, kill};
use std::time::Duration;

const INSTANT_MAX: Duration = Duration::from_millis(40);

/// How the supervisor is asked to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// To end.
    Leave,
    /// To become what is installed.
    Upgrade,
}

impl Ask {
    fn make<M: Manager>(self, served: &mut Served<M>) {
        match self {
            Self::Leave => served.take_over(Signal::SIGUSR2),
            Self::Upgrade => {
                let (process, before) = (served.supervisor(), served.count("takeovers"));
                kill(process, Signal::SIGUSR1).unwrap();
                served.wait_for_take_over(before);
                assert_eq!(served.supervisor(), process, "another process");
            }
        }
    }
}

/// What was drained is neither fenced nor repeated.
fn left_under_load<M: Manager>(row: &str, ask: Ask, times: u64) {
    let cluster = Cluster::mini();
    let disks = Disks::make(&cluster, Plan::SHARED);
    let mut served = Served::<M>::start(&cluster, &disks.names(), &[]);
    let mut random = Random::announced();
    let mut load = Load::start(&served, &disks);
    for round in 0..times {
        load.wait_for_progress();
        random_while(&mut random, INSTANT_MAX);
        assert_eq!(served.count("takeovers"), round);
        load.fault();
        ask.make(&mut served);
        load.witness.check(&served);
        assert_eq!((served.count("fenced"), served.count("replayed")), (0, 0), "round {round}");
    }
    load.finish(row, &served, &cluster);
    assert_eq!(served.count("takeovers"), times);
}

#[test]
fn a_mount_that_is_left_to_a_successor_goes_on_with_nothing_repeated() {
    left_under_load::<Lives>("leave", Ask::Leave, rounds(3, 20));
}

#[test]
fn so_does_one_that_is_left_to_the_keeper() {
    left_under_load::<Keeper>("leave-keeper", Ask::Leave, rounds(3, 20));
}

#[test]
fn an_upgrade_in_place_repeats_nothing() {
    left_under_load::<Lives>("upgrade", Ask::Upgrade, rounds(3, 20));
}

#[test]
fn nor_does_one_under_the_keeper() {
    left_under_load::<Keeper>("upgrade-keeper", Ask::Upgrade, rounds(3, 20));
}

/// `ls -l /proc/*/fd`: the device is open in the supervisor and the keeper, and in nothing that
/// they started, however many lives there were.
///
/// Systemd, or the keeper that stays in the background, keeps the open /dev/fuse and a piece of
/// memory with what a successor must know.
#[test]
fn nobody_but_supervisor_and_keeper_has_the_device() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * crate::MIB);
    let mut served = Served::<Keeper>::start(&cluster, &[&disk], &[]);
    for ask in [None, Some(Ask::Leave), Some(Ask::Upgrade)] {
        if let Some(ask) = ask {
            ask.make(&mut served);
        }
        let (keeper, supervisor) = (served.manager().process(), served.supervisor());
        let workers = || crate::mount::workers_of(supervisor);
        crate::tools::wait_for("a worker and a spare one", || workers().len() == 2);
        let holders = crate::descriptors::holders(served.mounted().connection);
        assert_eq!(holders, [keeper, supervisor].into(), "after {ask:?}");
        for worker in workers() {
            let open = crate::descriptors::targets(worker);
            assert!(!open.iter().any(|target| target == "/dev/fuse"), "{worker}: {open:?}");
        }
    }
}
