//! What is written is what is read, also after the volume was detached and attached again:
//! verified by fio and fsx, and by a model of our own. Each with the page cache and the object
//! cache off and on.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::random::Random;
use crate::tools::{arg, run, succeed};
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

/// Small enough for an object cache that has to let go of most.
const SMALL_CACHE: [&str; 3] = ["-o", "--cache-size", "1M"];
const FIO_BYTES: u64 = 24 * MIB;
const FSX_BYTES: u64 = 9 * MIB;
const FSX_OPERATIONS: &str = "20000";

/// Random writes with 32 in flight, verified; and once more after a new attach.
fn fio(options: &[&str], blocks: &str) {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", FIO_BYTES);
    let mount = Mount::with_volume(&cluster, &disk, options);
    for direct in ["--direct=1", "--direct=0"] {
        let job = |more: &[&str]| {
            succeed(
                Command::new("fio")
                    .current_dir(mount.scratch())
                    .args(["--name=verified", "--rw=randwrite", "--verify=crc32c"])
                    .args(["--verify_fatal=1", "--ioengine=libaio", "--iodepth=32", blocks, direct])
                    .arg(format!("--size={FIO_BYTES}"))
                    .arg(format!("--filename={}", arg(&mount.volume(&disk))))
                    .args(more),
            )
        };
        job(&["--do_verify=1"]);
        mount.reattach(&disk);
        job(&["--verify_only=1"]);
    }
}

#[test]
fn fio_verifies_4k() {
    fio(&[], "--bs=4k");
}

#[test]
fn fio_verifies_64k_to_1m() {
    fio(&[], "--bsrange=64k-1m");
}

#[test]
fn fio_verifies_4k_in_the_page_cache() {
    fio(&["-k"], "--bs=4k");
}

#[test]
fn fio_verifies_64k_to_1m_in_the_page_cache() {
    fio(&["-k"], "--bsrange=64k-1m");
}

#[test]
fn fio_verifies_4k_in_the_object_cache() {
    fio(&["-o"], "--bs=4k");
}

#[test]
fn fio_verifies_64k_to_1m_in_a_small_object_cache() {
    fio(&SMALL_CACHE, "--bsrange=64k-1m");
}

#[test]
fn fio_verifies_4k_in_both_caches() {
    fio(&["-k", "-o"], "--bs=4k");
}

/// The file system exerciser on a volume, as on a block device: reads, writes, mappings.
fn fsx(options: &[&str], align: u64) {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", FSX_BYTES);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let config = mount.scratch().join("fsx.toml");
    let words = format!(
        "blockmode = true\n[opsize]\nalign = {align}\nmax = 131072\n[weights]\ntruncate = 0\n\
         fsync = 1\nfdatasync = 1\npunch_hole = 5\ninvalidate = 1\nsendfile = 5\nposix_fadvise = 1\n\
         copy_file_range = 5\n"
    );
    fs::write(&config, words).unwrap();
    let mut random = Random::announced();
    let seed = random.next().to_string();
    let volume = mount.volume(&disk);
    let scratch = arg(mount.scratch());
    run(
        "fsx",
        &["-f", arg(&config), "-N", FSX_OPERATIONS, "-S", &seed, "-P", scratch, arg(&volume)],
    );
    let seen = fs::read(&volume).unwrap();
    mount.reattach(&disk);
    assert!(fs::read(&volume).unwrap() == seen, "the volume changed by a new attach");
    assert!(cluster.content(&disk) == seen, "the wire tells something else");
}

#[test]
fn fsx_runs_unaligned() {
    fsx(&[], 1);
}

#[test]
fn fsx_runs_aligned_to_blocks() {
    fsx(&[], 4096);
}

#[test]
fn fsx_runs_in_the_page_cache() {
    fsx(&["-k"], 1);
}

#[test]
fn fsx_runs_in_a_small_object_cache() {
    fsx(&SMALL_CACHE, 1);
}

/// A volume beside the bytes it should hold.
struct Model<'a> {
    mount: &'a Mount<'a>,
    disk: &'a str,
    bytes: Vec<u8>,
    random: Random,
}

impl Model<'_> {
    const SIZE: u64 = 21 * MIB + 333;
    const PIECE_MAX: u64 = 300_000;

    /// A range: mostly small, sometimes over the border of two objects, sometimes at the end.
    fn range(&mut self) -> std::ops::Range<usize> {
        let limit = [5000, Self::PIECE_MAX][usize::from(self.random.within(0..4) == 0)];
        let len = self.random.within(1..limit);
        let border = self.random.within(1..6) * 4 * MIB;
        let start = match self.random.within(0..4) {
            0 => border.saturating_sub(self.random.within(0..len + 1)),
            1 => Self::SIZE - self.random.within(1..len + 1),
            _ => self.random.within(0..Self::SIZE),
        };
        let start = start.min(Self::SIZE - 1);
        start as usize..(start + len).min(Self::SIZE) as usize
    }

    fn step(&mut self) {
        let range = self.range();
        let offset = range.start as u64;
        match self.random.within(0..100) {
            0 => self.mount.reattach(self.disk),
            1 => self.mount.open(self.disk).sync_all().unwrap(),
            2..=49 => {
                let mut room = vec![0xee; range.len()];
                self.mount.open(self.disk).read_exact_at(&mut room, offset).unwrap();
                assert!(room == self.bytes[range.clone()], "{range:?} differs");
            }
            _ => {
                let fresh = self.random.bytes(range.len());
                self.mount.open(self.disk).write_all_at(&fresh, offset).unwrap();
                self.bytes[range].copy_from_slice(&fresh);
            }
        }
    }
}

fn model(options: &[&str]) {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", Model::SIZE);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let bytes = vec![0; Model::SIZE as usize];
    let mut model = Model { mount: &mount, disk: &disk, bytes, random: Random::announced() };
    for _ in 0..1500 {
        model.step();
    }
    assert!(fs::read(mount.volume(&disk)).unwrap() == model.bytes, "the volume differs");
    assert!(cluster.content(&disk) == model.bytes, "the wire tells something else");
}

#[test]
fn a_volume_holds_what_a_vector_does() {
    model(&[]);
}

#[test]
fn a_volume_in_the_page_cache_holds_what_a_vector_does() {
    model(&["-k"]);
}

#[test]
fn a_volume_in_a_small_object_cache_holds_what_a_vector_does() {
    model(&SMALL_CACHE);
}

/// A volume that was detached belongs to others until it is attached again: nothing that was
/// cached before is believed.
#[test]
fn a_new_attach_sees_what_others_wrote() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    let one = Mount::start(&cluster, &["-k", "-o"]);
    let other = Mount::start(&cluster, &[]);
    for round in 1..=3 {
        other.attach(&disk);
        other.open(&disk).write_all_at(&[round; 9000], 4 * MIB - 100).unwrap();
        other.detach(&disk);
        one.attach(&disk);
        let content = fs::read(one.volume(&disk)).unwrap();
        assert!(content[(4 << 20) - 100..][..9000].iter().all(|byte| *byte == round));
        one.detach(&disk);
    }
}
