//! Index entries that were written lately, for each volume.
//!
//! The server can lose an entry that was written while somebody took a snapshot
//! (protocol 7.4). The worker repairs that from what it remembers; what it
//! remembers is kept here as well, so that it does not die with the worker, and
//! told to the next one; and in the state, so that it does not die with us. An
//! entry is noted before the answer of the write that caused it is passed on. It is
//! safe, and forgotten, when the header of the VDI was seen unchanged some time
//! after it was written.

use crate::state::{Clock, Slab};
use crate::volumes::Volumes;
use sheepfs::ipc::message::ALLOCATIONS_MAX;
use sheepfs::ipc::{Allocation, VolumeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long before a header was seen unchanged an entry must have been written to
/// be safe: longer than any snapshot takes.
const SAFE_AFTER: Duration = Duration::from_secs(60);
/// How a record says whose the entry is and when it was heard of: 24 and 40 bits,
/// which last for vids and for thirty years.
const TIME_BITS: u32 = 40;

/// All of them.
#[derive(Debug)]
pub struct Allocations {
    volumes: Arc<Volumes>,
    written: Mutex<AllWritten>,
}

#[derive(Debug)]
struct AllWritten {
    by_volume: BTreeMap<VolumeId, BTreeMap<u32, Written>>,
    records: Slab<2>,
    /// Whether it was said that there is no room for more records.
    is_full: bool,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    owner: u32,
    heard: Instant,
    /// Where its record is, if there was room for one.
    place: Option<usize>,
}

impl Allocations {
    /// Those that are recorded.
    pub fn new(volumes: Arc<Volumes>, mut records: Slab<2>) -> Self {
        let clock = Clock::read();
        let mut by_volume: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (place, [key, value]) in records.records().all() {
            let (volume, block) = named(key);
            let owner = u32::try_from(value >> TIME_BITS).unwrap_or_default();
            let heard = clock.instant(value & ((1 << TIME_BITS) - 1));
            let written = Written { owner, heard, place: Some(place) };
            let blocks = by_volume.entry(volume).or_default();
            // A predecessor may have been ended between a new record and the removal of
            // the one before.
            let older = match blocks.insert(block, written) {
                Some(before) if before.heard > written.heard => blocks.insert(block, before),
                before => before,
            };
            if let Some(place) = older.and_then(|older: Written| older.place) {
                records.remove(place);
            }
        }
        let written = Mutex::new(AllWritten { by_volume, records, is_full: false });
        Self { volumes, written }
    }

    /// The volumes that they may be of.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// One was written, or is to be forgotten, as a worker says: what can't be is
    /// ignored.
    pub fn heard(&self, id: VolumeId, allocation: Allocation, now: Instant) {
        let Allocation { block, owner } = allocation;
        let Some(volume) = self.volumes.by_id(id) else { return };
        if u64::from(block) >= volume.size().div_ceil(1 << volume.shift()) {
            return;
        }
        match owner {
            0 => self.lock().remove(id, block),
            owner => self.lock().insert(id, block, owner, now),
        }
    }

    /// The header of a volume was seen unchanged then.
    pub fn header_seen(&self, volume: VolumeId, seen: Instant) {
        let Some(safe) = seen.checked_sub(SAFE_AFTER) else { return };
        self.lock().retain(volume, |written| written.heard >= safe);
    }

    /// A volume is gone.
    pub fn forget(&self, volume: VolumeId) {
        self.lock().retain(volume, |_| false);
    }

    /// What the next worker must be told, cut into messages.
    pub fn told(&self, volume: VolumeId) -> Vec<Vec<Allocation>> {
        let written = self.lock();
        let written = written.by_volume.get(&volume).into_iter().flatten();
        let all: Vec<Allocation> = written
            .map(|(block, Written { owner, .. })| Allocation { block: *block, owner: *owner })
            .collect();
        all.chunks(ALLOCATIONS_MAX).map(<[Allocation]>::to_vec).collect()
    }

    fn lock(&self) -> MutexGuard<'_, AllWritten> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AllWritten {
    fn insert(&mut self, volume: VolumeId, block: u32, owner: u32, now: Instant) {
        // The new record first: until the old one is gone, there are two, and the
        // reader takes either.
        let key = u64::from(volume.0) << 32 | u64::from(block);
        let time = Clock::read().number(now) & ((1 << TIME_BITS) - 1);
        let place = self.records.add([key, u64::from(owner) << TIME_BITS | time]);
        if place.is_none() && !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(
                "too many index entries were written lately to record them all; a snapshot that is \
                 taken while this process dies may lose some"
            );
        }
        let written = Written { owner, heard: now, place };
        let before = self.by_volume.entry(volume).or_default().insert(block, written);
        self.drop_record(before);
    }

    fn remove(&mut self, volume: VolumeId, block: u32) {
        let written = self.by_volume.get_mut(&volume).and_then(|blocks| blocks.remove(&block));
        self.drop_record(written);
    }

    fn retain(&mut self, volume: VolumeId, keep: impl Fn(&Written) -> bool) {
        let Some(blocks) = self.by_volume.get_mut(&volume) else { return };
        let mut gone = Vec::new();
        blocks.retain(|_, written| {
            let kept = keep(written);
            gone.extend(Some(*written).filter(|_| !kept));
            kept
        });
        if blocks.is_empty() {
            self.by_volume.remove(&volume);
        }
        gone.into_iter().for_each(|written| self.drop_record(Some(written)));
    }

    fn drop_record(&mut self, written: Option<Written>) {
        if let Some(place) = written.and_then(|written| written.place) {
            self.records.remove(place);
        }
    }
}

