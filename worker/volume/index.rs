//! The index of an attached VDI, read lazily, and the queue of its updates.
//!
//! An entry says who owns a block's object: nobody (0), this VDI, or one it was
//! made from (protocol 4.2). Pages of 1024 entries are read when first touched,
//! so a volume costs what is used of it, and dropped when there are too many
//! ([`crate::index_pages`]). Nobody else changes the index of an attached VDI (protocol
//! 4.3), so a page read once stays true.

use super::objects::PartId;
use crate::index_pages::Fate;
use sheepfs::wire::VdiId;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

/// Entries read at once: 4 KiB, which covers 4 GiB of a usual VDI.
pub const PAGE_ENTRIES: u32 = 1024;
/// Index updates of a volume that may be on the wire at once. Those that wait
/// meanwhile go out together when they are neighbours.
const UPDATES_MAX: usize = 4;

/// What is known of a page.
#[derive(Debug)]
enum Page {
    Loading,
    Loaded {
        entries: Box<[u32]>,
        /// Whether it was used since that was asked last.
        used: Cell<bool>,
    },
}

/// The entries known so far.
#[derive(Debug, Default)]
pub struct Index {
    pages: HashMap<u32, Page>,
}

impl Index {
    /// The page that holds a block's entry.
    pub fn page_of(block: u32) -> u32 {
        block / PAGE_ENTRIES
    }

    /// The blocks of a page. The last page of a hyper volume ends with the last number.
    pub fn blocks_of(page: u32) -> RangeInclusive<u32> {
        let first = page.saturating_mul(PAGE_ENTRIES);
        first..=first.saturating_add(PAGE_ENTRIES - 1)
    }

    /// The entry of a block, if it is known.
    pub fn get(&self, block: u32) -> Option<u32> {
        match self.pages.get(&Self::page_of(block))? {
            Page::Loading => None,
            Page::Loaded { entries, used } => {
                used.set(true);
                entries.get((block % PAGE_ENTRIES) as usize).copied()
            }
        }
    }

    /// The same, which is no use of the page.
    pub fn peek(&self, block: u32) -> Option<u32> {
        let entries = self.entries_of(Self::page_of(block))?;
        entries.get((block % PAGE_ENTRIES) as usize).copied()
    }

    /// Notes that a page is asked for. `false`: it was already.
    pub fn begin_load(&mut self, page: u32) -> bool {
        let asked = self.pages.contains_key(&page);
        if !asked {
            self.pages.insert(page, Page::Loading);
        }
        !asked
    }

    /// Forgets that a page was asked for.
    pub fn cancel_load(&mut self, page: u32) {
        self.pages.remove(&page);
    }

    /// Takes a page as it was read. Entries behind the index's end are 0.
    pub fn load(&mut self, page: u32, bytes: &[u8]) {
        let (found, _) = bytes.as_chunks::<4>();
        let mut entries: Vec<u32> = found.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        entries.resize(PAGE_ENTRIES as usize, 0);
        let entries = entries.into_boxed_slice();
        self.pages.insert(page, Page::Loaded { entries, used: Cell::new(true) });
    }

    /// The pages that are known.
    pub fn loaded(&self) -> impl Iterator<Item = u32> + '_ {
        let is_loaded =
            |(page, state): (&u32, &Page)| matches!(state, Page::Loaded { .. }).then_some(*page);
        self.pages.iter().filter_map(is_loaded)
    }

    /// The pages that are asked for.
    pub fn loading(&self) -> impl Iterator<Item = u32> + '_ {
        let is_loading =
            |(page, state): (&u32, &Page)| matches!(state, Page::Loading).then_some(*page);
        self.pages.iter().filter_map(is_loading)
    }

    /// The entries of a page, if they are known.
    pub fn entries_of(&self, page: u32) -> Option<&[u32]> {
        match self.pages.get(&page)? {
            Page::Loading => None,
            Page::Loaded { entries, .. } => Some(entries),
        }
    }

    /// Drops a page, unless it was used since that was asked last.
    pub fn drop_unused(&mut self, page: u32) -> Fate {
        match self.pages.get(&page) {
            Some(Page::Loaded { used, .. }) if used.take() => Fate::Stays,
            Some(Page::Loaded { .. }) => {
                self.pages.remove(&page);
                Fate::Gone
            }
            Some(Page::Loading) | None => Fate::Gone,
        }
    }

    /// Sets the entry of a known block.
    pub fn set(&mut self, block: u32, owner: u32) {
        if let Some(Page::Loaded { entries, .. }) = self.pages.get_mut(&Self::page_of(block))
            && let Some(entry) = entries.get_mut((block % PAGE_ENTRIES) as usize)
        {
            *entry = owner;
        }
    }
}

