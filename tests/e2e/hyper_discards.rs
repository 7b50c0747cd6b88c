//! Space of hyper volumes comes back: their objects go from the cluster, and what is written
//! again stays.

use crate::MIB;
use crate::cluster::Cluster;
use crate::discards::{PUNCH, ZERO, clear, exists};
use crate::mount::Mount;
use crate::random::Random;
use crate::tools::{arg, run};
use crate::wire::working_ref;
use sheepfs::wire::VdiId;
use sheepfs::wire::request::NewVdi;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

const TIB: u64 = 1 << 40;
const OBJECT: u64 = 4 * MIB;

fn hyper(cluster: &Cluster, size: u64, block_size_shift: u8) -> String {
    let new = NewVdi { size, block_size_shift, ..NewVdi::default() };
    cluster.hyper("hyper", &new)
}

/// The blocks that the tree lists, each of which has its object, and of `all` no other has one.
fn listed(cluster: &Cluster, vid: VdiId, all: &[u64]) -> Vec<u64> {
    let tree = cluster.wire().tree(vid);
    for block in all {
        let block = u32::try_from(*block).unwrap();
        let owner = tree.get(&block).copied();
        assert_eq!(owner, exists(cluster, vid, block).then_some(vid.get()), "block {block}");
    }
    tree.into_keys().map(u64::from).collect()
}

fn zeros(mount: &Mount, disk: &str, block: u64) -> bool {
    let mut seen = vec![1; OBJECT as usize];
    mount.open(disk).read_exact_at(&mut seen, block * OBJECT).unwrap();
    seen.iter().all(|byte| *byte == 0)
}

/// At the beginning, in the middle and at the end; and then it is deleted, and nothing is left.
fn whole_objects_go(size: u64) {
    let cluster = Cluster::start();
    let disk = hyper(&cluster, size, 22);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let last = size / OBJECT - 1;
    let blocks = [0, 1, 2, 700_000, 1_500_001, last - 1, last];
    let file = mount.open(&disk);
    for block in blocks {
        file.write_all_at(&[7; 5000], block * OBJECT).unwrap();
    }
    let vid = cluster.wire().vid(&disk);
    assert_eq!(listed(&cluster, vid, &blocks), blocks);
    // With the edges of two more.
    clear(&file, PUNCH, 4000, 2 * OBJECT - 4000 + 100);
    clear(&file, ZERO, 700_000 * OBJECT, OBJECT);
    clear(&file, PUNCH, (last - 1) * OBJECT, 2 * OBJECT);
    assert_eq!(listed(&cluster, vid, &blocks), [0, 2, 1_500_001]);
    for block in [1, 700_000, last - 1, last] {
        assert!(zeros(&mount, &disk, block), "block {block}");
    }
    let mut edges = [0; 5000];
    file.read_exact_at(&mut edges, 0).unwrap();
    assert!(edges[..4000] == [7; 4000] && edges[4000..] == [0; 1000]);
    file.read_exact_at(&mut edges, 2 * OBJECT).unwrap();
    assert!(edges[..100] == [0; 100] && edges[100..] == [7; 4900]);
    file.write_all_at(&[8; 100], last * OBJECT + 50).unwrap();
    drop(file);
    mount.reattach(&disk);
    assert_eq!(listed(&cluster, vid, &blocks), [0, 2, 1_500_001, last]);
    let mut again = [1; 200];
    mount.open(&disk).read_exact_at(&mut again, last * OBJECT).unwrap();
    assert!(again[..50] == [0; 50] && again[50..150] == [8; 100] && again[150..] == [0; 50]);
    // What is a hole takes no time, or this would never end.
    clear(&mount.open(&disk), PUNCH, 0, size);
    assert_eq!(listed(&cluster, vid, &blocks), []);
    mount.open(&disk).write_all_at(&[9; 100], 700_000 * OBJECT).unwrap();
    mount.detach(&disk);
    cluster.delete(&working_ref(&disk));
    assert!(blocks.iter().all(|block| !exists(&cluster, vid, *block as u32)));
}

