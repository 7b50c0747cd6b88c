//! The state of a cluster in one piece, as CLUSTER_INFO tells it (protocol 15.2, 15.5).

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{I16, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::node::{NODE_LEN, NODES_MAX, Node};
use super::{LayoutError, front};

/// The `data_length` of CLUSTER_INFO, exactly; less crashes a sheep (protocol 18).
pub const CLUSTER_INFO_LEN: usize = size_of::<RawInfo>() + NODES_MAX * NODE_LEN;
/// Bytes of the name of a store back end, NUL padded.
pub const STORE_NAME_LEN: usize = 16;

const _: () = assert!(CLUSTER_INFO_LEN == 491_568);

/// What a cluster was formatted with (protocol 15.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ClusterFlags(pub u16);

impl ClusterFlags {
    /// Writes are refused while there are fewer zones than copies.
    pub const STRICT: Self = Self(0x01);
    /// Placement weighs disks rather than nodes.
    pub const DISK_MODE: Self = Self(0x02);
    /// Virtual nodes follow the nodes' space; the default.
    pub const AUTO_VNODES: Self = Self(0x04);
    /// LOCK_VDI really locks.
    pub const USE_LOCK: Self = Self(0x08);
    /// Vids are used again after deletion, and references dropped before a reply.
    pub const RECYCLE_VID: Self = Self(0x10);
    /// Full disks are left out.
    pub const AVOID_DISKFULL: Self = Self(0x20);

    /// Whether every flag of `other` is set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Whether a cluster serves I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClusterStatus {
    /// It does.
    Ok = 1,
    /// It waits: for nodes, or to be formatted.
    Waiting = 2,
    /// It is shutting down.
    Shutdown = 3,
    /// This node is stopping.
    Killed = 4,
}

impl ClusterStatus {
    fn from_wire(value: u8) -> Result<Self, LayoutError> {
        match value {
            1 => Ok(Self::Ok),
            2 => Ok(Self::Waiting),
            3 => Ok(Self::Shutdown),
            4 => Ok(Self::Killed),
            other => Err(LayoutError::Value { what: "a cluster's status", found: other.into() }),
        }
    }
}

/// The answer to CLUSTER_INFO.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Version of the protocol between nodes (0x0a).
    pub proto_ver: u8,
    /// Automatic recovery was switched off.
    pub disable_recovery: bool,
    /// Counts membership changes; 0 before the cluster is formatted.
    pub epoch: u32,
    /// When the cluster was formatted: seconds << 32 | nanoseconds, 0 = never.
    pub ctime: u64,
    /// What it was formatted with.
    pub flags: ClusterFlags,
    /// Replicas of a VDI that asks for none in particular.
    pub nr_copies: u8,
    /// Erasure code of such a VDI, 0 = none.
    pub copy_policy: u8,
    /// Whether it serves I/O.
    pub status: ClusterStatus,
    /// Log2 of the object size of such a VDI.
    pub block_size_shift: u8,
    /// Name of the store back end, NUL padded.
    pub store: [u8; STORE_NAME_LEN],
    /// The members.
    pub nodes: Vec<Node>,
}

impl ClusterInfo {
    /// Reads the payload of CLUSTER_INFO.
    ///
    /// # Errors
    /// [`LayoutError`] for another length than [`CLUSTER_INFO_LEN`], a node count the array
    /// cannot hold, or an unknown status.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        if bytes.len() != CLUSTER_INFO_LEN {
            return Err(LayoutError::Length {
                what: "a cluster info",
                expected: CLUSTER_INFO_LEN,
                found: bytes.len(),
            });
        }
        let (raw, nodes) = front::<RawInfo>("a cluster info", bytes)?;
        let nodes = nodes.chunks_exact(NODE_LEN).take(raw.node_count()?);
        raw.with_nodes(nodes.map(Node::decode).collect::<Result<_, _>>()?)
    }

    /// The payload of a CLUSTER_INFO reply, [`CLUSTER_INFO_LEN`] long; nodes beyond
    /// [`NODES_MAX`] are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let nodes = &self.nodes[..self.nodes.len().min(NODES_MAX)];
        let mut bytes = Vec::with_capacity(CLUSTER_INFO_LEN);
        bytes.extend_from_slice(RawInfo::new(self, nodes.len()).as_bytes());
        bytes.extend(nodes.iter().flat_map(Node::encode));
        bytes.resize(CLUSTER_INFO_LEN, 0);
        bytes
    }
}

/// The head of protocol 15.5, before the array of nodes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInfo {
    proto_ver: u8,
    disable_recovery: u8,
    nr_nodes: I16,
    epoch: U32,
    ctime: U64,
    flags: U16,
    nr_copies: u8,
    copy_policy: u8,
    status: u8,
    block_size_shift: u8,
    pad: [u8; 3],
    store: [u8; STORE_NAME_LEN],
    tail: [u8; 7],
}

const _: () = assert!(size_of::<RawInfo>() == 48);

impl RawInfo {
    fn new(info: &ClusterInfo, nr_nodes: usize) -> Self {
        Self {
            proto_ver: info.proto_ver,
            disable_recovery: info.disable_recovery.into(),
            nr_nodes: I16::new(i16::try_from(nr_nodes).unwrap_or(i16::MAX)),
            epoch: U32::new(info.epoch),
            ctime: U64::new(info.ctime),
            flags: U16::new(info.flags.0),
            nr_copies: info.nr_copies,
            copy_policy: info.copy_policy,
            status: info.status as u8,
            block_size_shift: info.block_size_shift,
            pad: [0; 3],
            store: info.store,
            tail: [0; 7],
        }
    }

    fn node_count(&self) -> Result<usize, LayoutError> {
        let found = self.nr_nodes.get();
        let count = usize::try_from(found).ok().filter(|n| *n <= NODES_MAX);
        count.ok_or(LayoutError::Count {
            what: "a cluster info",
            most: NODES_MAX,
            found: found.into(),
        })
    }

    fn with_nodes(&self, nodes: Vec<Node>) -> Result<ClusterInfo, LayoutError> {
        Ok(ClusterInfo {
            proto_ver: self.proto_ver,
            disable_recovery: self.disable_recovery != 0,
            epoch: self.epoch.get(),
            ctime: self.ctime.get(),
            flags: ClusterFlags(self.flags.get()),
            nr_copies: self.nr_copies,
            copy_policy: self.copy_policy,
            status: ClusterStatus::from_wire(self.status)?,
            block_size_shift: self.block_size_shift,
            store: self.store,
            nodes,
        })
    }
}
