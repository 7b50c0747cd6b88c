//! SIGKILL of the supervisor, alone and with others.

use crate::cluster::Cluster;
use crate::load::{Disks, Load};
use crate::random::Random;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::served::{Keeper, Lives, Manager, Served};
use crate::site::{Site, random_while, wait_until_serving};
use crate::tools::wait_for;
use nix::sys::signal::{Signal, kill};
use std::thread;
use std::time::{Duration, Instant};

const INSTANT_MAX: Duration = Duration::from_millis(40);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Supervisor,
    SupervisorAndWorker,
}

/// Registers and fio at once, the supervisor killed again and again.
fn killed_under_load<M: Manager>(row: &str, plan: Plan, victims: Victims, times: u64) {
    let cluster = Cluster::mini();
    let disks = Disks::make(&cluster, plan);
    let mut served = Served::<M>::start(&cluster, &disks.names(), &[]);
    let mut random = Random::announced();
    let mut load = Load::start(&served, &disks);
    for round in 0..times {
        load.wait_for_progress();
        random_while(&mut random, INSTANT_MAX);
        assert_eq!(served.count("takeovers"), round);
        let worker = served.worker().expect("a worker serves");
        load.fault();
        if victims == Victims::SupervisorAndWorker {
            kill(worker, Signal::SIGKILL).unwrap();
        }
        served.take_over(Signal::SIGKILL);
        load.witness.check(&served);
    }
    load.finish(row, &served, &cluster);
    assert_eq!(served.count("takeovers"), times);
    assert_eq!(served.count("poisoned"), 0);
}

/// sheepfs may be killed at any instant, and no program notices more than a pause.
#[test]
fn a_supervisor_killed_at_any_instant_is_not_noticed() {
    let times = rounds(10, 100);
    killed_under_load::<Lives>("sigkill-supervisor", Plan::SHARED, Victims::Supervisor, times);
}

#[test]
fn nor_is_one_whose_worker_creates_objects() {
    let (row, times) = ("sigkill-supervisor-creates", rounds(4, 100));
    killed_under_load::<Lives>(row, Plan::CREATES, Victims::Supervisor, times);
}

/// The mount stays the same mount, and open files stay open.
#[test]
fn nor_is_one_that_the_keeper_started() {
    let (row, times) = ("sigkill-supervisor-keeper", rounds(6, 100));
    killed_under_load::<Keeper>(row, Plan::SHARED, Victims::Supervisor, times);
}

/// The same holds when its worker is killed with it.
#[test]
fn a_supervisor_and_its_worker_killed_together_are_not_noticed() {
    let (row, times) = ("sigkill-both", rounds(5, 50));
    killed_under_load::<Lives>(row, Plan::SHARED, Victims::SupervisorAndWorker, times);
}

#[test]
fn nor_are_those_of_the_keeper() {
    let (row, times) = ("sigkill-both-keeper", rounds(3, 50));
    killed_under_load::<Keeper>(row, Plan::SHARED, Victims::SupervisorAndWorker, times);
}

/// The next instant of a pace, or at once when that is over; waits until then.
fn keep_pace(next: &mut Instant, pace: Duration) {
    *next = Instant::now().max(*next + pace);
    thread::sleep(next.saturating_duration_since(Instant::now()));
}

/// Supervisor, worker and sheep die one after another, one every 100 ms or as soon as there is one
/// that can, whether or not anybody has got over the death before.
fn all_in_turn<M: Manager>(row: &str) {
    let length = Duration::from_secs(rounds(3, 30));
    let mut site = Site::start(2);
    let disks = Disks::make(&site.cluster, Plan::SHARED);
    let through = site.through(0);
    let mut served = Served::<M>::start(&through, &disks.names(), &[]);
    wait_for("both candidates", || served.count("candidates") >= 2);
    let mut load = Load::start(&served, &disks);
    let (mut supervisors, mut workers, mut sheep) = (0, 0, 0);
    let begun = Instant::now();
    let mut next = begun;
    while begun.elapsed() < length {
        load.fault();
        served.replace(Signal::SIGKILL);
        supervisors += 1;
        keep_pace(&mut next, Duration::from_millis(100));
        // A supervisor that is young has none yet.
        wait_for("a worker", || served.worker().is_some());
        if let Some(worker) = served.worker() {
            load.fault();
            workers += u64::from(kill(worker, Signal::SIGKILL).is_ok());
        }
        keep_pace(&mut next, Duration::from_millis(100));
        let victim = &mut site.gateways[sheep % 2];
        load.fault();
        victim.kill();
        victim.restart();
        sheep += 1;
        keep_pace(&mut next, Duration::from_millis(100));
    }
    wait_until_serving(&served);
    println!("{row}: {supervisors} supervisors, {workers} workers, {sheep} sheep");
    assert!(workers > 0, "no worker was met");
    // Those that died before they served took nothing over.
    let takeovers = served.count("takeovers");
    assert!((1..=supervisors).contains(&takeovers), "{takeovers} of {supervisors}");
    load.finish(row, &served, &site.cluster);
}

#[test]
fn all_that_can_die_dies_in_turn_and_nobody_notices() {
    all_in_turn::<Lives>("all-in-turn");
}

#[test]
fn nor_with_a_keeper() {
    all_in_turn::<Keeper>("all-in-turn-keeper");
}

/// Each life is ended before it can have done much.
fn crashes_in_a_row<M: Manager>(row: &str) {
    let cluster = Cluster::mini();
    let disks = Disks::make(&cluster, Plan::SHARED);
    let mut served = Served::<M>::start(&cluster, &disks.names(), &[]);
    let mut load = Load::start(&served, &disks);
    let begun = Instant::now();
    let mut next = begun;
    for _ in 0..10 {
        load.fault();
        served.replace(Signal::SIGKILL);
        keep_pace(&mut next, Duration::from_millis(400));
    }
    println!("{row}: ten crashes in {} ms", begun.elapsed().as_millis());
    load.finish(row, &served, &cluster);
    assert!(served.count("takeovers") > 0);
}

#[test]
fn ten_crashes_in_four_seconds_are_not_noticed() {
    crashes_in_a_row::<Lives>("ten-crashes");
}

#[test]
fn nor_are_those_that_a_keeper_sees() {
    crashes_in_a_row::<Keeper>("ten-crashes-keeper");
}
