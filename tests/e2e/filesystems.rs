//! ext4 and XFS on a volume, mounted through a loop device: some ten thousand files copied in,
//! the file system checked, the volume detached and attached again, the files compared.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::tools::{arg, run};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const VOLUME_BYTES: u64 = 640 * MIB;
const FILES: usize = 10_000;
/// Larger files are left out, so that the test's length does not depend on the machine.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Where every Debian has thousands of files of all kinds.
const SOURCES: [&str; 4] = ["/usr/share", "/usr/lib", "/usr/include", "/etc"];

/// What a file system on a volume is made and checked with.
struct Kind {
    make: &'static [&'static str],
    check: &'static [&'static str],
    /// Whether the loop device goes around the page cache.
    direct: bool,
}

/// A loop device; detached when dropped.
pub struct Loop(String);

impl Loop {
    /// One over a volume; whether it goes around the page cache.
    pub fn over(volume: &Path, direct: bool) -> Self {
        let direct = if direct { "--direct-io=on" } else { "--direct-io=off" };
        let device = run("losetup", &["--find", "--show", direct, arg(volume)]);
        Self(device.trim().to_owned())
    }

    /// Its device file.
    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

/// A mounted file system, by where it is; unmounted when dropped.
pub struct Mounted(pub PathBuf);

impl Mounted {
    /// Mounts what the arguments of `mount(8)` name.
    pub fn new(arguments: &[&str], point: PathBuf) -> Self {
        fs::create_dir_all(&point).unwrap();
        run("mount", &[arguments, &[arg(&point)]].concat());
        Self(point)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[arg(&self.0)]);
    }
}

/// The first [`FILES`] files of this machine that are not too large, by name.
fn real_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = SOURCES.iter().rev().map(PathBuf::from).collect();
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                dirs.push(path);
            } else if meta.is_file() && meta.len() <= FILE_BYTES_MAX {
                found.push(path);
            }
        }
        if found.len() >= FILES {
            break;
        }
    }
    found.truncate(FILES);
    assert_eq!(found.len(), FILES, "this machine has too few files under {SOURCES:?}");
    found
}

type Sums = BTreeMap<PathBuf, [u8; 32]>;

/// Copies all files below `to` and returns what each holds.
fn copy_all(files: &[PathBuf], to: &Path) -> Sums {
    let mut sums = Sums::new();
    for file in files {
        let bytes = fs::read(file).unwrap();
        let copy = to.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(&copy, &bytes).unwrap();
        sums.insert(copy.strip_prefix(to).unwrap().to_owned(), Sha256::digest(&bytes).into());
    }
    sums
}

fn check_all(sums: &Sums, below: &Path) {
    for (path, sum) in sums {
        let bytes = fs::read(below.join(path)).unwrap();
        assert!(<[u8; 32]>::from(Sha256::digest(&bytes)) == *sum, "{} differs", path.display());
    }
}

fn holds_a_tree(kind: &Kind, options: &[&str]) {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", VOLUME_BYTES);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let volume = mount.volume(&disk);
    run(kind.make[0], &[&kind.make[1..], &[arg(&volume)]].concat());
    let sums = with_mounted(&mount, &volume, kind.direct, |point| copy_all(&real_files(), point));
    run(kind.check[0], &[&kind.check[1..], &[arg(&volume)]].concat());
    mount.reattach(&disk);
    with_mounted(&mount, &volume, kind.direct, |point| check_all(&sums, point));
    run(kind.check[0], &[&kind.check[1..], &[arg(&volume)]].concat());
}

/// Mounts the file system on the volume for as long as `work` takes.
fn with_mounted<T>(mount: &Mount, volume: &Path, direct: bool, work: impl FnOnce(&Path) -> T) -> T {
    let point = mount.scratch().join("inner");
    if !direct {
        let inner = Mounted::new(&["-o", "loop", arg(volume)], point);
        return work(&inner.0);
    }
    let device = Loop::over(volume, true);
    let inner = Mounted::new(&[&device.0], point);
    work(&inner.0)
}

const EXT4: Kind =
    Kind { make: &["mkfs.ext4", "-q", "-F"], check: &["e2fsck", "-fn"], direct: false };
const XFS: Kind =
    Kind { make: &["mkfs.xfs", "-q", "-f"], check: &["xfs_repair", "-n"], direct: false };

#[test]
fn ext4_holds_a_tree() {
    holds_a_tree(&EXT4, &[]);
}

#[test]
fn ext4_holds_a_tree_in_the_page_cache() {
    holds_a_tree(&EXT4, &["-k"]);
}

#[test]
fn ext4_holds_a_tree_with_direct_io_below() {
    holds_a_tree(&Kind { direct: true, ..EXT4 }, &[]);
}

#[test]
fn xfs_holds_a_tree() {
    holds_a_tree(&XFS, &["-o"]);
}

#[test]
fn xfs_holds_a_tree_with_direct_io_below() {
    holds_a_tree(&Kind { direct: true, ..XFS }, &[]);
}

/// The kernel's threads that serve a loop device are root's, but not ours: they can do all they
/// need, also when the volume belongs to somebody else.
#[test]
fn a_loop_device_can_do_what_it_needs() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 16 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["--uid", "65534", "--mode", "0600"]);
    let device = Loop::over(&mount.volume(&disk), false);
    run("dd", &["if=/dev/urandom", &format!("of={}", device.0), "bs=1M", "count=16", "conv=fsync"]);
    run("blockdev", &["--flushbufs", &device.0]);
    run("cmp", &[&device.0, arg(&mount.volume(&disk))]);
}
