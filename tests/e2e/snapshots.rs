//! VDIs that become snapshots under the mount, clones, and VDIs that vanish.

use crate::cluster::Cluster;
use crate::control::errno;
use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::random::Random;
use crate::wire::{snapshot_ref, working_ref};
use crate::{KIB, MIB};
use nix::errno::Errno;
use sheepfs::wire::Status;
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Blocks of 4 KiB, scattered over objects of 1 MiB, so that creates, copies on write and
/// overwrites all happen.
const BLOCK: u64 = 4 * KIB;
const BLOCKS: u64 = 64 * 16;
const SIZE: u64 = 64 * MIB;
const WRITERS: u64 = 8;

/// Where block `number` lies: neighbours in number are far apart on the volume.
fn place(number: u64) -> u64 {
    number * 61 % BLOCKS * (SIZE / BLOCKS)
}

/// The writes of all writers to one block: the number of the last that was begun, and of the
/// last that was answered.
#[derive(Default)]
struct History {
    begun: AtomicU64,
    answered: AtomicU64,
}

/// A block that says which write it comes from.
fn stamped(number: u64, write: u64) -> Vec<u8> {
    [number, write].map(u64::to_le_bytes).concat().repeat(BLOCK as usize / 16)
}

/// The number of the write that a block holds; 0 when it was never written.
fn write_in(number: u64, block: &[u8]) -> u64 {
    if block.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let write = u64::from_le_bytes(block[8..16].try_into().unwrap());
    assert!(block == stamped(number, write), "block {number} is torn");
    write
}

/// Each writer goes over its own blocks in random order until told to stop.
fn keep_writing(file: &File, histories: &[History], writer: u64, stop: &AtomicBool) {
    let mut random = Random::seeded(writer);
    let mut write = 0;
    while !stop.load(Ordering::Relaxed) {
        write += 1;
        let number = random.within(0..BLOCKS / WRITERS) * WRITERS + writer;
        let history = &histories[number as usize];
        history.begun.store(write, Ordering::SeqCst);
        file.write_all_at(&stamped(number, write), place(number)).unwrap();
        history.answered.store(write, Ordering::SeqCst);
    }
}

fn now(histories: &[History], which: impl Fn(&History) -> &AtomicU64) -> Vec<u64> {
    histories.iter().map(|history| which(history).load(Ordering::SeqCst)).collect()
}

fn written(content: &[u8]) -> Vec<u64> {
    let block = |number: u64| &content[place(number) as usize..][..BLOCK as usize];
    (0..BLOCKS).map(|number| write_in(number, block(number))).collect()
}

