//! Entries that an orphan has set after this worker had read the page of the index that they
//! are in.
//!
//! Nobody repeats the write, else that would set the entry itself: it was answered with an
//! error, and may have been done all the same. Until the page is read again its block would be
//! a hole, and the count would say less than the index.
//!
//! Where the write is repeated, a page that comes late would have its entry counted twice: as it
//! was read, and as it is set. So pages that are on their way when the count can begin are asked
//! for again.

use super::load::{Load, Stretch};
use crate::volume::{Io, Volume};
use std::collections::BTreeSet;

/// What was asked for before the count could begin, and is on its way still.
#[derive(Debug, Default)]
pub struct Outdated {
    load: Option<u32>,
    pages: BTreeSet<u32>,
}

impl Outdated {
    /// Whether that load of a stretch was.
    pub fn is_load(&self, number: u32) -> bool {
        self.load == Some(number)
    }
}

impl Volume {
    /// The count can begin: what seeks were answered from is older, too.
    pub(super) fn note_outdated(&mut self) {
        self.extents.piece = None;
        let under_way = matches!(self.extents.load, Load::UnderWay { .. });
        let load = under_way.then_some(self.extents.number);
        self.extents.outdated = Outdated { load, pages: self.index.loading().collect() };
    }

    /// Whether a page that has come is to be asked for again.
    pub(in crate::volume) fn is_outdated(&mut self, page: u32) -> bool {
        self.extents.outdated.pages.remove(&page)
    }

    /// Believes entries of our own vid that were read, where something else was known.
    ///
    /// `ours` says of a block that this worker may have been at its entry when the stretch was
    /// read: then either may be older. Of another block, on which nothing is under way now,
    /// what was read is the newer. Where it is not believed, what is under way sets the entry
    /// itself, and counts it then; unless a snapshot is made before, whose heir has it already.
    pub(super) fn take_late(&mut self, stretch: &Stretch, ours: impl Fn(u32) -> bool, io: &mut Io) {
        // Of a tree nothing is known while an orphan may change it.
        if self.is_hyper() {
            return;
        }
        let own = self.own;
        let differs = |(block, owner): (&u32, &u32)| {
            let known = self.index.peek(*block).filter(|known| *known != own.get());
            (*owner == own.get() && known.is_some()).then_some(*block)
        };
        let differing = stretch.entries.iter().filter_map(differs);
        let believed = |block: &u32| !ours(*block) && !self.objects.contains_key(block);
        let (late, disputed): (Vec<u32>, Vec<u32>) = differing.partition(believed);
        self.extents.disputed |= !disputed.is_empty();
        for block in late {
            self.set_entry(block, own.get());
            io.ahead.void_object(self.id, block);
            self.recent.learn(block, Some(own), io.now);
            self.tell_allocation(block, own.get(), io);
        }
    }
}
