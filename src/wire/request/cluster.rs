//! Requests for what a cluster and its nodes say of themselves; and the one that formats it.
//!
//! Some servers write over the end of an answer that has too little room (protocol 18), so
//! room is left for all that they write.

use super::Request;
use crate::wire::cluster;
use crate::wire::header::ClusterFields;
use crate::wire::opcode::Opcode;

/// Bytes of the answer to `READ_VDIS` and `READ_DEL_VDIS` (protocol 12.4).
pub const VDI_BITMAP_LEN: u32 = 2 << 20;
/// Nodes a cluster can have: what the C programs reserve room for.
pub const NODES_MAX: u32 = 6144;
/// The most records that a request for the states of all VDIs leaves room for.
pub const VDI_STATES_MAX: u32 = 1 << 16;

const NODE_ROOM: u32 = 80;
const EPOCH_ROOM: u32 = 48;
const CLUSTER_INFO_ROOM: u32 = 491_568;
const STAT_ROOM: u32 = 120;
const STAT_RECOVERY_ROOM: u32 = 24;
const VDI_STATE_ROOM: u32 = 1428;

const _: () = assert!(NODE_ROOM as usize == cluster::NODE_LEN);
const _: () = assert!(EPOCH_ROOM as usize == cluster::EPOCH_RECORD_LEN);
const _: () = assert!(CLUSTER_INFO_ROOM as usize == cluster::CLUSTER_INFO_LEN);
const _: () = assert!(STAT_ROOM as usize == cluster::STAT_LEN);
const _: () = assert!(STAT_RECOVERY_ROOM as usize == cluster::STAT_RECOVERY_LEN);
const _: () = assert!(VDI_STATE_ROOM as usize == cluster::VDI_STATE_LEN);

impl Request {
    /// The cluster's defaults; works on an unformatted cluster and costs least.
    #[must_use]
    pub fn get_cluster_default() -> Self {
        Self::plain(Opcode::GetClusterDefault, 0, |header| header)
    }

    /// All nodes.
    #[must_use]
    pub fn get_node_list() -> Self {
        let room = NODES_MAX * NODE_ROOM;
        Self::plain(Opcode::GetNodeList, room, |header| header)
    }

    /// The space of the node asked.
    #[must_use]
    pub fn stat_sheep() -> Self {
        Self::plain(Opcode::StatSheep, 0, |header| header)
    }

    /// The newest `epochs` epochs of up to `nodes` nodes each (protocol 15.4);
    /// at most 16 MiB of them.
    #[must_use]
    pub fn stat_cluster(epochs: u32, nodes: u32) -> Self {
        let nodes = nodes.min(NODES_MAX);
        let record = EPOCH_ROOM + NODE_ROOM * nodes;
        let epochs = epochs.clamp(1, (16 << 20) / record);
        let fields = ClusterFields { nodes_nr: nodes, ..ClusterFields::default() };
        Self::plain(Opcode::StatCluster, epochs * record, |header| header.with_cluster(&fields))
    }

    /// The cluster's state.
    #[must_use]
    pub fn cluster_info() -> Self {
        Self::plain(Opcode::ClusterInfo, CLUSTER_INFO_ROOM, |header| header)
    }

    /// The counters of the node asked; the first says how many requests are active.
    #[must_use]
    pub fn stat() -> Self {
        Self::plain(Opcode::Stat, STAT_ROOM, |header| header)
    }

    /// Whether the node asked is recovering objects.
    #[must_use]
    pub fn stat_recovery() -> Self {
        Self::plain(Opcode::StatRecovery, STAT_RECOVERY_ROOM, |header| header)
    }

    /// The states of all VDIs, with their locks, if they are at most `records`
    /// (protocol 12.7).
    #[must_use]
    pub fn get_vdi_copies(records: u32) -> Self {
        let room = records.clamp(1, VDI_STATES_MAX) * VDI_STATE_ROOM;
        Self::plain(Opcode::GetVdiCopies, room, |header| header)
    }

    /// Formats the cluster with the plain store. Destroys everything in it.
    #[must_use]
    pub fn make_fs(ctime: u64, copies: u8, cluster_flags: u16, block_size_shift: u8) -> Self {
        let fields = ClusterFields {
            ctime,
            copies,
            flags: cluster_flags,
            block_size_shift,
            ..ClusterFields::default()
        };
        let request = Self::bytes(Opcode::MakeFs, b"plain\0".to_vec());
        Self { header: request.header.with_cluster(&fields), ..request }
    }

    /// The vids in use, also of deleted VDIs.
    #[must_use]
    pub fn read_vdis() -> Self {
        Self::plain(Opcode::ReadVdis, VDI_BITMAP_LEN, |header| header)
    }

    /// The vids of deleted VDIs.
    #[must_use]
    pub fn read_del_vdis() -> Self {
        Self::plain(Opcode::ReadDelVdis, VDI_BITMAP_LEN, |header| header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_for_an_answer_is_what_a_server_fills() {
        assert_eq!(Request::stat().reply_len_max(), 120);
        assert_eq!(Request::stat_recovery().reply_len_max(), 24);
        assert_eq!(Request::get_vdi_copies(512).reply_len_max(), 512 * 1428);
        assert_eq!(Request::get_vdi_copies(0).reply_len_max(), 1428);
    }
}
