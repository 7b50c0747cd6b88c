//! The structures of `wire::cluster` against the recordings: everything a sheep sent decodes, and
//! encodes to the same bytes again, except for what its process left in memory.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/golden.rs"]
mod golden;

use std::collections::HashSet;

use golden::{Event, Exchange, Payload, Transcript, transcripts};
use sheepfs::wire::cluster::{BlockUsage, TreeUsage};
use sheepfs::wire::cluster::{CLUSTER_INFO_LEN, ClusterInfo, EPOCH_RECORD_LEN, EpochRecord};
use sheepfs::wire::cluster::{Lock, NODE_LEN, VdiBitmap, VdiState, decode_nodes, encode_nodes};
use sheepfs::wire::inode::INODE_HEADER_LEN;
use sheepfs::wire::{ObjectId, Opcode, ReplyHeader, RequestHeader, Status, VdiId};

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

/// File 21: a full leaf of 524287 entries is split in two, one entry is added, and each leaf is
/// written whole; the root says where they are.
#[test]
fn split_trees_are_counted() {
    let transcript = Transcript::load("21-hyper-root-split");
    let own = VdiId::new(0x5b_5b59).unwrap();
    let written = |oid: u64| {
        let matches = |e: &Exchange| RequestHeader::decode(&e.req.hdr).obj().oid == oid;
        let writes = transcript.exchanges().into_iter().take(9).filter(matches);
        let mut payloads = writes.map(|e| e.req.payload).filter(|payload| payload.len() > 4);
        payloads.next_back().expect("a write").bytes()
    };
    let root = written(ObjectId::inode(own).raw());
    let leaves = [0x105b_5b59_0000_0000, 0x105b_5b59_0000_0001].map(ObjectId::from_raw);
    let counted = TreeUsage::of_node(&root[INODE_HEADER_LEN..], own).unwrap();
    assert_eq!(counted, TreeUsage::Root(leaves.to_vec()));
    let objects = leaves.map(|leaf| TreeUsage::of_node(&written(leaf.raw()), own).unwrap());
    let usage = |own| TreeUsage::Leaf(BlockUsage { own, shared: 0 });
    assert_eq!(objects, [usage(262_144), usage(262_144)]);
}

/// A node list of five nodes that no transcript has.
#[test]
fn the_nodes_of_the_placement_example_are_read() {
    let example = golden::placement();
    let bytes = golden::unhex(&example["node_list_reply_hex"]);
    let nodes = decode_nodes(&bytes, 5).unwrap();
    for (node, i) in nodes.iter().zip(0..) {
        let expected = &example["nodes"][i];
        assert_eq!(node.id.to_string(), format!("127.0.0.1:{}", expected["port"]));
        assert_eq!(node.zone, expected["zone"]);
        assert_eq!(node.space, expected["space"]);
        assert_eq!(node.nr_vnodes, expected["nr_vnodes"]);
    }
    assert_eq!(nodes.len(), 5);
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
