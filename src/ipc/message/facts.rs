//! What the messages tell of: clusters, volumes, gateways and how a sheep was lost.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// How the object cache fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUsage {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that went to the cluster while it was on.
    pub misses: u64,
    /// Bytes of blocks in it.
    pub bytes: u64,
}

/// A few gateways: those through which a lock was asked for, the newest four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateways([Option<SocketAddr>; 4]);

impl Gateways {
    /// One more; the oldest goes when there are too many.
    #[must_use]
    pub fn with(self, gateway: SocketAddr) -> Self {
        if self.contains(gateway) {
            return self;
        }
        let [first, second, third, _] = self.0;
        Self([Some(gateway), first, second, third])
    }

    /// Whether that one is among them.
    #[must_use]
    pub fn contains(self, gateway: SocketAddr) -> bool {
        self.0.contains(&Some(gateway))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// An index entry that was written lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The block.
    pub block: u32,
    /// The vid that owns its object, a raw number.
    pub owner: u32,
}

/// What is known of a cluster; by default, nothing, and that it does not serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// When it was formatted, seconds << 32 | nanoseconds: its identity. 0: never.
    pub ctime: u64,
    /// Its epoch.
    pub epoch: u32,
    /// Whether it serves: formatted, and not waiting for nodes.
    pub running: bool,
    /// Whether it gives vids of deleted VDIs to new ones (`dog cluster format -R`).
    pub recycles_vids: bool,
    /// Whether it keeps locks of VDIs (`dog cluster format -l`).
    pub has_locks: bool,
    /// Whether it places objects by disks, in a way that clients can't compute.
    pub disk_mode: bool,
}

/// How it is known that nothing of ours runs on a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QuietReason {
    /// It answered that no request is active.
    Drained,
    /// Its process is gone: connections are refused.
    Gone,
    /// It is no member of the cluster any more.
    NotMember,
}

/// Why a worker has no sheep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostReason {
    /// Nobody listens there.
    Refused,
    /// No route, no answer, or no answer in time.
    Unreachable,
    /// It was connected, and the connection broke.
    Disconnected,
    /// A request made no progress for the I/O time-out, and a probe on a fresh
    /// connection got no answer.
    Silent,
    /// It said that it, or the cluster, is shutting down.
    ShuttingDown,
    /// It does not speak the protocol.
    NotASheep,
    /// Other nodes of its cluster know of a newer epoch, and it does not come to know.
    Behind,
}

impl LostReason {
    /// In words, to follow the sheep's address and a colon.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Refused => "connection refused, no sheep listens there",
            Self::Unreachable => "no answer from that address",
            Self::Disconnected => "the connection broke",
            Self::Silent => "requests make no progress, and a new connection gets no answer",
            Self::ShuttingDown => "the sheep is shutting down",
            Self::NotASheep => "what listens there does not speak the Sheepdog protocol",
            Self::Behind => "the sheep is cut off: its cluster has gone on without it",
        }
    }
}

/// What an attached volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFacts {
    /// Its vid, a raw number.
    pub vid: u32,
    /// Bytes.
    pub size: u64,
    /// When the VDI was made, seconds << 32 | nanoseconds.
    pub create_time: u64,
    /// Replicas, or data and parity strips together.
    pub copies: u8,
    /// 0 replicated, else erasure coded.
    pub copy_policy: u8,
    /// log2 of the size of its objects.
    pub block_size_shift: u8,
    /// Number in the chain of its name.
    pub snap_id: u32,
    /// Whether it is a snapshot, and so read-only.
    pub snapshot: bool,
    /// Whether it is a hyper volume, whose index is a tree.
    pub hyper: bool,
    /// Whether the cluster's lock was taken for it.
    pub locked: bool,
    /// What names it.
    pub labels: Labels,
}

/// What an attach does about the cluster's lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locking {
    /// It takes the lock, and fails when another has it.
    #[default]
    Take,
    /// A lock that another holds is released and taken (hazard 51).
    Steal,
    /// It takes no lock, and gives none back.
    Without,
}

/// What names a VDI, as its inode has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Its name.
    pub name: Vec<u8>,
    /// The tag of a snapshot.
    pub tag: Vec<u8>,
    /// The vid that it was made from; 0: none.
    pub parent: u32,
}

/// What a seek looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeekTarget {
    /// Bytes of an object.
    Data,
    /// Bytes of none. The end of the volume is one.
    Hole,
}
