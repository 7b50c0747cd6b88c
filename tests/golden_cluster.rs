//! The structures of `wire::cluster` against the recordings: everything a sheep sent decodes, and
//! encodes to the same bytes again, except for what its process left in memory.

#[path = "support/golden.rs"]
mod golden;

use std::collections::HashSet;

use golden::{Event, Exchange, Payload, Transcript, transcripts};
use sheepfs::wire::cluster::{CLUSTER_INFO_LEN, ClusterInfo, EPOCH_RECORD_LEN, EpochRecord};
use sheepfs::wire::cluster::{Lock, NODE_LEN, VdiBitmap, VdiState, decode_nodes, encode_nodes};
use sheepfs::wire::{Opcode, ReplyHeader, RequestHeader, Status};

/// Bytes at the front of a node which are addresses inside the server.
const RUBBISH: usize = 24;

#[test]
fn every_payload_can_be_rebuilt() {
    let mut seen = HashSet::new();
    let mut payloads: Vec<Payload> = transcripts().iter().flat_map(payloads).collect();
    payloads.retain(|payload| payload.sha256().is_none_or(|hash| seen.insert(hash.to_owned())));
    assert!(payloads.len() > 700, "{}", payloads.len());
    for payload in payloads {
        assert_eq!(payload.bytes().len(), payload.len());
    }
}

fn payloads(transcript: &Transcript) -> Vec<Payload> {
    let payloads = transcript.events.iter().flat_map(|event| match event {
        Event::Req(message) | Event::Rsp(message) => vec![message.payload.clone()],
        Event::Cmd(cmd) => vec![cmd.stdin.clone(), cmd.stdout.clone()],
        _ => Vec::new(),
    });
    payloads.filter(|payload| !payload.is_empty()).collect()
}

#[test]
fn node_lists_survive() {
    let lists = replies(Opcode::GetNodeList);
    assert!(lists.len() > 20, "{}", lists.len());
    for (_, header, bytes) in lists {
        let nodes = decode_nodes(&bytes, header.node().nr_nodes).unwrap();
        assert!((1..=3).contains(&nodes.len()));
        assert_eq!(encode_nodes(&nodes), without_rubbish(&bytes, 0));
    }
}

#[test]
fn cluster_infos_survive() {
    let infos = replies(Opcode::ClusterInfo);
    assert!(infos.len() > 4, "{}", infos.len());
    for (_, _, bytes) in infos {
        let info = ClusterInfo::decode(&bytes).unwrap();
        assert_eq!(info.proto_ver, 0x0a);
        assert_eq!(bytes.len(), CLUSTER_INFO_LEN);
        assert_eq!(info.encode(), without_rubbish(&bytes, 48));
    }
}

#[test]
fn epoch_records_survive() {
    let replies = replies(Opcode::StatCluster);
    assert!(replies.len() > 20, "{}", replies.len());
    for (request, header, bytes) in replies {
        let nodes_nr = request.cluster().nodes_nr;
        let epochs = EpochRecord::decode_all(&bytes, nodes_nr).unwrap();
        let mut again = Vec::new();
        epochs.iter().for_each(|epoch| epoch.encode_into(nodes_nr as usize, &mut again));
        assert_eq!(EpochRecord::decode_all(&again, nodes_nr).unwrap(), epochs);
        assert_eq!(again.len(), bytes.len());
        if header.status == Status::Success {
            let first = EPOCH_RECORD_LEN;
            assert_eq!(again[..first], bytes[..first]);
            assert_eq!(epochs[0].epoch, header.epoch);
        }
    }
}

#[test]
fn lock_states_survive() {
    let replies = replies(Opcode::GetVdiCopies);
    let mut locks = Vec::new();
    for (_, _, bytes) in replies {
        let states = VdiState::decode_all(&bytes).unwrap();
        let again: Vec<u8> = states.iter().flat_map(VdiState::encode).collect();
        assert_eq!(VdiState::decode_all(&again).unwrap(), states);
        locks.extend(states.into_iter().map(|state| state.lock));
    }
    assert!(locks.contains(&Lock::Unlocked));
    let owner = locks.iter().find_map(|lock| match lock {
        Lock::Locked(owner) => Some(owner.to_string()),
        _ => None,
    });
    assert_eq!(owner.as_deref(), Some("127.0.0.2:7210"));
}

#[test]
fn bitmaps_survive() {
    let mut replies = replies(Opcode::ReadVdis);
    replies.extend(self::replies(Opcode::ReadDelVdis));
    assert!(replies.len() > 10, "{}", replies.len());
    for (_, _, bytes) in replies {
        let bitmap = VdiBitmap::decode(bytes.clone()).unwrap();
        let mut again = VdiBitmap::new();
        bitmap.iter().for_each(|vid| again.insert(vid));
        assert!(again.as_bytes() == bytes, "{bitmap:?}");
    }
}

/// Every recorded reply to an opcode that has data: both headers and the data.
fn replies(opcode: Opcode) -> Vec<(RequestHeader, ReplyHeader, Vec<u8>)> {
    let exchanges = transcripts().into_iter().flat_map(|t| t.exchanges());
    let decoded = |e: Exchange| {
        let rsp = e.rsp?;
        let bytes = (!rsp.payload.is_empty()).then(|| rsp.payload.bytes())?;
        Some((RequestHeader::decode(&e.req.hdr), ReplyHeader::decode(&rsp.hdr), bytes))
    };
    let wanted = exchanges.filter(|e| e.req.hdr[1] == opcode as u8);
    wanted.filter_map(decoded).collect()
}

/// `bytes`, of which the part from `start` on is nodes, with their rubbish zeroed.
fn without_rubbish(bytes: &[u8], start: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let nodes = bytes[start..].chunks_exact_mut(NODE_LEN);
    nodes.for_each(|node| node[..RUBBISH].fill(0));
    bytes
}
