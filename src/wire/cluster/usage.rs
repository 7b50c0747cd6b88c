//! How many objects of a VDI are its own and how many it inherits, counted from its index
//! (protocol 4.2, 5.1, 16.1).
//!
//! An array index may come in pieces, as far as [`covered_entries`]: counts add up.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{LayoutError, front};
use crate::wire::inode::{INDEX_ENTRIES, InodeHeader};
use crate::wire::oid::{ObjectId, VdiId};

/// Bytes of the head of a B-tree node.
pub const TREE_HEAD_LEN: usize = 8;
/// Bytes of a whole B-tree node.
pub const TREE_NODE_LEN: usize = 1 << 22;

/// The first two bytes of a B-tree node.
const TREE_MAGIC: u16 = 0x6274;

/// How many entries of an array index stand for blocks within the VDI's size; only those count.
#[must_use]
pub fn covered_entries(header: &InodeHeader) -> u32 {
    let block = 1_u64.checked_shl(header.block_size_shift.into()).unwrap_or(u64::MAX);
    let blocks = header.vdi_size.div_ceil(block);
    u32::try_from(blocks).unwrap_or(u32::MAX).min(INDEX_ENTRIES)
}

/// Numbers of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlockUsage {
    /// Objects of this VDI.
    pub own: u64,
    /// Objects of the VDIs it descends from.
    pub shared: u64,
}

impl BlockUsage {
    /// Counts a piece of the array index of the VDI `own`; an incomplete entry at the end is
    /// not counted.
    #[must_use]
    pub fn of_index(bytes: &[u8], own: VdiId) -> Self {
        let (entries, _) = bytes.as_chunks::<4>();
        let mut usage = Self::default();
        for entry in entries {
            usage.add(u32::from_le_bytes(*entry), own);
        }
        usage
    }

    fn add(&mut self, owner: u32, own: VdiId) {
        match owner {
            0 => {}
            vid if vid == own.get() => self.own += 1,
            _ => self.shared += 1,
        }
    }
}

impl AddAssign for BlockUsage {
    fn add_assign(&mut self, more: Self) {
        self.own += more.own;
        self.shared += more.shared;
    }
}

/// The head of a B-tree node, which tells how many bytes of the node to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeHead {
    root: bool,
    entries: usize,
}

/// What one B-tree node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeUsage {
    /// A leaf: its objects, counted.
    Leaf(BlockUsage),
    /// A root: the objects its leaves are in, to be read and counted in turn.
    Root(Vec<ObjectId>),
}

impl TreeHead {
    /// Reads the head of a node from the beginning of `bytes`. A tree that was never initialised
    /// is an empty leaf (protocol 5.1).
    ///
    /// # Errors
    /// [`LayoutError`] for too few bytes, a wrong magic number or depth, or more entries than a
    /// node has room for.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let (raw, _) = front::<RawHead>("a B-tree node", bytes)?;
        let root = match (raw.magic.get(), raw.depth.get()) {
            (0, _) => return Ok(Self { root: false, entries: 0 }),
            (TREE_MAGIC, 1) => false,
            (TREE_MAGIC, 2) => true,
            (TREE_MAGIC, depth) => return Err(value("the depth of a B-tree", depth)),
            (magic, _) => return Err(value("the magic number of a B-tree", magic)),
        };
        Self { root, entries: 0 }.with_entries(raw.entries.get())
    }

    /// How many bytes of the node are in use, head included; what lies behind them is rubbish.
    #[must_use]
    pub fn used_len(self) -> usize {
        TREE_HEAD_LEN + self.entries * self.entry_len()
    }

    fn entry_len(self) -> usize {
        if self.root { size_of::<RawRootEntry>() } else { size_of::<RawLeafEntry>() }
    }

    fn with_entries(self, found: u32) -> Result<Self, LayoutError> {
        let most = (TREE_NODE_LEN - TREE_HEAD_LEN) / self.entry_len();
        let entries = usize::try_from(found).ok().filter(|n| *n <= most);
        let entries = entries.ok_or(LayoutError::Count {
            what: "a B-tree node",
            most,
            found: found.into(),
        })?;
        Ok(Self { entries, ..self })
    }
}

impl TreeUsage {
    /// Counts a B-tree node of the hyper volume `own`, given with its head and at least its
    /// [`TreeHead::used_len`].
    ///
    /// # Errors
    /// [`LayoutError`] as [`TreeHead::decode`], or when entries are missing.
    pub fn of_node(bytes: &[u8], own: VdiId) -> Result<Self, LayoutError> {
        let head = TreeHead::decode(bytes)?;
        let entries = bytes.get(TREE_HEAD_LEN..head.used_len());
        let entries = entries.ok_or(LayoutError::Length {
            what: "a B-tree node",
            expected: head.used_len(),
            found: bytes.len(),
        })?;
        Ok(if head.root { Self::Root(leaf_oids(entries)) } else { Self::Leaf(leaf(entries, own)) })
    }
}

fn leaf(entries: &[u8], own: VdiId) -> BlockUsage {
    let mut usage = BlockUsage::default();
    for entry in <[RawLeafEntry]>::ref_from_bytes(entries).unwrap_or_default() {
        usage.add(entry.vid.get(), own);
    }
    usage
}

fn leaf_oids(entries: &[u8]) -> Vec<ObjectId> {
    let entries = <[RawRootEntry]>::ref_from_bytes(entries).unwrap_or_default();
    entries.iter().map(|entry| ObjectId::from_raw(entry.oid.get())).collect()
}

fn value(what: &'static str, found: u16) -> LayoutError {
    LayoutError::Value { what, found: found.into() }
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    magic: U16,
    depth: U16,
    entries: U32,
}

const _: () = assert!(size_of::<RawHead>() == TREE_HEAD_LEN);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLeafEntry {
    block: U32,
    vid: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRootEntry {
    last_block: U32,
    pad: [u8; 4],
    oid: U64,
}

const _: () = assert!(size_of::<RawLeafEntry>() == 8 && size_of::<RawRootEntry>() == 16);