#[test]
fn objects_of_a_volume_of_16_tib_go() {
    whole_objects_go(16 * TIB);
}

/// Its last block has the last number there is.
#[test]
fn objects_of_a_volume_of_the_largest_size_go() {
    whole_objects_go(1 << 54);
}

#[test]
fn a_block_that_is_written_again_at_once_stays() {
    let cluster = Cluster::start();
    let disk = hyper(&cluster, TIB, 22);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    for round in 1..=50u8 {
        file.write_all_at(&[round; 4096], OBJECT).unwrap();
        clear(&file, PUNCH, OBJECT, OBJECT);
        let mut seen = [1; 4096];
        file.read_exact_at(&mut seen, OBJECT).unwrap();
        assert_eq!(seen, [0; 4096]);
        file.write_all_at(&[round; 100], OBJECT + 50).unwrap();
        file.read_exact_at(&mut seen, OBJECT).unwrap();
        assert!(seen[50..150] == [round; 100] && seen[150..] == [0; 4096 - 150]);
    }
    assert_eq!(listed(&cluster, cluster.wire().vid(&disk), &[1]), [1]);
}

#[test]
fn a_loop_device_over_a_hyper_volume_is_discarded_to_nothing() {
    let cluster = Cluster::start();
    let disk = hyper(&cluster, 64 * MIB, 22);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.open(&disk).write_all_at(&vec![9; 64 << 20], 0).unwrap();
    let vid = cluster.wire().vid(&disk);
    let all: Vec<u64> = (0..16).collect();
    assert_eq!(listed(&cluster, vid, &all), all);
    let device = run("losetup", &["--find", "--show", "--direct-io=on", arg(&mount.volume(&disk))]);
    run("blkdiscard", &[device.trim()]);
    run("losetup", &["--detach", device.trim()]);
    assert_eq!(listed(&cluster, vid, &all), [0; 0]);
}

/// Against a map of blocks, from several threads, each on blocks of its own; with new attaches
/// between.
#[test]
fn a_hyper_volume_with_holes_holds_what_a_model_does() {
    let cluster = Cluster::mini();
    let size = 64 * MIB;
    let disk = hyper(&cluster, size, 16);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let mut random = Random::announced();
    let mut expected: BTreeMap<u64, u8> = BTreeMap::new();
    let object = 1 << 16;
    for _ in 0..4 {
        let lanes: Vec<_> = (0..4).map(|lane| (lane, random.next())).collect();
        let done = std::thread::scope(|scope| {
            let play = |(lane, seed)| {
                let file = mount.open(&disk);
                let mut random = Random::seeded(seed);
                scope.spawn(move || {
                    let mut model = BTreeMap::new();
                    for _ in 0..100 {
                        // Runs of eight blocks are one lane's.
                        let first = (random.within(0..size / object / 32) * 4 + lane) * 8;
                        let (block, count) = (first + random.within(0..5), random.within(1..4));
                        if random.within(0..2) == 0 {
                            clear(&file, PUNCH, block * object, count * object);
                            model.extend((block..block + count).map(|block| (block, 0)));
                        } else {
                            let value = random.within(1..256) as u8;
                            file.write_all_at(&[value; 3000], block * object).unwrap();
                            model.insert(block, value);
                        }
                    }
                    model
                })
            };
            let threads: Vec<_> = lanes.into_iter().map(play).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        expected.extend(done);
        let content = fs::read(mount.volume(&disk)).unwrap();
        for (block, value) in &expected {
            let at = (block * object) as usize;
            assert!(content[at..at + 3000] == [*value; 3000], "block {block}");
        }
        mount.reattach(&disk);
        assert!(cluster.content(&disk) == content, "the wire tells something else");
    }
    let holding: Vec<u64> =
        expected.iter().filter(|(_, value)| **value != 0).map(|(block, _)| *block).collect();
    let all: Vec<u64> = (0..size / object).collect();
    assert_eq!(listed(&cluster, cluster.wire().vid(&disk), &all), holding);
}
