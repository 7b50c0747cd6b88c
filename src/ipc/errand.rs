//! What may become of VDIs besides their data: they are made, copied, taken back, resized
//! and deleted (protocol 7 and 12).
//!
//! An errand may be begun twice, since whoever runs it may die in the middle. So the worker
//! says what it is about to change, a [`Mark`], and waits until that is written down where
//! it outlives both processes; who goes on with the errand gets the mark back, and tells by
//! it what was done already.

use crate::wire::name::{Generation, VdiName, VdiRef, VdiTag, VolumeName};
use serde::{Deserialize, Serialize};

/// What a new VDI shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewShape {
    /// Bytes.
    pub size: u64,
    /// Replicas, or data and parity strips together; 0 is the cluster's default.
    pub copies: u8,
    /// Erasure code; 0 is none, or the cluster's default.
    pub copy_policy: u8,
    /// log2 of the size of its objects; 0 is the cluster's default.
    pub block_size_shift: u8,
    /// Whether its index is a tree (protocol 5).
    pub hyper: bool,
}

/// Something to be done with a VDI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// Make a VDI.
    Create {
        /// Its name.
        name: VdiName,
        /// What it shall be.
        shape: NewShape,
    },
    /// Delete a VDI, or a snapshot.
    Delete {
        /// What the user wrote.
        name: VolumeName,
    },
    /// Make a snapshot.
    Snapshot {
        /// Of which VDI.
        name: VdiName,
        /// What it shall be called.
        tag: VdiTag,
    },
    /// Make a VDI that begins as a snapshot's copy.
    Clone {
        /// What the snapshot may be, most likely first.
        from: Vec<VdiRef>,
        /// The name of the new VDI.
        new: VdiName,
    },
    /// Put a snapshot in the place of the VDI that it was made of.
    Rollback {
        /// What the snapshot may be, most likely first.
        to: Vec<VdiRef>,
    },
    /// Let a VDI grow.
    Resize {
        /// Which.
        name: VdiName,
        /// Bytes.
        size: u64,
    },
}

/// What an errand is about to change: enough to see later whether it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The vid that is changed or goes; 0: there is none.
    pub vid: u32,
    /// When that VDI was made, seconds << 32 | nanoseconds: a vid may be used again.
    pub create_time: u64,
    /// The vid of the snapshot that the errand goes on from; 0: there is none.
    pub base: u32,
}

impl Errand {
    /// The name of the VDI that is changed, that comes or that goes.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Create { name, .. } | Self::Snapshot { name, .. } | Self::Resize { name, .. } => {
                name.as_str()
            }
            Self::Delete { name } => name.as_str(),
            Self::Clone { new, .. } => new.as_str(),
            Self::Rollback { to } => to.first().map_or("", |snapshot| snapshot.name.as_str()),
        }
    }

    /// In words, to follow "cannot".
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Create { name, shape } => format!("create {name} of {} bytes", shape.size),
            Self::Delete { name } => format!("delete {name}"),
            Self::Snapshot { name, tag } => format!("make snapshot {} of {name}", tag.as_str()),
            Self::Clone { from, new } => format!("clone {} to {new}", written(from)),
            Self::Rollback { to } => format!("roll back to {}", written(to)),
            Self::Resize { name, size } => format!("resize {name} to {size} bytes"),
        }
    }
}

/// A snapshot as the user wrote it.
fn written(meanings: &[VdiRef]) -> String {
    match meanings.first() {
        Some(VdiRef { name, generation: Generation::SnapId(id) }) => format!("{name}:{id}"),
        Some(VdiRef { name, generation: Generation::Tag(tag) }) => {
            format!("{name}:{}", tag.as_str())
        }
        Some(VdiRef { name, generation: Generation::Working }) => name.to_string(),
        None => String::new(),
    }
}
