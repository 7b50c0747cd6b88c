//! The network misbehaves, and the sheep is well.

use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::netns::Namespace;
use crate::proxy::{Mode, Proxy};
use crate::random::Random;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::site::{mount_over, random_while, swaps, vdi_for, wait_until_serving};
use crate::tools::wait_for;
use std::time::{Duration, Instant};

/// Half of a round trip of 500 ms.
const DELAY: Duration = Duration::from_millis(250);
const LOSS_PERCENT: u64 = 5;

/// Few threads: the bad link carries little.
const SLOW: Plan = Plan { writers: 4, readers: 2, ..Plan::SHARED };

/// A minisheep that is reached through a proxy, and knows itself by its own address, so that the
/// mount has two ways to it.
struct Wired {
    cluster: Cluster,
    proxy: Proxy,
    through: Cluster,
}

impl Wired {
    fn start() -> Self {
        let cluster = Cluster::mini();
        let proxy = Proxy::start(cluster.address());
        let through = Cluster::named(proxy.address());
        Self { cluster, proxy, through }
    }

    /// Sends a mount back to the proxy, if a swap has led it past.
    fn lead_back(&self, mount: &Mount) {
        wait_until_serving(mount);
        if mount.status("sheep").as_deref() != Some(self.proxy.address()) {
            mount.write("config/sheep_info", self.proxy.address().as_bytes()).unwrap();
        }
        assert_eq!(mount.status("sheep").as_deref(), Some(self.proxy.address()));
    }
}

/// A fault of the wire comes again and again: one swap each, counted by `key`, and no error.
fn on_the_wire(row: &str, key: &str, plan: Plan, fault: impl Fn(&Proxy, &mut Random)) {
    let wired = Wired::start();
    let disk = vdi_for(&wired.cluster, plan);
    // Everything goes over the wire that is hit.
    let options = ["--io-timeout=1", "--route=gateway"];
    let mount = Mount::with_volume(&wired.through, &disk, &options);
    let mut random = Random::announced();
    let load = Registers::start(&mount.volume(&disk), plan);
    let mut faults = Vec::new();
    for round in 0..rounds(4, 20) {
        wired.lead_back(&mount);
        load.wait_for_progress();
        random_while(&mut random, Duration::from_millis(40));
        faults.push(Instant::now());
        fault(&wired.proxy, &mut random);
        wait_for(key, || mount.count(key) > round);
        // The old sheep is asked whether it has drained; it can't say so through a black hole.
        wired.proxy.set(Mode::Pass);
        wait_until_serving(&mount);
        load.wait_for_progress();
        assert_eq!(mount.count(key), round + 1, "one fault, one swap");
    }
    let planned = mount.count("swaps_failover");
    assert_eq!(swaps(&mount) - planned, faults.len() as u64, "a storm of swaps");
    assert!(wired.proxy.connections() > faults.len() as u64);
    // The proxy's address never was a member's: nothing may be concluded from that.
    assert_eq!(mount.count("released_not_member"), 0);
    let report = load.finish();
    report.print_stalls(row, &faults);
    report.compare(&wired.cluster.content(&disk));
}

#[test]
fn reset_connections_are_not_noticed() {
    on_the_wire("reset", "swaps_sheep_lost", Plan::SHARED, |proxy, _| proxy.reset());
}

#[test]
fn nor_are_connections_cut_within_a_message() {
    on_the_wire("cut", "swaps_sheep_lost", Plan::CREATES, |proxy, random| {
        proxy.cut_after(random.within(1..200_000));
    });
}

#[test]
fn nor_is_a_sheep_that_nothing_comes_from() {
    on_the_wire("half-open", "swaps_sheep_silent", Plan::SHARED, |proxy, _| {
        proxy.set(Mode::Blackhole);
    });
}

/// A round trip of 500 ms and 5 % of packets lost are slow, and no reason to leave a sheep.
#[test]
fn a_slow_and_lossy_link_is_only_slow() {
    let cluster = Cluster::mini();
    let disk = vdi_for(&cluster, SLOW);
    let link = Namespace::start(cluster.address(), DELAY, LOSS_PERCENT);
    let mount = mount_over(&link, &[]);
    mount.attach(&disk);
    let load = Registers::start(&mount.volume(&disk), SLOW);
    for _ in 0..rounds(2, 10) {
        load.wait_for_progress();
    }
    assert!(link.lost() > 0, "the link lost nothing");
    println!("{} packets came through, {} were lost", link.passed(), link.lost());
    println!("swaps {} longest_stall_ms {}", swaps(&mount), mount.count("longest_stall_ms"));
    assert!(swaps(&mount) <= 1, "a failover storm");
    // The rest at a speed at which a test can end.
    link.lose(0);
    load.finish().compare(&cluster.content(&disk));
}

/// Packets vanish both ways, and nobody is told: no reset, no refusal.
#[test]
fn a_link_that_was_cut_comes_back() {
    let cluster = Cluster::mini();
    let disk = vdi_for(&cluster, SLOW);
    let link = Namespace::start(cluster.address(), Duration::from_millis(1), 0);
    let mount = mount_over(&link, &["--io-timeout=1"]);
    mount.attach(&disk);
    let load = Registers::start(&mount.volume(&disk), SLOW);
    let mut faults = Vec::new();
    for round in 0..rounds(2, 10) {
        load.wait_for_progress();
        faults.push(Instant::now());
        link.lose(100);
        wait_for("the loss", || mount.count("swaps_sheep_silent") > round);
        link.lose(0);
        load.wait_for_progress();
        assert_eq!(mount.count("swaps_sheep_silent"), round + 1, "a failover storm");
    }
    let report = load.finish();
    report.print_stalls("cut link", &faults);
    report.compare(&cluster.content(&disk));
}
