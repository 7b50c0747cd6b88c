//! Long random campaigns on one volume: fsx with holes and mappings, and an exerciser of our own
//! that also zeroes ranges, which fsx does not know, and opens the volume in other ways.
//!
//! Objects are small, so that many are made, shared by one request, and discarded as a whole.
//! 10,000 operations by default; 100,000 with `SHEEPFS_FAULT_ROUNDS=full`.

use crate::cluster::Cluster;
use crate::discards::{PUNCH, ZERO, clear};
use crate::mapping::Mapping;
use crate::mount::Mount;
use crate::random::Random;
use crate::rounds::rounds;
use crate::tools::{arg, run};
use nix::fcntl::{OFlag, PosixFadviseAdvice, copy_file_range, posix_fadvise};
use sheepfs::wire::request::NewVdi;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Two pages and more beyond whole objects, and not a whole page.
const SIZE: u64 = (1 << 20) + 12_345;
const OBJECT_SHIFT: u8 = 15;
const LEN_MAX: u64 = 64 << 10;
/// Small enough for an object cache that has to let go of most.
const SMALL_CACHE: [&str; 3] = ["-o", "--cache-size", "512K"];
const SMALL_CACHES: [&str; 4] = ["-k", "-o", "--cache-size", "512K"];

fn operations() -> u64 {
    rounds(10_000, 100_000)
}

fn disk_of(cluster: &Cluster) -> String {
    let new = NewVdi { size: SIZE, block_size_shift: OBJECT_SHIFT, ..NewVdi::default() };
    cluster.vdi_with("disk", &new)
}

/// What the volume shows must be there for who attaches it anew, and for who never knew us.
fn look_again(cluster: &Cluster, mount: &Mount, disk: &str, expected: &[u8]) {
    assert!(fs::read(mount.volume(disk)).unwrap() == expected, "the volume differs");
    mount.reattach(disk);
    assert!(fs::read(mount.volume(disk)).unwrap() == expected, "it changed by a new attach");
    assert!(cluster.content(disk) == expected, "the wire tells something else");
    if let Cluster::Mini(sheep) = cluster {
        let discarded = sheep.served("RemoveObj");
        println!("{discarded} objects were discarded");
        assert!(discarded > 100, "only {discarded} objects were discarded");
    }
}

fn fsx(options: &[&str], syncs_mappings: bool) {
    let cluster = Cluster::start();
    let disk = disk_of(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let config = mount.scratch().join("fsx.toml");
    let words = format!(
        "blockmode = true\nnomsyncafterwrite = {}\n[opsize]\nmax = {LEN_MAX}\n[weights]\n\
         truncate = 0\nread = 2\nwrite = 2\nmapread = 2\nmapwrite = 2\npunch_hole = 2\nfsync = 1\n\
         fdatasync = 1\ninvalidate = 1\nsendfile = 1\nposix_fadvise = 1\ncopy_file_range = 1\n",
        !syncs_mappings
    );
    fs::write(&config, words).unwrap();
    let seed = Random::announced().next().to_string();
    let volume = mount.volume(&disk);
    let (count, scratch) = (operations().to_string(), arg(mount.scratch()));
    run("fsx", &["-f", arg(&config), "-N", &count, "-S", &seed, "-P", scratch, arg(&volume)]);
    let seen = fs::read(&volume).unwrap();
    look_again(&cluster, &mount, &disk, &seen);
}

#[test]
fn fsx_punches_and_maps() {
    fsx(&[], true);
}

#[test]
fn fsx_punches_and_maps_in_the_page_cache() {
    fsx(&["-k"], false);
}

#[test]
fn fsx_punches_and_maps_in_a_small_object_cache() {
    fsx(&SMALL_CACHE, false);
}

#[test]
fn fsx_punches_and_maps_in_both_caches() {
    fsx(&SMALL_CACHES, true);
}

/// How the last operations are told of when something is wrong.
const TOLD: usize = 30;

/// A volume beside the bytes that it should hold, and all ways to both.
struct Exerciser<'a> {
    mount: &'a Mount<'a>,
    disk: &'a str,
    file: File,
    mapping: Mapping,
    bytes: Vec<u8>,
    random: Random,
    last: VecDeque<String>,
}

impl<'a> Exerciser<'a> {
    fn new(mount: &'a Mount<'a>, disk: &'a str) -> Self {
        let file = mount.open(disk);
        let mapping = Mapping::shared(&file).unwrap();
        let (bytes, random) = (vec![0; SIZE as usize], Random::announced());
        Self { mount, disk, file, mapping, bytes, random, last: VecDeque::new() }
    }

    /// A range: anywhere, up to the end, or whole objects.
    fn range(&mut self) -> Range<u64> {
        let object = 1 << OBJECT_SHIFT;
        let (start, len) = (self.random.within(0..SIZE), self.random.within(1..LEN_MAX));
        match self.random.within(0..8) {
            0 => SIZE - len..SIZE,
            1 | 2 => {
                let start = start / object * object;
                start..(start + len.next_multiple_of(object)).min(SIZE)
            }
            _ => start..(start + len).min(SIZE),
        }
    }