fn named(key: u64) -> (VolumeId, u32) {
    let half = |half: u64| u32::try_from(half).unwrap_or_default();
    (VolumeId(half(key >> 32)), half(key & u64::from(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::state::State;

    const A: VolumeId = VolumeId(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn volumes() -> Arc<Volumes> {
        let volumes = Arc::new(Volumes::default());
        volumes.add(fake::volume(1, "disk", 2500 << 22, false));
        volumes
    }

    fn new() -> Allocations {
        Allocations::new(volumes(), State::create().unwrap().allocations())
    }

    fn told(allocations: &Allocations) -> Vec<(u32, u32)> {
        let told = allocations.told(A).into_iter().flatten();
        told.map(|allocation| (allocation.block, allocation.owner)).collect()
    }

    #[test]
    fn the_last_word_on_a_block_counts_and_0_takes_it_back() {
        let now = Instant::now();
        let allocations = new();
        for (block, owner) in [(7, 1), (3, 1), (7, 2), (4, 1), (4, 0), (9, 0), (2500, 1)] {
            allocations.heard(A, Allocation { block, owner }, now);
        }
        assert_eq!(told(&allocations), [(3, 1), (7, 2)]);
        assert!(allocations.told(VolumeId(2)).is_empty());
        allocations.forget(A);
        assert!(told(&allocations).is_empty());
    }

    #[test]
    fn what_was_written_a_minute_before_the_header_was_seen_is_safe() {
        let start = Instant::now();
        let allocations = new();
        for block in 0..3 {
            allocations.heard(A, Allocation { block, owner: 1 }, start + SECOND * block);
        }
        allocations.header_seen(A, start + SECOND * 61);
        assert_eq!(told(&allocations), [(1, 1), (2, 1)]);
        allocations.header_seen(A, start + SECOND * 2);
        assert_eq!(told(&allocations).len(), 2);
        allocations.header_seen(A, start + SECOND * 3600);
        assert!(told(&allocations).is_empty());
    }

    #[test]
    fn many_are_told_in_messages_of_a_length_that_fits() {
        let allocations = new();
        for block in 0..2500 {
            allocations.heard(A, Allocation { block, owner: 1 }, Instant::now());
        }
        let lengths: Vec<usize> = allocations.told(A).iter().map(Vec::len).collect();
        assert_eq!(lengths, [ALLOCATIONS_MAX, ALLOCATIONS_MAX, 2500 - 2 * ALLOCATIONS_MAX]);
    }

    #[test]
    fn a_successor_knows_what_was_written_and_what_is_safe() {
        let state = State::create().unwrap();
        let now = Instant::now();
        let first = Allocations::new(volumes(), state.allocations());
        for (block, owner) in [(1, 0xff_ffff), (2, 1), (2, 2), (3, 1), (3, 0)] {
            first.heard(A, Allocation { block, owner }, now);
        }
        let second = Allocations::new(volumes(), state.allocations());
        assert_eq!(told(&second), [(1, 0xff_ffff), (2, 2)]);
        second.header_seen(A, now + SECOND * 59);
        assert_eq!(told(&second).len(), 2);
        second.header_seen(A, now + SECOND * 61);
        assert!(told(&second).is_empty());
        let third = Allocations::new(volumes(), state.allocations());
        assert!(told(&third).is_empty());
    }

    #[test]
    fn of_two_records_of_one_block_the_newer_counts() {
        let state = State::create().unwrap();
        let key = u64::from(A.0) << 32 | 7;
        let record = |owner: u64, time: u64| [key, owner << TIME_BITS | time];
        let mut records = state.allocations();
        for (owner, time) in [(2, 10), (1, 5)] {
            records.add(record(owner, time)).unwrap();
        }
        let first = Allocations::new(volumes(), state.allocations());
        assert_eq!(told(&first), [(7, 2)]);
        first.forget(A);
        assert!(told(&Allocations::new(volumes(), state.allocations())).is_empty());
    }
}
