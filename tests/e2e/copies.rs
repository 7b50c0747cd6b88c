//! `copy_file_range(2)` between volumes and within one: done by the worker, byte for byte, as
//! on any file, and without the data coming by.

use crate::MIB;
use crate::cluster::Cluster;
use crate::discards::{PUNCH, clear};
use crate::mount::Mount;
use crate::random::Random;
use crate::tools::{arg, output, run};
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::Pid;
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{Request, VdiId};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Bytes of an answer, at most.
const STEP: usize = 16 << 20;

/// One call.
fn copy_once(from: &File, at: u64, to: &File, offset: u64, len: usize) -> Result<usize, Errno> {
    let (mut at, mut offset) = (at.cast_signed(), offset.cast_signed());
    copy_file_range(from, Some(&mut at), to, Some(&mut offset), len)
}

/// As many calls as it takes.
pub fn copy(from: &File, at: u64, to: &File, offset: u64, len: usize) {
    let mut done = 0;
    while done < len {
        let (at, offset) = (at + done as u64, offset + done as u64);
        let copied = copy_once(from, at, to, offset, len - done).unwrap();
        assert!((1..=STEP).contains(&copied), "{copied} bytes in one answer");
        done += copied;
    }
}

fn entries(cluster: &Cluster, vid: VdiId, count: u32) -> Vec<u32> {
    let (_, bytes) = cluster.wire().done(&Request::read_index(vid, 0, count), &[]);
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// Bytes that a process has read and written by system calls, so also from /dev/fuse.
fn passed(process: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    ["rchar: ", "wchar: "].map(|key| value(key).parse::<u64>().unwrap()).iter().sum()
}

/// Two volumes with a page cache or without, the first full of random bytes but for a hole.
fn two<'a>(cluster: &'a Cluster, options: &[&str], size: u64) -> (Mount<'a>, [String; 2], Vec<u8>) {
    let disks = ["from", "to"].map(|hint| cluster.vdi(hint, size));
    let mount = Mount::with_volume(cluster, &disks[0], options);
    mount.attach(&disks[1]);
    let mut bytes = Random::announced().bytes(size as usize);
    let hole = 9 << 20..21 << 20;
    bytes[hole.clone()].fill(0);
    let file = mount.open(&disks[0]);
    file.write_all_at(&bytes[..hole.start], 0).unwrap();
    file.write_all_at(&bytes[hole.end..], hole.end as u64).unwrap();
    (mount, disks, bytes)
}

fn a_whole_volume_is_copied(options: &[&str]) {
    let cluster = Cluster::start();
    let (mount, [from, to], bytes) = two(&cluster, options, 40 * MIB);
    let supervisor = mount.supervisor();
    let before = passed(supervisor);
    copy(&mount.open(&from), 0, &mount.open(&to), 0, bytes.len());
    let passed = passed(supervisor) - before;
    println!("{passed} bytes passed the supervisor");
    assert!(passed < MIB, "{passed} bytes passed the supervisor, of {}", bytes.len());
    // Objects that the source does not have at all, the destination does not get.
    let owners = entries(&cluster, cluster.wire().vid(&to), 10);
    let holes: Vec<_> = (0..10).filter(|block| owners[*block] == 0).collect();
    assert_eq!(holes, [3, 4]);
    assert!(fs::read(mount.volume(&to)).unwrap() == bytes);
    mount.detach(&to);
    assert!(cluster.content(&to) == bytes);
}

#[test]
fn a_volume_is_copied_and_its_data_does_not_come_by() {
    a_whole_volume_is_copied(&[]);
}

#[test]
fn a_volume_is_copied_past_both_caches() {
    a_whole_volume_is_copied(&["-k", "-o"]);
}

/// What coreutils do: a whole volume, straight. Over old bytes they write holes out by
/// themselves, so there is none.
#[test]
fn cp_copies_in_the_worker() {
    let cluster = Cluster::start();
    let (mount, [from, to], _) = two(&cluster, &[], 40 * MIB);
    let bytes = Random::announced().bytes(40 << 20);
    mount.open(&from).write_all_at(&bytes, 0).unwrap();
    let before = passed(mount.supervisor());
    run("cp", &["--sparse=never", arg(&mount.volume(&from)), arg(&mount.volume(&to))]);
    let passed = passed(mount.supervisor()) - before;
    assert!(passed < MIB, "{passed} bytes passed the supervisor");
    assert!(fs::read(mount.volume(&to)).unwrap() == bytes);
}

