//! What the tree of VDIs asks of the cluster: no more than what somebody looks at.

use serde::{Deserialize, Serialize};

/// VDIs that are wanted. The answer is a [`super::Report::Vdis`] of those that are there, which
/// counts their objects only in [`Search::WithUsage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Search {
    /// All of the cluster.
    All,
    /// The working VDI of that name, or else all snapshots of that name.
    Named(Vec<u8>),
    /// All that have the name of that vid.
    FamilyOf(u32),
    /// That vid.
    Vdi(u32),
    /// That vid, and the one that it was made from.
    WithParent(u32),
    /// That vid, with its objects counted.
    WithUsage(u32),
}
