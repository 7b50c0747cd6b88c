//! A load of copies from one volume to another, which looks at what was copied. Two threads
//! copy what they have written before; one copies what another thread goes on changing.

use crate::MIB;
use crate::random::Random;
use crate::tools::wait_for;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// Bytes of each volume.
pub const DISK_LEN: u64 = 24 * MIB;
const LANE_LEN: u64 = 8 * MIB;
const COPY_LEN_MAX: u64 = 5 * MIB;
/// Where the source changes while it is copied, and where it is copied to.
const HOT: u64 = 2 * LANE_LEN;
const HOT_TO: u64 = HOT + 4 * MIB - 2048;
const MARK_LEN: usize = 4096;
const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

/// Threads that copy, until they are told to stop.
pub struct Copying {
    stop: Arc<AtomicBool>,
    copies: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// Both volumes, and when to stop.
#[derive(Clone)]
struct Pair {
    from: Arc<File>,
    to: Arc<File>,
    stop: Arc<AtomicBool>,
    copies: Arc<AtomicU64>,
}

impl Copying {
    /// From one volume to the other, which are of [`DISK_LEN`] and empty.
    pub fn start(from: &Path, to: &Path, random: &mut Random) -> Self {
        let open = |path| Arc::new(File::options().read(true).write(true).open(path).unwrap());
        let (stop, copies) = (Arc::default(), Arc::default());
        let pair = Pair { from: open(from), to: open(to), stop, copies };
        let mut threads = Vec::new();
        for lane in 0..2 {
            let (pair, random) = (pair.clone(), Random::seeded(random.next()));
            threads.push(thread::spawn(move || pair.move_ranges(lane, random)));
        }
        let acked = Arc::new(AtomicU64::new(0));
        let (writer, counter) = (pair.clone(), Arc::clone(&acked));
        threads.push(thread::spawn(move || writer.count_up(&counter)));
        let copier = pair.clone();
        threads.push(thread::spawn(move || copier.copy_what_changes(&acked)));
        Self { stop: pair.stop, copies: pair.copies, threads }
    }

    /// Until some more were done.
    pub fn wait_for_progress(&self) {
        let before = self.copies.load(Ordering::Relaxed);
        wait_for("copies", || self.copies.load(Ordering::Relaxed) > before + 4);
    }

    /// Ends it; each thread has found what it had to.
    pub fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

impl Pair {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn copy(&self, at: u64, offset: u64, len: u64) {
        let mut done = 0;
        while done < len {
            let mut from = (at + done).cast_signed();
            let mut to = (offset + done).cast_signed();
            let left = (len - done) as usize;
            let copied =
                copy_file_range(&self.from, Some(&mut from), &self.to, Some(&mut to), left);
            done += copied.unwrap() as u64;
        }
        self.copies.fetch_add(1, Ordering::Relaxed);
    }

    fn move_ranges(&self, lane: u64, mut random: Random) {
        let base = lane * LANE_LEN;
        let mut source = vec![0; LANE_LEN as usize];
        let mut room = vec![0; COPY_LEN_MAX as usize];
        while self.goes_on() {
            let fresh_len = random.within(1..100_000) as usize;
            let fresh = random.bytes(fresh_len);
            let place = random.within(0..LANE_LEN - fresh.len() as u64);
            self.from.write_all_at(&fresh, base + place).unwrap();
            source[place as usize..][..fresh.len()].copy_from_slice(&fresh);
            // Some of it that has the new bytes in it, to anywhere.
            let len = random.within(fresh.len() as u64..COPY_LEN_MAX);
            let at = place.saturating_sub(random.within(0..len)).min(LANE_LEN - len);
            let offset = random.within(0..LANE_LEN - len);
            if random.within(0..3) == 0 {
                let (lane, whole) = (base.cast_signed(), LANE_LEN.cast_signed());
                fallocate(&self.to, PUNCH, lane, whole).unwrap();
            }
            self.copy(base + at, base + offset, len);
            let seen = &mut room[..len as usize];
            self.to.read_exact_at(seen, base + offset).unwrap();
            let same = seen == &source[at as usize..][..len as usize];
            assert!(same, "{len} bytes at {at} of lane {lane} are not those at {offset}");
        }
    }

    /// Fills a mark of the source with one number after another.
    fn count_up(&self, acked: &AtomicU64) {
        let mut number = 0u64;
        while self.goes_on() {
            number += 1;
            let mark = number.to_le_bytes().repeat(MARK_LEN / 8);
            self.from.write_all_at(&mark, HOT).unwrap();
            acked.store(number, Ordering::Release);
        }
    }

    /// What was copied is no older than the copy, and stays: nothing late undoes it.
    fn copy_what_changes(&self, acked: &AtomicU64) {
        let (mut last, mut room) = (0, [0; MARK_LEN]);
        let mut read = || {
            self.to.read_exact_at(&mut room, HOT_TO).unwrap();
            let mut numbers =
                room.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().unwrap()));
            let (first, halves) = (numbers.next().unwrap(), room.len() / 16);
            // It lies in two objects, and a write is one in each of them only.
            let of_half = numbers.by_ref().take(halves - 1).all(|number| number == first);
            assert!(of_half, "torn within an object");
            first
        };
        while self.goes_on() {
            assert_eq!(read(), last, "what was copied is another now");
            let oldest = acked.load(Ordering::Acquire);
            self.copy(HOT, HOT_TO, MARK_LEN as u64);
            last = read();
            assert!(last >= oldest, "{last} was copied, and {oldest} was there before");
        }
    }
}
