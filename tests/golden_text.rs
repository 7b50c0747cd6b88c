//! Our control files against the recorded output of `dog`: for each recorded command whose output
//! is what a control file holds, the report is rebuilt from the replies that `dog` got, and the
//! text made of it must be what `dog` printed. The recordings are in UTC.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/golden.rs"]
mod golden;

use golden::{Exchange, HEADER_LEN, Message, Scene, transcripts};
use jiff::tz::TimeZone;
use sheepfs::text::report::{ClusterReport, NodeReport, SpaceReport, StoreSpace, VdiReport};
use sheepfs::text::{cluster_info, node_info, node_list, vdi_list};
use sheepfs::wire::cluster::{BlockUsage, EpochRecord, TreeHead, TreeUsage, VdiBitmap};
use sheepfs::wire::cluster::{covered_entries, decode_nodes};
use sheepfs::wire::inode::{INDEX_OFFSET, INODE_HEADER_LEN, InodeHeader};
use sheepfs::wire::{ObjectId, Opcode, ReplyHeader, RequestHeader, VdiId};

#[test]
fn cluster_info_is_what_dog_prints() {
    let compared = compare("cluster info", |scene, _| {
        let (req, rsp) = all(scene, Opcode::StatCluster).pop().expect("STAT_CLUSTER");
        let nodes_nr = request(req).cluster().nodes_nr;
        let epochs = EpochRecord::decode_all(&rsp.payload.bytes(), nodes_nr).unwrap();
        let report = ClusterReport { status: reply(rsp).status.code(), epochs };
        cluster_info(&report, &TimeZone::UTC)
    });
    assert_eq!(compared, 8);
}

#[test]
fn node_list_is_what_dog_prints() {
    let compared = compare("node list", |scene, _| {
        let (_, rsp) = all(scene, Opcode::GetNodeList)[0];
        let nodes = decode_nodes(&rsp.payload.bytes(), reply(rsp).node().nr_nodes).unwrap();
        node_list(&NodeReport { nodes })
    });
    assert_eq!(compared, 3);
}

#[test]
fn node_info_is_what_dog_prints() {
    let compared = compare("node info", |scene, _| {
        let answers = all(scene, Opcode::StatSheep).into_iter().map(|(_, rsp)| reply(rsp));
        let space = |rsp: ReplyHeader| rsp.status.is_success().then(|| rsp.node().into());
        let nodes: Vec<Option<StoreSpace>> = answers.map(space).collect();
        assert!(!nodes.is_empty());
        let working = headers(scene).into_iter().filter(|header| !header.is_snapshot());
        let virtual_bytes = working.map(|header| header.vdi_size).sum();
        node_info(&SpaceReport { nodes, virtual_bytes })
    });
    assert_eq!(compared, 5);
}

#[test]
fn vdi_list_is_what_dog_prints() {
    let compared = compare("vdi list", |scene, wanted| {
        let headers = headers(scene).into_iter();
        let headers = headers.filter(|h| wanted.is_none_or(|name| h.name == name.as_bytes()));
        let report = |header| VdiReport { usage: usage(scene, &header), header };
        let reports: Vec<VdiReport> = headers.map(report).collect();
        vdi_list(&reports, &TimeZone::UTC)
    });
    assert_eq!(compared, 14);
}

/// Makes the text for every recorded `dog WORDS` with nothing but a name behind it, compares, and
/// says how many there were.
fn compare(words: &str, text: impl Fn(&Scene, Option<&str>) -> Vec<u8>) -> usize {
    let mut compared = 0;
    for transcript in transcripts() {
        for scene in transcript.scenes() {
            let Some(name) = plain_arguments(&scene.cmd.argv, words) else { continue };
            let ours = String::from_utf8(text(&scene, name.as_deref())).unwrap();
            let theirs = String::from_utf8(scene.cmd.stdout.bytes()).unwrap();
            assert_eq!(ours, theirs, "{}: {:?}", transcript.name, scene.cmd.argv);
            compared += 1;
        }
    }
    compared
}