/// The owner an entry names; `None` for a hole and for what is no vid.
pub fn owner(entry: u32) -> Option<VdiId> {
    VdiId::new(entry)
}

/// A run of neighbouring entries that is written by one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The first block.
    pub first: u32,
    /// The parts that wait for it, one for each block.
    pub parts: Vec<PartId>,
}

impl Update {
    /// Blocks.
    pub fn count(&self) -> u32 {
        u32::try_from(self.parts.len()).unwrap_or(u32::MAX)
    }

    /// Each block with the part that waits for it.
    pub fn blocks(&self) -> impl Iterator<Item = (u32, PartId)> + '_ {
        (self.first..).zip(self.parts.iter().copied())
    }
}

/// Updates that wait, and how many are on the wire.
#[derive(Debug, Default)]
pub struct Updates {
    waiting: BTreeMap<u32, PartId>,
    on_wire: usize,
}

impl Updates {
    /// A block's object exists: its entry must be written.
    pub fn push(&mut self, block: u32, part: PartId) {
        self.waiting.insert(block, part);
    }

    /// The next update to send: neighbours that wait go together.
    pub fn next(&mut self) -> Option<Update> {
        if self.on_wire >= UPDATES_MAX {
            return None;
        }
        let (first, part) = self.waiting.pop_first()?;
        let mut update = Update { first, parts: vec![part] };
        while update.count() < PAGE_ENTRIES
            && let Some(next) = first.checked_add(update.count())
            && let Some(part) = self.waiting.remove(&next)
        {
            update.parts.push(part);
        }
        self.on_wire += 1;
        Some(update)
    }

    /// All that wait, by ascending block, to be written as one, with `others` if there are
    /// some. `None` while something is on the wire, or when there is nothing to be written.
    pub fn take_all(&mut self, others: bool) -> Option<Vec<(u32, PartId)>> {
        if self.on_wire > 0 || (self.waiting.is_empty() && !others) {
            return None;
        }
        self.on_wire += 1;
        Some(std::mem::take(&mut self.waiting).into_iter().collect())
    }

    /// An update is over.
    pub fn finish(&mut self) {
        self.on_wire -= 1;
    }

    /// Whether none waits and none is on the wire.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.on_wire == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_wait_go_out_together() {
        let mut updates = Updates::default();
        for block in [9, 3, 4, 5, 7] {
            updates.push(block, PartId(u64::from(block)));
        }
        let runs: Vec<_> =
            std::iter::from_fn(|| updates.next()).map(|u| (u.first, u.count())).collect();
        assert_eq!(runs, [(3, 3), (7, 1), (9, 1)]);
        assert!(!updates.is_idle());
        (0..3).for_each(|_| updates.finish());
        assert!(updates.is_idle());
    }

    #[test]
    fn updates_wait_when_enough_are_on_the_wire() {
        let mut updates = Updates::default();
        for block in 0..10 {
            updates.push(block * 2, PartId(0));
        }
        assert_eq!(std::iter::from_fn(|| updates.next()).count(), UPDATES_MAX);
        updates.push(15, PartId(1));
        updates.finish();
        assert_eq!(updates.next().map(|u| u.first), Some(8));
    }

    #[test]
    fn a_page_that_is_used_has_another_chance() {
        let mut index = Index::default();
        assert_eq!(index.drop_unused(1), Fate::Gone);
        index.begin_load(1);
        assert_eq!(index.drop_unused(1), Fate::Gone, "it counts once it is there");
        assert!(!index.begin_load(1), "and is still asked for");
        index.load(1, &[7; 4096]);
        assert_eq!(index.loaded().collect::<Vec<_>>(), [1]);
        assert_eq!(index.drop_unused(1), Fate::Stays);
        assert!(index.get(1024).is_some());
        assert_eq!(index.drop_unused(1), Fate::Stays);
        assert_eq!(index.drop_unused(1), Fate::Gone);
        assert_eq!(index.get(1024), None);
    }

    #[test]
    fn an_entry_is_known_once_its_page_is() {
        let mut index = Index::default();
        assert_eq!(index.get(2000), None);
        assert!(index.begin_load(1));
        assert!(!index.begin_load(1));
        assert_eq!(index.get(2000), None);
        let mut bytes = vec![0; 4096];
        bytes[4 * (2000 - 1024)] = 7;
        index.load(1, &bytes);
        assert_eq!((index.get(2000), index.get(2001), index.get(0)), (Some(7), Some(0), None));
        index.set(2001, 9);
        assert_eq!(index.get(2001), Some(9));
    }
}
