//! Volumes, as programs see them.

use super::*;
use std::fs::{File, OpenOptions, read, read_to_string, write};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

fn open(rig: &Rig) -> File {
    OpenOptions::new().read(true).write(true).open(rig.disk()).unwrap()
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// Each test with the page cache and without.
fn both(test: impl Fn(&Rig)) {
    for cached in [false, true] {
        let rig = Rig::new();
        rig.shared.set_page_cache(cached);
        test(&rig);
    }
}

#[test]
fn it_is_a_disk_with_ends() {
    both(|rig| {
        let disk = open(rig);
        disk.write_all_at(b"sheep", 4094).unwrap();
        disk.sync_all().unwrap();
        let mut bytes = [0; 7];
        File::open(rig.disk()).unwrap().read_exact_at(&mut bytes, 4093).unwrap();
        assert_eq!(&bytes, b"\0sheep\0");
        assert_eq!(disk.write_at(&[1; 100], DISK_LEN - 10).unwrap(), 10);
        assert_eq!(disk.read_at(&mut [0; 100], DISK_LEN - 10).unwrap(), 10);
        assert_eq!(disk.read_at(&mut [0; 100], DISK_LEN).unwrap(), 0);
        assert_eq!(errno(disk.write_at(&[1; 100], DISK_LEN)), nix::libc::ENOSPC);
        assert_eq!(errno(disk.write_at(&[1; 100], DISK_LEN + 12345)), nix::libc::ENOSPC);
        let meta = disk.metadata().unwrap();
        assert_eq!((meta.len(), meta.blocks()), (DISK_LEN, DISK_LEN / 512));
        assert_eq!((meta.mode(), meta.ino()), (0o100_600, 1 << 32 | 0x11));
        let whole = read(rig.disk()).unwrap();
        assert_eq!(whole.len() as u64, DISK_LEN);
        assert_eq!(&whole[4094..4099], b"sheep");
    });
}

#[test]
fn truncation_to_less_changes_nothing_and_to_more_grows() {
    both(|rig| {
        write(rig.disk(), "sheep").unwrap();
        drop(OpenOptions::new().write(true).truncate(true).open(rig.disk()).unwrap());
        let disk = open(rig);
        disk.set_len(0).unwrap();
        disk.set_len(DISK_LEN).unwrap();
        for len in [1, DISK_LEN - 1] {
            assert_eq!(errno(disk.set_len(len)), nix::libc::EPERM);
        }
        assert_eq!(disk.metadata().unwrap().len(), DISK_LEN);
        let mut bytes = [0; 5];
        disk.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"sheep");
        disk.set_len(DISK_LEN + 1).unwrap();
        assert_eq!(disk.metadata().unwrap().len(), DISK_LEN + 1);
    });
}

#[test]
fn data_and_holes_are_found() {
    use nix::errno::Errno::ENXIO;
    use nix::unistd::Whence::{SeekData, SeekHole};
    let rig = Rig::new();
    let disk = open(&rig);
    disk.write_all_at(b"sheep", 5 << 20).unwrap();
    let seek = |from, whence| nix::unistd::lseek(&disk, from, whence);
    let (object, end) = (4 << 20, i64::try_from(DISK_LEN).unwrap());
    assert_eq!(seek(5000, SeekData), Ok(object));
    assert_eq!(seek(5000, SeekHole), Ok(5000));
    assert_eq!(seek(object + 1, SeekData), Ok(object + 1));
    assert_eq!(seek(object, SeekHole), Ok(2 * object));
    assert_eq!(seek(2 * object, SeekData), Err(ENXIO));
    assert_eq!(seek(end - 1, SeekHole), Ok(end - 1));
    assert_eq!(seek(end, SeekHole), Err(ENXIO));
    assert_eq!(open(&rig).seek(SeekFrom::End(0)).unwrap(), DISK_LEN);
    let control = File::open(rig.path("config/sheep_info")).unwrap();
    assert_eq!(nix::unistd::lseek(&control, 0, SeekData), Err(ENXIO));
    let scratch = tempfile::tempdir().unwrap();
    let script = "cp --sparse=always $M/volume/disk $T/copy; cmp $M/volume/disk $T/copy
        tar -C $M/volume -S -cf - disk | tar -C $T -xf -; cmp $M/volume/disk $T/disk
        stat -c %s $T/copy";
    let copied = rig.sh(&script.replace("$T", scratch.path().to_str().unwrap()));
    assert_eq!(copied.trim(), DISK_LEN.to_string());
}

/// What it counts follows what workers say, and while they say nothing it is full.
#[test]
fn its_blocks_are_those_that_are_stored() {
    let rig = Rig::new();
    let blocks = || std::fs::metadata(rig.disk()).unwrap().blocks();
    assert_eq!(blocks(), DISK_LEN.div_ceil(512));
    let usage = sheepfs::wire::cluster::BlockUsage { own: 1, shared: 0 };
    rig.volume().note_stored(1, 1, Some(usage));
    // The kernel asks again after a write.
    open(&rig).write_all_at(b"sheep", 0).unwrap();
    assert_eq!(blocks(), (4 << 20) / 512);
}

#[test]
fn a_snapshot_is_read_only() {
    both(|rig| {
        let path = rig.path("volume/disk:old");
        write(rig.disk(), "sheep").unwrap();
        assert_eq!(read_to_string(&path).unwrap()[..5], *"sheep");
        assert_eq!(std::fs::metadata(&path).unwrap().mode(), 0o100_444);
        assert_eq!(errno(OpenOptions::new().write(true).open(&path)), nix::libc::EROFS);
        assert_eq!(errno(write(&path, "x")), nix::libc::EROFS);
        assert_eq!(
            errno(nix::unistd::truncate(&path, 0).map_err(io::Error::from)),
            nix::libc::EROFS
        );
    });
}

