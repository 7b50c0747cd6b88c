//! Roots: which leaf holds which blocks.

use super::{HEAD_LEN, Head, TreeError, count};
use crate::wire::oid::{ObjectId, ObjectKind};
use crate::wire::{u32_at, u64_at};

/// A leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootEntry {
    /// Its largest block number.
    pub last: u32,
    /// Its object.
    pub leaf: ObjectId,
}

/// The piece of a range of blocks that is in one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The leaf.
    pub leaf: ObjectId,
    /// The first block.
    pub first: u32,
    /// The last block.
    pub last: u32,
    /// Whether the leaf is filed wrongly: it is asked in case no other knows a block.
    pub misfiled: bool,
}

/// The leaves, by ascending blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root {
    pub(super) entries: Vec<RootEntry>,
}

impl Root {
    /// Reads a root; what lies behind its entries is ignored.
    ///
    /// # Errors
    /// [`TreeError`] when it is none, or names what can't be a leaf.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let head = Head::decode(bytes)?;
        if matches!(head, Head::Leaf(_)) {
            return Err(TreeError::Depth(1));
        }
        let used = bytes.get(HEAD_LEN as usize..head.used_len() as usize);
        let (raw, _) = used.ok_or(TreeError::Short(bytes.len()))?.as_chunks::<16>();
        let entry = |raw: &[u8; 16]| {
            let leaf = ObjectId::from_raw(u64_at(raw, 8));
            let is_node = leaf.kind() == ObjectKind::Btree;
            let entry = RootEntry { last: u32_at(raw, 0), leaf };
            is_node.then_some(entry).ok_or(TreeError::NotALeaf(leaf))
        };
        Ok(Self { entries: raw.iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// The used bytes. What C programs leave in the padding is rubbish, so it is zeros.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Head::Root(count(self.entries.len())).encode();
        for entry in &self.entries {
            out.extend(u64::from(entry.last).to_le_bytes());
            out.extend(entry.leaf.raw().to_le_bytes());
        }
        out
    }

    /// All leaves.
    #[must_use]
    pub fn entries(&self) -> &[RootEntry] {
        &self.entries
    }

    /// The leaf for a block: the first whose key is not below it.
    pub(super) fn slot_of(&self, block: u32) -> Option<usize> {
        let slot = self.entries.partition_point(|entry| entry.last < block);
        (slot < self.entries.len()).then_some(slot)
    }

    /// Which leaves are filed wrongly: under 0, as the C programs do, or out of order.
    fn misfiled(&self) -> impl Iterator<Item = bool> + '_ {
        let keys = std::iter::once(0).chain(self.entries.iter().map(|entry| entry.last));
        let highest = keys.scan(0, |highest: &mut u32, key| {
            *highest = key.max(*highest);
            Some(*highest)
        });
        self.entries.iter().zip(highest).map(|(entry, before)| entry.last <= before)
    }

    /// Looks for leaves that are filed wrongly.
    ///
    /// # Errors
    /// When there is one.
    pub(super) fn check(&self) -> Result<(), TreeError> {
        match self.entries.iter().zip(self.misfiled()).find(|(_, misfiled)| *misfiled) {
            None => Ok(()),
            Some((entry, _)) => Err(TreeError::Order(entry.last)),
        }
    }

    /// Where the blocks from `first` to `last` are.
    #[must_use]
    pub fn parts(&self, first: u32, last: u32) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut next = Some(0_u32);
        for (entry, misfiled) in self.entries.iter().zip(self.misfiled()) {
            let RootEntry { last: key, leaf } = *entry;
            if misfiled {
                parts.push(Part { leaf, first, last, misfiled });
            } else if let Some(from) = next {
                if from.max(first) <= key.min(last) {
                    let (first, last) = (from.max(first), key.min(last));
                    parts.push(Part { leaf, first, last, misfiled });
                }
                next = key.checked_add(1);
            }
        }
        parts
    }
}
