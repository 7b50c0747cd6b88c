//! Nodes, epochs and bitmaps (protocol 15).

/// Bytes of one node in a list.
pub const NODE_LEN: usize = 80;
/// Bytes of an epoch record without its nodes.
pub const EPOCH_RECORD_LEN: usize = 48;
/// Bytes of the answer to `CLUSTER_INFO`.
pub const CLUSTER_INFO_LEN: usize = 491_568;
