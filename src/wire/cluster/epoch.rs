//! The history of the membership, as STAT_CLUSTER tells it (protocol 15.4).

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::info::{ClusterFlags, STORE_NAME_LEN};
use super::node::{NODE_LEN, NODES_MAX, Node};
use super::{LayoutError, front};

/// Bytes of an epoch record before its nodes.
pub const EPOCH_RECORD_LEN: usize = 48;

/// One state of the membership.
///
/// The original fills the fields from `disable_recovery` to `store`, and `ctime`, in the first
/// record of a reply only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// When the cluster was formatted: seconds << 32 | nanoseconds.
    pub ctime: u64,
    /// When this epoch began, in seconds; 0 when the request left no room for nodes.
    pub time: u64,
    /// Its number.
    pub epoch: u32,
    /// Automatic recovery was switched off.
    pub disable_recovery: bool,
    /// Replicas of a VDI that asks for none in particular.
    pub nr_copies: u8,
    /// Erasure code of such a VDI, 0 = none.
    pub copy_policy: u8,
    /// What the cluster was formatted with.
    pub flags: ClusterFlags,
    /// Name of the store back end, NUL padded.
    pub store: [u8; STORE_NAME_LEN],
    /// The members during this epoch.
    pub nodes: Vec<Node>,
}

impl EpochRecord {
    /// Reads the payload of STAT_CLUSTER, newest epoch first; `nodes_nr` is that of the request.
    ///
    /// # Errors
    /// [`LayoutError::Length`] when the payload is not a whole number of records,
    /// [`LayoutError::Count`] when a record claims more nodes than it has room for.
    pub fn decode_all(bytes: &[u8], nodes_nr: u32) -> Result<Vec<Self>, LayoutError> {
        let size = record_len(nodes_nr)?;
        let records = bytes.chunks_exact(size);
        if !records.remainder().is_empty() {
            return Err(LayoutError::Length {
                what: "the last epoch record",
                expected: size,
                found: records.remainder().len(),
            });
        }
        records.map(Self::decode).collect()
    }

    /// One record; what follows its head is room for nodes.
    fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let (raw, room) = front::<RawEpoch>("an epoch record", bytes)?;
        let count = raw.node_count(room.len() / NODE_LEN)?;
        let nodes = room.chunks_exact(NODE_LEN).take(count);
        Ok(raw.with_nodes(nodes.map(Node::decode).collect::<Result<_, _>>()?))
    }

    /// Appends this record with room for `nodes_nr` nodes; nodes beyond those are left out.
    pub fn encode_into(&self, nodes_nr: usize, out: &mut Vec<u8>) {
        let nodes = &self.nodes[..self.nodes.len().min(nodes_nr)];
        let end = out.len() + EPOCH_RECORD_LEN + nodes_nr * NODE_LEN;
        out.extend_from_slice(RawEpoch::new(self, nodes.len()).as_bytes());
        out.extend(nodes.iter().flat_map(Node::encode));
        out.resize(end, 0);
    }
}

/// Bytes of one record with room for `nodes_nr` nodes.
fn record_len(nodes_nr: u32) -> Result<usize, LayoutError> {
    let count = usize::try_from(nodes_nr).ok().filter(|n| *n <= NODES_MAX);
    let room = count.map(|n| EPOCH_RECORD_LEN + n * NODE_LEN);
    room.ok_or(LayoutError::Count {
        what: "an epoch record",
        most: NODES_MAX,
        found: i64::from(nodes_nr),
    })
}

/// The head of protocol 15.4, before the array of nodes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEpoch {
    ctime: U64,
    time: U64,
    epoch: U32,
    nr_nodes: U32,
    disable_recovery: u8,
    nr_copies: u8,
    copy_policy: u8,
    pad: [u8; 3],
    flags: U16,
    store: [u8; STORE_NAME_LEN],
}

const _: () = assert!(size_of::<RawEpoch>() == EPOCH_RECORD_LEN);

impl RawEpoch {
    fn new(record: &EpochRecord, nr_nodes: usize) -> Self {
        Self {
            ctime: U64::new(record.ctime),
            time: U64::new(record.time),
            epoch: U32::new(record.epoch),
            nr_nodes: U32::new(u32::try_from(nr_nodes).unwrap_or(u32::MAX)),
            disable_recovery: record.disable_recovery.into(),
            nr_copies: record.nr_copies,
            copy_policy: record.copy_policy,
            pad: [0; 3],
            flags: U16::new(record.flags.0),
            store: record.store,
        }
    }

    fn node_count(&self, most: usize) -> Result<usize, LayoutError> {
        let found = self.nr_nodes.get();
        let count = usize::try_from(found).ok().filter(|n| *n <= most);
        count.ok_or(LayoutError::Count { what: "an epoch record", most, found: found.into() })
    }

    fn with_nodes(&self, nodes: Vec<Node>) -> EpochRecord {
        EpochRecord {
            ctime: self.ctime.get(),
            time: self.time.get(),
            epoch: self.epoch.get(),
            disable_recovery: self.disable_recovery != 0,
            nr_copies: self.nr_copies,
            copy_policy: self.copy_policy,
            flags: ClusterFlags(self.flags.get()),
            store: self.store,
            nodes,
        }
    }
}