/// Truncating a volume clears nothing, and holes that `cp` skips it takes for cleared. The
/// manual says how to copy over old bytes.
#[test]
fn cp_over_old_bytes_must_be_told_or_find_none() {
    let cluster = Cluster::start();
    let (mount, [from, to], bytes) = two(&cluster, &[], 40 * MIB);
    let (from, to) = (mount.volume(&from), mount.volume(&to));
    let old = || File::options().write(true).open(&to).unwrap().write_all_at(&vec![7; 40 << 20], 0);
    old().unwrap();
    run("cp", &["--sparse=never", arg(&from), arg(&to)]);
    assert!(fs::read(&to).unwrap() == bytes);
    old().unwrap();
    run("fallocate", &["--punch-hole", "--offset=0", "--length=40MiB", arg(&to)]);
    run("cp", &[arg(&from), arg(&to)]);
    assert!(fs::read(&to).unwrap() == bytes);
}

/// Between two volumes of the size that `make` is told, both ways and within one, among writes
/// and discards. Also what the kernel has in its page cache of the destination.
pub fn random_ranges(options: &[&str], make: impl Fn(&Cluster, u64) -> [String; 2]) {
    let cluster = Cluster::start();
    let size = 21 * MIB + 333;
    let disks = make(&cluster, size);
    let mount = Mount::with_volume(&cluster, &disks[0], options);
    mount.attach(&disks[1]);
    let files = disks.each_ref().map(|disk| mount.open(disk));
    let mut random = Random::announced();
    let mut models = [vec![0u8; size as usize], vec![0u8; size as usize]];
    let (mut copied, mut cleared) = (0, 0);
    for _ in 0..300 {
        let (a, b) = (random.within(0..2) as usize, random.within(0..2) as usize);
        let len_max = [9000, 3 * MIB][usize::from(random.within(0..3) == 0)];
        let len = random.within(1..len_max) as usize;
        let at = random.within(0..size - len as u64) as usize;
        let offset = random.within(0..size - len as u64) as usize;
        match random.within(0..5) {
            0 if len > 100_000 => {
                clear(&files[a], PUNCH, at as u64, len as u64);
                models[a][at..at + len].fill(0);
                cleared += 1;
            }
            0 => {
                let fresh = random.bytes(len.min(70_000));
                files[a].write_all_at(&fresh, at as u64).unwrap();
                models[a][at..at + fresh.len()].copy_from_slice(&fresh);
            }
            1 => {
                let mut seen = vec![0xee; len];
                files[a].read_exact_at(&mut seen, at as u64).unwrap();
                assert!(seen == models[a][at..at + len], "{at}, {len} bytes: differs");
            }
            _ if a == b && at.abs_diff(offset) < len => {
                let refused = copy_once(&files[a], at as u64, &files[a], offset as u64, len);
                assert_eq!(refused, Err(Errno::EINVAL));
            }
            _ => {
                copy(&files[a], at as u64, &files[b], offset as u64, len);
                let bytes = models[a][at..at + len].to_vec();
                models[b][offset..offset + len].copy_from_slice(&bytes);
                copied += 1;
            }
        }
    }
    assert!(copied > 50 && cleared > 3, "{copied} copies, {cleared} discards");
    drop(files);
    for (disk, model) in disks.iter().zip(models) {
        assert!(fs::read(mount.volume(disk)).unwrap() == model, "{disk} differs");
        mount.detach(disk);
        assert!(cluster.content(disk) == model, "{disk}: the wire tells something else");
    }
}

fn with_objects_of(block_size_shift: u8) -> impl Fn(&Cluster, u64) -> [String; 2] {
    move |cluster, size| {
        let new = NewVdi { size, block_size_shift, ..NewVdi::default() };
        [cluster.vdi_with("one", &new), cluster.vdi("two", size)]
    }
}

#[test]
fn any_range_is_copied_anywhere() {
    random_ranges(&[], with_objects_of(20));
}

#[test]
fn any_range_is_copied_in_both_caches() {
    random_ranges(&["-k", "-o"], with_objects_of(22));
}

