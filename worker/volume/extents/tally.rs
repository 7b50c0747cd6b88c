//! How many objects a volume has: counted once, a piece of the index after the other, and
//! kept up with each entry that changes. Pure.
//!
//! An entry that changes in front of where the count has got to is added or taken away at
//! once; one behind it will be read as it is then. So at the end the number is that of the
//! index, however much was written meanwhile.

use super::load::Stretch;
use sheepfs::wire::VdiId;
use sheepfs::wire::cluster::BlockUsage;

/// The count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// Everything in front of block `next` is counted.
    Counting {
        /// The next block.
        next: u32,
        /// So far.
        usage: BlockUsage,
        /// Whether it is this volume's turn to count.
        turn: bool,
    },
    /// All is counted.
    Counted(BlockUsage),
    /// The index can't be read.
    GivenUp,
}

impl Default for Tally {
    fn default() -> Self {
        Self::Counting { next: 0, usage: BlockUsage::default(), turn: false }
    }
}

impl Tally {
    /// The volume may count now.
    pub fn take_turn(&mut self) {
        if let Self::Counting { turn, .. } = self {
            *turn = true;
        }
    }

    /// Whether it counts just now.
    pub fn has_turn(&self) -> bool {
        matches!(self, Self::Counting { turn: true, .. })
    }

    /// The block from which on the index is wanted.
    pub fn wants(&self) -> Option<u32> {
        match self {
            Self::Counting { next, turn: true, .. } => Some(*next),
            Self::Counting { .. } | Self::Counted(_) | Self::GivenUp => None,
        }
    }

    /// The number, once it is known.
    pub fn known(&self) -> Option<BlockUsage> {
        match self {
            Self::Counted(usage) => Some(*usage),
            Self::Counting { .. } | Self::GivenUp => None,
        }
    }

    /// Takes a stretch of the index, if it may count and has the next block. What is in front of that
    /// is counted already, as when the volume has grown within the last stretch.
    pub fn take(&mut self, stretch: &Stretch, own: VdiId) {
        let Self::Counting { next, usage, turn: true } = self else { return };
        if !(stretch.first..=stretch.last).contains(next) {
            return;
        }
        stretch.entries.range(*next..).for_each(|(_, entry)| add(usage, *entry, own));
        match stretch.last.checked_add(1) {
            Some(behind) => *next = behind,
            None => self.finish(),
        }
    }

    /// There are no more blocks.
    pub fn finish(&mut self) {
        if let Self::Counting { usage, .. } = self {
            *self = Self::Counted(*usage);
        }
    }

    /// It is not known any more, and is counted again; at once, if it was the volume's turn.
    pub fn begin_again(&mut self) {
        match self {
            Self::Counting { next, usage, .. } => (*next, *usage) = (0, BlockUsage::default()),
            Self::Counted(_) => {
                *self = Self::Counting { next: 0, usage: BlockUsage::default(), turn: true };
            }
            Self::GivenUp => {}
        }
    }

    /// An entry is written that was there already: perhaps not yet when it was counted.
    pub fn doubt(&mut self, block: u32) {
        match self {
            Self::Counting { next, usage, .. } if block < *next => {
                (*next, *usage) = (0, BlockUsage::default());
            }
            Self::Counted(_) => self.begin_again(),
            Self::Counting { .. } | Self::GivenUp => {}
        }
    }

    /// An entry is another now.
    pub fn change(&mut self, block: u32, (before, after): (u32, u32), own: VdiId) {
        let usage = match self {
            Self::Counting { next, usage, .. } if block < *next => usage,
            Self::Counted(usage) => usage,
            Self::Counting { .. } | Self::GivenUp => return,
        };
        take_away(usage, before, own);
        add(usage, after, own);
    }

    /// The volume goes on under a new vid: everything that it has is inherited, and a
    /// count that was under way begins again.
    pub fn inherit(&mut self) {
        match self {
            Self::Counted(usage) => {
                *usage = BlockUsage { own: 0, shared: usage.own + usage.shared }
            }
            Self::Counting { next, usage, .. } => (*next, *usage) = (0, BlockUsage::default()),
            Self::GivenUp => {}
        }
    }
}

