//! Many VDIs and many volumes: what one more costs does not depend on how many there are.
//!
//! A hundred volumes by default; a thousand with `SHEEPFS_FAULT_ROUNDS=full`.

use crate::MIB;
use crate::cluster::Cluster;
use crate::holes::wait_until_counted;
use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::rounds::rounds;
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

/// What an attached, idle volume may cost in all processes together.
const KIB_PER_VOLUME_MAX: u64 = 32;
/// How long a mount is watched that has nothing to do.
const IDLE_TIME: Duration = Duration::from_secs(3);
/// How often the threads of an idle mount may run in that time: each process is asked whether
/// it lives, once in a second, and nothing else happens.
const WAKE_UPS_MAX: u64 = 50;

fn count() -> u64 {
    rounds(100, 1000)
}

fn vdis(cluster: &Cluster, count: u64) -> Vec<String> {
    (0..count).map(|number| cluster.vdi(&format!("disk{number}"), 64 * MIB)).collect()
}

/// The processes of a mount.
fn processes(mount: &Mount) -> Vec<Pid> {
    [vec![mount.supervisor()], mount.workers()].concat()
}

/// What all processes of a mount have: what several share is counted once.
fn memory_kib(mount: &Mount) -> u64 {
    let own = |process: Pid| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    processes(mount).into_iter().map(own).sum()
}

/// How often each thread of these processes was woken, and how long they ran, in ms.
fn effort(mount: &Mount) -> (u64, u64) {
    let mut effort = (0, 0);
    for process in processes(mount) {
        for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten() {
            let status = fs::read_to_string(thread.path().join("status")).unwrap();
            let times = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            effort.0 += times.unwrap().trim().parse::<u64>().unwrap();
            let ran = fs::read_to_string(thread.path().join("schedstat")).unwrap();
            let nanos: u64 = ran.split(' ').next().unwrap().parse().unwrap();
            effort.1 += nanos / 1_000_000;
        }
    }
    effort
}

/// Requests that a call needs, of those opcodes together.
fn requests(sheep: &Minisheep, opcodes: &[&str], call: impl FnOnce()) -> u64 {
    let all = || opcodes.iter().map(|opcode| sheep.served(opcode)).sum::<u64>();
    let before = all();
    call();
    all() - before
}

/// minisheep only, since only its answers can be counted here.
#[test]
fn a_list_costs_one_request_for_each_vdi_that_is_not_large() {
    let cluster = Cluster::mini();
    let names = vdis(&cluster, count());
    let mount = Mount::start(&cluster, &[]);
    let reads = |call: &dyn Fn()| requests(cluster.minisheep(), &["ReadObj"], call);
    let begun = Instant::now();
    let listed = reads(&|| assert_eq!(mount.read("vdi/list").lines().count(), names.len() + 1));
    println!("a list of {} VDIs took {:?}", names.len(), begun.elapsed());
    assert_eq!(listed, count());
    // An index that does not fit into the first answer.
    cluster.vdi("large", 1 << 40);
    assert_eq!(reads(&|| drop(mount.read("vdi/list"))), count() + 2);
}

