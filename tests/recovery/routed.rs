//! Nodes that are asked directly, since they hold the objects: requests really go there, and
//! one that dies, hangs, or can't be reached costs time at most.

use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::proxy::Proxy;
use crate::random::Random;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::site::{Gateway, Site, random_while, swaps, vdi_for, wait_for_swap, wait_until_serving};
use crate::tools::wait_for;
use crate::{KIB, MIB};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const BLOCK: usize = 4096;
const OBJECT: u64 = 4 * MIB;
/// Objects of a volume: each of three nodes holds some.
const OBJECTS: u64 = 24;

/// A volume with all objects made.
fn filled(mount: &Mount, disk: &str) -> File {
    let file = mount.open(disk);
    for object in 0..OBJECTS {
        file.write_all_at(&[object as u8; BLOCK], object * OBJECT).unwrap();
    }
    file
}

/// Reads every object; each must hold what was written.
fn read_all(file: &File) {
    let mut room = [0; BLOCK];
    for object in 0..OBJECTS {
        file.read_exact_at(&mut room, object * OBJECT).unwrap();
        assert_eq!(room, [object as u8; BLOCK], "object {object}");
    }
}

/// Reads until so many nodes, besides the one in use, are asked directly.
fn wait_for_nodes(mount: &Mount, file: &File, nodes: u64) {
    wait_for("nodes to be asked directly", || {
        read_all(file);
        mount.count("direct_nodes") == nodes
    });
}

fn reads(gateways: &[Gateway]) -> Vec<u64> {
    gateways.iter().map(|gateway| gateway.served("ReadObj")).collect()
}

/// How many requests for data a gateway was sent by a change of it.
fn writes(gateway: &Gateway) -> u64 {
    gateway.served("WriteObj")
}

/// The same, creates too.
fn changes(gateway: &Gateway) -> u64 {
    writes(gateway) + gateway.served("CreateAndWriteObj")
}

/// A mount over three gateways, all of which are known and asked.
fn scene(options: &[&str], body: impl Fn(&mut Site, &Mount, &File, &str)) {
    let mut site = Site::start(3);
    let disk = site.cluster.vdi("disk", OBJECTS * OBJECT);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, options);
    let file = filled(&mount, &disk);
    body(&mut site, &mount, &file, &disk);
    read_all(&file);
}

#[test]
fn requests_for_data_go_to_the_node_that_holds_it() {
    scene(&[], |site, mount, file, disk| {
        wait_for_nodes(mount, file, 2);
        let mut room = [0; BLOCK];
        for object in 0..OBJECTS {
            let holder = site.holder(disk, object);
            let before = reads(&site.gateways);
            file.read_exact_at(&mut room, object * OBJECT + 64 * KIB).unwrap();
            let after = reads(&site.gateways);
            assert_eq!(after[holder], before[holder] + 1, "object {object}");
            assert_eq!(after.iter().sum::<u64>(), before.iter().sum::<u64>() + 1);
            let before = writes(&site.gateways[holder]);
            file.write_all_at(&[7; BLOCK], object * OBJECT + 64 * KIB).unwrap();
            assert_eq!(writes(&site.gateways[holder]), before + 1, "object {object}");
        }
        wait_for("the counts", || mount.count("routed_direct") > 0);
        assert_eq!((mount.count("routed_again"), swaps(mount)), (0, 0));
    });
}

#[test]
fn the_route_is_switched_under_way_and_shown() {
    scene(&["--route=gateway"], |site, mount, file, _| {
        assert_eq!(mount.read("config/route"), "gateway\n");
        read_all(file);
        assert_eq!(reads(&site.gateways)[1..], [0, 0], "all goes through the one in use");
        for written in ["nonsense", "\n", "1"] {
            let error = mount.write("config/route", written.as_bytes()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::EINVAL), "{written:?}");
        }
        mount.write("config/route", b"replica\n").unwrap();
        mount.write("config/route", b"replica\n").unwrap();
        assert_eq!(mount.read("config/route"), "replica\n");
        wait_for_nodes(mount, file, 2);
        mount.write("config/route", b"gateway").unwrap();
        wait_for_nodes(mount, file, 0);
        let before = reads(&site.gateways);
        read_all(file);
        let after = reads(&site.gateways);
        assert_eq!((after[1], after[2]), (before[1], before[2]));
        assert_eq!(swaps(mount), 0, "nothing is disturbed");
    });
}

