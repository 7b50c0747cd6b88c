//! The sheep in use dies, and then all of them.

use crate::MIB;
use crate::cluster::Cluster;
use crate::fio::Fio;
use crate::mount::Mount;
use crate::random::Random;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::site::{Gateway, Site, random_while, timed, vdi_for, wait_until_serving};
use crate::stalls::Stalls;
use crate::tools::wait_for;
use nix::errno::Errno;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

const FIO_BYTES: u64 = 16 * MIB;

/// The sheep in use is killed, and started again when the mount has found another.
fn killed_in_turn(row: &str, plan: Plan, gateways: usize, times: u64) {
    let mut site = Site::start(gateways);
    let (disk, bytes) = (vdi_for(&site.cluster, plan), site.cluster.vdi("bytes", FIO_BYTES));
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    mount.attach(&bytes);
    let mut random = Random::announced();
    let load = Registers::start(&mount.volume(&disk), plan);
    let fio = Fio::start(&mount.volume(&bytes), FIO_BYTES);
    let (mut faults, mut used) = (Vec::new(), vec![false; gateways]);
    for round in 0..times {
        load.wait_for_progress();
        wait_for("other candidates", || mount.count("candidates") >= 2);
        random_while(&mut random, Duration::from_millis(40));
        let victim = site.in_use(&mount);
        used[victim] = true;
        faults.push(Instant::now());
        site.gateways[victim].kill();
        wait_for("the loss", || mount.count("swaps_sheep_lost") > round);
        wait_until_serving(&mount);
        assert_ne!(site.in_use(&mount), victim, "a dead sheep serves");
        load.wait_for_progress();
        site.gateways[victim].restart();
    }
    assert_eq!(mount.count("swaps_sheep_lost"), times, "one kill, one swap");
    assert!(used.iter().filter(|used| **used).count() >= 2, "the faults hit one gateway only");
    println!("fio: {:?}", fio.finish());
    let report = load.finish();
    report.print_stalls(row, &faults);
    println!(
        "{row}: fenced {} released_gone {}",
        mount.count("fenced"),
        mount.count("released_gone")
    );
    report.compare(&site.cluster.content(&disk));
}

#[test]
fn the_sheep_in_use_is_killed_and_nobody_notices() {
    killed_in_turn("sigkill-sheep", Plan::SHARED, 3, rounds(6, 20));
}

#[test]
fn nor_when_objects_are_created() {
    killed_in_turn("sigkill-sheep-two-nodes", Plan::CREATES, 2, rounds(4, 20));
}

/// How many changes to objects a gateway was sent.
fn changes(gateway: &Gateway) -> u64 {
    gateway.served("WriteObj") + gateway.served("CreateAndWriteObj")
}

