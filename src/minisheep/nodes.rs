//! What the node says of itself and of its cluster (protocol 15).

use super::members::Past;
use super::sheep::{Answer, Incoming, Phase, Sheep, status_of};
use super::state::Format;
use crate::wire::Status;
use crate::wire::cluster::{
    ClusterFlags, ClusterInfo, ClusterStatus, EPOCH_RECORD_LEN, EpochRecord, NODE_LEN, NODES_MAX,
    STORE_NAME_LEN, encode_nodes,
};
use crate::wire::header::NodeReply;
use crate::wire::name::field_bytes;
use crate::wire::opcode::INTERNAL_VERSION;

/// Bytes of the answer to STAT_RECOVERY.
pub const RECOVERY_LEN: usize = 24;

const STORES: &[u8] = b"tree plain \0";
const STORE: &[u8] = b"plain";

/// GET_CLUSTER_DEFAULT.
pub fn cluster_default(sheep: &Sheep, request: &Incoming) -> Answer {
    let bare = Answer::new(&request.header, Status::Success);
    let Some(format) = sheep.format() else { return bare };
    let Format { copies, copy_policy, block_size_shift, .. } = format;
    Answer { header: bare.header.with_defaults(copies, copy_policy, block_size_shift), ..bare }
}

/// GET_NODE_LIST.
pub fn list(sheep: &Sheep, request: &Incoming) -> Answer {
    let (_, nodes) = sheep.members.now();
    let answer = Answer::with_payload(&request.header, encode_nodes(&nodes));
    let nr_nodes = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    let fields = NodeReply { nr_nodes, ..NodeReply::default() };
    Answer { header: answer.header.with_node(&fields), ..answer }
}

/// STAT_SHEEP.
pub fn space(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let (store_size, store_free) = sheep.space().map_err(|error| status_of(&error))?;
    let bare = Answer::new(&request.header, Status::Success);
    let fields = NodeReply { nr_nodes: 0, store_size, store_free };
    Ok(Answer { header: bare.header.with_node(&fields), ..bare })
}

/// MAKE_FS.
pub fn make_fs(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    if field_bytes(&request.payload) != STORE && field_bytes(&request.payload) != b"tree" {
        return Err(Status::Other(0x8a));
    }
    let asked = request.header.cluster();
    let shift = asked.block_size_shift;
    let format = Format::new(asked.ctime, asked.copies, asked.copy_policy, asked.flags, shift);
    sheep.set_format(format).map_err(|error| status_of(&error))?;
    Ok(Answer::new(&request.header, Status::Success))
}

/// SHUTDOWN: answered, then nothing else is.
pub fn shutdown(sheep: &Sheep, request: &Incoming) -> Answer {
    sheep.stop(Phase::Shutdown);
    Answer::new(&request.header, Status::Success)
}

/// STAT_CLUSTER: as many epochs as there is room for, the newest first.
pub fn epochs(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let format = sheep.format().ok_or(Status::WaitForFormat)?;
    let room = usize::try_from(request.header.data_length).map_err(|_| Status::NoMem)?;
    let nodes = request.header.cluster().nodes_nr;
    let nodes = usize::try_from(nodes).ok().filter(|nodes| *nodes <= NODES_MAX);
    let nodes = nodes.ok_or(Status::InvalidParms)?;
    let records = room / (EPOCH_RECORD_LEN + nodes * NODE_LEN);
    let mut bytes = Vec::new();
    for (number, past) in sheep.members.epochs().into_iter().take(records).enumerate() {
        if nodes > 0 && past.nodes.len() > nodes {
            return Err(Status::BufferSmall);
        }
        // The original tells of the format in the first record only.
        let format = (number == 0).then_some(&format);
        epoch(past, format, nodes > 0).encode_into(nodes, &mut bytes);
    }
    Ok(Answer::with_payload(&request.header, bytes))
}

fn epoch(past: Past, format: Option<&Format>, with_nodes: bool) -> EpochRecord {
    EpochRecord {
        ctime: format.map_or(0, |format| format.ctime),
        time: if with_nodes { past.time } else { 0 },
        epoch: past.epoch,
        disable_recovery: false,
        nr_copies: format.map_or(0, |format| format.copies),
        copy_policy: format.map_or(0, |format| format.copy_policy),
        flags: format.map_or(ClusterFlags(0), |format| format.flags),
        store: if format.is_some() { store_name() } else { [0; STORE_NAME_LEN] },
        nodes: if with_nodes { past.nodes } else { Vec::new() },
    }
}

/// CLUSTER_INFO.
pub fn cluster_info(sheep: &Sheep, request: &Incoming) -> Answer {
    let format = sheep.format();
    let (epoch, nodes) = sheep.members.now();
    let status = match (sheep.phase(), format) {
        (Phase::Running, Some(_)) => ClusterStatus::Ok,
        (Phase::Running, None) => ClusterStatus::Waiting,
        (Phase::Shutdown, _) => ClusterStatus::Shutdown,
        (Phase::Killed, _) => ClusterStatus::Killed,
    };
    let info = ClusterInfo {
        proto_ver: INTERNAL_VERSION,
        disable_recovery: false,
        epoch,
        ctime: format.map_or(0, |format| format.ctime),
        flags: format.map_or(ClusterFlags::AUTO_VNODES, |format| format.flags),
        nr_copies: format.map_or(0, |format| format.copies),
        copy_policy: format.map_or(0, |format| format.copy_policy),
        status,
        block_size_shift: format.map_or(0, |format| format.block_size_shift),
        store: if format.is_some() { store_name() } else { [0; STORE_NAME_LEN] },
        nodes: if format.is_some() { nodes } else { Vec::new() },
    };
    Answer::with_payload(&request.header, info.encode())
}

fn store_name() -> [u8; STORE_NAME_LEN] {
    let mut name = [0; STORE_NAME_LEN];
    name[..STORE.len()].copy_from_slice(STORE);
    name
}

/// GET_STORE_LIST.
pub fn stores(request: &Incoming) -> Answer {
    let room = usize::try_from(request.header.data_length).unwrap_or(usize::MAX);
    Answer::with_payload(&request.header, STORES[..STORES.len().min(room)].to_vec())
}

/// STAT_RECOVERY: nothing to recover from.
pub fn recovery(request: &Incoming) -> Answer {
    Answer::with_payload(&request.header, vec![0; RECOVERY_LEN])
}

/// STAT: what clients asked of this node.
pub fn counters(sheep: &Sheep, request: &Incoming) -> Answer {
    Answer::with_payload(&request.header, sheep.counters.stat())
}
