//! The vids before ours, which a discard may have found still working: what it cleared in
//! one of them after that had become a snapshot is put back.
//!
//! Such an entry is known by its looks. It is 0, and its count is not: counts are raised
//! for entries that are not 0 only, and whoever clears an entry for good takes its count
//! along (protocol 9). What this worker has cleared and finds listed is written once more,
//! since replicas may differ (protocol 8.5).

use super::array::Stage;
use super::look::{self, Found};
use super::{Block, Question};
use crate::volume::recent::Allocation;
use crate::volume::{Io, REFUSALS_MAX, RETRY_DELAY, Volume};
use sheepfs::ipc::{Failure, Tag};
use sheepfs::wire::{Request, VdiId};
use std::collections::{BTreeMap, BTreeSet};

/// Vids that are looked at. Each further one takes another snapshot during one discard.
const DEPTH_MAX: u32 = 8;

/// A vid that is looked at.
#[derive(Debug)]
pub struct Former {
    vid: VdiId,
    depth: u32,
    /// Its own parent.
    parent: u32,
    /// What is to be put back.
    lost: BTreeMap<u32, VdiId>,
    /// Blocks that have an entry in a vid between.
    taken: BTreeSet<u32>,
    /// Whose objects nobody needs any more, and the generation of the reference to each.
    left: BTreeMap<u32, (VdiId, u32)>,
}

impl Former {
    /// Asks how it looks.
    pub fn ask(&self, first: u32, count: u32) -> Vec<(Question, Option<Request>)> {
        let mut asks = look::ask(self.vid, first, count);
        asks.push((Question::FormerHeader, Some(Request::read_inode_header(self.vid))));
        asks
    }

    /// Whether a block's entry is to be put back, or its object to be let go.
    pub fn concerns(&self, block: u32) -> bool {
        self.lost.contains_key(&block) || self.left.contains_key(&block)
    }

    /// Whether a block's entry is to be put back.
    pub fn puts_back(&self, block: u32) -> bool {
        self.lost.contains_key(&block)
    }

    /// Whether a block's reference is given up, which is done once.
    pub fn counts(&self, block: u32) -> bool {
        self.left.get(&block).is_some_and(|(_, generation)| *generation > 0)
    }

    /// Puts entries back, and lets go of what nobody needs.
    pub fn settle(&self, due: &[(u32, u32)]) -> Vec<(Question, Option<Request>)> {
        let act = |(block, _): &(u32, u32)| {
            let back = self.lost.get(block);
            let back = back.map(|owner| Request::write_bare_entry(self.vid, *block, Some(*owner)));
            let release = |(owner, generation): &(VdiId, u32)| {
                Some(match generation {
                    0 => Request::remove(*owner, *block),
                    generation => Request::drop_reference(*owner, *block, *generation),
                })
            };
            let request = back.or_else(|| self.left.get(block).map(release))?;
            Some((Question::Former(*block), request))
        };
        due.iter().filter_map(act).collect()
    }

    /// What a discard has cleared before the snapshot was made, and had no time to let go.
    /// No vid after it has an entry either. `was` is what this worker has cleared here:
    /// another one's word is lost, and with it the space, since a VDI that is being deleted
    /// looks the same, and clones of it may need the object.
    fn find_left(&mut self, found: &Found, blocks: &BTreeMap<u32, u32>) {
        for (block, was) in blocks {
            let Some((generation, 0)) = found.gref(*block) else { continue };
            if found.entry(*block) != Some(0) {
                continue;
            }
            let (Some(owner), Ok(generation)) = (VdiId::new(*was), u32::try_from(generation))
            else {
                continue;
            };
            if (owner == self.vid) == (generation == 0) {
                self.left.insert(*block, (owner, generation));
            }
        }
    }

    /// What a discard has cleared here that the snapshot needs. An entry of generation 0
    /// was the vid's own; another one was inherited, as it still is by `heir`.
    fn find_lost(&mut self, found: &Found, heir: impl Fn(u32) -> Option<u32>, blocks: &[u32]) {
        for block in blocks.iter().copied() {
            let Some((generation, count)) = found.gref(block) else { continue };
            if found.entry(block) != Some(0) || count <= 0 {
                continue;
            }
            let owner =
                if generation == 0 { Some(self.vid) } else { heir(block).and_then(VdiId::new) };
            if let Some(owner) = owner {
                self.lost.insert(block, owner);
            }
        }
    }

    /// What a discard has cleared here and is listed all the same: the snapshot's own write of the
    /// inode came after the clear, at this replica. Others may have had them in the other order
    /// (protocol 8.5), so it is written once more, to all.
    fn find_split(&mut self, found: &Found, was: impl Fn(u32) -> Option<u32>, blocks: &[u32]) {
        for block in blocks.iter().copied() {
            let counted = found.gref(block).is_some_and(|(_, count)| count > 0);
            let listed = found.entry(block).filter(|entry| counted && was(block) == Some(*entry));
            if let Some(owner) = listed.and_then(VdiId::new) {
                self.lost.insert(block, owner);
            }
        }
    }
}

impl Volume {
    /// Looks at the vids before, if there are any.
    pub(super) fn look_at_former(&mut self, tag: Tag, parent: u32, io: &mut Io) {
        self.look_further(tag, parent, (0, BTreeSet::new()), io);
    }

