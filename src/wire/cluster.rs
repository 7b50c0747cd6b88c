//! What a cluster says about itself: its nodes, its epochs, its locks, the vids in use.
//!
//! Each structure of protocol 1.10, 12.4, 12.7 and 15.1–15.5 has a decoder for the worker and an
//! encoder for minisheep. A private `Raw…` struct is the layout, pinned by a `const` assertion on
//! its size; the public type is what the bytes mean. Decoders take bytes from outside, so they
//! check every length and count before use and answer a [`LayoutError`], never a panic; rubbish
//! which the original leaves in padding is dropped and encoded as zeros.
//!
//! Public types derive serde because they also travel from the worker to the supervisor.

mod bitmap;
mod epoch;
mod health;
mod info;
mod node;
mod usage;
mod vdi;

use thiserror::Error;
use zerocopy::FromBytes;

pub use bitmap::{VDI_BITMAP_LEN, VdiBitmap};
pub use epoch::{EPOCH_RECORD_LEN, EpochRecord};
pub use health::{STAT_LEN, STAT_RECOVERY_LEN, active_requests, in_recovery};
pub use info::{CLUSTER_INFO_LEN, ClusterFlags, ClusterInfo, ClusterStatus, STORE_NAME_LEN};
pub use node::{NODE_ID_LEN, NODE_LEN, NODE_LIST_LEN, NODES_MAX, Node, NodeId};
pub use node::{decode_nodes, encode_nodes, have_disks};
pub use usage::{BlockUsage, TREE_HEAD_LEN, TREE_NODE_LEN, TreeHead, TreeUsage, covered_entries};
pub use vdi::{Lock, PARTICIPANTS_MAX, ShareState, VDI_STATE_LEN, VdiState};

/// The peer sent a structure that cannot be what it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// The bytes are too few or too many for the structure.
    #[error("{what} takes {expected} bytes, the sheep sent {found}")]
    Length {
        /// Which structure.
        what: &'static str,
        /// The length the protocol prescribes.
        expected: usize,
        /// The length that came.
        found: usize,
    },
    /// A counter inside the structure names more records than it can hold.
    #[error("{what} holds at most {most}, the sheep says {found}")]
    Count {
        /// Which records.
        what: &'static str,
        /// The largest number that fits.
        most: usize,
        /// The number that came.
        found: i64,
    },
    /// A field has a value the protocol does not know.
    #[error("{what} cannot be {found}")]
    Value {
        /// Which field.
        what: &'static str,
        /// The value that came.
        found: u32,
    },
}

/// Reads a structure that must fill `bytes` exactly.
fn exactly<T: FromBytes>(what: &'static str, bytes: &[u8]) -> Result<T, LayoutError> {
    T::read_from_bytes(bytes).map_err(|_| LayoutError::Length {
        what,
        expected: size_of::<T>(),
        found: bytes.len(),
    })
}

/// Splits off the structure at the front of `bytes`.
fn front<'a, T: FromBytes>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), LayoutError> {
    T::read_from_prefix(bytes).map_err(|_| LayoutError::Length {
        what,
        expected: size_of::<T>(),
        found: bytes.len(),
    })
}

#[cfg(test)]
mod tests;
