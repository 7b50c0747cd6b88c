//! The blocks allocated lately, each with the vid that owns its object.
//!
//! A server that makes a snapshot reads the whole inode and writes it back, and
//! an index update that falls between is lost (protocol 7.4). So the blocks
//! allocated since the inode was last seen to be a working VDI's are remembered.
//! A snapshot may have read the inode just before our update and not yet have
//! marked it when we look, so a look clears only what is older than any
//! snapshot takes. They are kept across a reload too: the next snapshot may come
//! while the last one is still being repaired.
//!
//! Hyper volumes have no snapshots that could be gone on from, so nothing is remembered
//! of them.

use super::index::Index;
use super::{Io, Phase, Volume, Wait};
use crate::verdict::Verdict;
use sheepfs::ipc::{Failure, FromWorker};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::{Request, VdiId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Longer than a server needs from reading an inode to writing it back.
const SNAPSHOT_TIME_MAX: Duration = Duration::from_secs(60);
/// How often the header is looked at while there is something to forget.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// An index entry that a snapshot may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The block.
    pub block: u32,
    /// What its entry must say.
    pub owner: VdiId,
    /// When the entry's update was answered.
    pub at: Instant,
    /// The generation of the present vid's reference (protocol 9), if it was inherited and
    /// that is known.
    pub generation: Option<i32>,
}

impl Allocation {
    /// Just answered, or heard of.
    pub fn new(block: u32, owner: VdiId, now: Instant) -> Self {
        Self { block, owner, at: now, generation: None }
    }
}

/// Allocations by block.
#[derive(Debug)]
pub struct Recent {
    blocks: BTreeMap<u32, Allocation>,
    /// Whether the volume was used since the header was looked at.
    used: bool,
    next_check: Instant,
    /// Until then entries may be young that an earlier worker wrote and could not
    /// tell of.
    unsure_until: Option<Instant>,
    /// Whether nothing is to be remembered.
    off: bool,
}

impl Recent {
    /// None yet.
    pub fn new(now: Instant) -> Self {
        Self {
            blocks: BTreeMap::new(),
            used: false,
            next_check: now + CHECK_INTERVAL,
            unsure_until: None,
            off: false,
        }
    }

    /// One that remembers nothing.
    pub fn off(now: Instant) -> Self {
        Self { off: true, ..Self::new(now) }
    }

    /// A block's index update was answered.
    pub fn push(&mut self, allocation: Allocation) {
        if !self.off {
            self.blocks.insert(allocation.block, allocation);
        }
    }

    /// The cluster says that a block's entry is another than was believed: what
    /// was remembered of it must not be repaired into a later index.
    pub fn learn(&mut self, block: u32, owner: Option<VdiId>, now: Instant) {
        match owner {
            Some(owner) => self.push(Allocation::new(block, owner, now)),
            None => drop(self.blocks.remove(&block)),
        }
    }

    /// An earlier worker had the volume.
    pub fn inherit(&mut self, allocations: Vec<Allocation>, now: Instant) {
        allocations.into_iter().for_each(|allocation| self.push(allocation));
        self.unsure_until = Some(now + SNAPSHOT_TIME_MAX);
    }

    /// A block is written whose entry is our own already. An earlier worker may have
    /// written that entry in its last moment, so that nobody was told of it, and a
    /// snapshot that is just being made may still lose it: it counts as new. `true`:
    /// it does.
    pub fn suspect(&mut self, block: u32, owner: VdiId, now: Instant) -> bool {
        let young = !self.off && self.unsure_until.is_some_and(|until| now < until);
        let known = self.blocks.get(&block).is_some_and(|known| known.owner == owner);
        let unknown = young && !known;
        if unknown {
            self.push(Allocation::new(block, owner, now));
        }
        unknown
    }

    /// The header, asked for at `asked`, was that of a working VDI.
    pub fn seen_unchanged(&mut self, asked: Instant) {
        self.blocks.retain(|_, allocation| allocation.at + SNAPSHOT_TIME_MAX > asked);
    }

    /// Those of a page of the index.
    pub fn in_page(&self, page: u32) -> Vec<Allocation> {
        self.among(Index::blocks_of(page)).collect()
    }