    fn look_further(
        &mut self,
        tag: Tag,
        parent: u32,
        (depth, taken): (u32, BTreeSet<u32>),
        io: &mut Io,
    ) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let (lost, left) = (BTreeMap::new(), BTreeMap::new());
        let former = VdiId::new(parent).filter(|_| depth < DEPTH_MAX);
        let former = former.map(|vid| Former { vid, depth, parent: 0, lost, taken, left });
        let stage = if former.is_some() { Stage::Former } else { Stage::Clear };
        discard.former = former;
        discard.found = Found::default();
        self.enter_array(tag, stage, io);
    }

    /// The name has moved, so our vid is a former one: what was cleared in it too late is put
    /// back before anything else is looked for.
    pub(super) fn look_behind(&mut self, tag: Tag, io: &mut Io) {
        let vid = self.own;
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let (lost, left, taken) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        discard.former = Some(Former { vid, depth: 0, parent: 0, lost, taken, left });
        discard.found = Found::default();
        self.enter_array(tag, Stage::Former, io);
    }

    fn judge_own(&mut self, tag: Tag, io: &mut Io) {
        let vid = self.own;
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let header = discard.found.header.take();
        let is_snapshot = header.is_some_and(|header| {
            header.is_snapshot()
                && header.name == self.header.name
                && header.create_time == self.header.create_time
        });
        let Some(former) = discard.former.as_mut().filter(|_| is_snapshot) else {
            // It was deleted, or the name is ours again: the header says so.
            discard.former = None;
            discard.refusals += 1;
            if discard.refusals > REFUSALS_MAX {
                return self.end_discard(tag, Some(Failure::BadAnswer), io);
            }
            return self.regather(tag, Some(io.now + RETRY_DELAY));
        };
        let blocks: Vec<u32> = discard.blocks.keys().copied().collect();
        let was = |block| discard.blocks.get(&block).map(|block| block.was);
        former.find_lost(&discard.found, was, &blocks);
        former.find_split(&discard.found, was, &blocks);
        // They may be young, so that the snapshot counted them wrong: the reload looks.
        let own = former.lost.iter().filter(|(_, owner)| **owner == vid).map(|(block, _)| *block);
        for block in own {
            self.recent.push(Allocation::new(block, vid, io.now));
        }
        self.put_back(tag, io);
    }

    /// It has been looked at: what is to be put back?
    pub(super) fn judge_former(&mut self, tag: Tag, io: &mut Io) {
        let former = self.discards.get(&tag).and_then(|discard| discard.former.as_ref());
        if former.is_some_and(|former| former.vid == self.own) {
            return self.judge_own(tag, io);
        }
        let own = self.own.get();
        let index = &self.index;
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let header = discard.found.header.take();
        let ours = header.filter(|header| header.is_snapshot() && header.name == self.header.name);
        let (Some(header), Some(former)) = (ours, discard.former.as_mut()) else {
            return self.enter_array(tag, Stage::Clear, io);
        };
        former.parent = header.parent_vdi_id;
        let blocks: Vec<u32> = discard.blocks.keys().copied().collect();
        let heir = |block| index.get(block).filter(|entry| *entry != own);
        former.find_lost(&discard.found, heir, &blocks);
        let cleared = discard.cleared_in.take_if(|vid| *vid == former.vid).is_some();
        let was = |block: &Block| if cleared { block.was } else { 0 };
        let is_hole = |at: u32| index.get(at) == Some(0) && !former.taken.contains(&at);
        let holes = discard.blocks.iter().filter(|(at, _)| is_hole(**at));
        let holes = holes.map(|(at, block)| (*at, was(block))).collect();
        former.find_left(&discard.found, &holes);
        former.taken.extend(discard.found.listed().map(|(at, _)| at));
        self.put_back(tag, io);
    }

    fn put_back(&mut self, tag: Tag, io: &mut Io) {
        let former = self.discards.get(&tag).and_then(|discard| discard.former.as_ref());
        if let Some(former) = former.filter(|former| !former.lost.is_empty()) {
            tracing::info!(volume = %self.name, snapshot = %former.vid, blocks = former.lost.len(), "putting back what a discard may have taken from a snapshot that was made during it");
        }
        self.enter_array(tag, Stage::Restore, io);
    }

    /// Nothing more is to be put back there.
    pub(super) fn next_former(&mut self, tag: Tag, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let former = discard.former.take();
        if former.as_ref().is_some_and(|former| former.vid == self.own) {
            self.regather(tag, None);
            return self.drain();
        }
        let next = former.map(|former| (former.parent, (former.depth + 1, former.taken)));
        let (parent, seen) = next.unwrap_or_default();
        self.look_further(tag, parent, seen, io);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn former(vid: VdiId) -> Former {
        let (lost, left, taken) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Former { vid, depth: 0, parent: 0, lost, taken, left }
    }

    /// One replica lists what this worker has cleared, another one may not.
    #[test]
    fn an_entry_that_is_listed_after_its_clear_is_written_to_all_replicas() {
        let vid = VdiId::new(7).unwrap();
        let mut found = Found::default();
        found.first = 4;
        // The snapshot's, another's than was cleared, one without a count, and a hole.
        found.take_entries(&[7u32, 5, 7, 0].map(u32::to_le_bytes).concat());
        found.take_grefs(&[0i32, 1, 1, 1, 0, 0, 0, 0].map(i32::to_le_bytes).concat());
        let mut former = former(vid);
        former.find_split(&found, |_| Some(7), &[4, 5, 6, 7]);
        assert_eq!(former.lost, [(4, vid)].into());
    }

    /// A VDI that is being deleted has lost its entries and counts, too, and clones of it
    /// may still need its objects: only what this worker has cleared is known to be ours.
    #[test]
    fn an_object_goes_only_when_this_worker_cleared_its_entry() {
        let vid = VdiId::new(7).unwrap();
        let mut former = former(vid);
        let mut found = Found::default();
        found.first = 4;
        found.take_entries(&[0; 12]);
        found.take_grefs(&[0; 24]);
        former.find_left(&found, &[(4, 0), (5, 7), (6, 9)].into());
        assert_eq!(former.left, [(5, (vid, 0))].into());
    }
}
