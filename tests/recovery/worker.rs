//! The worker dies, stops or crashes, and its sheep lives.

use crate::MIB;
use crate::cluster::Cluster;
use crate::fio::Fio;
use crate::mount::{Mount, children_of, is_alive};
use crate::random::Random;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::site::{hyper_for, random_while, send, vdi_for, wait_for_swap};
use crate::tools::{holds_in_time, wait_for};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

const INSTANT_MAX: Duration = Duration::from_millis(40);
const FIO_BYTES: u64 = 16 * MIB;

/// Registers and fio at once, the worker killed again and again.
fn killed_under_load(
    row: &str,
    plan: Plan,
    times: u64,
    vdi_for: impl Fn(&Cluster, Plan) -> String,
) {
    let cluster = Cluster::mini();
    let (disk, bytes) = (vdi_for(&cluster, plan), cluster.vdi("bytes", FIO_BYTES));
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.attach(&bytes);
    let mut random = Random::announced();
    let load = Registers::start(&mount.volume(&disk), plan);
    let fio = Fio::start(&mount.volume(&bytes), FIO_BYTES);
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
    assert_eq!(mount.count("poisoned"), 0);
    println!("fio: {:?}", fio.finish());
    let report = load.finish();
    report.print_stalls(row, &faults);
    report.print_by_fence(row, &faults);
    println!(
        "{row}: fenced {} released_drained {}",
        mount.count("fenced"),
        mount.count("released_drained")
    );
    report.compare(&cluster.content(&disk));
}

#[test]
fn a_worker_killed_at_any_instant_is_not_noticed() {
    killed_under_load("sigkill-worker", Plan::SHARED, rounds(20, 200), vdi_for);
}

#[test]
fn nor_is_one_that_creates_objects() {
    killed_under_load("sigkill-worker-creates", Plan::CREATES, rounds(10, 200), vdi_for);
}

/// Each of them moves entries of others in the tree of its index.
#[test]
fn nor_is_one_that_creates_objects_of_a_hyper_volume() {
    killed_under_load("sigkill-worker-hyper", Plan::CREATES, rounds(10, 200), hyper_for);
}

/// A stopped worker is replaced, and killed: what would go on in it could write what is old.
#[test]
fn a_stopped_worker_is_replaced_and_can_touch_nothing() {
    let cluster = Cluster::mini();
    let disk = vdi_for(&cluster, Plan::SHARED);
    let mount = Mount::with_volume(&cluster, &disk, &["--io-timeout=1"]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    let mut faults = Vec::new();
    for round in 0..rounds(2, 10) {
        load.wait_for_progress();
        let worker = mount.worker();
        assert_eq!(mount.count("swaps_worker_silent"), round);
        faults.push(Instant::now());
        send(Signal::SIGSTOP, worker);
        wait_for_swap(&mount, "swaps_worker_silent", round);
        let _ = kill(worker, Signal::SIGCONT);
        assert!(!is_alive(worker), "the stopped worker lives beside its successor");
        assert_ne!(mount.worker(), worker);
    }
    load.wait_for_progress();
    let report = load.finish();
    report.print_stalls("sigstop-worker", &faults);
    report.compare(&cluster.content(&disk));
}

/// Starts a write that the sheep does not answer until told to; returns what it gives.
fn held_write(cluster: &Cluster, mount: &Mount, disk: &str) -> Held {
    // For ever, or until `hurry`.
    let fault = cluster.minisheep().fault("delay ms=3600000 kind=data opcode=write");
    let file = mount.open(disk);
    let write = thread::spawn(move || file.write_all_at(&[2; 4096], 0));
    wait_for("the write", || cluster.minisheep().fired(&fault) == 1);
    Held { fault, write }
}

struct Held {
    fault: String,
    write: thread::JoinHandle<std::io::Result<()>>,
}

/// Sends `signal` to the worker, when the write has come to it for the `nth` time.
fn crash(cluster: &Cluster, mount: &Mount, held: &Held, signal: Signal, nth: u64) {
    wait_for("the write or its replay", || cluster.minisheep().fired(&held.fault) >= nth);
    let worker = mount.worker();
    let before = mount.count("worker_generation");
    send(signal, worker);
    wait_for("the next worker", || mount.count("worker_generation") > before);
}

fn ready_disk(cluster: &Cluster) -> String {
    let disk = cluster.vdi("disk", 4 * MIB);
    let mount = Mount::with_volume(cluster, &disk, &[]);
    mount.open(&disk).write_all_at(&[1; 8192], 0).unwrap();
    disk
}

/// Hazard 24: what kills workers by itself, alone, three times is answered EIO.
#[test]
fn a_request_that_crashes_three_workers_is_an_error() {
    for signal in [Signal::SIGILL, Signal::SIGABRT] {
        let cluster = Cluster::mini();
        let disk = ready_disk(&cluster);
        let mount = Mount::with_volume(&cluster, &disk, &[]);
        let held = held_write(&cluster, &mount, &disk);
        for nth in 1..=3 {
            assert!(!held.write.is_finished(), "answered after {} crashes", nth - 1);
            crash(&cluster, &mount, &held, signal, nth);
        }
        let error = held.write.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
        assert_eq!(mount.count("poisoned"), 1);
        cluster.minisheep().control("clear");
        cluster.minisheep().control("hurry");
        // Others were never its victims.
        mount.open(&disk).write_all_at(&[3; 4096], 4096).unwrap();
        assert_eq!(mount.count("poisoned"), 1);
    }
}

/// A request that was merely in flight when somebody killed the worker is not to blame.
#[test]
fn a_request_in_flight_at_any_number_of_kills_is_no_poison() {
    let cluster = Cluster::mini();
    let disk = ready_disk(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let held = held_write(&cluster, &mount, &disk);
    let times = rounds(5, 20);
    for nth in 1..=times {
        let signal = if nth % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
        crash(&cluster, &mount, &held, signal, nth);
    }
    cluster.minisheep().control("clear");
    cluster.minisheep().control("hurry");
    held.write.join().unwrap().unwrap();
    assert_eq!(mount.count("poisoned"), 0);
    assert!(mount.count("replayed") >= times);
    assert_eq!(cluster.content(&disk)[..4096], [2; 4096]);
}

/// Where the descriptors of a process lead.
fn descriptors(process: Pid) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}

/// Hazard 29: a child that had the device would keep the connection alive for ever.
#[test]
fn no_child_has_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let options = ["--local", store.to_str().unwrap(), "--create", "disk:8M"];
    let mount = Mount::start_by(&[], &options);
    mount.attach("disk");
    assert!(descriptors(mount.supervisor()).contains(&"/dev/fuse".to_owned()));
    for round in 0..2 {
        // A swap has passed descriptors about once more.
        let kinds = || (mount.workers().len(), children_of(mount.supervisor()).len());
        assert!(holds_in_time(|| kinds().0 >= 2 && kinds().1 >= 3), "{:?}", kinds());
        for child in children_of(mount.supervisor()) {
            let open = descriptors(child);
            assert!(!open.iter().any(|target| target == "/dev/fuse"), "{child}: {open:?}");
        }
        send(Signal::SIGKILL, mount.worker());
        wait_for_swap(&mount, "swaps_worker_died", round);
    }
}
