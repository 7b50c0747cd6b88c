//! Which blocks of a stretch of a volume have an object. Pure.

use super::load::Stretch;
use std::collections::BTreeMap;

/// Blocks of a word.
const WORD_BLOCKS: u32 = 64;

/// A bit for each block, in words of which only those are there that have any.
#[derive(Debug)]
pub struct Piece {
    first: u32,
    last: u32,
    words: BTreeMap<u32, u64>,
}

impl Piece {
    /// The blocks of a stretch.
    pub fn new(stretch: &Stretch) -> Self {
        let mut piece = Self { first: stretch.first, last: stretch.last, words: BTreeMap::new() };
        stretch.entries.keys().for_each(|block| piece.set(*block, true));
        piece
    }

    /// Whether a block is one of them.
    pub fn holds(&self, block: u32) -> bool {
        (self.first..=self.last).contains(&block)
    }

    /// The last one.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Notes that a block has an object from now on, or none.
    pub fn set(&mut self, block: u32, present: bool) {
        if !self.holds(block) {
            return;
        }
        let (word, bit) = (block / WORD_BLOCKS, 1 << (block % WORD_BLOCKS));
        if present {
            *self.words.entry(word).or_default() |= bit;
        } else if let Some(bits) = self.words.get_mut(&word) {
            *bits &= !bit;
            if *bits == 0 {
                self.words.remove(&word);
            }
        }
    }

    /// The first block, from `from` on, that has an object, or that has none.
    pub fn find(&self, from: u32, present: bool) -> Option<u32> {
        let from = from.max(self.first);
        let found = if present { self.find_present(from) } else { self.find_absent(from) };
        found.filter(|block| *block <= self.last)
    }

    fn find_present(&self, from: u32) -> Option<u32> {
        let first = from / WORD_BLOCKS;
        let behind = |(word, bits): (&u32, &u64)| {
            let bits =
                if *word == first { bits & (u64::MAX << (from % WORD_BLOCKS)) } else { *bits };
            (bits != 0).then(|| word * WORD_BLOCKS + bits.trailing_zeros())
        };
        self.words.range(first..).find_map(behind)
    }

    fn find_absent(&self, from: u32) -> Option<u32> {
        let mut from = from;
        loop {
            let word = from / WORD_BLOCKS;
            let bits = self.words.get(&word).copied().unwrap_or(0);
            let absent = !bits & (u64::MAX << (from % WORD_BLOCKS));
            if absent != 0 {
                return Some(word * WORD_BLOCKS + absent.trailing_zeros());
            }
            from = word.checked_add(1)?.checked_mul(WORD_BLOCKS)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the entries themselves, changed on the way.
        #[test]
        fn it_finds_what_a_plain_list_finds(
            first in prop_oneof![0u32..1000, Just(u32::MAX - 399)],
            mut entries in proptest::collection::vec(prop_oneof![6 => Just(0u32), 1 => Just(9)], 1..400),
            full in any::<bool>(),
            changes in proptest::collection::vec((0u32..1500, any::<bool>()), 0..20),
            from in 0u32..1500,
            present in any::<bool>(),
        ) {
            if full {
                entries.fill(9);
            }
            let last = first + (u32::try_from(entries.len()).unwrap() - 1);
            let there = (first..=last).zip(&entries).filter(|(_, entry)| **entry != 0);
            let entries_there = there.map(|(block, entry)| (block, *entry)).collect();
            let mut piece = Piece::new(&Stretch { first, last, entries: entries_there });
            for (block, present) in changes {
                let block = first.saturating_sub(500).saturating_add(block);
                piece.set(block, present);
                let at = block.checked_sub(first).and_then(|at| entries.get_mut(at as usize));
                if let Some(entry) = at {
                    *entry = u32::from(present);
                }
            }
            let from = first.saturating_sub(500).saturating_add(from);
            let blocks = (first..=last).zip(&entries);
            let wanted = blocks.filter(|(block, entry)| *block >= from && (**entry != 0) == present);
            prop_assert_eq!(piece.find(from, present), wanted.map(|(block, _)| block).next());
            prop_assert_eq!(piece.last(), last);
            prop_assert_eq!(piece.holds(from), (first..=last).contains(&from));
        }
    }
}