/// `departure.rs`: a real cluster takes a moment to notice a death, and changes that straddle
/// that moment may be lost by it. So changes wait until the new sheep's node list shows it, those
/// that are repeated too, and reads don't.
#[test]
fn changes_wait_until_the_cluster_has_noticed_a_death() {
    let mut site = Site::start(2);
    let disk = vdi_for(&site.cluster, Plan::SHARED);
    let through = site.through(0);
    // So that the other one has nothing to do before.
    let mount = Mount::with_volume(&through, &disk, &["--route=gateway"]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    wait_for("both candidates", || mount.count("candidates") >= 2);
    site.cluster.minisheep().control("linger");
    let fault = Instant::now();
    site.gateways[0].kill();
    wait_for("the loss", || mount.count("swaps_sheep_lost") > 0);
    wait_until_serving(&mount);
    let next = &site.gateways[1];
    let asked = next.served("GetNodeList");
    wait_for("looks at the node list", || next.served("GetNodeList") >= asked + 10);
    wait_for("all writers to wait", || mount.count("in_flight") >= Plan::SHARED.writers);
    let (file, read) = (mount.open(&disk), next.served("ReadObj"));
    for register in 0..Plan::SHARED.registers {
        // Beside the register: a read of what is being written waits with that.
        let beside = Plan::SHARED.offset(register) + Plan::SHARED.block as u64;
        file.read_exact_at(&mut [0; 4096], beside).unwrap();
    }
    assert!(next.served("ReadObj") >= read + Plan::SHARED.registers, "reads go on");
    let listed = mount.read("node/list");
    assert!(listed.contains(site.gateways[0].address()), "it is a node still: {listed}");
    let held = || (changes(next), mount.count("in_flight") >= Plan::SHARED.writers);
    let gave_up = || mount.log().contains("does not notice");
    assert!(!gave_up(), "this machine is too slow for the 10 s of the hold\n{}", mount.log());
    assert_eq!(held(), (0, true), "no change was sent before the cluster knew");
    assert!(mount.count("replayed") > 0, "the kill met no request");
    assert_eq!(site.cluster.minisheep().control("bury"), "left 1\n");
    load.wait_for_progress();
    assert!(changes(next) > 0 && !gave_up(), "it was the news, not the time: {}", mount.log());
    let report = load.finish();
    report.print_stalls("unnoticed death", &[fault]);
    report.compare(&site.cluster.content(&disk));
}

/// Reads the files that need no sheep, as long as the outage shall be; how long each took is
/// printed. The files that need one must fail, with an errno that says it.
fn control_files_answer_for(mount: &Mount, outage: Duration) {
    let mut stalls = Stalls::new("control files in an outage");
    let begun = Instant::now();
    while begun.elapsed() < outage {
        for file in ["config/sheep_info", "config/status", "config/page_cache"] {
            stalls.add(timed(|| mount.read(file)).1);
        }
        stalls.add(timed(|| mount.write("config/page_cache", b"0").unwrap()).1);
        // A pace, so that the load is not all that this machine does.
        thread::sleep(Duration::from_millis(20));
    }
    stalls.print();
    for report in ["cluster/info", "node/list", "node/info", "vdi/list"] {
        let (read, time) = timed(|| fs::read(mount.path(report)));
        let error = read.expect_err("no sheep can have told that");
        println!("{report}: {error} after {} ms", time.as_millis());
        let known = [Errno::EHOSTUNREACH, Errno::ETIMEDOUT, Errno::ECONNREFUSED];
        assert!(known.iter().any(|errno| error.raw_os_error() == Some(*errno as i32)), "{error}");
    }
    let attach = mount.write("vdi/mount", b"another").unwrap_err();
    assert_eq!(attach.raw_os_error(), Some(Errno::EHOSTUNREACH as i32));
}

#[test]
fn an_outage_of_all_sheep_is_waited_out() {
    let mut site = Site::start(2);
    let disk = vdi_for(&site.cluster, Plan::SHARED);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    let fault = Instant::now();
    site.gateways.iter_mut().for_each(Gateway::kill);
    wait_for("the outage", || mount.status("worker_state").as_deref() == Some("backing_off"));
    control_files_answer_for(&mount, Duration::from_secs(rounds(6, 60)));
    load.check();
    wait_for("all writers to wait", || mount.count("in_flight") >= Plan::SHARED.writers);
    site.gateways[1].restart();
    load.wait_for_progress();
    assert!(mount.count("swaps_sheep_lost") > 0 && mount.count("replayed") > 0);
    assert_eq!(site.in_use(&mount), 1);
    println!("longest_stall_ms {}", mount.count("longest_stall_ms"));
    let report = load.finish();
    report.print_stalls("outage", &[fault]);
    report.compare(&site.cluster.content(&disk));
    site.gateways[0].restart();
}

/// `--on-outage=error-after=1` beside the default, in the same outage: the one gives an error,
/// and the other goes on holding when it does.
#[test]
fn an_outage_is_an_error_where_that_was_asked_for() {
    let mut site = Site::start(1);
    let (disk, other) = (site.cluster.vdi("disk", 4 * MIB), site.cluster.vdi("other", 4 * MIB));
    let through = site.through(0);
    let impatient = Mount::with_volume(&through, &disk, &["--on-outage=error-after=1"]);
    let patient = Mount::with_volume(&through, &other, &[]);
    let file = impatient.open(&disk);
    file.write_all_at(&[1; 4096], 0).unwrap();
    site.gateways[0].kill();
    wait_for("the loss", || patient.status("worker_state").as_deref() == Some("backing_off"));
    let held = patient.open(&other);
    let held = thread::spawn(move || held.write_all_at(&[2; 4096], 0));
    let (written, time) = timed(|| file.write_all_at(&[3; 4096], 4096));
    println!("error-after=1: an error after {} ms", time.as_millis());
    assert_eq!(written.unwrap_err().raw_os_error(), Some(Errno::EIO as i32));
    assert!(!held.is_finished(), "nobody asked the other mount for an error");
    assert_eq!(impatient.count("poisoned"), 0);
    site.gateways[0].restart();
    held.join().unwrap().unwrap();
    wait_until_serving(&impatient);
    // It is a policy, not an end.
    file.write_all_at(&[4; 4096], 4096).unwrap();
    assert_eq!(site.cluster.content(&disk)[4096..8192], [4; 4096]);
    assert_eq!(site.cluster.content(&other)[..4096], [2; 4096]);
}

/// An outage shorter than the time given is waited out, like any.
#[test]
fn a_short_outage_is_no_error() {
    let mut site = Site::start(1);
    let disk = site.cluster.vdi("disk", 4 * MIB);
    let through: Cluster = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &["--on-outage=error-after=600"]);
    site.gateways[0].kill();
    wait_for("the outage", || mount.status("worker_state").as_deref() == Some("backing_off"));
    let file = mount.open(&disk);
    let held = thread::spawn(move || file.write_all_at(&[2; 4096], 0));
    wait_for("the write", || mount.count("in_flight") > 0);
    site.gateways[0].restart();
    held.join().unwrap().unwrap();
}
