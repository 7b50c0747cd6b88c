//! What the worker finds out about the cluster and the supervisor prints: one report per control
//! file. Reports hold facts, not text, so that local time and layout are decided in one place.

use serde::{Deserialize, Serialize};

use crate::wire::cluster::{BlockUsage, EpochRecord, Node};
use crate::wire::header::NodeReply;
use crate::wire::inode::InodeHeader;

/// For `cluster/info`: the answer to STAT_CLUSTER.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// The result code, which is the state of the cluster (protocol 15.4).
    pub status: u32,
    /// The history, newest first; empty when the reply had no data. The first record also says
    /// when the cluster was created and whether it recovers by itself.
    pub epochs: Vec<EpochRecord>,
}

/// For `node/list`: the answer to GET_NODE_LIST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The members in the order of the reply.
    pub nodes: Vec<Node>,
}

/// For `node/info`: the answers to STAT_SHEEP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceReport {
    /// One for each member, in the order of the node list; `None` when it did not answer.
    pub nodes: Vec<Option<StoreSpace>>,
    /// The sizes of all working VDIs added up, in bytes.
    pub virtual_bytes: u64,
}

/// The space of one node's store, in bytes (protocol 15.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSpace {
    /// All of it.
    pub size: u64,
    /// What is left.
    pub free: u64,
}

impl From<NodeReply> for StoreSpace {
    fn from(reply: NodeReply) -> Self {
        Self { size: reply.store_size, free: reply.store_free }
    }
}

/// For `vdi/list`: one VDI or snapshot; the list has them by ascending vid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdiReport {
    /// The head of its inode.
    pub header: InodeHeader,
    /// Its objects, counted; for an array index only those its size covers.
    pub usage: BlockUsage,
}