#[test]
fn ends_and_refusals_are_those_of_any_file() {
    let cluster = Cluster::start();
    let (mount, [from, to], bytes) = two(&cluster, &[], 40 * MIB);
    let (source, target) = (mount.open(&from), mount.open(&to));
    let end = 40 * MIB;
    assert_eq!(copy_once(&source, end - 7, &target, 0, 4096), Ok(7));
    assert_eq!(copy_once(&source, end, &target, 0, 4096), Ok(0));
    assert_eq!(copy_once(&source, 0, &target, end - 7, 4096), Ok(7));
    assert_eq!(copy_once(&source, 0, &target, end, 4096), Err(Errno::ENOSPC));
    assert_eq!(copy_once(&source, 0, &target, 0, 0x7fff_f000), Ok(STEP), "one answer");
    assert_eq!(copy_once(&source, 0, &source, 100, 4096), Err(Errno::EINVAL));
    let readable = File::open(mount.volume(&to)).unwrap();
    assert_eq!(copy_once(&source, 0, &readable, 0, 4096), Err(Errno::EBADF));
    // Elsewhere the kernel reads and writes.
    let path = mount.scratch().join("file");
    fs::write(&path, b"from a file").unwrap();
    run("cp", &[arg(&path), arg(&mount.volume(&to))]);
    let mut seen = [0; 11];
    target.read_exact_at(&mut seen, 0).unwrap();
    assert_eq!(&seen, b"from a file");
    run("cp", &[arg(&mount.volume(&from)), arg(&path)]);
    assert!(fs::read(&path).unwrap() == bytes);
    let control = mount.point().join("vdi/mount");
    let refused = output(Command::new("cp").args([mount.volume(&from), control]));
    assert!(!refused.status.success());
}

#[test]
fn a_snapshot_is_copied_and_is_never_written() {
    let cluster = Cluster::start();
    let (mount, [from, to], bytes) = two(&cluster, &[], 40 * MIB);
    cluster.snapshot(&from, "old");
    mount.open(&from).write_all_at(&vec![9; 12 << 20], 0).unwrap();
    let old = format!("{from}:old");
    mount.attach(&old);
    let (snapshot, target) = (File::open(mount.volume(&old)).unwrap(), mount.open(&to));
    copy(&snapshot, 0, &target, 0, bytes.len());
    assert!(fs::read(mount.volume(&to)).unwrap() == bytes);
    // A volume is put back to what its snapshot was, too.
    copy(&snapshot, 0, &mount.open(&from), 0, bytes.len());
    assert!(fs::read(mount.volume(&from)).unwrap() == bytes);
    assert_eq!(copy_once(&target, 0, &snapshot, 0, 4096), Err(Errno::EBADF));
}

/// What others write elsewhere in the destination meanwhile stays.
#[test]
fn a_copy_leaves_alone_what_is_written_beside_it() {
    let cluster = Cluster::start();
    let (mount, [from, to], bytes) = two(&cluster, &[], 40 * MIB);
    let (first, second) = (100, 20 * MIB as usize + 100);
    let is_over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let file = mount.open(&to);
            let (mut round, mut places) = (0u8, [0; 2]);
            while !is_over.load(Ordering::Relaxed) || round == 0 {
                round = round.wrapping_add(1).max(1);
                for (place, at) in places.iter_mut().zip([0, first + (12 << 20)]) {
                    file.write_all_at(&[round; 100], at as u64).unwrap();
                    *place = round;
                }
            }
            places
        });
        let (source, target) = (mount.open(&from), mount.open(&to));
        for _ in 0..5 {
            copy(&source, 0, &target, first as u64, 12 << 20);
            copy(&source, 0, &target, second as u64, 12 << 20);
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let mut expected = vec![0; 40 << 20];
    expected[first..first + (12 << 20)].copy_from_slice(&bytes[..12 << 20]);
    expected[second..second + (12 << 20)].copy_from_slice(&bytes[..12 << 20]);
    expected[..100].fill(written[0]);
    expected[first + (12 << 20)..][..100].fill(written[1]);
    assert!(fs::read(mount.volume(&to)).unwrap() == expected);
}

/// A copy that fails says why, and what a page cache had is not kept.
#[test]
fn a_copy_that_fails_has_its_errno() {
    let cluster = Cluster::mini();
    let (mount, [from, to], bytes) = two(&cluster, &["-k"], 40 * MIB);
    let kept = mount.open(&to);
    let mut seen = [1; 4096];
    kept.read_exact_at(&mut seen, 0).unwrap();
    let fault = cluster.minisheep().fault("status code=0x15 opcode=create");
    let refused = copy_once(&mount.open(&from), 0, &kept, 0, 8 << 20);
    assert_eq!(refused, Err(Errno::ENOSPC));
    assert!(cluster.minisheep().fired(&fault) > 0);
    cluster.minisheep().control("clear");
    copy(&mount.open(&from), 0, &kept, 0, 8 << 20);
    assert!(fs::read(mount.volume(&to)).unwrap()[..8 << 20] == bytes[..8 << 20]);
}
