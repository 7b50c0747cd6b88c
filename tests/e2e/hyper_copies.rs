//! `copy_file_range(2)` from and to hyper volumes: what is copied is what is there, across the
//! borders of objects and over holes, also far behind what an array can index.

use crate::MIB;
use crate::cluster::Cluster;
use crate::copies::{copy, random_ranges};
use crate::mount::Mount;
use crate::random::Random;
use sheepfs::wire::VdiId;
use sheepfs::wire::request::{Extent, NewVdi};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

const TIB: u64 = 1 << 40;
/// Bytes of a volume that are looked at.
const WINDOW: usize = 1 << 20;
/// Where the source has no objects, in its window.
const HOLE: std::ops::Range<usize> = 256 << 10..640 << 10;

/// A volume of a test.
#[derive(Clone, Copy, Debug)]
struct Disk {
    hyper: bool,
    shift: u8,
    /// Where its window begins.
    base: u64,
}

/// The largest volume with an array, and the window at its end.
const PLAIN: Disk = Disk { hyper: false, shift: 18, base: 63 * MIB };
/// Its objects are smaller, and there are more than an array has room for before the window.
const HYPER: Disk = Disk { hyper: true, shift: 16, base: 3 * TIB };
const OTHER_HYPER: Disk = Disk { hyper: true, shift: 17, base: 5 * TIB - MIB };

impl Disk {
    fn make(self, cluster: &Cluster, hint: &str) -> String {
        let size = self.base + WINDOW as u64;
        let new = NewVdi { size, block_size_shift: self.shift, ..NewVdi::default() };
        if self.hyper { cluster.hyper(hint, &new) } else { cluster.vdi_with(hint, &new) }
    }

    fn object_len(self) -> usize {
        1 << self.shift
    }

    /// The objects in its window, by their place in it, seen without sheepfs.
    fn stored(self, cluster: &Cluster, name: &str) -> BTreeMap<usize, Vec<u8>> {
        let mut wire = cluster.wire();
        let vid = wire.vid(name);
        let listed: BTreeMap<u32, u32> = if self.hyper {
            wire.tree(vid)
        } else {
            (0..).zip(wire.index(vid)).filter(|(_, owner)| *owner != 0).collect()
        };
        let first = u32::try_from(self.base >> self.shift).unwrap();
        let objects = listed.into_iter().map(|(block, owner)| {
            let extent = Extent::new(0, 1 << self.shift, self.shift).unwrap();
            let bytes = wire.object(VdiId::new(owner).unwrap(), block, extent);
            ((block - first) as usize * self.object_len(), bytes)
        });
        objects.collect()
    }
}

/// Ranges of a few bytes and of many, around the borders of both volumes' objects and those of
/// the hole: where from, where to, and how long.
fn ranges(from: Disk, to: Disk) -> Vec<(usize, usize, usize)> {
    let (a, b) = (from.object_len(), to.object_len());
    vec![
        (a - 1, b - 1, 2),
        (a - 3000, 7, 6000),
        (11, b - 3000, 6000),
        (a - 100, 3 * b - 50, 200),
        (5, 2 * b - 9, 2 * a + 17),
        (HOLE.start - 4096, b + 100, 8192),
        (HOLE.start + 33, b - 77, 5000),
        (HOLE.end - 5000, 2 * b - 2500, 5001),
        (HOLE.start - 1, 100, HOLE.len() + 2),
        (WINDOW - a - 1, 0, a + 1),
    ]
}

