//! What control files ask of the cluster, and the answers, which travel in pieces.

use crate::text::report::{ClusterReport, NodeReport, SpaceReport, VdiReport};
use serde::{Deserialize, Serialize};

/// What a control file asks of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    /// For `cluster/info`.
    Cluster,
    /// For `node/list`.
    Nodes,
    /// For `node/info`.
    Space,
    /// For `vdi/list`.
    Vdis,
    /// For `statfs`: the sums only, which cost one request for each node.
    Totals,
}

/// The answer to a [`Query`]; travels encoded, in pieces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// Of [`Query::Cluster`].
    Cluster(ClusterReport),
    /// Of [`Query::Nodes`].
    Nodes(NodeReport),
    /// Of [`Query::Space`].
    Space(SpaceReport),
    /// Of [`Query::Vdis`].
    Vdis(Vec<VdiReport>),
    /// Of [`Query::Totals`].
    Totals {
        /// Bytes in all.
        size: u64,
        /// Bytes free.
        free: u64,
    },
}

impl Report {
    /// Encodes the report, to be cut into pieces.
    ///
    /// # Errors
    /// None that a report's types can cause; bincode's signature has one.
    pub fn encode(&self) -> Result<Vec<u8>, bincode::error::EncodeError> {
        bincode::serde::encode_to_vec(self, bincode::config::standard())
    }

    /// Decodes a report that came from a worker.
    ///
    /// # Errors
    /// When the bytes are not one whole report.
    pub fn decode(bytes: &[u8]) -> Result<Self, bincode::error::DecodeError> {
        let config = bincode::config::standard().with_limit::<{ 256 << 20 }>();
        let (report, used) = bincode::serde::decode_from_slice(bytes, config)?;
        if used == bytes.len() {
            Ok(report)
        } else {
            Err(bincode::error::DecodeError::Other("bytes follow the report"))
        }
    }
}
