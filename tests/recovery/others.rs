//! Somebody else snapshots, resizes or deletes a volume under load, with faults at the same
//! time where they matter.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::random::Random;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::site::{random_while, send, vdi_for, wait_for_swap};
use crate::tools::wait_for;
use crate::wire::working_ref;
use nix::sys::signal::Signal;
use sheepfs::wire::request::NewVdi;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Where `vdi_size` lies in an inode (protocol 5.1): after the name, the tag and three times.
const SIZE_OFFSET: u32 = 256 + 256 + 3 * 8;

/// Snapshots come while workers die: the vid moves on, and nobody notices.
#[test]
fn snapshots_and_dying_workers_under_load() {
    let cluster = Cluster::mini();
    let disk = vdi_for(&cluster, Plan::CREATES);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let mut random = Random::announced();
    let load = Registers::start(&mount.volume(&disk), Plan::CREATES);
    let mut faults = Vec::new();
    let first = cluster.wire().vid(&disk);
    for round in 0..rounds(4, 20) {
        load.wait_for_progress();
        thread::scope(|scope| {
            scope.spawn(|| cluster.snapshot(&disk, &format!("tag{round}")));
            random_while(&mut random, Duration::from_millis(30));
            faults.push(Instant::now());
            send(Signal::SIGKILL, mount.worker());
        });
        wait_for_swap(&mount, "swaps_worker_died", round);
    }
    load.wait_for_progress();
    assert_ne!(cluster.wire().vid(&disk), first);
    assert!(mount.count("replayed") > 0);
    let report = load.finish();
    report.print_stalls("snapshot and sigkill-worker", &faults);
    report.compare(&cluster.content(&disk));
}

/// A volume grows under the mount: what is there goes on, and a new attach sees the size.
#[test]
fn a_resize_by_somebody_else_under_load() {
    let cluster = Cluster::mini();
    let disk = vdi_for(&cluster, Plan::SHARED);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    let mut wire = cluster.wire();
    let vid = wire.vid(&disk);
    let size = wire.header(vid).vdi_size;
    let grown = size + 16 * MIB;
    wire.write_inode(vid, SIZE_OFFSET, &grown.to_le_bytes());
    assert_eq!(wire.header(vid).vdi_size, grown);
    load.wait_for_progress();
    send(Signal::SIGKILL, mount.worker());
    wait_for_swap(&mount, "swaps_worker_died", 0);
    load.wait_for_progress();
    println!("{size} bytes, then {}", fs::metadata(mount.volume(&disk)).unwrap().len());
    load.finish().compare(&cluster.content(&disk));
    mount.reattach(&disk);
    assert_eq!(fs::metadata(mount.volume(&disk)).unwrap().len(), grown);
}

/// What is gone is an error (hazard 10), also after a swap, and never another VDI's data.
#[test]
fn a_deletion_by_somebody_else_under_load() {
    let cluster = Cluster::mini();
    let (disk, other) = (vdi_for(&cluster, Plan::SHARED), cluster.vdi("other", 4 * MIB));
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.attach(&other);
    let load = Registers::start(&mount.volume(&disk), Plan::SHARED);
    load.wait_for_progress();
    cluster.wire().delete(&working_ref(&disk));
    wait_for("an error", || load.failure().is_some());
    let words = load.abandon().unwrap();
    assert!(words.contains("Input/output error"), "{words}");
    let new = NewVdi { size: Plan::SHARED.size(), ..NewVdi::default() };
    cluster.wire().new_vdi(&disk, &new);
    send(Signal::SIGKILL, mount.worker());
    wait_for_swap(&mount, "swaps_worker_died", 0);
    let file = mount.open(&disk);
    assert!(file.read_exact_at(&mut [0; 4096], 0).is_err());
    assert!(file.write_all_at(&[2; 4096], 0).is_err());
    assert!(cluster.content(&disk).iter().all(|byte| *byte == 0), "another VDI was written");
    mount.open(&other).write_all_at(&[3; 4096], 0).unwrap();
}

/// Protocol 7.4: the server loses index entries in a snapshot, and the worker that remembers them
/// is killed before it has repaired them. The allocations outlive it.
#[test]
fn a_worker_killed_before_it_repairs_the_index() {
    for round in 0..rounds(3, 20) {
        lose_entries_and_the_worker(round);
    }
}

fn lose_entries_and_the_worker(round: u64) {
    let cluster = Cluster::mini();
    let new = NewVdi { size: 32 * MIB, block_size_shift: 20, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let sheep = cluster.minisheep();
    let data = move |block: u64| Random::seeded(round << 8 | block).bytes(10_000);
    let file = Arc::new(mount.open(&disk));
    let write = |blocks: Range<u64>| {
        let (file, mut data) = (Arc::clone(&file), blocks.map(move |block| (block, data(block))));
        move || data.try_for_each(|(block, data)| file.write_all_at(&data, block * MIB + 100))
    };
    write(0..12)().unwrap();
    let lost = sheep.fault(&format!("snapshot {disk} one lose=6"));
    // The first thing that a worker does about it is to look the name up: there it is killed.
    let looks = sheep.fault("delay ms=3600000 opcode=lookup count=1");
    let rest = thread::spawn(write(12..24));
    wait_for("the worker to look", || sheep.fired(&looks) == 1);
    assert_eq!(sheep.fired(&lost), 1, "it looked for another reason");
    send(Signal::SIGKILL, mount.worker());
    wait_for_swap(&mount, "swaps_worker_died", 0);
    rest.join().unwrap().unwrap();
    sheep.control("clear");
    sheep.control("hurry");
    let mut expected = vec![0; 32 << 20];
    for block in 0..24 {
        expected[(block * MIB) as usize + 100..][..10_000].copy_from_slice(&data(block));
    }
    assert!(mount.count("replayed") > 0);
    assert!(fs::read(mount.volume(&disk)).unwrap() == expected, "answered writes are lost");
    drop(file);
    mount.reattach(&disk);
    assert!(fs::read(mount.volume(&disk)).unwrap() == expected, "entries stay lost");
    assert!(cluster.content(&disk) == expected, "the wire tells something else");
}
