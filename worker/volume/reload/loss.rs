//! What the server has lost of a block, and what the inodes are told for it.

use crate::volume::discard::Found;
use crate::volume::recent::Allocation;
use sheepfs::wire::VdiId;
use std::collections::VecDeque;

/// Whether the inode that became a snapshot's can be repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OldInode {
    /// Nobody has asked.
    #[default]
    Unknown,
    /// It is the snapshot's.
    There,
    /// The snapshot was deleted.
    Gone,
}

/// What is to be repaired of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub allocation: Allocation,
    /// Whether the new inode lacks the entry.
    pub lost: bool,
    pub reach: Reach,
    /// That of the old inode's reference to the object.
    generation: i32,
}

/// Where something is to be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Counts, in all inodes.
    Counts,
    /// Entries and counts, from the old inode to the new one.
    All,
    /// Entry and count in the new inode.
    New,
}

/// An inode that is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Ours before the snapshot. `lost`: the entry is missing in the next.
    Old { lost: bool },
    /// A snapshot that was made of that.
    Between,
    /// The one to go on with.
    New,
}

/// What an inode is told of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mend {
    pub vid: VdiId,
    role: Role,
    /// The generation of its reference.
    generation: i32,
    /// How many references are made of that, once it was looked how many there are.
    count: i32,
    /// The entry, if it is written.
    pub owner: Option<VdiId>,
    /// What the entry is.
    pub before: u32,
}

/// Recent blocks that are looked at, and what is done for them.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Those of a page that may have lost something.
    pub doubted: Vec<Allocation>,
    /// What the old inode has of them.
    pub found: Found,
    pub old_inode: OldInode,
    pub losses: VecDeque<Loss>,
    /// What is left to do for the first of these, the new vid last.
    pub mends: VecDeque<Mend>,
}

impl Repair {
    /// The first of the blocks in doubt, and how many there are to the last.
    pub fn range(&self) -> Option<(u32, u32)> {
        let (first, last) = (self.doubted.first()?.block, self.doubted.last()?.block);
        Some((first, last - first + 1))
    }

    /// Whether a block needs something done. `lost`: the new inode lacks its entry; `again`:
    /// an earlier worker has begun to repair it.
    pub fn judge(&self, doubted: Allocation, own: VdiId, lost: bool, again: bool) -> Option<Loss> {
        let (owner, block) = (doubted.owner, doubted.block);
        let (generation, count) = self.found.gref(block).unwrap_or_default();
        let in_old = self.found.entry(block) == Some(owner.get());
        let known = if owner == own { Some(0) } else { doubted.generation };
        // The count of another entry, which some replica still has, tells nothing. Only an
        // owner's own reference is of generation 0.
        let is_its = in_old && known.map_or(generation > 0, |known| known == generation);
        let reach = match (lost || again, self.old_inode) {
            (true, OldInode::Unknown | OldInode::There) if known.is_some() || in_old => Reach::All,
            (true, _) => Reach::New,
            (false, _) if in_old && !(is_its && count > 0) => Reach::Counts,
            (false, _) => return None,
        };
        let generation = known.unwrap_or(if in_old { generation.max(1) } else { 0 });
        Some(Loss { allocation: doubted, lost, reach, generation })
    }
}

impl Loss {
    /// What the vids of `line` are told, the oldest first.
    pub fn mends(&self, line: &[VdiId]) -> VecDeque<Mend> {
        let owner = (self.reach != Reach::Counts).then_some(self.allocation.owner);
        let last = line.len().saturating_sub(1);
        let mend = |(place, vid): (usize, &VdiId)| {
            let role = match last - place {
                0 => Role::Old { lost: self.lost },
                _ if place == 0 => Role::New,
                _ => Role::Between,
            };
            let steps = i32::try_from(last - place).unwrap_or(i32::MAX);
            let generation = self.generation.saturating_add(steps);
            Mend { vid: *vid, role, generation, count: 1, owner, before: 0 }
        };
        let mends = line.iter().enumerate().map(mend).rev();
        let is_told = |mend: &Mend| self.reach != Reach::New || mend.role == Role::New;
        mends.filter(is_told).collect()
    }
}

impl Mend {
    /// Takes what the inode has of the block. References that are made of it are counted on: of
    /// the new vid too, which may have become a snapshot meanwhile.
    pub fn look(&mut self, generation: i32, count: i32) {
        let owner = self.owner.map_or(self.before, VdiId::get);
        let is_its = self.before == owner && self.generation == generation;
        self.count = match self.role {
            // The new entry is not among those that are counted.
            Role::Old { lost: true } if is_its => count.saturating_add(1),
            Role::Old { lost: true } => 1,
            Role::Old { lost: false } | Role::Between if self.before == owner => count.max(1),
            Role::Old { lost: false } | Role::Between => 1,
            Role::New => count,
        };
    }

    /// Whether the entry is written before the count. Between the two, whoever deletes the
    /// inode gives up too little so: nothing is given up of what the entry named.
    pub fn begins_with_entry(&self) -> bool {
        let other = VdiId::new(self.before).is_some_and(|before| Some(before) != self.owner);
        other && self.owner.is_some()
    }

    /// Whether the count of a hole is written to a snapshot, which a clone that is being made
    /// may write back.
    pub fn is_contested(&self) -> bool {
        self.before == 0 && self.role != Role::New
    }

