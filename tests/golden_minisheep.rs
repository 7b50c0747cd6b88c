//! minisheep answers the recorded requests as the real sheep did.
//!
//! Each group of recordings is one history of one cluster (`tests/golden/README.md`): the files
//! of a group are replayed in order, on connections as recorded, against one minisheep, and each
//! answer is compared in its result, its length, its vids and its payload. What may differ, and
//! which files can't be replayed at all, stands in the tables below with the reason.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/client.rs"]
mod client;
#[path = "support/golden.rs"]
mod golden;

use std::collections::{BTreeSet, HashMap};

use client::{Client, Minisheep};
use golden::{Event, Message, Transcript, transcripts};
use sheepfs::wire::cluster::{NODE_LEN, VDI_STATE_LEN};
use sheepfs::wire::name::VdiTag;
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{ObjectId, Opcode, ReplyHeader, Request, RequestHeader, Status};

const MIB: u64 = 1 << 20;

/// Files that a single node with one copy can't have answered so.
const EXCLUDED: &[(&str, &str)] = &[
    ("20-hyper-volume", "needs a hyper volume's index writes above 4664, which minisheep refuses"),
    (
        "21-hyper-root-split",
        "as 20, and a leaf of half a million keys made outside of the recording",
    ),
    ("22-erasure-coded", "three nodes; minisheep stores whole objects"),
    ("23-node-and-cluster-info-3-nodes", "three nodes"),
    ("24-epoch-change", "a node leaves and joins"),
    ("26-lock-and-snapshot", "a lock outlives its sheep, which takes a second node to see"),
    ("27-shared-lock", "several nodes share a lock"),
    ("28-halt", "a strict cluster with too few zones"),
    ("29-shutdown", "which requests are refused while one is in flight depends on the timing"),
    ("30-wait-for-join", "a node is missing"),
    ("34-no-space", "needs a full disk"),
    ("36-hyper-index-hazard", "minisheep refuses the request that destroys the volume"),
];

/// Single answers that differ on purpose: file, number of the request, why.
const DIFFERENT: &[(&str, u64, &str)] = &[
    ("19-errors", 17, "READ_PEER is spoken between nodes; minisheep has no peers"),
    ("19-errors", 18, "READ_PEER"),
];

#[test]
fn every_recording_is_replayed_or_excluded_for_a_reason() {
    let replayed = [
        "01-not-formatted",
        "02-cluster-format",
        "03-vdi-create",
        "04-write-new-object",
        "05-overwrite",
        "06-read",
        "07-pipelining",
        "08-snapshot",
        "09-readonly-and-cow",
        "10-clone",
        "11-replay",
        "12-discard",
        "13-resize",
        "14-vdi-attr",
        "15-vdi-list",
        "16-node-and-cluster-info",
        "17-rollback",
        "18-vdi-delete",
        "19-errors",
        "25-lock",
        "31-sheepfs",
        "32-qemu-sequence",
        "33-recycle-vid",
        "35-index-rewrite-hazard",
    ];
    let all: BTreeSet<_> = transcripts().into_iter().map(|transcript| transcript.name).collect();
    let excluded = EXCLUDED.iter().map(|(name, _)| *name);
    let known: BTreeSet<_> = replayed.into_iter().chain(excluded).map(str::to_owned).collect();
    assert_eq!(known, all);
}

#[test]
fn an_unformatted_cluster() {
    replay(&["01-not-formatted"], &[], |_| {});
}

#[test]
fn the_long_history() {
    let names = [
        "02-cluster-format",
        "03-vdi-create",
        "04-write-new-object",
        "05-overwrite",
        "06-read",
        "07-pipelining",
        "08-snapshot",
        "09-readonly-and-cow",
        "10-clone",
        "11-replay",
        "12-discard",
        "13-resize",
        "14-vdi-attr",
        "15-vdi-list",
        "16-node-and-cluster-info",
        "17-rollback",
        "18-vdi-delete",
        "19-errors",
    ];
    replay(&names, &[], |_| {});
}

#[test]
fn locks() {
    let arguments = ["--format", "--lock", "--copies", "3", "--create", "lk:64M"];
    replay(&["25-lock"], &arguments, |_| {});
}

#[test]
fn the_original_sheepfs_and_qemu() {
    let arguments = ["--format", "--create", "fsvol:64M"];
    replay(&["31-sheepfs", "32-qemu-sequence"], &arguments, |_| {});
}

#[test]
fn recycled_vids() {
    replay(&["33-recycle-vid"], &["--format", "--recycle"], |_| {});
}

#[test]
fn the_hazard_of_rewriting_the_index() {
    replay(&["35-index-rewrite-hazard"], &["--format"], |client| {
        let vid = client.create_vdi("hz", 16 * MIB);
        for block in 0..4 {
            let content = format!("snapshot data {block} ").repeat(4096);
            assert_eq!(client.create(vid, block, 0, content.as_bytes()), Status::Success);
        }
        client.call(&Request::write_tag(vid, &VdiTag::new("s").unwrap()), &[]);
        let new = NewVdi { size: 16 * MIB, base: vid.get(), snapshot: true, ..NewVdi::default() };
        client.new_vdi("hz", &new).unwrap();
    });
}

/// Replays files against one minisheep, after `prepare` has done what was not recorded.
fn replay(names: &[&str], arguments: &[&str], prepare: impl FnOnce(&mut Client)) {
    let dir = tempfile::tempdir().unwrap();
    let sheep = Minisheep::start(&dir.path().join("store"), arguments);
    prepare(&mut sheep.client());
    let mut wrong = Vec::new();
    let mut compared = 0;
    for name in names {
        let transcript = Transcript::load(name);
        compared += replay_one(&sheep, &transcript, &mut wrong);
    }
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 15, "only {compared} answers were compared");
}

