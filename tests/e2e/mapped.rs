//! Volumes in memory, shared and private, in every mode. What a mapping has brought about is
//! looked at by other ways: other open files, other mappings, and the wire.

use crate::MIB;
use crate::cluster::Cluster;
use crate::control::errno;
use crate::discards::{PUNCH, ZERO, clear};
use crate::mapping::Mapping;
use crate::mount::{Mount, pid_of};
use crate::tools::{arg, start, wait_for};
use memmap2::MmapMut;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::{Command, Stdio};

/// Past the page cache, in it, with the worker's cache, with both.
pub const MODES: [&[&str]; 4] = [&[], &["-k"], &["-o"], &["-k", "-o"]];
/// Neither whole objects nor whole pages.
const SIZE: u64 = 9 * MIB + 333;
const PAGE: u64 = 4096;
/// In a page, over the border of two, over the border of two objects, at the very end.
const PLACES: [(u64, usize); 4] =
    [(100, 50), (3 * PAGE - 7, 5000), (4 * MIB - 6000, 12_000), (SIZE - 40, 40)];

fn in_every_mode(test: impl Fn(&Cluster, &Mount, &str)) {
    for options in MODES {
        println!("with {options:?}");
        let cluster = Cluster::start();
        let disk = cluster.vdi("disk", SIZE);
        let mount = Mount::with_volume(&cluster, &disk, options);
        test(&cluster, &mount, &disk);
    }
}