    fn tell(&mut self, words: String) {
        self.last.push_back(words);
        if self.last.len() > TOLD {
            self.last.pop_front();
        }
    }

    /// Compares what was read with what should be there.
    fn compare(&self, way: &str, at: u64, seen: &[u8]) {
        let expected = &self.bytes[at as usize..][..seen.len()];
        // The comparison of all is fast, the search is not.
        if seen != expected {
            let wrong = seen.iter().zip(expected).position(|(seen, expected)| seen != expected);
            let wrong = wrong.unwrap();
            self.last.iter().for_each(|told| println!("{told}"));
            panic!("byte {} is {} by {way}", at as usize + wrong, seen[wrong]);
        }
    }

    fn step(&mut self) {
        let choice = self.random.within(0..100);
        if choice < 10 {
            return self.step_without_range(choice);
        }
        let range = self.range();
        let (at, len) = (range.start, (range.end - range.start) as usize);
        let place = at as usize..at as usize + len;
        match choice {
            10..=24 => {
                self.tell(format!("read {range:?}"));
                let mut seen = vec![0xee; len];
                self.file.read_exact_at(&mut seen, at).unwrap();
                self.compare("read", at, &seen);
            }
            25..=39 => {
                self.tell(format!("look into the mapping {range:?}"));
                self.compare("mapping", at, &self.mapping.read(at, len));
            }
            40..=69 => {
                let fresh = self.random.bytes(len);
                self.bytes[place].copy_from_slice(&fresh);
                if choice < 55 {
                    self.tell(format!("write {range:?}"));
                    self.file.write_all_at(&fresh, at).unwrap();
                } else {
                    self.tell(format!("change the mapping {range:?}"));
                    self.mapping.write(at, &fresh);
                }
            }
            70..=89 => {
                let mode = if choice < 80 { PUNCH } else { ZERO };
                self.tell(format!("clear {range:?} by {mode:?}"));
                clear(&self.file, mode, at, len as u64);
                self.bytes[place].fill(0);
            }
            _ => self.copy(range),
        }
    }

    fn step_without_range(&mut self, choice: u64) {
        match choice {
            0 => self.file.sync_all().unwrap(),
            1 => self.file.sync_data().unwrap(),
            2 | 3 => self.mapping.sync().unwrap(),
            4 => {
                posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
            }
            5 => self.mapping = Mapping::shared(&self.file).unwrap(),
            6 => self.open_otherwise(),
            7 => self.compare_private(),
            _ => self.compare("mapping", 0, &self.mapping.read(0, SIZE as usize)),
        }
        self.tell(format!("{choice}, of those without a range"));
    }

    /// The mapping stays, so that what the kernel keeps of the file does.
    fn open_otherwise(&mut self) {
        let flags = [OFlag::empty(), OFlag::O_SYNC, OFlag::O_DSYNC];
        let flags = flags[self.random.within(0..3) as usize];
        let mut options = File::options();
        options.read(true).write(true).custom_flags(flags.bits());
        self.file = options.open(self.mount.volume(self.disk)).unwrap();
    }

    fn compare_private(&self) {
        let private = Mapping::private(&self.file).unwrap();
        self.compare("private mapping", 0, &private.read(0, SIZE as usize));
        private.write(0, &[0xaa; 100_000]);
    }

    /// Within the volume; where the ranges overlap, the kernel refuses.
    fn copy(&mut self, from: Range<u64>) {
        let to = self.range().start;
        let len = (from.end - from.start).min(SIZE - to);
        if from.start.abs_diff(to) < len {
            return;
        }
        self.tell(format!("copy {len} from {} to {to}", from.start));
        let (mut source, mut target) = (from.start as i64, to as i64);
        let mut left = len as usize;
        while left > 0 {
            let (from, to) = (Some(&mut source), Some(&mut target));
            left -= copy_file_range(&self.file, from, &self.file, to, left).unwrap();
        }
        let copied = self.bytes[from.start as usize..][..len as usize].to_vec();
        self.bytes[to as usize..][..len as usize].copy_from_slice(&copied);
    }
}

fn exercise(options: &[&str]) {
    let cluster = Cluster::start();
    let disk = disk_of(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let mut exerciser = Exerciser::new(&mount, &disk);
    for _ in 0..operations() {
        exerciser.step();
    }
    let Exerciser { bytes, mapping, file, .. } = exerciser;
    drop((mapping, file));
    look_again(&cluster, &mount, &disk, &bytes);
}

#[test]
fn holes_zeros_and_mappings() {
    exercise(&[]);
}

#[test]
fn holes_zeros_and_mappings_in_the_page_cache() {
    exercise(&["-k"]);
}

#[test]
fn holes_zeros_and_mappings_in_a_small_object_cache() {
    exercise(&SMALL_CACHE);
}

#[test]
fn holes_zeros_and_mappings_in_both_caches() {
    exercise(&SMALL_CACHES);
}
