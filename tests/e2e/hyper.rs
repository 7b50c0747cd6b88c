//! Hyper volumes: far more blocks than an array can index.

use crate::MIB;
use crate::cluster::Cluster;
use crate::control::errno;
use crate::mount::Mount;
use crate::random::Random;
use nix::errno::Errno;
use sheepfs::wire::request::{Extent, NewVdi};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;

const TIB: u64 = 1 << 40;
const PIB: u64 = 1 << 50;
const OBJECT: u64 = 4 * MIB;
const SHIFT: u8 = 22;
/// On a real cluster each costs a whole object.
const PLACES: u64 = 24;

fn hyper(cluster: &Cluster, size: u64) -> String {
    let new = NewVdi { size, block_size_shift: SHIFT, ..NewVdi::default() };
    cluster.hyper("hyper", &new)
}

/// Writes far apart, the first bytes and the last ones too; reads them and what lies between,
/// before and after the volume is attached again; then looks into the tree without sheepfs.
fn far_apart(size: u64) {
    let cluster = Cluster::start();
    let disk = hyper(&cluster, size);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    assert_eq!(fs::metadata(mount.volume(&disk)).unwrap().len(), size);
    let mut random = Random::seeded(size);
    let inside = (0..PLACES).map(|_| random.within(1..size - OBJECT));
    let places: Vec<u64> = [0, size - 5000].into_iter().chain(inside).collect();
    let mut written = BTreeMap::new();
    let file = mount.open(&disk);
    for place in &places {
        let bytes = random.bytes(5000);
        file.write_all_at(&bytes, *place).unwrap();
        written.insert(*place, bytes);
    }
    file.sync_all().unwrap();
    drop(file);
    let check = || {
        let file = mount.open(&disk);
        for (place, expected) in &written {
            let mut found = vec![0; 5000];
            file.read_exact_at(&mut found, *place).unwrap();
            assert!(found == *expected, "at {place}");
            let hole = (place / OBJECT + 3) * OBJECT;
            if hole < size && !written.keys().any(|place| place.abs_diff(hole) < 2 * OBJECT) {
                file.read_exact_at(&mut found, hole).unwrap();
                assert!(found.iter().all(|byte| *byte == 0), "a hole at {hole}");
            }
        }
        let past = file.write_at(b"x", size);
        assert_eq!(errno(past.map(|_| ())), Some(Errno::ENOSPC));
    };
    check();
    mount.reattach(&disk);
    check();
    let mut wire = cluster.wire();
    let vid = wire.vid(&disk);
    let tree = wire.tree(vid);
    for (place, expected) in &written {
        let block = u32::try_from(place / OBJECT).unwrap();
        assert_eq!(tree.get(&block), Some(&vid.get()), "block {block}");
        let inside = place % OBJECT;
        let len = (OBJECT - inside).min(5000);
        let extent = Extent::new(inside.try_into().unwrap(), len.try_into().unwrap(), SHIFT);
        let stored = wire.object(vid, block, extent.unwrap());
        assert!(stored == expected[..stored.len()], "block {block}");
    }
}

#[test]
fn a_volume_of_16_tib_is_written_anywhere() {
    far_apart(16 * TIB);
}

#[test]
fn a_volume_of_the_largest_size_is_written_anywhere() {
    far_apart(16 * PIB);
}

/// Many objects at once: their entries go to the tree together.
#[test]
fn what_is_written_together_is_all_there() {
    let cluster = Cluster::mini();
    let new = NewVdi { size: 64 * MIB, block_size_shift: 16, ..NewVdi::default() };
    let disk = cluster.hyper("hyper", &new);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let content = Random::seeded(1).bytes(64 * MIB as usize);
    std::thread::scope(|scope| {
        for (number, piece) in (0..).zip(content.chunks(MIB as usize)) {
            let file = mount.open(&disk);
            scope.spawn(move || file.write_all_at(piece, number * MIB).unwrap());
        }
    });
    assert!(fs::read(mount.volume(&disk)).unwrap() == content);
    assert!(cluster.content(&disk) == content);
    // 1024 objects, and by far not as many changes of the tree.
    let (creates, writes) =
        (cluster.minisheep().served("CreateAndWriteObj"), cluster.minisheep().served("WriteObj"));
    assert!(creates == 1024 && writes < 900, "{creates} creates, {writes} writes");
}

/// An index that makes no sense is an error and never zeros.
#[test]
fn a_damaged_tree_is_an_error() {
    let cluster = Cluster::mini();
    let disk = hyper(&cluster, TIB);
    let mut wire = cluster.wire();
    let vid = wire.vid(&disk);
    // From the header on, as every write of the tree must be.
    wire.write_inode(vid, 4660, &[0, 0, 0, 0, 0x74, 0x62, 7, 0, 1, 0, 0, 0]);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    let read = file.read_at(&mut [0; 512], 0);
    let written = file.write_at(&[1; 512], 0);
    for result in [read, written] {
        let result: io::Result<()> = result.map(|_| ());
        assert_eq!(errno(result), Some(Errno::EUCLEAN));
    }
}