#[test]
fn few_connections_are_enough() {
    scene(&["--max-connections=6"], |site, mount, file, _| {
        wait_for_nodes(mount, file, 1);
        for _ in 0..10 {
            read_all(file);
        }
        assert_eq!(mount.count("direct_nodes"), 1);
        assert!(reads(&site.gateways)[1..].contains(&0), "one was never asked directly");
    });
}

/// It is a node still, and refuses connections, as behind a firewall.
#[test]
fn a_node_that_cannot_be_reached_is_said_once_and_costs_nothing() {
    let mut site = Site::start(3);
    let disk = site.cluster.vdi("disk", OBJECTS * OBJECT);
    site.cluster.minisheep().control("linger");
    site.gateways[2].kill();
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let file = filled(&mount, &disk);
    wait_for_nodes(&mount, &file, 1);
    for _ in 0..10 {
        read_all(&file);
    }
    let said = |mount: &Mount| mount.log().matches("can't be asked directly").count();
    wait_for("the log", || said(&mount) == 1);
    assert!(mount.log().contains(site.gateways[2].address()));
    // It comes back, which is another epoch: it is tried again at once.
    site.gateways[2].restart();
    wait_for_nodes(&mount, &file, 2);
    assert_eq!((said(&mount), swaps(&mount)), (1, 0));
}

#[test]
fn a_node_that_never_answers_costs_nothing() {
    let site = Site::start(3);
    let disk = site.cluster.vdi("disk", OBJECTS * OBJECT);
    site.gateways[2].freeze();
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let file = filled(&mount, &disk);
    wait_for("the log", || {
        read_all(&file);
        mount.log().contains("can't be asked directly")
    });
    wait_for_nodes(&mount, &file, 1);
    assert_eq!(swaps(&mount), 0);
    site.gateways[2].thaw();
    // After its pause.
    wait_for_nodes(&mount, &file, 2);
}

/// The nodes that hold objects of a plan's volume, those that hold the most last.
fn holders(site: &Site, disk: &str, plan: Plan) -> Vec<usize> {
    let objects: BTreeSet<u64> =
        (0..plan.registers).map(|register| plan.object(register)).take(512).collect();
    let mut counts = vec![0; site.gateways.len()];
    for object in objects {
        counts[site.holder(disk, object)] += 1;
    }
    let mut nodes: Vec<_> = (0..counts.len()).filter(|node| counts[*node] > 0).collect();
    nodes.sort_by_key(|node| counts[*node]);
    nodes
}

/// A node that is asked directly is killed and comes back, again and again.
fn others_killed_in_turn(row: &str, plan: Plan, times: u64) {
    let mut site = Site::start(3);
    let disk = vdi_for(&site.cluster, plan);
    let victims = holders(&site, &disk, plan);
    let in_use = (0..3).find(|node| victims.last() != Some(node)).unwrap();
    let victims: Vec<_> = victims.into_iter().filter(|node| *node != in_use).collect();
    let through = site.through(in_use);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let mut random = Random::announced();
    let load = Registers::start(&mount.volume(&disk), plan);
    let mut faults = Vec::new();
    for round in 0..times {
        load.wait_for_progress();
        let victim = victims[round as usize % victims.len()];
        // While one is away others hold its objects, and are kept for a while: a number of
        // nodes does not say which these are.
        let before = changes(&site.gateways[victim]);
        wait_for("the node to be asked", || changes(&site.gateways[victim]) > before);
        random_while(&mut random, std::time::Duration::from_millis(40));
        faults.push(Instant::now());
        site.gateways[victim].kill();
        load.wait_for_progress();
        wait_until_serving(&mount);
        site.gateways[victim].restart();
    }
    let lost = mount.count("swaps_sheep_lost");
    println!("{row}: {times} kills, {lost} swaps, {} asked again", mount.count("routed_again"));
    assert!(lost > 0, "no kill met a change");
    let report = load.finish();
    report.print_stalls(row, &faults);
    report.compare(&site.cluster.content(&disk));
}

