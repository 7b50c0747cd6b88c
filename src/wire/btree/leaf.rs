//! Leaves: which vid owns the object of which block.

use super::{HEAD_LEN, Head, LEAF_ENTRY_LEN, TreeError, count};
use crate::wire::u32_at;

/// Who owns the object of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block.
    pub block: u32,
    /// A raw vid; 0: there is no object.
    pub owner: u32,
}

/// What a change did to a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// Nothing.
    Nothing,
    /// Entries from that place to that one have other owners.
    Owners(usize, usize),
    /// From that place on everything is other than before, and up to there nothing.
    From(usize),
}

/// The entries of a leaf, by ascending block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    entries: Vec<Entry>,
}

impl Leaf {
    /// Reads a leaf; what lies behind its entries is ignored.
    ///
    /// # Errors
    /// [`TreeError`] when it is none, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let head = Head::decode(bytes)?;
        if matches!(head, Head::Root(_)) {
            return Err(TreeError::RootBelow);
        }
        let used = bytes.get(HEAD_LEN as usize..head.used_len() as usize);
        let entries = decode_entries(used.ok_or(TreeError::Short(bytes.len()))?)?;
        Ok(Self { entries })
    }

    /// A leaf of entries that ascend.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The used bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Head::Leaf(count(self.entries.len())).encode();
        out.extend(self.encode_entries(0, self.entries.len()));
        out
    }

    pub(super) fn encode_entries(&self, from: usize, to: usize) -> Vec<u8> {
        let entries = self.entries.get(from..to).unwrap_or_default().iter();
        entries
            .flat_map(|entry| [entry.block.to_le_bytes(), entry.owner.to_le_bytes()])
            .flatten()
            .collect()
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Those from the block `first` to the block `last`.
    #[must_use]
    pub fn range(&self, first: u32, last: u32) -> &[Entry] {
        let from = self.entries.partition_point(|entry| entry.block < first);
        let to = self.entries.partition_point(|entry| entry.block <= last);
        self.entries.get(from..to).unwrap_or_default()
    }

    /// The last block.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.entries.last().map(|entry| entry.block)
    }

    fn place(&self, block: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&block, |entry| entry.block)
    }

    /// Drops the entries up to that block. `true`: there were some.
    pub(super) fn drop_through(&mut self, block: u32) -> bool {
        let from = self.entries.partition_point(|entry| entry.block <= block);
        self.entries.drain(..from);
        from > 0
    }

    /// Takes the lower half out.
    pub(super) fn split_lower(&mut self) -> Self {
        let upper = self.entries.split_off(self.entries.len() / 2);
        Self { entries: std::mem::replace(&mut self.entries, upper) }
    }

    /// How many of `batch`, from its front, there is room for.
    pub(super) fn fitting(&self, batch: &[Entry], most: u32) -> usize {
        let mut room = (most as usize).saturating_sub(self.entries.len());
        let fits = |entry: &Entry| {
            let new = entry.owner != 0 && self.place(entry.block).is_err();
            let fits = !new || room > 0;
            room = room.saturating_sub(usize::from(new));
            fits
        };
        batch.iter().copied().take_while(fits).count()
    }

    /// Sets entries, which ascend. What is not there need not be cleared.
    pub(super) fn merge(&mut self, batch: &[Entry]) -> Changed {
        let before = self.entries.len();
        let mut owners: Option<(usize, usize)> = None;
        let mut new = Vec::new();
        for entry in batch {
            match self.place(entry.block) {
                Ok(at) if self.entries[at].owner == entry.owner => {}
                Ok(at) => {
                    self.entries[at].owner = entry.owner;
                    owners = Some((owners.map_or(at, |(first, _)| first), at));
                }
                Err(at) if entry.owner != 0 => new.push((at, *entry)),
                Err(_) => {}
            }
        }
        let first_new = new.first().map(|(at, _)| *at);
        self.insert(before, &new);
        match (owners, first_new) {
            (None, None) => Changed::Nothing,
            (Some((first, last)), None) => Changed::Owners(first, last),
            (owners, Some(at)) => Changed::From(owners.map_or(at, |(first, _)| first.min(at))),
        }
    }

    /// Puts new entries in, each with the place it has among those from before. From the
    /// back, so that each entry moves once.
    fn insert(&mut self, before: usize, new: &[(usize, Entry)]) {
        let filler = Entry { block: 0, owner: 0 };
        self.entries.resize(before + new.len(), filler);
        let mut end = before;
        for (number, (at, entry)) in new.iter().enumerate().rev() {
            self.entries.copy_within(*at..end, at + number + 1);
            self.entries[at + number] = *entry;
            end = *at;
        }
    }
}

/// Where an entry stands in its node.
pub(super) fn offset_of(at: usize) -> u32 {
    HEAD_LEN + LEAF_ENTRY_LEN * count(at)
}

/// Reads entries, which must ascend.
pub(super) fn decode_entries(bytes: &[u8]) -> Result<Vec<Entry>, TreeError> {
    let (raw, _) = bytes.as_chunks::<8>();
    let entry = |raw: &[u8; 8]| Entry { block: u32_at(raw, 0), owner: u32_at(raw, 4) };
    let entries: Vec<Entry> = raw.iter().map(entry).collect();
    let sorted = entries.is_sorted_by(|a, b| a.block < b.block);
    if sorted { Ok(entries) } else { Err(TreeError::Unsorted) }
}