    /// Generation and count.
    pub fn gref(&self) -> (i32, i32) {
        (self.generation, self.count)
    }
}

/// What the newest of `line` has of an allocation of its last, `own`.
pub(super) fn inherited(allocation: Allocation, own: VdiId, line: &[VdiId]) -> Allocation {
    let before = if allocation.owner == own { Some(0) } else { allocation.generation };
    let steps = i32::try_from(line.len().saturating_sub(1)).ok();
    let generation = before.zip(steps).map(|(before, steps)| before.saturating_add(steps));
    Allocation { generation, ..allocation }
}

/// Whether an entry is younger than the one that is remembered. Who is not in the line
/// is older than all that are.
pub(super) fn is_newer(line: &[VdiId], entry: VdiId, remembered: VdiId) -> bool {
    let place = |vid| line.iter().position(|known| *known == vid);
    place(entry).is_some_and(|entry| place(remembered).is_none_or(|known| entry < known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const ENTRIES: [u32; 6] = [7, 0, 5, 7, 7, 5];
    const GREFS: [(i32, i32); 6] = [(0, 1), (0, 0), (2, 1), (0, 0), (3, 1), (1, 2)];

    /// What the snapshot 7 has of the blocks 10 to 15.
    fn repair() -> Repair {
        let mut repair = Repair::default();
        repair.found.first = 10;
        repair.found.take_entries(&ENTRIES.map(u32::to_le_bytes).concat());
        let word = |gref: (i32, i32)| [gref.0.to_le_bytes(), gref.1.to_le_bytes()].concat();
        repair.found.take_grefs(&GREFS.map(word).concat());
        repair.old_inode = OldInode::There;
        repair
    }

    fn vid(vid: u32) -> VdiId {
        VdiId::new(vid).unwrap()
    }

    /// What is told to whom of a block that `owner` has, when 9 follows on 8, and that on 7.
    fn told(repair: &Repair, block: u32, owner: u32, lost: bool) -> Vec<(u32, (i32, i32), bool)> {
        let doubted = Allocation::new(block, vid(owner), Instant::now());
        let loss = repair.judge(doubted, vid(7), lost, false);
        let mends = loss.map(|loss| loss.mends(&[vid(9), vid(8), vid(7)])).unwrap_or_default();
        let told = mends.into_iter().map(|mut mend| {
            let has = |vid: VdiId| match vid.get() {
                7 => (repair.found.entry(block).unwrap(), repair.found.gref(block).unwrap()),
                8 if !lost => (owner, (9, 3)),
                8 => (4, (9, 3)),
                _ => (4, (9, 0)),
            };
            let (before, (generation, count)) = has(mend.vid);
            mend.before = before;
            mend.look(generation, count);
            (mend.vid.get(), mend.gref(), mend.begins_with_entry())
        });
        told.collect()
    }

    #[test]
    fn what_both_inodes_list_needs_its_counts_and_no_more() {
        let repair = repair();
        let counts = [(7, (0, 1), false), (8, (1, 3), false), (9, (2, 0), false)];
        assert_eq!(told(&repair, 10, 7, false), []);
        assert_eq!(told(&repair, 13, 7, false), counts, "it has none");
        assert_eq!(told(&repair, 14, 7, false), counts, "it has another's");
        assert_eq!(told(&repair, 15, 5, false), []);
        assert_eq!(told(&repair, 11, 7, false), [], "who has deleted the snapshot has cleared it");
    }

    #[test]
    fn what_was_lost_is_told_to_all() {
        let repair = repair();
        let own = |first| vec![(7, (0, 1), first), (8, (1, 1), true), (9, (2, 0), true)];
        assert_eq!(told(&repair, 11, 7, true), own(false), "a hole");
        assert_eq!(told(&repair, 12, 7, true), own(true), "another's count tells nothing");
        assert_eq!(told(&repair, 14, 7, true), own(false), "nor does it on a split replica");
        assert_eq!(told(&repair, 13, 7, true), own(false), "our update came behind");
        let inherited = [(7, (1, 3), false), (8, (2, 1), true), (9, (3, 0), true)];
        assert_eq!(told(&repair, 15, 5, true), inherited);
    }

    /// Two of generation 0 would be one too many.
    #[test]
    fn an_inherited_reference_is_never_taken_for_the_owners_own() {
        let mut repair = repair();
        repair.found.take_entries(&[5u32; 6].map(u32::to_le_bytes).concat());
        repair.found.take_grefs(&[0; 48]);
        assert_eq!(told(&repair, 10, 5, true)[0], (7, (1, 1), false));
        assert_eq!(told(&repair, 10, 5, false)[0], (7, (1, 1), false));
    }

    #[test]
    fn a_deleted_snapshot_is_told_nothing() {
        let repair = Repair { old_inode: OldInode::Gone, ..Repair::default() };
        assert_eq!(told(&repair, 11, 7, true), [(9, (2, 0), true)]);
        assert_eq!(told(&repair, 11, 7, false), []);
    }

    #[test]
    fn a_newer_entry_is_one_of_the_line() {
        let line = [vid(9), vid(8), vid(7)];
        assert!(is_newer(&line, vid(8), vid(7)) && is_newer(&line, vid(7), vid(5)));
        assert!(!is_newer(&line, vid(7), vid(7)) && !is_newer(&line, vid(5), vid(7)));
    }
}