/// The tree is listed by one read of all VDIs, also when each name is looked at; a look at one
/// costs a few requests, however many there are. minisheep only, as above.
#[test]
fn a_look_at_one_vdi_does_not_read_the_others() {
    let cluster = Cluster::mini();
    let vdi_count = rounds(2000, 10_000);
    let begun = Instant::now();
    let names = vdis(&cluster, vdi_count);
    println!("{vdi_count} VDIs were made in {:?}", begun.elapsed());
    let mount = Mount::start(&cluster, &[]);
    let all = ["ReadObj", "GetVdiInfo", "ReadVdis", "ReadDelVdis"];
    let asked = |call: &dyn Fn()| requests(cluster.minisheep(), &all, call);
    let one = asked(&|| assert_eq!(mount.read("vdi/tree/disk7/size"), format!("{}\n", 64 * MIB)));
    assert_eq!(one, 3, "the name, its header, and once more when the file was opened");
    let begun = Instant::now();
    let list = || {
        let mut found: Vec<_> = fs::read_dir(mount.path("vdi/tree"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        let mut expected = names.clone();
        expected.sort();
        assert!(found == expected, "{} of {}", found.len(), expected.len());
    };
    // Read once; or twice, where the machine is so slow that the list is too old before its end.
    let listed = asked(&list);
    println!("ls vdi/tree: {:?}, {listed} requests", begun.elapsed());
    assert!(listed <= 2 * (vdi_count + 2), "{listed}");
    let begun = Instant::now();
    let walked = asked(&|| {
        let mut entries = fs::read_dir(mount.path("vdi/tree")).unwrap();
        assert!(entries.all(|entry| entry.unwrap().metadata().unwrap().is_dir()));
    });
    println!("ls -l vdi/tree: {:?}, {walked} requests", begun.elapsed());
    assert!(walked < 10 * vdi_count, "{walked}");
}

/// Readers at the same time share one read. minisheep only, as above.
#[test]
fn those_who_list_at_once_share_one_list() {
    const READERS: u64 = 20;
    let cluster = Cluster::mini();
    let names = vdis(&cluster, count());
    let mount = Mount::start(&cluster, &[]);
    let listed = requests(cluster.minisheep(), &["ReadObj"], || {
        thread::scope(|scope| {
            for _ in 0..READERS {
                scope.spawn(|| {
                    let found = fs::read_dir(mount.path("vdi/tree")).unwrap().count();
                    assert_eq!(found, names.len());
                });
            }
        });
    });
    println!("{READERS} readers: {listed} headers of {} VDIs", names.len());
    assert!(listed <= 2 * count(), "{listed}");
}

/// The last of many costs what the first one did. minisheep only, as above.
#[test]
fn an_attach_and_a_detach_cost_the_same_with_many_volumes() {
    let cluster = Cluster::mini();
    let names = vdis(&cluster, count());
    let mount = Mount::start(&cluster, &[]);
    let all = ["ReadObj", "LockVdi", "ReleaseVdi", "GetVdiInfo"];
    for name in &names {
        let begun = Instant::now();
        let attach = requests(cluster.minisheep(), &all, || {
            mount.attach(name);
            wait_until_counted(&mount, name);
        });
        assert_eq!(attach, 4, "{name}: its lock and its header; its index, and the header again");
        if name == &names[0] || Some(name) == names.last() {
            println!("{name}: attached in {:?}", begun.elapsed());
        }
    }
    let shown: Vec<_> = fs::read_dir(mount.path("volume")).unwrap().flatten().collect();
    assert_eq!(shown.len(), names.len());
    assert_eq!(mount.count("volumes"), count());
    for name in names.iter().rev() {
        let detach = requests(cluster.minisheep(), &all, || mount.detach(name));
        assert_eq!(detach, 1, "{name}: its lock is given back");
    }
    assert_eq!(mount.count("volumes"), 0);
}

#[test]
fn an_idle_volume_costs_little_memory_and_no_time() {
    let cluster = Cluster::mini();
    let names = vdis(&cluster, count());
    let mount = Mount::start(&cluster, &[]);
    // What the first one needs, all need.
    mount.attach(&names[0]);
    let first = memory_kib(&mount);
    for name in &names[1..] {
        mount.attach(name);
        mount.open(name).read_exact_at(&mut [0; 4096], 0).unwrap();
    }
    let cost = memory_kib(&mount).saturating_sub(first);
    println!("{} volumes cost {cost} KiB", names.len() - 1);
    assert!(cost < KIB_PER_VOLUME_MAX * (count() - 1), "{cost} KiB");
    let before = effort(&mount);
    // Not to wait for anything: it is what is measured.
    thread::sleep(IDLE_TIME);
    let after = effort(&mount);
    let (woken, ran) = (after.0 - before.0, after.1 - before.1);
    println!("idle with {} volumes: woken {woken} times, {ran} ms in {IDLE_TIME:?}", names.len());
    assert!(woken < WAKE_UPS_MAX, "woken {woken} times");
}