    /// Those among some blocks.
    pub fn among(&self, blocks: RangeInclusive<u32>) -> impl Iterator<Item = Allocation> + '_ {
        self.blocks.range(blocks).map(|(_, known)| *known)
    }

    /// Whether there are any of a page of the index.
    pub fn is_in_page(&self, page: u32) -> bool {
        self.blocks.range(Index::blocks_of(page)).next().is_some()
    }

    /// All of them, by ascending block.
    pub fn take(&mut self) -> Vec<Allocation> {
        std::mem::take(&mut self.blocks).into_values().collect()
    }

    /// The volume is used. Where vids are used again, another VDI may stand in its
    /// place by now, so its header is looked at now and then (hazard 10).
    pub fn note_use(&mut self) {
        self.used = true;
    }

    /// Whether there is anything to forget.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// When the header should be looked at.
    pub fn next_check(&self) -> Option<Instant> {
        (self.used || !self.blocks.is_empty()).then_some(self.next_check)
    }

    /// The header is looked at now.
    fn checked(&mut self, now: Instant) {
        self.used = false;
        self.next_check = now + CHECK_INTERVAL;
    }
}

impl Volume {
    /// Looks at the header when it is time.
    pub(super) fn check_header(&mut self, io: &mut Io) {
        let due = self.recent.next_check().is_some_and(|at| at <= io.now);
        if due && matches!(self.phase, Phase::Serving) {
            self.look_at_header(io);
        }
    }

    pub(super) fn look_at_header(&mut self, io: &mut Io) {
        self.recent.checked(io.now);
        self.slim_tree();
        let request = Request::read_inode_header(self.own);
        self.send(request, None, Wait::Header(io.now), io);
    }

    /// Whether a header of our vid is that of the VDI that was attached: not
    /// deleted, and not of another one that got its vid (hazard 10).
    pub(super) fn is_still_ours(&self, header: &InodeHeader) -> bool {
        header.name == self.header.name && header.create_time == self.header.create_time
    }

    pub(super) fn header_replied(
        &mut self,
        asked: Instant,
        verdict: Verdict,
        bytes: &[u8],
        io: &mut Io,
    ) {
        if verdict != Verdict::Done || !matches!(self.phase, Phase::Serving | Phase::Resting) {
            return;
        }
        match InodeHeader::decode(bytes) {
            Ok(header) if !self.is_still_ours(&header) => self.fail(Failure::Replaced, io),
            Ok(header) if header.is_snapshot() && !self.header.is_snapshot() => self.drain(),
            Ok(_) => {
                self.recent.seen_unchanged(asked);
                let age = io.now.duration_since(asked).as_millis();
                let age_ms = u32::try_from(age).unwrap_or(u32::MAX);
                io.out.push(FromWorker::HeaderSeen { volume: self.id, age_ms });
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Once for each block, and only while a snapshot from before the resume may run.
    #[test]
    fn an_entry_that_an_earlier_worker_may_have_written_counts_as_new() {
        let start = Instant::now();
        let [old, own] = [7, 8].map(|vid| VdiId::new(vid).unwrap());
        let mut fresh = Recent::new(start);
        assert!(!fresh.suspect(1, own, start), "nobody had it before");
        let mut recent = Recent::new(start);
        let told = |block, owner| Allocation::new(block, owner, start);
        recent.inherit(vec![told(1, own), told(2, old)], start);
        assert!(!recent.suspect(1, own, start), "it was told of");
        assert!(recent.suspect(2, own, start), "that was its entry under the vid before");
        assert!(recent.suspect(3, own, start));
        assert!(!recent.suspect(3, own, start), "it is known by now");
        assert!(!recent.suspect(4, own, start + SNAPSHOT_TIME_MAX));
        assert_eq!(recent.take(), [told(1, own), told(2, own), told(3, own)]);
    }

    #[test]
    fn only_what_no_snapshot_can_still_lose_is_forgotten() {
        let start = Instant::now();
        let mut recent = Recent::new(start);
        assert_eq!(recent.next_check(), None);
        let owner = VdiId::new(7).unwrap();
        let later = Allocation::new(2, owner, start + CHECK_INTERVAL);
        recent.push(Allocation::new(1, owner, start));
        recent.push(later);
        assert!(recent.next_check().is_some());
        recent.seen_unchanged(start + SNAPSHOT_TIME_MAX + Duration::from_secs(1));
        assert_eq!(recent.take(), [later]);
        assert_eq!(recent.take(), []);
    }
}