#[test]
fn a_holder_that_is_killed_is_not_noticed() {
    others_killed_in_turn("sigkill-holder", Plan::SHARED, rounds(6, 20));
}

#[test]
fn nor_when_objects_are_created() {
    others_killed_in_turn("sigkill-holder-creates", Plan::CREATES, rounds(4, 20));
}

/// `departure.rs`: the worker dies, and a node besides its sheep with it, of which nobody says a
/// word. The sheep is the same as before, and changes wait all the same until the cluster knows.
#[test]
fn changes_wait_for_a_node_that_died_unheard_with_the_worker() {
    let mut site = Site::start(3);
    let disk = vdi_for(&site.cluster, Plan::SHARED);
    let victim = *holders(&site, &disk, Plan::SHARED).last().unwrap();
    let in_use = (0..3).find(|node| *node != victim).unwrap();
    let through = site.through(in_use);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    let used = writes(&site.gateways[victim]);
    wait_for("changes to go there", || writes(&site.gateways[victim]) > used);
    site.cluster.minisheep().control("linger");
    let worker = mount.worker();
    let fault = Instant::now();
    nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGSTOP).unwrap();
    site.gateways[victim].kill();
    nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for_swap(&mount, "swaps_worker_died", 0);
    wait_until_serving(&mount);
    let alive: Vec<_> = (0..3).filter(|node| *node != victim).collect();
    let changes = |site: &Site| -> u64 {
        let of = |node: &usize| {
            let gateway = &site.gateways[*node];
            gateway.served("WriteObj") + gateway.served("CreateAndWriteObj")
        };
        alive.iter().map(of).sum()
    };
    let (sent, asked) = (changes(&site), site.gateways[in_use].served("GetNodeList"));
    wait_for("looks at the node list", || {
        site.gateways[in_use].served("GetNodeList") >= asked + 10
    });
    wait_for("all writers to wait", || mount.count("in_flight") >= Plan::SHARED.writers);
    let gave_up = || mount.log().contains("does not notice");
    assert!(!gave_up(), "this machine is too slow for the 10 s of the hold\n{}", mount.log());
    assert_eq!(changes(&site), sent, "no change was sent before the cluster knew");
    assert_eq!(site.in_use(&mount), in_use);
    assert_eq!(site.cluster.minisheep().control("bury"), "left 1\n");
    load.wait_for_progress();
    assert!(changes(&site) > sent && !gave_up(), "it was the news, not the time: {}", mount.log());
    let report = load.finish();
    report.print_stalls("unnoticed death besides", &[fault]);
    report.compare(&site.cluster.content(&disk));
}

/// Reads that a node does not answer are asked again of the one in use, without a new session.
#[test]
fn a_holder_that_hangs_with_reads_costs_no_session() {
    scene(&["--io-timeout=1"], |site, mount, file, disk| {
        wait_for_nodes(mount, file, 2);
        let in_use = site.in_use(mount);
        let object = (0..OBJECTS).find(|object| site.holder(disk, *object) != in_use).unwrap();
        let holder = site.holder(disk, object);
        site.gateways[holder].freeze();
        let mut room = [0; BLOCK];
        file.read_exact_at(&mut room, object * OBJECT).unwrap();
        assert_eq!(room, [object as u8; BLOCK]);
        wait_for("the count", || mount.count("routed_again") > 0);
        assert_eq!(swaps(mount), 0);
        site.gateways[holder].thaw();
    });
}

#[test]
fn a_holder_that_hangs_with_a_change_ends_the_session_and_loses_nothing() {
    scene(&["--io-timeout=1"], |site, mount, file, disk| {
        wait_for_nodes(mount, file, 2);
        let in_use = site.in_use(mount);
        let object = (0..OBJECTS).find(|object| site.holder(disk, *object) != in_use).unwrap();
        let holder = site.holder(disk, object);
        site.gateways[holder].freeze();
        file.write_all_at(&[object as u8; BLOCK], object * OBJECT).unwrap();
        wait_for_swap(mount, "swaps_sheep_silent", 0);
        assert_eq!(site.in_use(mount), in_use, "the sheep in use is as good as before");
        assert!(mount.log().contains(site.gateways[holder].address()));
        site.gateways[holder].thaw();
        wait_for("the fence to fall", || mount.count("fenced_now") == 0);
    });
}

