//! What is read of an inode while blocks are discarded.

use super::Question;
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::{Request, VdiId};

/// What was read, of neighbouring blocks.
#[derive(Debug, Default)]
pub struct Found {
    /// The header.
    pub header: Option<InodeHeader>,
    /// Whose the name is; 0: nobody's.
    pub vid: u32,
    /// The first block.
    pub first: u32,
    entries: Vec<u32>,
    /// Generation and count.
    grefs: Vec<(i32, i32)>,
}

impl Found {
    /// Takes entries of the index.
    pub fn take_entries(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<4>();
        self.entries = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    }

    /// Takes reference counts.
    pub fn take_grefs(&mut self, bytes: &[u8]) {
        let (pairs, _) = bytes.as_chunks::<8>();
        self.grefs = pairs.iter().map(|pair| gref(pair)).collect();
    }

    /// A block's entry.
    pub fn entry(&self, block: u32) -> Option<u32> {
        self.entries.get(self.place(block)?).copied()
    }

    /// A block's generation and count.
    pub fn gref(&self, block: u32) -> Option<(i32, i32)> {
        self.grefs.get(self.place(block)?).copied()
    }

    /// Whether nobody else can need what a block's entry named, which is 0 now.
    pub fn is_unneeded(&self, block: u32) -> bool {
        self.entry(block) == Some(0) && self.gref(block).is_some_and(|(_, count)| count == 0)
    }

    /// Blocks that have an entry, with it.
    pub fn listed(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let blocks = (self.first..).zip(self.entries.iter().copied());
        blocks.filter(|(_, entry)| *entry != 0)
    }

    fn place(&self, block: u32) -> Option<usize> {
        usize::try_from(block.checked_sub(self.first)?).ok()
    }
}

/// A block's generation and count, as an inode has them.
pub fn gref(bytes: &[u8]) -> (i32, i32) {
    let (words, _) = bytes.as_chunks::<4>();
    let word = |at: usize| words.get(at).map_or(0, |word| i32::from_le_bytes(*word));
    (word(0), word(1))
}

/// Asks for the entries and the reference counts of blocks.
pub fn ask(vid: VdiId, first: u32, count: u32) -> Vec<(Question, Option<Request>)> {
    vec![
        (Question::Entries, Some(Request::read_index(vid, first, count))),
        (Question::Grefs, Some(Request::read_grefs(vid, first, count))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_neither_entry_nor_count_is_unneeded() {
        let mut found = Found { first: 10, ..Found::default() };
        assert!(!found.is_unneeded(10), "nothing is known of it");
        found.take_entries(&[0u32, 7, 0, 0].map(u32::to_le_bytes).concat());
        found.take_grefs(&[0i32, 0, 0, 0, 2, 1, 3, 0].map(i32::to_le_bytes).concat());
        let unneeded: Vec<u32> = (8..16).filter(|block| found.is_unneeded(*block)).collect();
        assert_eq!(unneeded, [10, 13]);
        assert_eq!(found.listed().collect::<Vec<_>>(), [(11, 7)]);
        assert_eq!(found.gref(13), Some((3, 0)));
    }
}
