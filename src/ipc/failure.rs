//! Why something was not done, as the worker tells it and the user learns it.
//!
//! Every cause has an errno of its own where the kernel has one, decided in one
//! place, and words for the log and the tree.

use crate::wire::Status;
use crate::wire::btree::TreeError;
use crate::wire::inode::InodeError;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use thiserror::Error;

/// Why a request failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// No VDI of that name.
    #[error("the cluster has no such VDI")]
    NoSuchVdi,
    /// The name exists, the snapshot does not.
    #[error("the VDI has no such snapshot")]
    NoSuchSnapshot,
    /// Somebody holds the lock, and the cluster does not say who.
    #[error(
        "the VDI is locked by another client; `dog vdi lock list` shows by which node; \
         --steal-lock takes the lock of a client that is dead for certain"
    )]
    Locked,
    /// The cluster was never formatted.
    #[error("the cluster is not formatted; `dog cluster format` does that")]
    Unformatted,
    /// Nodes are missing after a restart.
    #[error("the cluster waits for nodes of its last epoch to join")]
    WaitingForNodes,
    /// Too few zones in a strict cluster.
    #[error("the cluster has halted, since there are not enough living nodes")]
    Halted,
    /// The sheep can't be reached.
    #[error("no sheep can be reached")]
    Unreachable,
    /// No answer in time.
    #[error("the sheep did not answer in time")]
    TimedOut,
    /// The cluster is full.
    #[error("the cluster has no space for new objects")]
    NoSpace,
    /// A write to a snapshot.
    #[error("a snapshot cannot be written")]
    ReadOnly,
    /// The VDI's inode can't be used.
    #[error("{0}")]
    Unusable(InodeError),
    /// The VDI under a volume was deleted or replaced.
    #[error("the VDI was deleted or replaced under the mount")]
    Replaced,
    /// The lock was lost to another client while the VDI moved to a new vid.
    #[error("another client took the VDI's lock after a snapshot")]
    LockLost,
    /// An object that the index lists has no replica left.
    #[error("an object that the index lists is gone from the cluster")]
    ObjectLost,
    /// The cluster refused for another reason.
    #[error("the cluster refused with result code {0:#x}")]
    Refused(u32),
    /// The sheep's answer makes no sense.
    #[error("the sheep's answer breaks the protocol")]
    BadAnswer,
    /// A message named a volume that is not attached.
    #[error("the volume is not attached")]
    NotAttached,
    /// A message named a place outside the volume or the arena.
    #[error("the request lies outside the volume or the arena")]
    OutOfBounds,
    /// Another VDI or snapshot has that name already.
    #[error("there is one of that name already")]
    Exists,
    /// The VDI is a volume here.
    #[error("the VDI is attached here; write its name to vdi/unmount first")]
    Attached,
    /// A VDI never shrinks.
    #[error("the VDI is larger than that already, and a VDI cannot shrink")]
    Shrinks,
    /// The last object of a discard is no longer the volume's last.
    #[error("the volume has grown meanwhile")]
    Grown,
    /// More blocks than an index holds.
    #[error(
        "a VDI of objects of 2^{shift} bytes has at most 2^{} bytes; \
         a larger one is made with a larger block_size_shift, or with hyper",
        u32::from(*shift) + 20
    )]
    TooLarge {
        /// log2 of its blocks.
        shift: u8,
    },
    /// More than any VDI can have.
    #[error("a hyper volume has at most 2^54 bytes")]
    TooLargeForAny,
    /// Hyper volumes have no snapshots.
    #[error("a hyper volume can have no snapshots")]
    NoSnapshots,
    /// The server could not store the VDI's inode.
    #[error(
        "the cluster could not write the VDI's inode; it may be full, or have too few living nodes"
    )]
    NotStored,
    /// The index tree of a hyper volume is not as it must be.
    #[error(
        "{0}; what it lists can still be read and overwritten where it makes sense, but nothing \
         is added to it: copy the volume's data to a new VDI"
    )]
    TreeDamaged(TreeError),
    /// A hyper volume became a snapshot, which takes its objects from it (protocol 5.5).
    #[error("somebody made a snapshot of the hyper volume, which Sheepdog does not support")]
    HyperFrozen,
    /// A client of that node holds the lock.
    #[error(
        "the VDI is locked by a client of node {0}; --steal-lock takes the lock of a client \
         that is dead for certain"
    )]
    LockedBy(SocketAddr),
    /// The worker could not get memory.
    #[error("the system gave no memory for the copy")]
    NoMemory,
}

impl Failure {
    /// The errno a program gets.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Self::NoSuchVdi | Self::NoSuchSnapshot => Errno::ENOENT,
            Self::Locked | Self::LockedBy(_) => Errno::EBUSY,
            Self::Unformatted | Self::WaitingForNodes | Self::Halted => Errno::EAGAIN,
            Self::Unreachable => Errno::EHOSTUNREACH,
            Self::TimedOut => Errno::ETIMEDOUT,
            Self::NoSpace => Errno::ENOSPC,
            Self::ReadOnly => Errno::EROFS,
            Self::Unusable(cause) => inode_errno(cause),
            Self::OutOfBounds | Self::Grown => Errno::EINVAL,
            Self::Exists => Errno::EEXIST,
            Self::Attached => Errno::EBUSY,
            Self::Shrinks => Errno::EPERM,
            Self::TooLarge { .. } | Self::TooLargeForAny => Errno::EFBIG,
            // Without memory for a copy the kernel copies by itself then.
            Self::NoSnapshots | Self::NoMemory => Errno::EOPNOTSUPP,
            Self::NotStored => Errno::EIO,
            Self::TreeDamaged(TreeError::Full | TreeError::Numbers) => Errno::ENOSPC,
            Self::TreeDamaged(_) => Errno::EUCLEAN,
            Self::Replaced
            | Self::LockLost
            | Self::ObjectLost
            | Self::Refused(_)
            | Self::BadAnswer
            | Self::NotAttached
            | Self::HyperFrozen => Errno::EIO,
        }
    }

    /// What a result code other than success means for a request on a VDI
    /// (protocol 2).
    #[must_use]
    pub fn from_status(status: Status) -> Self {
        match status {
            Status::NoVdi => Self::NoSuchVdi,
            Status::NoTag => Self::NoSuchSnapshot,
            Status::VdiLocked => Self::Locked,
            Status::WaitForFormat | Status::NotFormatted => Self::Unformatted,
            Status::WaitForJoin => Self::WaitingForNodes,
            Status::Halt => Self::Halted,
            Status::NoSpace | Status::FullVdi => Self::NoSpace,
            Status::Readonly => Self::ReadOnly,
            Status::NoObj => Self::ObjectLost,
            Status::VdiExist => Self::Exists,
            Status::VdiWrite | Status::BaseVdiWrite => Self::NotStored,
            other => Self::Refused(other.code()),
        }
    }
}

fn inode_errno(cause: InodeError) -> Errno {
    match cause {
        InodeError::Short(_) | InodeError::OtherVid { .. } => Errno::EIO,
        InodeError::StorePolicy(_) | InodeError::BlockShift(_) | InodeError::TooLarge { .. } => {
            Errno::EOPNOTSUPP
        }
    }
}