fn read(file: &File, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Each place, with bytes of its own.
fn patterns(first: u8) -> impl Iterator<Item = (u64, Vec<u8>)> {
    (first..).zip(PLACES).map(|(byte, (at, len))| (at, vec![byte; len]))
}

/// What a volume holds that was only written at the places.
fn content_of(first: u8) -> Vec<u8> {
    let mut content = vec![0; SIZE as usize];
    for (at, bytes) in patterns(first) {
        content[at as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    content
}

#[test]
fn what_is_written_through_a_mapping_is_read_at_once_and_stored_once_synced() {
    in_every_mode(|cluster, mount, disk| {
        let (file, other) = (mount.open(disk), mount.open(disk));
        let (mapping, second) = (Mapping::shared(&file), Mapping::shared_read_only(&other));
        let (mapping, second) = (mapping.unwrap(), second.unwrap());
        for (at, bytes) in patterns(1) {
            mapping.write(at, &bytes);
            assert_eq!(read(&other, at, bytes.len()), bytes);
            assert_eq!(second.read(at, bytes.len()), bytes);
        }
        mapping.sync().unwrap();
        assert!(cluster.content(disk) == content_of(1));
        assert!(fs::read(mount.volume(disk)).unwrap() == content_of(1));
    });
}

#[test]
fn a_mapping_shows_what_others_write_at_once() {
    in_every_mode(|_, mount, disk| {
        let (file, other) = (mount.open(disk), mount.open(disk));
        let mapping = Mapping::shared(&file).unwrap();
        assert!(mapping.read(0, SIZE as usize) == vec![0; SIZE as usize]);
        for (at, bytes) in patterns(1) {
            other.write_all_at(&bytes, at).unwrap();
            assert_eq!(mapping.read(at, bytes.len()), bytes);
        }
        let mut direct = File::options();
        direct.write(true).custom_flags(OFlag::O_DIRECT.bits());
        let direct = direct.open(mount.volume(disk)).unwrap();
        let mut aligned = MmapMut::map_anon(2 * PAGE as usize).unwrap();
        aligned.fill(9);
        direct.write_all_at(&aligned, PAGE).unwrap();
        assert_eq!(mapping.read(PAGE, aligned.len()), &aligned[..]);
        assert_eq!(mapping.read(PAGE - 1, 1), [0], "what is beside it stays");
    });
}

/// Nor is what is written there lost when others write.
#[test]
fn a_private_mapping_shows_the_volume_and_changes_nothing() {
    in_every_mode(|cluster, mount, disk| {
        let file = mount.open(disk);
        for (at, bytes) in patterns(1) {
            file.write_all_at(&bytes, at).unwrap();
        }
        // It needs no more than to be read.
        let reader = File::open(mount.volume(disk)).unwrap();
        let private = Mapping::private(&reader).unwrap();
        assert!(private.read(0, SIZE as usize) == content_of(1));
        for (at, bytes) in patterns(5) {
            private.write(at, &bytes);
            assert_eq!(private.read(at, bytes.len()), bytes);
        }
        private.sync().unwrap();
        file.write_all_at(&[1; 50], 100).unwrap();
        assert!(private.read(0, SIZE as usize) == content_of(5));
        assert!(Mapping::shared(&file).unwrap().read(0, SIZE as usize) == content_of(1));
        assert!(fs::read(mount.volume(disk)).unwrap() == content_of(1));
        drop((private, reader, file));
        mount.detach(disk);
        assert!(cluster.content(disk) == content_of(1));
    });
}

#[test]
fn what_was_not_synced_is_stored_when_it_is_unmapped() {
    in_every_mode(|cluster, mount, disk| {
        let file = mount.open(disk);
        let mapping = Mapping::shared(&file).unwrap();
        // As programs do that need no descriptor any more.
        drop(file);
        for (at, bytes) in patterns(1) {
            mapping.write(at, &bytes);
        }
        let busy = errno(mount.write("vdi/unmount", disk.as_bytes()));
        assert_eq!(busy, Some(Errno::EBUSY), "what is mapped is open");
        drop(mapping);
        assert!(cluster.content(disk) == content_of(1));
        mount.detach(disk);
    });
}

/// Writes through a mapping, says so, and waits for ever.
const VICTIM: &str = r"
import mmap, os, sys, time
file = os.open(sys.argv[1], os.O_RDWR)
pages = mmap.mmap(file, 2 * 4096, offset=4096)
pages[4000:4200] = bytes([5]) * 200
os.close(os.open(sys.argv[2], os.O_CREAT | os.O_WRONLY))
while True:
    time.sleep(1000)
";

#[test]
fn what_a_killed_program_has_written_through_a_mapping_is_stored() {
    in_every_mode(|cluster, mount, disk| {
        let (volume, report) = (mount.volume(disk), mount.scratch().join("written"));
        let mut victim = start(
            Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "python3", "-c", VICTIM])
                .args([arg(&volume), arg(&report)])
                .stdin(Stdio::null()),
        );
        wait_for("the program", || report.exists() || victim.try_wait().unwrap().is_some());
        kill(pid_of(&victim), Signal::SIGKILL).unwrap();
        victim.wait().unwrap();
        assert!(report.exists(), "it ended too early");
        mount.detach(disk);
        let mut expected = vec![0; SIZE as usize];
        expected[4096 + 4000..][..200].fill(5);
        assert!(cluster.content(disk) == expected);
    });
}

/// Also in the pages that were written through it and not synced.
#[test]
fn a_mapping_shows_holes_that_are_punched_and_nothing_else_goes() {
    in_every_mode(|cluster, mount, disk| {
        let (file, other) = (mount.open(disk), mount.open(disk));
        let mapping = Mapping::shared(&file).unwrap();
        let mut expected = vec![7; SIZE as usize];
        mapping.write(0, &expected);
        for (mode, at, len) in [(PUNCH, 3 * PAGE + 100, 5 * MIB), (ZERO, 6 * MIB - 1, 10)] {
            clear(&other, mode, at, len);
            expected[at as usize..][..len as usize].fill(0);
            assert!(mapping.read(0, SIZE as usize) == expected);
        }
        mapping.write(4 * MIB - 5, &[8; 10]);
        expected[(4 << 20) - 5..][..10].fill(8);
        assert!(fs::read(mount.volume(disk)).unwrap() == expected);
        mapping.sync().unwrap();
        assert!(cluster.content(disk) == expected);
    });
}

#[test]
fn the_last_page_of_a_mapping_ends_with_zeros_that_go_nowhere() {
    in_every_mode(|cluster, mount, disk| {
        let file = mount.open(disk);
        let end = SIZE.next_multiple_of(PAGE);
        let mapping = Mapping::shared_of(&file, end as usize).unwrap();
        let beyond = (end - SIZE) as usize;
        assert_eq!(mapping.read(SIZE, beyond), vec![0; beyond]);
        mapping.write(SIZE - 2, &[3; 100]);
        mapping.sync().unwrap();
        assert_eq!(file.metadata().unwrap().len(), SIZE);
        let mut expected = vec![0; SIZE as usize];
        expected[SIZE as usize - 2..].fill(3);
        assert!(cluster.content(disk) == expected);
        let vid = cluster.wire().vid(disk);
        assert_eq!(cluster.wire().header(vid).vdi_size, SIZE);
    });
}

#[test]
fn a_snapshot_can_be_mapped_and_only_private_copies_written() {
    in_every_mode(|cluster, mount, disk| {
        for (at, bytes) in patterns(1) {
            mount.open(disk).write_all_at(&bytes, at).unwrap();
        }
        cluster.snapshot(disk, "old");
        mount.open(disk).write_all_at(&[9; 4096], 0).unwrap();
        let old = format!("{disk}:old");
        mount.attach(&old);
        let file = File::open(mount.volume(&old)).unwrap();
        let seen = Mapping::shared_read_only(&file).unwrap();
        assert!(seen.read(0, SIZE as usize) == content_of(1));
        assert_eq!(errno(Mapping::shared(&file)), Some(Errno::EACCES));
        let private = Mapping::private(&file).unwrap();
        private.write(0, &[2; 9000]);
        assert!(seen.read(0, SIZE as usize) == content_of(1));
    });
}

/// minisheep only, since it dies. An error is told to each who has the volume open.
#[test]
fn what_can_not_be_stored_is_an_error_when_it_is_synced() {
    for options in MODES {
        let cluster = Cluster::mini();
        let disk = cluster.vdi("disk", SIZE);
        let options = [options, &["--on-outage", "error-after=1"]].concat();
        let mount = Mount::with_volume(&cluster, &disk, &options);
        let (file, other) = (mount.open(&disk), mount.open(&disk));
        let mapping = Mapping::shared(&file).unwrap();
        mapping.write(100, &[1; 10]);
        mapping.sync().unwrap();
        mapping.write(100, &[2; 10]);
        cluster.minisheep().signal(Signal::SIGKILL);
        assert_eq!(errno(mapping.sync()), Some(Errno::EIO), "with {options:?}");
        assert_eq!(errno(other.sync_all()), Some(Errno::EIO), "with {options:?}");
    }
}