/// What a dead worker had sent to any node is known there before newer changes go.
#[test]
fn a_worker_that_is_killed_leaves_all_its_nodes_to_be_watched() {
    let site = Site::start(3);
    let disk = vdi_for(&site.cluster, Plan::SHARED);
    let nodes = holders(&site, &disk, Plan::SHARED);
    let in_use = (0..3).find(|node| nodes.last() != Some(node)).unwrap();
    let asked: Vec<_> = nodes.into_iter().filter(|node| *node != in_use).collect();
    let through: Cluster = site.through(in_use);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    for round in 0..rounds(5, 50) {
        load.wait_for_progress();
        // Counted where it is served: the node that holds the inode may be one more.
        let serving: Vec<_> = asked.iter().map(|node| &site.gateways[*node]).collect();
        let served = |gateway: &Gateway| gateway.served("ReadObj") + changes(gateway);
        let then: Vec<_> = serving.iter().map(|gateway| served(gateway)).collect();
        wait_for("all nodes to be asked", || {
            serving.iter().zip(&then).all(|(gateway, then)| served(gateway) > *then)
        });
        let before = mount.count("swaps_worker_died");
        nix::sys::signal::kill(mount.worker(), nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for_swap(&mount, "swaps_worker_died", before);
        assert_eq!(swaps(&mount), round + 1);
    }
    let quiet = |gateway: &Gateway| {
        let log = mount.log();
        log.lines()
            .any(|line| line.contains("runs there any more") && line.contains(gateway.address()))
    };
    let watched = asked.into_iter().chain([in_use]);
    assert!(
        watched.map(|node| &site.gateways[node]).all(quiet),
        "a gateway was not asked:\n{}",
        mount.log()
    );
    let report = load.finish();
    report.compare(&site.cluster.content(&disk));
}

/// As when `127.0.0.1` is given and the cluster lists the host's address in its network: the
/// sheep in use is one node, whatever it is called, also for who watches it later.
#[test]
fn the_sheep_in_use_is_no_second_node_under_another_address() {
    let site = Site::start(3);
    let disk = site.cluster.vdi("disk", OBJECTS * OBJECT);
    let (_, port) = site.gateways[0].address().rsplit_once(':').unwrap();
    let listener = TcpListener::bind(format!("127.0.0.2:{port}")).unwrap();
    let alias = Proxy::start_on(listener, site.gateways[0].address());
    let through = Cluster::named(alias.address());
    let mount = Mount::with_volume(&through, &disk, &[]);
    let file = filled(&mount, &disk);
    wait_for_nodes(&mount, &file, 2);
    let own: Vec<_> = (0..OBJECTS).filter(|object| site.holder(&disk, *object) == 0).collect();
    let before = alias.bytes();
    let mut room = vec![0; MIB as usize];
    for object in &own {
        file.read_exact_at(&mut room, object * OBJECT + MIB).unwrap();
    }
    let asked = own.len() as u64 * MIB;
    assert!(asked > 0 && alias.bytes() - before >= asked, "asked past the given address");
    assert_eq!(mount.count("direct_nodes"), 2);
    let swaps_before = mount.count("swaps_worker_died");
    nix::sys::signal::kill(mount.worker(), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for_swap(&mount, "swaps_worker_died", swaps_before);
    wait_for_nodes(&mount, &file, 2);
    assert!(!mount.log().contains("node list does not have"));
}

/// Nothing tells which node that is, so no second way leads to any.
#[test]
fn all_goes_through_a_sheep_that_the_cluster_does_not_list() {
    let site = Site::start(3);
    let disk = site.cluster.vdi("disk", OBJECTS * OBJECT);
    let unlisted = Proxy::start(site.gateways[0].address());
    let through = Cluster::named(unlisted.address());
    let mount = Mount::with_volume(&through, &disk, &[]);
    let file = filled(&mount, &disk);
    wait_for("the log", || {
        read_all(&file);
        mount.log().contains("node list does not have")
    });
    assert!(mount.log().contains(unlisted.address()));
    read_all(&file);
    assert_eq!(reads(&site.gateways)[1..], [0, 0]);
    assert_eq!((mount.count("direct_nodes"), swaps(&mount)), (0, 0));
}
