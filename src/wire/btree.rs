//! The index of a hyper volume: a B-tree of one or two levels (protocol 5).
//!
//! Where an array volume has its index, the inode of a hyper volume holds a node: a leaf with
//! one entry for each block that has an object, or, when there are too many of them, a root
//! that names leaves, which are objects of their own. An entry whose vid is 0 is as good as
//! none.
//!
//! A node is at most 4 MiB, so nothing here needs more than two of them in memory. A lookup
//! needs none: it finds its few entries by reading pieces of 4 KiB ([`Search`]). A change
//! reads the node that it changes; what is to be written then, and in which order, is decided
//! here ([`Tree::set`]) and carried out by who holds the connection.
//!
//! # Crashes
//!
//! Every list of writes may be cut short after any of them, and lookups are still right:
//!
//! - the counter of leaf numbers is raised before a number is used, so what a death leaves of
//!   a leaf that no root names is waste, and never written over by somebody who took its
//!   number for free. A counter that is behind, as the C programs leave it when they die, is
//!   known by the numbers that the root names;
//! - a leaf that is split goes on to hold all its entries until the root names the new leaf
//!   for the lower half. Entries that belong to an earlier leaf by the root's keys are
//!   leftovers of that: lookups don't see them, and the next write drops them;
//! - an entry behind the last key of the root is in its leaf before the root's key is raised.
//!   Nobody was told of it, so whether it is found does not matter; it is no damage.
//!
//! Replicas of a node may differ where a write was cut short. A piece of a node is only right
//! behind what was known of the rest of it, so a node is written whole once by each worker
//! before it writes pieces of it ([`Whole`]).
//!
//! A write of a node that is cut short in the middle, by the power failure of all nodes that
//! hold it, can lose entries. That is so for the C programs too, and nothing in the format
//! helps.
//!
//! # Damage
//!
//! The C programs file the lower half of a leaf that they split under key 0 (protocol 5.3), so
//! that nobody finds it. Such a root is read all the same, with another look into the leaves
//! that are filed wrongly; but it is not written. A node that makes no sense is an error.

mod leaf;
mod plan;
mod root;
mod search;
#[cfg(test)]
mod tests;

pub use leaf::{Entry, Leaf};
pub use plan::{Step, Top, Tree, Whole, Write};
pub use root::{Part, Root, RootEntry};
pub use search::{PAGE_ENTRIES, Search};

use super::oid::ObjectId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a node.
pub const NODE_LEN: u32 = 4 << 20;
/// Bytes of a node's head.
pub const HEAD_LEN: u32 = 8;
/// Bytes of a leaf's entry.
pub const LEAF_ENTRY_LEN: u32 = 8;
/// Bytes of a root's entry.
pub const ROOT_ENTRY_LEN: u32 = 16;

const MAGIC: u16 = 0x6274;
const DEPTH_LEAF: u16 = 1;
const DEPTH_ROOT: u16 = 2;

/// How many entries nodes have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A leaf.
    pub leaf: u32,
    /// A root.
    pub root: u32,
}

impl Limits {
    /// What 4 MiB have room for. Other limits are for tests.
    pub const REAL: Self = Self {
        leaf: (NODE_LEN - HEAD_LEN) / LEAF_ENTRY_LEN,
        root: (NODE_LEN - HEAD_LEN) / ROOT_ENTRY_LEN,
    };
}

const _: () = assert!(Limits::REAL.leaf == 524_287 && Limits::REAL.root == 262_143);

/// What is wrong with a tree.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeError {
    /// It does not begin as a node does.
    #[error("a node of the index tree begins with {0:#06x}")]
    Magic(u16),
    /// There are two levels at most.
    #[error("the index tree has a node of depth {0}")]
    Depth(u16),
    /// A root where a leaf must be.
    #[error("a leaf of the index tree is a root")]
    RootBelow,
    /// More entries than there is room for.
    #[error("a node of the index tree claims {0} entries")]
    Count(u32),
    /// Bytes are missing.
    #[error("a node of the index tree is cut off after {0} bytes")]
    Short(usize),
    /// Entries that do not ascend.
    #[error("a leaf of the index tree is not in order")]
    Unsorted,
    /// A root names something that is no leaf, or another VDI's in a tree to be written.
    #[error("the root of the index tree names {0:?} as a leaf")]
    NotALeaf(ObjectId),
    /// A leaf is filed under a key that is too small (protocol 5.3).
    #[error("a leaf of the index tree with blocks up to {last} is filed under {key}")]
    Misfiled {
        /// Where it is filed.
        key: u32,
        /// Its last block.
        last: u32,
    },
    /// Leaves whose keys do not ascend, or a key of 0 (protocol 5.3).
    #[error("the root of the index tree files a leaf wrongly, under {0}")]
    Order(u32),
    /// The root has no room for another leaf.
    #[error("the index tree is full")]
    Full,
    /// There is no number for another leaf.
    #[error("the index tree has used up all numbers for leaves")]
    Numbers,
}

/// The first bytes of a node: what it is, and how many entries it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A leaf.
    Leaf(u32),
    /// A root.
    Root(u32),
}

impl Head {
    /// Reads the front of a node. A tree that was never initialised is an empty leaf
    /// (protocol 5.1).
    ///
    /// # Errors
    /// [`TreeError`] when that is no node.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let Some([m0, m1, d0, d1, count @ ..]) = bytes.first_chunk::<8>() else {
            return Err(TreeError::Short(bytes.len()));
        };
        let (magic, depth) = (u16::from_le_bytes([*m0, *m1]), u16::from_le_bytes([*d0, *d1]));
        let count = u32::from_le_bytes(*count);
        let (head, most) = match (magic, depth) {
            (0, 0) => return Ok(Self::Leaf(0)),
            (MAGIC, DEPTH_LEAF) => (Self::Leaf(count), Limits::REAL.leaf),
            (MAGIC, DEPTH_ROOT) => (Self::Root(count), Limits::REAL.root),
            (MAGIC, depth) => return Err(TreeError::Depth(depth)),
            (magic, _) => return Err(TreeError::Magic(magic)),
        };
        if count > most { Err(TreeError::Count(count)) } else { Ok(head) }
    }

    /// Bytes of the node in use, from its beginning; what lies behind is leftovers.
    #[must_use]
    pub fn used_len(self) -> u32 {
        match self {
            Self::Leaf(entries) => HEAD_LEN + LEAF_ENTRY_LEN * entries,
            Self::Root(entries) => HEAD_LEN + ROOT_ENTRY_LEN * entries,
        }
    }

    fn encode(self) -> Vec<u8> {
        let (depth, entries) = match self {
            Self::Leaf(entries) => (DEPTH_LEAF, entries),
            Self::Root(entries) => (DEPTH_ROOT, entries),
        };
        let mut out = Vec::with_capacity(self.used_len() as usize);
        out.extend(MAGIC.to_le_bytes());
        out.extend(depth.to_le_bytes());
        out.extend(entries.to_le_bytes());
        out
    }
}

/// The entries of a node as they are counted on the wire.
fn count(entries: usize) -> u32 {
    u32::try_from(entries).unwrap_or(u32::MAX)
}
