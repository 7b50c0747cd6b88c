//! Finding the entries of a few blocks in a leaf that is not in memory.

use super::leaf::{Entry, decode_entries};
use super::{HEAD_LEN, LEAF_ENTRY_LEN, TreeError};

/// Entries that are read at once: 4 KiB.
pub const PAGE_ENTRIES: u32 = 512;

/// A binary search over the pages of a leaf, and then the pages from there on.
#[derive(Clone, Debug)]
pub struct Search {
    entries: u32,
    first: u32,
    last: u32,
    /// The page with the first entry that is wanted lies from here...
    low: u32,
    /// ...to here: this page, if there is one, begins with wanted entries or later ones.
    high: u32,
    /// Whether that page is found, and those behind it are read.
    collects: bool,
    found: Vec<Entry>,
    /// When so many are found, it is over.
    enough: usize,
    over: bool,
}

impl Search {
    /// For the blocks from `first` to `last`, in a leaf with so many entries.
    #[must_use]
    pub fn new(entries: u32, first: u32, last: u32) -> Self {
        let high = entries.div_ceil(PAGE_ENTRIES);
        let (collects, over) = (high <= 1, high == 0);
        let (found, enough) = (Vec::new(), usize::MAX);
        Self { entries, first, last, low: 0, high, collects, found, enough, over }
    }

    /// Ends with the page with which so many entries are found.
    #[must_use]
    pub fn with_enough(self, enough: usize) -> Self {
        Self { enough, ..self }
    }

    fn page(&self) -> u32 {
        if self.collects { self.low } else { self.low + (self.high - self.low) / 2 }
    }

    fn pages(&self) -> u32 {
        self.entries.div_ceil(PAGE_ENTRIES)
    }

    /// What is to be read of the leaf now: its place in the node, and how many bytes.
    /// `None`: the search is over.
    #[must_use]
    pub fn wants(&self) -> Option<(u32, u32)> {
        let first = self.page() * PAGE_ENTRIES;
        let count = PAGE_ENTRIES.min(self.entries.saturating_sub(first));
        let place = (HEAD_LEN + LEAF_ENTRY_LEN * first, LEAF_ENTRY_LEN * count);
        (!self.over).then_some(place)
    }

    /// Takes what was wanted.
    ///
    /// # Errors
    /// [`TreeError`] when bytes are missing, or entries don't ascend.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        let Some((_, len)) = self.wants() else { return Ok(()) };
        if bytes.len() != len as usize {
            return Err(TreeError::Short(bytes.len()));
        }
        let entries = decode_entries(bytes)?;
        let (Some(front), Some(back)) = (entries.first(), entries.last()) else {
            return Err(TreeError::Short(0));
        };
        if !self.collects {
            let page = self.page();
            if back.block < self.first {
                self.low = page + 1;
            } else if front.block >= self.first {
                self.high = page;
            } else {
                (self.low, self.high) = (page, page);
            }
            self.collects = self.low >= self.high;
            self.over = self.low >= self.pages();
            // A page between two others was just read.
            if !(self.collects && self.low == page) {
                return Ok(());
            }
        }
        self.collect(&entries)
    }

    fn collect(&mut self, entries: &[Entry]) -> Result<(), TreeError> {
        let wanted = |entry: &&Entry| (self.first..=self.last).contains(&entry.block);
        let wanted: Vec<Entry> = entries.iter().filter(wanted).copied().collect();
        if let (Some(before), Some(next)) = (self.found.last(), wanted.first())
            && before.block >= next.block
        {
            return Err(TreeError::Unsorted);
        }
        self.found.extend(wanted);
        self.low += 1;
        let passed = entries.last().is_none_or(|entry| entry.block >= self.last);
        self.over = passed || self.low >= self.pages() || self.found.len() >= self.enough;
        Ok(())
    }

    /// The last entry that was found, if those behind it were not looked for.
    #[must_use]
    pub fn cut(&self) -> Option<u32> {
        self.found.last().filter(|_| self.found.len() >= self.enough).map(|entry| entry.block)
    }

    /// What was found.
    #[must_use]
    pub fn found(self) -> Vec<Entry> {
        self.found
    }
}