/// What follows `dog WORDS` besides the address: nothing or a name. `None` for other commands and
/// for options that change the format.
fn plain_arguments(argv: &[String], words: &str) -> Option<Option<String>> {
    let line = argv.join(" ");
    let rest = line.strip_prefix("dog ")?.strip_prefix(words)?;
    let (name, _) = rest.split_once(" -a ")?;
    let name = name.trim();
    (!name.starts_with('-')).then(|| (!name.is_empty()).then(|| name.to_owned()))
}

/// The requests of a kind with their replies.
fn all(scene: &Scene, opcode: Opcode) -> Vec<(&Message, &Message)> {
    let wanted = scene.exchanges.iter().filter(|e| request(&e.req).opcode == opcode as u8);
    wanted.map(|e| (&e.req, answered(e))).collect()
}

fn answered(exchange: &Exchange) -> &Message {
    exchange.rsp.as_ref().expect("a reply")
}

fn request(message: &Message) -> RequestHeader {
    let bytes: &[u8; HEADER_LEN] = &message.hdr;
    RequestHeader::decode(bytes)
}

fn reply(message: &Message) -> ReplyHeader {
    ReplyHeader::decode(&message.hdr)
}

/// The heads of the inodes that the bitmaps name, as far as they could be read; they must be
/// those which `dog` read, in the same order.
fn headers(scene: &Scene) -> Vec<InodeHeader> {
    if all(scene, Opcode::ReadVdis).is_empty() {
        return Vec::new();
    }
    let in_use = bitmap(scene, Opcode::ReadVdis);
    let deleted = bitmap(scene, Opcode::ReadDelVdis);
    let wanted = in_use.without(&deleted).map(|vid| ObjectId::inode(vid).raw());
    let read = reads(scene).into_iter().filter(|(_, offset, _)| *offset == 0);
    let mut found = Vec::new();
    for (wanted, (oid, _, rsp)) in wanted.zip(read) {
        assert_eq!(oid, wanted);
        found.extend(reply(rsp).status.is_success().then(|| header(rsp)));
    }
    found.retain(|header| !header.name.is_empty());
    found
}

fn bitmap(scene: &Scene, opcode: Opcode) -> VdiBitmap {
    let (_, rsp) = all(scene, opcode)[0];
    VdiBitmap::decode(rsp.payload.bytes()).unwrap()
}

fn header(rsp: &Message) -> InodeHeader {
    InodeHeader::decode(&rsp.payload.bytes()).unwrap()
}

/// What was read: object, offset, reply.
fn reads(scene: &Scene) -> Vec<(u64, u32, &Message)> {
    let reads = all(scene, Opcode::ReadObj).into_iter();
    let place = |req: &Message| (request(req).obj().oid, request(req).obj().offset);
    reads.map(|(req, rsp)| (place(req).0, place(req).1, rsp)).collect()
}

/// The objects of a VDI, counted in the reply to the read of its index.
fn usage(scene: &Scene, header: &InodeHeader) -> BlockUsage {
    let own = VdiId::new(header.vdi_id).unwrap();
    let inode = ObjectId::inode(own).raw();
    let read = |offset| reads(scene).into_iter().find(|read| (read.0, read.1) == (inode, offset));
    let index = read(INDEX_OFFSET).expect("dog reads the index").2.payload.bytes();
    if header.store_policy == 0 {
        assert_eq!(index.len(), 4 * covered_entries(header) as usize);
        return BlockUsage::of_index(&index, own);
    }
    let front = read(0).unwrap().2.payload.bytes();
    let head = TreeHead::decode(&front[INODE_HEADER_LEN..]).unwrap();
    assert_eq!(index.len(), head.used_len());
    match TreeUsage::of_node(&index, own).unwrap() {
        TreeUsage::Leaf(usage) => usage,
        TreeUsage::Root(leaves) => panic!("no recorded tree has leaf objects: {leaves:?}"),
    }
}