fn replay_one(sheep: &Minisheep, transcript: &Transcript, wrong: &mut Vec<String>) -> usize {
    let mut connections: HashMap<u64, Replayed> = HashMap::new();
    let mut requests = HashMap::new();
    let mut compared = 0;
    for event in &transcript.events {
        match event {
            Event::Req(request) => {
                let new = || Replayed { client: sheep.client(), early: Vec::new() };
                let connection = connections.entry(request.conn).or_insert_with(new);
                connection.client.send_raw(&request.hdr);
                connection.client.send_raw(&request.payload.bytes());
                requests.insert(request.n, request.clone());
            }
            Event::Rsp(recorded) => {
                let request = &requests[&recorded.n];
                let header = RequestHeader::decode(&request.hdr);
                let connection = connections.get_mut(&recorded.conn).expect("an open connection");
                let answer = connection.answer(header.id, header.opcode);
                let difference = difference(&header, recorded, &answer);
                note(transcript, request, difference, wrong);
                compared += 1;
            }
            Event::Close { conn } => {
                connections.remove(conn);
            }
            _ => {}
        }
    }
    compared
}

/// Notes a difference that is not meant, and the lack of one that is.
fn note(name: &Transcript, request: &Message, found: Option<String>, wrong: &mut Vec<String>) {
    let name = &name.name;
    let meant = DIFFERENT.iter().any(|(file, n, _)| file == name && *n == request.n);
    match (found, meant) {
        (Some(found), false) => {
            let what = request.dec["op"].as_str().unwrap_or_default();
            wrong.push(format!("{name} request {} {what}: {found}", request.n));
        }
        (None, true) => wrong.push(format!("{name} request {} does not differ", request.n)),
        _ => {}
    }
}

/// A connection with the answers that came before they were wanted.
struct Replayed {
    client: Client,
    early: Vec<(ReplyHeader, Vec<u8>)>,
}

impl Replayed {
    fn answer(&mut self, id: u32, opcode: u8) -> (ReplyHeader, Vec<u8>) {
        let wanted = |(reply, _): &(ReplyHeader, Vec<u8>)| (reply.id, reply.opcode) == (id, opcode);
        loop {
            if let Some(found) = self.early.iter().position(wanted) {
                return self.early.remove(found);
            }
            self.early.push(self.client.receive().expect("an answer"));
        }
    }
}

/// What is different, apart from what may be.
fn difference(
    request: &RequestHeader,
    recorded: &Message,
    (reply, payload): &(ReplyHeader, Vec<u8>),
) -> Option<String> {
    let wanted = ReplyHeader::decode(&recorded.hdr);
    if reply.status != wanted.status {
        return Some(format!("{:?} instead of {:?}", reply.status, wanted.status));
    }
    if (reply.version, reply.epoch, reply.flags) != (0, wanted.epoch, 0) {
        return Some(format!("{reply:?} instead of {wanted:?}"));
    }
    if reply.data_length != wanted.data_length {
        return Some(format!("{} bytes instead of {}", reply.data_length, wanted.data_length));
    }
    let opcode = Opcode::from_code(request.opcode)?;
    if reply.status == Status::Success && opcode != Opcode::StatSheep && reply.union != wanted.union
    {
        return Some(format!("{:02x?} instead of {:02x?}", reply.union, wanted.union));
    }
    let mut expected = recorded.payload.bytes();
    let mut found = payload.clone();
    for bytes in [&mut expected, &mut found] {
        mask(opcode, request, bytes);
    }
    let at = expected.iter().zip(&found).position(|(one, other)| one != other)?;
    let around = |bytes: &[u8]| format!("{:02x?}", &bytes[at..bytes.len().min(at + 16)]);
    Some(format!("byte {at}: {} instead of {}", around(&found), around(&expected)))
}

/// Clears what depends on the clock, on addresses and on the machine.
fn mask(opcode: Opcode, request: &RequestHeader, bytes: &mut [u8]) {
    match opcode {
        Opcode::GetNodeList => mask_nodes(bytes),
        Opcode::ClusterInfo => {
            mask_time(bytes, 8);
            mask_nodes(&mut bytes[48..]);
        }
        Opcode::StatCluster if bytes.len() >= 48 => {
            mask_time(bytes, 0);
            bytes[8..16].fill(0);
            mask_nodes(&mut bytes[48..]);
        }
        Opcode::GetVdiCopies => {
            bytes.chunks_mut(VDI_STATE_LEN).for_each(|state| state[20..60].fill(0));
        }
        Opcode::Stat => bytes.fill(0),
        Opcode::ReadObj => mask_object(request, bytes),
        _ => {}
    }
}

/// All of a node but its share of the ring.
fn mask_nodes(bytes: &mut [u8]) {
    for node in bytes.chunks_exact_mut(NODE_LEN) {
        node[..64].fill(0);
        node[68..].fill(0);
    }
}

fn mask_object(request: &RequestHeader, bytes: &mut [u8]) {
    let fields = request.obj();
    let times: &[usize] = match ObjectId::from_raw(fields.oid).kind() {
        ObjectKind::Inode => &[512, 520],
        ObjectKind::Attribute => &[512],
        _ => &[],
    };
    if fields.offset == 0 {
        times.iter().for_each(|at| mask_time(bytes, *at));
    }
}

/// A time is there or not; which one does not matter.
fn mask_time(bytes: &mut [u8], at: usize) {
    if let Some(time) = bytes.get_mut(at..at + 8) {
        let there = time.iter().any(|byte| *byte != 0);
        time.fill(u8::from(there));
    }
}
