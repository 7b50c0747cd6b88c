//! Index entries that were written lately, for each volume.
//!
//! The server can lose an entry that was written while somebody took a snapshot
//! (protocol 7.4). The worker repairs that from what it remembers; what it
//! remembers is kept here as well, so that it does not die with the worker, and
//! told to the next one. An entry is safe, and forgotten, when the header of the
//! VDI was seen unchanged some time after it was written.

use sheepfs::ipc::message::ALLOCATIONS_MAX;
use sheepfs::ipc::{Allocation, VolumeId};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long before a header was seen unchanged an entry must have been written to
/// be safe: longer than any snapshot takes.
const SAFE_AFTER: Duration = Duration::from_secs(60);

/// All of them.
#[derive(Debug, Default)]
pub struct Allocations {
    by_volume: BTreeMap<VolumeId, BTreeMap<u32, Written>>,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    owner: u32,
    heard: Instant,
}

impl Allocations {
    /// One was written, or is to be forgotten.
    pub fn heard(&mut self, volume: VolumeId, allocation: Allocation, now: Instant) {
        let Allocation { block, owner } = allocation;
        let written = self.by_volume.entry(volume).or_default();
        match owner {
            0 => written.remove(&block),
            owner => written.insert(block, Written { owner, heard: now }),
        };
    }

    /// The header of a volume was seen unchanged then.
    pub fn header_seen(&mut self, volume: VolumeId, seen: Instant) {
        let Some(written) = self.by_volume.get_mut(&volume) else { return };
        let Some(safe) = seen.checked_sub(SAFE_AFTER) else { return };
        written.retain(|_, written| written.heard >= safe);
    }

    /// A volume is gone.
    pub fn forget(&mut self, volume: VolumeId) {
        self.by_volume.remove(&volume);
    }

    /// What the next worker must be told, cut into messages.
    pub fn told(&self, volume: VolumeId) -> Vec<Vec<Allocation>> {
        let written = self.by_volume.get(&volume).into_iter().flatten();
        let all: Vec<Allocation> = written
            .map(|(block, Written { owner, .. })| Allocation { block: *block, owner: *owner })
            .collect();
        all.chunks(ALLOCATIONS_MAX).map(<[Allocation]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: VolumeId = VolumeId(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn told(allocations: &Allocations) -> Vec<(u32, u32)> {
        let told = allocations.told(A).into_iter().flatten();
        told.map(|allocation| (allocation.block, allocation.owner)).collect()
    }

    #[test]
    fn the_last_word_on_a_block_counts_and_0_takes_it_back() {
        let now = Instant::now();
        let mut allocations = Allocations::default();
        for (block, owner) in [(7, 1), (3, 1), (7, 2), (4, 1), (4, 0), (9, 0)] {
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
        let mut allocations = Allocations::default();
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
        let mut allocations = Allocations::default();
        for block in 0..2500 {
            allocations.heard(A, Allocation { block, owner: 1 }, Instant::now());
        }
        let lengths: Vec<usize> = allocations.told(A).iter().map(Vec::len).collect();
        assert_eq!(lengths, [ALLOCATIONS_MAX, ALLOCATIONS_MAX, 2500 - 2 * ALLOCATIONS_MAX]);
    }
}