fn add(usage: &mut BlockUsage, entry: u32, own: VdiId) {
    match entry {
        0 => {}
        entry if entry == own.get() => usage.own += 1,
        _ => usage.shared += 1,
    }
}

fn take_away(usage: &mut BlockUsage, entry: u32, own: VdiId) {
    match entry {
        0 => {}
        entry if entry == own.get() => usage.own = usage.own.saturating_sub(1),
        _ => usage.shared = usage.shared.saturating_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: u32 = 9;

    fn usage(own: u64, shared: u64) -> BlockUsage {
        BlockUsage { own, shared }
    }

    fn stretch(first: u32, entries: &[u32]) -> Stretch {
        let there = (first..).zip(entries.iter().copied()).filter(|(_, entry)| *entry != 0);
        let last = first + u32::try_from(entries.len()).unwrap() - 1;
        Stretch { first, last, entries: there.collect() }
    }

    /// The last number that a block can have is its last.
    #[test]
    fn a_hyper_volume_has_as_many_blocks_as_there_are_numbers() {
        let own = VdiId::new(OWN).unwrap();
        let mut tally = Tally::default();
        tally.take_turn();
        let entries = [(u32::MAX, OWN)].into();
        tally.take(&Stretch { first: 0, last: u32::MAX, entries }, own);
        assert_eq!(tally.known(), Some(usage(1, 0)));
    }

    proptest! {
        /// Whatever is written while it counts, the result is that of the index.
        #[test]
        fn changes_on_the_way_count_once(
            mut index in proptest::collection::vec(prop_oneof![Just(0u32), Just(5), Just(OWN)], 1..60),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0u32), Just(OWN)]), 0..60),
            len in 1usize..20,
        ) {
            let own = VdiId::new(OWN).unwrap();
            let (mut tally, mut changes) = (Tally::default(), changes.into_iter());
            prop_assert_eq!(tally.wants(), None);
            tally.take_turn();
            while let Some(first) = tally.wants() {
                let at = first as usize;
                let end = (at + len).min(index.len());
                if at == end {
                    tally.finish();
                    break;
                }
                tally.take(&stretch(first, &index[at..end]), own);
                for (which, after) in changes.by_ref().take(3) {
                    let block = which.index(index.len());
                    let before = std::mem::replace(&mut index[block], after);
                    tally.change(u32::try_from(block).unwrap(), (before, after), own);
                }
            }
            let count = |owned| index.iter().filter(|e| **e != 0 && (**e == OWN) == owned).count() as u64;
            prop_assert_eq!(tally.known(), Some(usage(count(true), count(false))));
        }
    }

    #[test]
    fn under_a_new_vid_everything_is_inherited() {
        let mut tally = Tally::Counted(usage(3, 4));
        tally.inherit();
        assert_eq!(tally.known(), Some(usage(0, 7)));
        let mut half = Tally::Counting { next: 5, usage: usage(1, 1), turn: true };
        half.inherit();
        assert_eq!(half.wants(), Some(0));
    }

    #[test]
    fn a_volume_that_grows_within_its_last_stretch_is_counted_on_from_there() {
        let own = VdiId::new(OWN).unwrap();
        let mut tally = Tally::default();
        tally.take_turn();
        tally.take(&stretch(0, &[OWN; 3]), own);
        tally.change(1, (OWN, 0), own);
        tally.take(&stretch(0, &[OWN, 0, OWN, OWN, 5]), own);
        assert_eq!(tally.wants(), Some(5));
        tally.finish();
        assert_eq!(tally.known(), Some(usage(3, 1)));
    }

    #[test]
    fn only_the_next_piece_counts() {
        let own = VdiId::new(OWN).unwrap();
        let mut tally = Tally::default();
        tally.take_turn();
        tally.take(&stretch(4, &[OWN; 4]), own);
        assert_eq!(tally.wants(), Some(0));
        tally.take(&stretch(0, &[OWN; 4]), own);
        tally.take(&stretch(4, &[5; 4]), own);
        assert_eq!((tally.known(), tally.wants()), (None, Some(8)));
        tally.finish();
        assert_eq!((tally.known(), tally.has_turn()), (Some(usage(4, 4)), false));
    }
}