#[test]
fn opens_are_counted_and_a_detached_volume_is_gone_at_once() {
    let rig = Rig::new();
    let volume = rig.volume();
    assert!(!volume.is_open());
    let (first, second) = (open(&rig), open(&rig));
    drop(first);
    assert!(volume.is_open());
    drop(second);
    // The kernel tells of the last close in its own time.
    while volume.is_open() {
        std::thread::yield_now();
    }
    rig.shared.volumes().remove(volume.ino);
    assert!(!rig.disk().exists());
    assert_eq!(errno(File::open(rig.disk())), nix::libc::ENOENT);
}

#[test]
fn the_page_cache_switch_leaves_open_volumes_coherent() {
    let rig = Rig::new();
    let disk = open(&rig);
    rig.shared.set_page_cache(true);
    let cached = open(&rig);
    cached.write_all_at(b"cached", 0).unwrap();
    let mut bytes = [0; 6];
    disk.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"cached");
    disk.write_all_at(b"direct", 0).unwrap();
    cached.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"direct");
}

/// The handshake set it to what fuser allows, which is less.
#[test]
fn the_kernel_reads_ahead_several_requests() {
    let rig = Rig::new();
    let kib = rig.sh("cat /sys/class/bdi/$(mountpoint -d $M)/read_ahead_kb");
    assert_eq!(kib.trim(), "4096");
}

/// A shared mapping needs a flag of the kernel's under direct I/O.
#[test]
fn a_shared_mapping_works() {
    both(|rig| {
        let script = "import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
with mmap.mmap(fd, 1 << 20) as m:
    m[5000:5005] = b'sheep'
    m.flush()
os.close(fd)
print(os.pread(os.open(sys.argv[1], os.O_RDONLY), 7, 4999))";
        let output = rig.sh(&format!("python3 -c \"{script}\" $M/volume/disk"));
        assert_eq!(output.trim(), "b'\\x00sheep\\x00'");
    });
}

#[test]
fn many_at_once_each_find_their_own() {
    both(|rig| {
        std::thread::scope(|scope| {
            for number in 0..8u8 {
                let path = rig.disk();
                scope.spawn(move || {
                    let disk = OpenOptions::new().read(true).write(true).open(path).unwrap();
                    for step in 0..40u8 {
                        let len = 1 + usize::from(step) * 37_123 % 300_000;
                        let offset = u64::from(number) * (1 << 20) + u64::from(step) * 7;
                        let bytes = vec![number ^ step; len];
                        disk.write_all_at(&bytes, offset).unwrap();
                        let mut back = vec![0; len];
                        disk.read_exact_at(&mut back, offset).unwrap();
                        assert!(bytes == back, "thread {number}, step {step}");
                    }
                    disk.sync_data().unwrap();
                });
            }
        });
    });
}

/// Hazard 32: with a thousand reads outstanding that nobody answers, the control
/// files still do.
#[test]
fn a_thousand_unanswered_reads_leave_the_tree_alive() {
    const READERS: usize = 1000;
    let mut rig = Rig::silent();
    let disk = Arc::new(File::open(rig.disk()).unwrap());
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let disk = disk.clone();
            let read = move || {
                let mut bytes = vec![1; 64 << 10];
                disk.read_exact_at(&mut bytes, reader as u64).unwrap();
                assert!(bytes.iter().all(|byte| *byte == 0));
            };
            std::thread::Builder::new().stack_size(64 << 10).spawn(read).unwrap()
        })
        .collect();
    while rig.data.in_flight() < READERS {
        assert!(readers.iter().all(|reader| !reader.is_finished()), "a read was answered");
        std::thread::yield_now();
    }
    assert_eq!(read(rig.path("config/sheep_info")).unwrap(), b"127.0.0.1:7000\n");
    assert!(read_to_string(rig.path("config/status")).unwrap().contains("in_flight 1000\n"));
    assert_eq!(rig.sh("head -n 1 $M/node/list; ls $M/volume"), "Nodes\ndisk\ndisk:old\n");
    write(rig.path("vdi/mount"), "name").unwrap();
    rig.wake_worker();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    drop(disk);
}

#[test]
fn nobody_notices_that_a_worker_is_lost() {
    let mut rig = Rig::silent();
    let mut disk = open(&rig);
    let reader = std::thread::spawn({
        let disk = disk.try_clone().unwrap();
        move || {
            let mut bytes = [1; 10];
            disk.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, [0; 10]);
        }
    });
    while rig.data.in_flight() == 0 {
        std::thread::yield_now();
    }
    rig.worker = None;
    let told = rig.data.lost(1, &[], std::time::Instant::now());
    assert_eq!(told.len(), 1);
    assert!(!reader.is_finished());
    let (link, worker) = fake::link(2, ARENA_LEN, usize::try_from(DISK_LEN).unwrap());
    rig.data.connect(link.clone(), Pace::All);
    let data = rig.data.clone();
    let events = Events(channel().0);
    let link_reader = spawn({
        let link = link.clone();
        move || link.run(&data, &events)
    });
    let worker = worker.serve_all();
    reader.join().unwrap();
    disk.write_all(b"again").unwrap();
    disk.rewind().unwrap();
    disk.read_exact(&mut [0; 5]).unwrap();
    drop(disk);
    link.hang_up();
    let worker = worker.join().unwrap();
    assert_eq!(&worker.disk[..5], b"again");
    drop(worker);
    link_reader.join().unwrap();
    assert_eq!(rig.data.counters().replayed, 1);
}
