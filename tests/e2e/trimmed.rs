//! File systems that give back what was deleted in them: ext4 and XFS on a loop device over a
//! volume, in turn mounted with `-o discard` and trimmed by `fstrim`, while files come and go. What
//! is left is compared, checked, and found in the cluster; what is deleted is not.
//!
//! 4 rounds by default; 40 with `SHEEPFS_FAULT_ROUNDS=full`.

use crate::MIB;
use crate::cluster::Cluster;
use crate::discards::exists;
use crate::filesystems::{Loop, Mounted};
use crate::mount::Mount;
use crate::random::Random;
use crate::rounds::rounds;
use crate::tools::{arg, run};
use sha2::{Digest, Sha256};
use sheepfs::wire::request::NewVdi;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SIZE: u64 = 320 * MIB;
/// Small enough that the files of a round make and free many.
const OBJECT_SHIFT: u8 = 20;
/// So many files are there at least after a round.
const FILES_KEPT: usize = 6;
const FILES_MADE: usize = 10;
const FILE_LEN_MAX: u64 = 8 * MIB;

/// How a file system is made and checked.
struct Kind {
    make: &'static [&'static str],
    check: &'static [&'static str],
    /// Whether the loop device goes around the page cache.
    direct: bool,
}

const EXT4: Kind =
    Kind { make: &["mkfs.ext4", "-q", "-F"], check: &["e2fsck", "-fn"], direct: true };
const XFS: Kind =
    Kind { make: &["mkfs.xfs", "-q", "-f"], check: &["xfs_repair", "-n"], direct: true };

/// The files that should be there, with what they hold.
struct Files {
    sums: BTreeMap<String, [u8; 32]>,
    made: u64,
    random: Random,
}

impl Files {
    fn make_some(&mut self, below: &Path) {
        for _ in 0..FILES_MADE {
            self.made += 1;
            let name = format!("file{}", self.made);
            let len = self.random.within(1..FILE_LEN_MAX) as usize;
            let bytes = self.random.bytes(len);
            fs::write(below.join(&name), &bytes).unwrap();
            self.sums.insert(name, Sha256::digest(&bytes).into());
        }
    }

    fn delete_some(&mut self, below: &Path) {
        while self.sums.len() > FILES_KEPT {
            let nth = self.random.within(0..self.sums.len() as u64) as usize;
            let name = self.sums.keys().nth(nth).unwrap().clone();
            fs::remove_file(below.join(&name)).unwrap();
            self.sums.remove(&name);
        }
    }

    fn check(&self, below: &Path) {
        for (name, sum) in &self.sums {
            let bytes = fs::read(below.join(name)).unwrap();
            assert!(<[u8; 32]>::from(Sha256::digest(&bytes)) == *sum, "{name} differs");
        }
    }
}

/// How many blocks of a VDI without snapshots have an object; the index names those and no others.
pub fn objects(cluster: &Cluster, disk: &str) -> usize {
    let vid = cluster.wire().vid(disk);
    let index = cluster.wire().index(vid);
    for (block, owner) in (0..).zip(&index) {
        let named = *owner != 0;
        assert_eq!(exists(cluster, vid, block), named, "block {block} of {disk}");
    }
    index.iter().filter(|owner| **owner != 0).count()
}

fn gives_back(kind: &Kind, options: &[&str]) {
    let cluster = Cluster::start();
    let new = NewVdi { size: SIZE, block_size_shift: OBJECT_SHIFT, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let volume = mount.volume(&disk);
    run(kind.make[0], &[&kind.make[1..], &[arg(&volume)]].concat());
    let mut files = Files { sums: BTreeMap::new(), made: 0, random: Random::announced() };
    let mut freed = [0; 2];
    for round in 0..rounds(4, 40) {
        let by_fstrim = round % 2 == 1;
        freed[usize::from(by_fstrim)] += play(kind, &cluster, &mount, &disk, &mut files, by_fstrim);
        run(kind.check[0], &[&kind.check[1..], &[arg(&volume)]].concat());
        mount.reattach(&disk);
    }
    println!("{} files made; {freed:?} objects freed by -o discard, by fstrim", files.made);
    assert!(freed.iter().all(|count| *count > 10), "{freed:?} were freed");
    emptied(kind, &cluster, &mount, &disk);
}

/// Files are compared, made and deleted; how many objects that has freed.
fn play(
    kind: &Kind,
    cluster: &Cluster,
    mount: &Mount,
    disk: &str,
    files: &mut Files,
    by_fstrim: bool,
) -> usize {
    let device = Loop::over(&mount.volume(disk), kind.direct);
    let option = if by_fstrim { "nodiscard" } else { "discard" };
    let inner = Mounted::new(&["-o", option, device.path()], mount.scratch().join("inner"));
    files.check(&inner.0);
    files.make_some(&inner.0);
    run("sync", &["-f", arg(&inner.0)]);
    let before = objects(cluster, disk);
    files.delete_some(&inner.0);
    run("sync", &["-f", arg(&inner.0)]);
    if by_fstrim {
        run("fstrim", &[arg(&inner.0)]);
    }
    files.check(&inner.0);
    drop(inner);
    drop(device);
    before.saturating_sub(objects(cluster, disk))
}

/// When all is deleted and trimmed, hardly anything is left.
fn emptied(kind: &Kind, cluster: &Cluster, mount: &Mount, disk: &str) {
    let (volume, point) = (mount.volume(disk), mount.scratch().join("inner"));
    let device = Loop::over(&volume, kind.direct);
    let inner = Mounted::new(&[device.path()], point);
    for entry in fs::read_dir(&inner.0).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    run("sync", &["-f", arg(&inner.0)]);
    run("fstrim", &[arg(&inner.0)]);
    drop(inner);
    drop(device);
    let left = objects(cluster, disk);
    println!("{left} objects of {} are left of an empty file system", SIZE >> OBJECT_SHIFT);
    assert!(left < 100, "{left} objects are left of an empty file system");
    run(kind.check[0], &[&kind.check[1..], &[arg(&volume)]].concat());
}

#[test]
fn ext4_gives_back_what_is_deleted() {
    gives_back(&EXT4, &[]);
}

#[test]
fn ext4_gives_back_what_is_deleted_in_both_caches() {
    gives_back(&Kind { direct: false, ..EXT4 }, &["-k", "-o"]);
}

#[test]
fn xfs_gives_back_what_is_deleted() {
    gives_back(&XFS, &[]);
}

#[test]
fn xfs_gives_back_what_is_deleted_in_both_caches() {
    gives_back(&Kind { direct: false, ..XFS }, &["-k", "-o"]);
}
