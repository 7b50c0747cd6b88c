//! Discards in the mix: workers and gateways die while blocks are discarded and written again,
//! and somebody makes snapshots.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::random::Random;
use crate::rounds::rounds;
use crate::site::{Site, random_while, send, wait_for_swap, wait_until_serving};
use crate::tools::wait_for;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::Signal;
use sheepfs::wire::Request;
use sheepfs::wire::request::{Extent, NewVdi};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
const BLOCK: u64 = MIB;
const BLOCKS: u64 = 24;
const MARK: usize = 4096;
const INSTANT_MAX: Duration = Duration::from_millis(30);

const DISK: NewVdi = NewVdi {
    size: BLOCKS * BLOCK,
    copies: 0,
    copy_policy: 0,
    block_size_shift: 20,
    base: 0,
    snapshot: false,
    store_policy: 0,
};

fn disk_of(cluster: &Cluster) -> String {
    cluster.vdi_with("disk", &DISK)
}

/// Threads that discard and write again, each on blocks of its own, and look at what they wrote.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<(u64, u8)>>>,
}

impl Load {
    fn start(volume: &Path, random: &mut Random) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..3).map(|lane| {
            let file = File::options().read(true).write(true).open(volume).unwrap();
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            let random = Random::seeded(random.next());
            thread::spawn(move || play(&file, lane, random, &stop, &rounds))
        });
        let threads = threads.collect();
        Self { stop, rounds, threads }
    }

    fn wait_for_progress(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_for("discards", || self.rounds.load(Ordering::Relaxed) > before + 3);
    }

    /// What each block must begin with.
    fn finish(self) -> Vec<(u64, u8)> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn play(
    file: &File,
    lane: u64,
    mut random: Random,
    stop: &AtomicBool,
    rounds: &AtomicU64,
) -> Vec<(u64, u8)> {
    let mut blocks: Vec<(u64, u8)> =
        (0..BLOCKS).filter(|block| block / 2 % 3 == lane).map(|block| (block, 0)).collect();
    let mut room = vec![0; MARK];
    while !stop.load(Ordering::Relaxed) {
        let pair = random.within(0..blocks.len() as u64 / 2) as usize * 2;
        let (first, count) = (blocks[pair].0, random.within(1..3));
        let (at, len) = (first * BLOCK, count * BLOCK);
        fallocate(file, PUNCH, at.try_into().unwrap(), len.try_into().unwrap()).unwrap();
        for nth in 0..count as usize {
            blocks[pair + nth].1 = 0;
            if random.within(0..4) > 0 {
                let value = random.within(1..256) as u8;
                file.write_all_at(&vec![value; MARK], blocks[pair + nth].0 * BLOCK).unwrap();
                blocks[pair + nth].1 = value;
            }
        }
        for (block, value) in &blocks {
            file.read_exact_at(&mut room, block * BLOCK).unwrap();
            assert!(room.iter().all(|byte| byte == value), "block {block} is not {value}");
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    blocks
}

fn compare(content: &[u8], blocks: &[(u64, u8)]) {
    assert_eq!(blocks.len() as u64, BLOCKS);
    for (block, value) in blocks {
        let at = (block * BLOCK) as usize;
        assert!(content[at..at + MARK].iter().all(|byte| byte == value), "block {block}");
        assert!(content[at + MARK..at + BLOCK as usize].iter().all(|byte| *byte == 0));
    }
}

/// Kills workers of a mount while it is under load; gives what each block begins with.
fn kill_workers(cluster: &Cluster, mount: &Mount, disk: &str, snapshots: bool) -> Vec<(u64, u8)> {
    let mut random = Random::announced();
    let load = Load::start(&mount.volume(disk), &mut random);
    let times = rounds(15, 200);
    for nth in 0..times {
        load.wait_for_progress();
        if snapshots && nth % 4 == 3 {
            cluster.snapshot(disk, &format!("s{nth}"));
        }
        random_while(&mut random, INSTANT_MAX);
        let before = mount.count("swaps_worker_died");
        send(Signal::SIGKILL, mount.worker());
        wait_for_swap(mount, "swaps_worker_died", before);
    }
    load.wait_for_progress();
    let blocks = load.finish();
    assert!(mount.count("replayed") > 0, "no kill met a request");
    assert_eq!(mount.count("poisoned"), 0);
    assert!(cluster.minisheep().served("RemoveObj") > times);
    compare(&fs::read(mount.volume(disk)).unwrap(), &blocks);
    mount.detach(disk);
    compare(&cluster.content(disk), &blocks);
    blocks
}

#[test]
fn a_worker_killed_during_discards_is_not_noticed() {
    let cluster = Cluster::mini();
    cluster.minisheep().control("late-reclaim ms=100");
    let disk = disk_of(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    kill_workers(&cluster, &mount, &disk, true);
}

/// Nor does it leave an object that the tree does not list.
#[test]
fn a_worker_killed_during_discards_of_a_hyper_volume_is_not_noticed() {
    let cluster = Cluster::mini();
    let disk = cluster.hyper("disk", &DISK);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let blocks = kill_workers(&cluster, &mount, &disk, false);
    let mut wire = cluster.wire();
    let vid = wire.vid(&disk);
    let tree = wire.tree(vid);
    let one = Extent::new(0, 1, DISK.block_size_shift).unwrap();
    for (number, value) in blocks {
        let block = u32::try_from(number).unwrap();
        let found = wire.ask(&Request::read(vid, block, one), &[]).0.status.is_success();
        assert_eq!((tree.contains_key(&block), found), (value != 0, value != 0), "block {block}");
    }
}

#[test]
fn a_gateway_killed_during_discards_costs_nothing() {
    let mut site = Site::start(2);
    let disk = disk_of(&site.cluster);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let mut random = Random::announced();
    let load = Load::start(&mount.volume(&disk), &mut random);
    kill_gateways_in_use(&mut site, &mount, &mut random, || load.wait_for_progress());
    load.wait_for_progress();
    let blocks = load.finish();
    compare(&fs::read(mount.volume(&disk)).unwrap(), &blocks);
    mount.detach(&disk);
    compare(&site.cluster.content(&disk), &blocks);
}

/// Kills the gateway in use again and again, at any instant, while a load goes on; each time
/// the one after it takes over, and it comes back.
pub fn kill_gateways_in_use(
    site: &mut Site,
    mount: &Mount,
    random: &mut Random,
    wait_for_progress: impl Fn(),
) {
    let times = rounds(6, 60);
    for round in 0..times {
        wait_for_progress();
        wait_for("candidates", || mount.count("candidates") >= 2);
        random_while(random, INSTANT_MAX);
        let victim = site.in_use(mount);
        site.gateways[victim].kill();
        wait_for("the loss", || mount.count("swaps_sheep_lost") > round);
        wait_until_serving(mount);
        wait_for_progress();
        site.gateways[victim].restart();
    }
    assert_eq!(mount.count("swaps_sheep_lost"), times, "one kill, one swap");
}