fn is_copied(from: Disk, to: Disk, options: &[&str]) {
    let cluster = Cluster::start();
    let [source, target] = [from.make(&cluster, "from"), to.make(&cluster, "to")];
    let mount = Mount::with_volume(&cluster, &source, options);
    mount.attach(&target);
    let mut bytes = Random::announced().bytes(WINDOW);
    bytes[HOLE].fill(0);
    let (reader, writer) = (mount.open(&source), mount.open(&target));
    reader.write_all_at(&bytes[..HOLE.start], from.base).unwrap();
    reader.write_all_at(&bytes[HOLE.end..], from.base + HOLE.end as u64).unwrap();
    let mut model = vec![0; WINDOW];
    let mut seen = vec![1; WINDOW];
    // First into nothing, then over old bytes.
    for old in [None, Some(0xdd)] {
        if let Some(old) = old {
            model.fill(old);
            writer.write_all_at(&model, to.base).unwrap();
        }
        for (at, offset, len) in ranges(from, to) {
            copy(&reader, from.base + at as u64, &writer, to.base + offset as u64, len);
            model[offset..offset + len].copy_from_slice(&bytes[at..at + len]);
            writer.read_exact_at(&mut seen, to.base).unwrap();
            assert!(seen == model, "{len} bytes from {at} to {offset}, over {old:?}");
        }
    }
    drop((reader, writer));
    mount.reattach(&target);
    mount.open(&target).read_exact_at(&mut seen, to.base).unwrap();
    assert!(seen == model, "attached again");
    for (disk, name, expected) in [(from, &source, &bytes), (to, &target, &model)] {
        mount.detach(name);
        let mut shown = vec![0; WINDOW];
        for (at, object) in disk.stored(&cluster, name) {
            shown[at..][..object.len()].copy_from_slice(&object);
        }
        assert!(shown == *expected, "{name}: the wire tells something else");
    }
}

#[test]
fn small_ranges_go_from_plain_to_hyper_volumes() {
    is_copied(PLAIN, HYPER, &[]);
    is_copied(PLAIN, OTHER_HYPER, &["-k", "-o"]);
}

#[test]
fn small_ranges_go_from_hyper_to_plain_volumes() {
    is_copied(HYPER, PLAIN, &[]);
    is_copied(OTHER_HYPER, PLAIN, &["-k", "-o"]);
}

#[test]
fn small_ranges_go_from_hyper_to_hyper_volumes() {
    is_copied(HYPER, OTHER_HYPER, &[]);
    is_copied(OTHER_HYPER, HYPER, &["-k", "-o"]);
}

/// What is a hole in both stays one: neither an object nor an entry of the tree is made.
#[test]
fn a_hole_that_is_copied_into_a_hole_makes_no_object() {
    for hyper in [false, true] {
        let cluster = Cluster::start();
        let new = NewVdi { size: 8 * MIB, block_size_shift: 20, ..NewVdi::default() };
        let target = cluster.hyper("to", &new);
        let make = if hyper { Cluster::hyper } else { Cluster::vdi_with };
        let source = make(&cluster, "from", &new);
        let mount = Mount::with_volume(&cluster, &source, &[]);
        mount.attach(&target);
        let (reader, writer) = (mount.open(&source), mount.open(&target));
        let last = new.size - 100;
        reader.write_all_at(&[7; 100], 0).unwrap();
        reader.write_all_at(&[9; 100], last).unwrap();
        copy(&reader, 0, &writer, 0, new.size as usize);
        let mut seen = [1; 200];
        writer.read_exact_at(&mut seen, last - 100).unwrap();
        assert!(seen[..100] == [0; 100] && seen[100..] == [9; 100]);
        let vid = cluster.wire().vid(&target);
        let tree = cluster.wire().tree(vid);
        assert_eq!(tree.into_keys().collect::<Vec<_>>(), [0, 7], "a hyper source: {hyper}");
    }
}

/// Any ranges, both ways and within one, between writes, and with discards among them.
#[test]
fn any_range_is_copied_between_plain_and_hyper_volumes() {
    random_ranges(&[], |cluster, size| {
        let new = NewVdi { size, block_size_shift: 20, ..NewVdi::default() };
        [cluster.hyper("one", &new), cluster.vdi("two", size)]
    });
}

#[test]
fn any_range_is_copied_between_hyper_volumes_in_both_caches() {
    random_ranges(&["-k", "-o"], |cluster, size| {
        let new = |block_size_shift| NewVdi { size, block_size_shift, ..NewVdi::default() };
        [cluster.hyper("one", &new(22)), cluster.hyper("two", &new(16))]
    });
}
