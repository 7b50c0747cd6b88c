//! Objects of all sizes, made by many writers at once. What a client may have in flight at one
//! time is checked by minisheep as it serves: a suite that breaks a rule fails at the end of its
//! test.

use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::random::Random;
use crate::tools::{arg, run};
use crate::{KIB, MIB};
use nix::fcntl::OFlag;
use sheepfs::wire::request::NewVdi;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Barrier;
use std::thread;

const WRITERS: u64 = 32;

/// What the piece at `offset` holds: no two are alike.
fn piece(offset: u64, len: usize) -> Vec<u8> {
    Random::seeded(offset).bytes(len)
}

/// Writers that all start at once, each with pieces of every object: the first write to an
/// object creates it, and `WRITERS` of them come together.
fn write_together(mount: &Mount, disk: &str, flags: i32, size: u64, len: u64) {
    let gate = Barrier::new(WRITERS as usize);
    let path = mount.volume(disk);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (gate, path) = (&gate, &path);
            scope.spawn(move || {
                let file = OpenOptions::new().write(true).custom_flags(flags).open(path).unwrap();
                gate.wait();
                let own = (writer * len..size).step_by((WRITERS * len) as usize);
                for offset in own {
                    let len = len.min(size - offset) as usize;
                    file.write_all_at(&piece(offset, len), offset).unwrap();
                }
            });
        }
    });
}

fn check_pieces(content: &[u8], len: u64) {
    for (number, found) in (0..).zip(content.chunks(len as usize)) {
        let expected = piece(number * len, found.len());
        assert!(found == expected, "piece {number} differs");
    }
}

fn many_writers(new: &NewVdi, options: &[&str], flags: OFlag, len: u64) {
    let cluster = Cluster::start();
    let disk = cluster.vdi_with("disk", new);
    let mount = Mount::with_volume(&cluster, &disk, options);
    write_together(&mount, &disk, flags.bits(), new.size, len);
    check_pieces(&fs::read(mount.volume(&disk)).unwrap(), len);
    mount.reattach(&disk);
    check_pieces(&fs::read(mount.volume(&disk)).unwrap(), len);
    check_pieces(&cluster.content(&disk), len);
}

const FOUR_OBJECTS: NewVdi = NewVdi {
    size: 16 * MIB,
    copies: 0,
    copy_policy: 0,
    block_size_shift: 0,
    base: 0,
    snapshot: false,
    store_policy: 0,
};

#[test]
fn many_writers_make_one_object() {
    many_writers(&FOUR_OBJECTS, &[], OFlag::empty(), 4 * KIB);
}

#[test]
fn many_direct_writers_make_one_object() {
    many_writers(&FOUR_OBJECTS, &[], OFlag::O_DIRECT, 4 * KIB);
}

#[test]
fn many_writers_in_the_page_cache_make_one_object() {
    many_writers(&FOUR_OBJECTS, &["-k"], OFlag::empty(), 4 * KIB);
}

#[test]
fn many_writers_in_the_object_cache_make_one_object() {
    many_writers(&FOUR_OBJECTS, &["-o"], OFlag::empty(), 3000);
}

/// Erasure-coded, two data strips and one for parity: writes that share a stripe of 512 bytes
/// wait for each other. A real cluster needs three zones for this.
#[test]
fn many_writers_share_stripes_of_an_erasure_coded_vdi() {
    let new = NewVdi { size: 6 * MIB, copy_policy: 0x11, ..NewVdi::default() };
    many_writers(&new, &[], OFlag::empty(), 1000);
}

#[test]
fn blocks_of_any_size_are_found() {
    for (shift, size) in [(12, MIB), (16, 3 * MIB), (20, 9 * MIB), (22, 17 * MIB), (23, 33 * MIB)] {
        let new = NewVdi { size: size + 321, block_size_shift: shift, ..NewVdi::default() };
        many_writers(&new, &[], OFlag::empty(), 70_001);
    }
}

/// minisheep only: a real sheep allocates all of an object.
#[test]
fn the_smallest_and_the_largest_blocks_are_found() {
    let cluster = Cluster::mini();
    let small = NewVdi { size: 64 * KIB, block_size_shift: 9, ..NewVdi::default() };
    let large = NewVdi { size: 5 << 30, block_size_shift: 31, ..NewVdi::default() };
    let (small, large) = (cluster.vdi_with("small", &small), cluster.vdi_with("large", &large));
    let mount = Mount::with_volume(&cluster, &small, &["--attach", &large]);
    mount.open(&small).write_all_at(&piece(1, 5000), 300).unwrap();
    assert_eq!(&fs::read(mount.volume(&small)).unwrap()[300..5300], piece(1, 5000));
    let border = (2 << 30) - 5000;
    for offset in [0, border, (5 << 30) - 10_000] {
        mount.open(&large).write_all_at(&piece(offset, 10_000), offset).unwrap();
    }
    mount.reattach(&large);
    for offset in [0, border, (5 << 30) - 10_000] {
        let mut room = vec![0; 10_000];
        mount.open(&large).read_exact_at(&mut room, offset).unwrap();
        assert!(room == piece(offset, 10_000), "at {offset}");
    }
}

/// Writers that overlap: whatever order they come in, all readers and all replicas agree, and no
/// write is torn by another one that touches the same place.
#[test]
fn overlapping_writes_leave_one_answer() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    thread::scope(|scope| {
        for writer in 1..=16_u8 {
            let file = mount.open(&disk);
            scope.spawn(move || {
                for round in 0..20 {
                    let offset = 4 * MIB - 40 * KIB + round * 512;
                    file.write_all_at(&[writer; 64 << 10], offset).unwrap();
                }
            });
        }
    });
    let content = fs::read(mount.volume(&disk)).unwrap();
    mount.reattach(&disk);
    assert!(fs::read(mount.volume(&disk)).unwrap() == content);
    assert!(cluster.content(&disk) == content);
    // Requests are cut at object borders only, so within one object the last write of 24 KiB
    // and more at the highest offset is whole.
    let from = (4 * MIB - 40 * KIB + 19 * 512) as usize;
    let tail = &content[from..4 << 20];
    assert!(tail.iter().all(|byte| *byte == tail[0]), "a write was torn");
}

/// Programs that look for holes lose nothing.
#[test]
fn programs_that_look_for_holes_lose_nothing() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let volume = mount.volume(&disk);
    for offset in [0, 5 * MIB + 100, 12 * MIB - 4096] {
        mount.open(&disk).write_all_at(&piece(offset, 4096), offset).unwrap();
    }
    let expected = fs::read(&volume).unwrap();
    let scratch = mount.scratch();
    let copy = scratch.join("copy");
    run("cp", &["--sparse=always", arg(&volume), arg(&copy)]);
    assert!(fs::read(&copy).unwrap() == expected, "cp --sparse=always");
    let archive = scratch.join("archive");
    run("tar", &["-S", "-C", arg(&mount.path("volume")), "-cf", arg(&archive), &disk]);
    run("tar", &["-C", arg(scratch), "-xf", arg(&archive)]);
    assert!(fs::read(scratch.join(&disk)).unwrap() == expected, "tar -S");
    // And back: a sparse copy onto the volume leaves zeros where the copy has holes.
    mount.open(&disk).write_all_at(&[0xff; 8192], 3 * MIB).unwrap();
    run("cp", &["--sparse=never", arg(&copy), arg(&volume)]);
    assert!(fs::read(&volume).unwrap() == expected, "cp onto the volume");
}