/// A snapshot holds every write that was answered before it began, and none that began after it
/// was done; the working VDI goes on and loses nothing.
fn snapshots_under_load(cluster: &Cluster, mount: &Mount, disk: &str, take: impl Fn(&str)) {
    let histories: Vec<History> = (0..BLOCKS).map(|_| History::default()).collect();
    let stop = AtomicBool::new(false);
    let file = mount.open(disk);
    let total = || now(&histories, |h| &h.answered).iter().filter(|write| **write > 0).count();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (file, histories, stop) = (&file, &histories, &stop);
            scope.spawn(move || keep_writing(file, histories, writer, stop));
        }
        for round in 1..=3 {
            let enough = BLOCKS as usize * round / 5;
            crate::tools::wait_for("some writes", || total() >= enough);
            let tag = format!("tag{round}");
            let before = now(&histories, |history| &history.answered);
            take(&tag);
            let after = now(&histories, |history| &history.begun);
            let volume = format!("{disk}:{tag}");
            mount.attach(&volume);
            let found = written(&fs::read(mount.volume(&volume)).unwrap());
            for number in 0..BLOCKS as usize {
                let fits = before[number] <= found[number] && found[number] <= after[number];
                assert!(fits, "{tag}: block {number}: {before:?} {found:?} {after:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let last = now(&histories, |history| &history.answered);
    assert!(written(&fs::read(mount.volume(disk)).unwrap()) == last, "the volume lost writes");
    drop(file);
    mount.reattach(disk);
    assert!(written(&fs::read(mount.volume(disk)).unwrap()) == last, "lost by a new attach");
    assert!(written(&cluster.content(disk)) == last, "the wire tells something else");
}

fn load_on(cluster: &Cluster, options: &[&str]) {
    let new = NewVdi { size: SIZE, block_size_shift: 20, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let mount = Mount::with_volume(cluster, &disk, options);
    snapshots_under_load(cluster, &mount, &disk, |tag| {
        cluster.snapshot(&disk, tag);
    });
}

/// The same through the tree: the volume holds still for a moment, and goes on.
#[test]
fn a_busy_volume_is_frozen_between_answered_writes() {
    let cluster = Cluster::start();
    for options in [&[][..], &["-k", "-o"]] {
        let new = NewVdi { size: SIZE, block_size_shift: 20, ..NewVdi::default() };
        let disk = cluster.vdi_with(&format!("disk{}", options.len()), &new);
        let mount = Mount::with_volume(&cluster, &disk, options);
        snapshots_under_load(&cluster, &mount, &disk, |tag| {
            let line = format!("{disk} {tag}");
            mount.write("vdi/snapshot", line.as_bytes()).unwrap();
            cluster.note(snapshot_ref(&disk, tag));
        });
    }
}

#[test]
fn a_volume_goes_on_when_snapshots_are_taken_under_load() {
    load_on(&Cluster::start(), &[]);
}

#[test]
fn so_it_does_in_both_caches() {
    load_on(&Cluster::start(), &["-k", "-o"]);
}

#[test]
fn the_lock_moves_to_the_new_working_vdi() {
    let cluster = Cluster::Mini(Minisheep::start(&["--format", "--lock"]));
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.open(&disk).write_all_at(b"before", 0).unwrap();
    let vid = cluster.snapshot(&disk, "one");
    mount.open(&disk).write_all_at(b"after", 0).unwrap();
    assert_eq!(cluster.wire().vid(&disk), vid);
    assert_eq!(cluster.wire().lock(&disk), Status::VdiLocked);
    mount.detach(&disk);
    assert_eq!(cluster.wire().lock(&disk), Status::Success);
}

/// Protocol 7.4: the server overwrites index entries that were written while it took the
/// snapshot. The client has to find and repair them.
#[test]
fn index_entries_that_the_server_lost_are_repaired() {
    let cluster = Cluster::mini();
    let new = NewVdi { size: 32 * MIB, block_size_shift: 20, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    let fault = cluster.minisheep().fault(&format!("snapshot {disk} one after=12 lose=6"));
    let mut expected = vec![0; 32 << 20];
    for block in 0..32_u64 {
        let data = Random::seeded(block).bytes(10_000);
        file.write_all_at(&data, block * MIB + 100).unwrap();
        expected[(block * MIB) as usize + 100..][..10_000].copy_from_slice(&data);
    }
    assert_eq!(cluster.minisheep().fired(&fault), 1);
    assert!(fs::read(mount.volume(&disk)).unwrap() == expected);
    drop(file);
    mount.reattach(&disk);
    assert!(fs::read(mount.volume(&disk)).unwrap() == expected, "entries stay lost");
    assert!(cluster.content(&disk) == expected);
}

#[test]
fn a_clone_is_written_and_its_parent_is_not() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let base: Vec<u8> = Random::seeded(7).bytes(12 << 20);
    mount.open(&disk).write_all_at(&base, 0).unwrap();
    let parent = cluster.wire().vid(&disk);
    cluster.snapshot(&disk, "base");
    let new = NewVdi { size: 12 * MIB, base: parent.get(), ..NewVdi::default() };
    let clone = cluster.vdi_with("clone", &new);
    mount.attach(&clone);
    let mut expected = base.clone();
    for offset in [5, 4 * MIB - 3, 9 * MIB] {
        mount.open(&clone).write_all_at(b"changed", offset).unwrap();
        expected[offset as usize..][..7].copy_from_slice(b"changed");
    }
    mount.reattach(&clone);
    assert!(fs::read(mount.volume(&clone)).unwrap() == expected);
    assert!(cluster.content(&clone) == expected);
    assert!(cluster.content(&disk) == base);
}

/// What is read is the VDI's, or an error: never zeros in place of data, never the data of
/// another VDI that was given the same name.
#[test]
fn a_vdi_deleted_under_the_mount_is_an_error() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    file.write_all_at(&[1; 8192], 0).unwrap();
    cluster.wire().delete(&working_ref(&disk));
    let mut room = [0xee; 4096];
    assert_eq!(errno(file.read_exact_at(&mut room, 0)), Some(Errno::EIO));
    assert_eq!(errno(file.write_all_at(&[2; 4096], 0)), Some(Errno::EIO));
    let new = NewVdi { size: 12 * MIB, ..NewVdi::default() };
    cluster.wire().new_vdi(&disk, &new);
    assert_eq!(errno(file.write_all_at(&[2; 4096], 0)), Some(Errno::EIO));
    assert_eq!(errno(file.read_exact_at(&mut room, 0)), Some(Errno::EIO));
    drop(file);
    mount.reattach(&disk);
    assert_eq!(fs::read(mount.volume(&disk)).unwrap(), vec![0; 12 << 20]);
}
