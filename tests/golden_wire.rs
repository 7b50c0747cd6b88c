//! The codecs and the constructors of requests against the recordings: every
//! header survives both ways, and what sheepfs would ask for an operation is what
//! the C clients asked, but for the fields in which it means to differ: `copies`
//! is always 0, the flags without effect (CACHE, DIRECT, PIGGYBACK) are not sent,
//! and every public request is of version 2.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/golden.rs"]
mod golden;

use golden::{Exchange, transcripts};
use sheepfs::wire::header::{ObjFields, flags};
use sheepfs::wire::inode::{GREF_OFFSET, INDEX_OFFSET, INODE_HEADER_LEN, InodeHeader};
use sheepfs::wire::name::{Generation, VdiRef, field_bytes};
use sheepfs::wire::oid::{ObjectKind, vid_candidate};
use sheepfs::wire::request::{Extent, NewVdi, Payload};
use sheepfs::wire::{
    ObjectId, Opcode, ReplyHeader, Request, RequestHeader, Status, VdiId, VdiName, VdiTag,
};
use std::collections::BTreeMap;

const SHIFT_MAX: u8 = 31;
/// Flags that change nothing on today's servers.
const IDLE_FLAGS: u16 = 0x04 | 0x08 | 0x10;
/// The shared-lock protocol, of which sheepfs has no part (protocol 13.5).
const TGT_FLAG: u16 = 0x20;

fn exchanges() -> Vec<Exchange> {
    transcripts().iter().flat_map(golden::Transcript::exchanges).collect()
}

#[test]
fn every_recorded_header_survives_both_ways() {
    let (mut requests, mut replies) = (0, 0);
    for exchange in exchanges() {
        let header = RequestHeader::decode(&exchange.req.hdr);
        assert_eq!(header.encode(), exchange.req.hdr);
        requests += 1;
        if let Some(rsp) = &exchange.rsp {
            let reply = ReplyHeader::decode(&rsp.hdr);
            assert_eq!(reply.encode(), rsp.hdr);
            assert_eq!((reply.id, reply.opcode), (header.id, header.opcode));
            replies += 1;
        }
    }
    assert!(requests >= 800 && replies >= 800, "{requests} requests, {replies} replies");
}

#[test]
fn every_successful_read_is_answered_whole() {
    let mut reads = 0;
    for exchange in exchanges() {
        let header = RequestHeader::decode(&exchange.req.hdr);
        let Some(rsp) = &exchange.rsp else { continue };
        let reply = ReplyHeader::decode(&rsp.hdr);
        if Opcode::from_code(header.opcode) == Some(Opcode::ReadObj) && reply.status.is_success() {
            assert_eq!(reply.data_length, header.data_length);
            reads += 1;
        }
    }
    assert!(reads > 100, "{reads}");
}

/// The request that sheepfs would make for what was recorded; `None` for what it
/// never asks.
fn ours(header: &RequestHeader, payload: &[u8]) -> Option<Request> {
    if header.flags & TGT_FLAG != 0 {
        return None;
    }
    match Opcode::from_code(header.opcode)? {
        Opcode::ReadObj => our_read(header),
        Opcode::WriteObj | Opcode::CreateAndWriteObj => our_write(header, payload),
        Opcode::GetVdiInfo => Some(Request::get_vdi_info(&named(header, payload)?)),
        Opcode::LockVdi if header.vdi().lock_type == 0 => {
            Some(Request::lock_vdi(&named(header, payload)?))
        }
        Opcode::DelVdi => Some(Request::del_vdi(&named(header, payload)?)),
        Opcode::ReleaseVdi if header.vdi().lock_type == 0 && payload.is_empty() => {
            Some(Request::release_vdi(VdiId::new(header.vdi().base_vdi_id)?))
        }
        Opcode::NewVdi => our_new_vdi(header, payload),
        Opcode::GetClusterDefault => Some(Request::get_cluster_default()),
        // The test client of the recordings left less room for the answer.
        Opcode::GetNodeList if header.data_length == 491_520 => Some(Request::get_node_list()),
        Opcode::StatSheep => Some(Request::stat_sheep()),
        Opcode::ClusterInfo => Some(Request::cluster_info()),
        Opcode::ReadVdis => Some(Request::read_vdis()),
        Opcode::ReadDelVdis => Some(Request::read_del_vdis()),
        Opcode::StatCluster => {
            let nodes = header.cluster().nodes_nr;
            Some(Request::stat_cluster(header.data_length / (48 + 80 * nodes), nodes))
        }
        _ => None,
    }
}

fn our_read(header: &RequestHeader) -> Option<Request> {
    let obj = header.obj();
    let oid = ObjectId::from_raw(obj.oid);
    let vid = VdiId::new(oid.vid_raw())?;
    let (offset, len) = (obj.offset, header.data_length);
    match oid.kind() {
        ObjectKind::Data => {
            Some(Request::read(vid, oid.index(), Extent::new(offset, len, SHIFT_MAX)?))
        }
        ObjectKind::Inode if offset == 0 && len as usize == INODE_HEADER_LEN => {
            Some(Request::read_inode_header(vid))
        }
        ObjectKind::Inode if offset >= INDEX_OFFSET && offset + len <= GREF_OFFSET => {
            Some(Request::read_index(vid, (offset - INDEX_OFFSET) / 4, len / 4))
        }
        _ => None,
    }
}

fn our_write(header: &RequestHeader, payload: &[u8]) -> Option<Request> {
    let obj = header.obj();
    let oid = ObjectId::from_raw(obj.oid);
    let vid = VdiId::new(oid.vid_raw())?;
    if oid.kind() == ObjectKind::Inode {
        return our_inode_write(vid, &obj, payload);
    }
    let extent = Extent::new(obj.offset, header.data_length, SHIFT_MAX)?;
    let create = header.opcode == Opcode::CreateAndWriteObj.code();
    match (oid.kind(), create, header.flags & flags::COW != 0) {
        (ObjectKind::Data, false, _) => Some(Request::write(vid, oid.index(), extent)),
        (ObjectKind::Data, true, false) => Some(Request::create(vid, oid.index(), extent)),
        (ObjectKind::Data, true, true) => {
            let base = VdiId::new(ObjectId::from_raw(obj.cow_oid).vid_raw())?;
            Some(Request::create_from(vid, oid.index(), base, extent))
        }
        _ => None,
    }
}

fn our_inode_write(vid: VdiId, obj: &ObjFields, payload: &[u8]) -> Option<Request> {
    let tag = str::from_utf8(field_bytes(payload)).ok().and_then(|text| VdiTag::new(text).ok());
    if let (256, 256, Some(tag)) = (obj.offset, payload.len(), tag) {
        return Some(Request::write_tag(vid, &tag));
    }
    let own = vid.get().to_le_bytes();
    let entries = payload.len() / 4;
    let all_own = !payload.is_empty() && payload == own.repeat(entries);
    let in_index = obj.offset >= INDEX_OFFSET && obj.offset < GREF_OFFSET;
    (all_own && in_index).then(|| {
        let first = (obj.offset - INDEX_OFFSET) / 4;
        Request::write_index(vid, first, u32::try_from(entries).unwrap(), vid).unwrap()
    })
}

fn our_new_vdi(header: &RequestHeader, payload: &[u8]) -> Option<Request> {
    let fields = header.vdi();
    let name = VdiName::new(str::from_utf8(field_bytes(payload)).ok()?).ok()?;
    let new = NewVdi {
        size: fields.vdi_size,
        copies: fields.copies,
        copy_policy: fields.copy_policy,
        block_size_shift: fields.block_size_shift,
        base: fields.base_vdi_id,
        snapshot: fields.snapid == 1,
        store_policy: fields.store_policy,
    };
    (fields.snapid < 2).then(|| Request::new_vdi(&name, &new))
}

fn named(header: &RequestHeader, payload: &[u8]) -> Option<VdiRef> {
    let name = VdiName::new(str::from_utf8(field_bytes(payload.get(..256)?)).ok()?).ok()?;
    let tag = payload.get(256..512).map(field_bytes).unwrap_or_default();
    let generation = match (header.vdi().snapid, tag) {
        (0, []) => Generation::Working,
        (id, []) => Generation::SnapId(id),
        (0, tag) => Generation::Tag(VdiTag::new(str::from_utf8(tag).ok()?).ok()?),
        (_, _) => return None,
    };
    // Some clients leave an empty tag out.
    if payload.len() != 512 {
        return None;
    }
    Some(VdiRef { name, generation })
}

/// A recorded header without that in which sheepfs differs on purpose.
fn as_we_would(recorded: &RequestHeader) -> RequestHeader {
    let opcode = Opcode::from_code(recorded.opcode).unwrap();
    let mut header = *recorded;
    header.version = opcode.version();
    header.flags &= !IDLE_FLAGS;
    header.epoch = 0;
    if matches!(opcode, Opcode::ReadObj | Opcode::WriteObj | Opcode::CreateAndWriteObj) {
        header = header.with_obj(&ObjFields { copies: 0, copy_policy: 0, ..recorded.obj() });
    }
    header
}

#[test]
fn our_requests_are_those_of_the_c_clients() {
    let mut compared: BTreeMap<u8, usize> = BTreeMap::new();
    for exchange in exchanges() {
        let recorded = RequestHeader::decode(&exchange.req.hdr);
        let answer = exchange.rsp.as_ref().map(|rsp| ReplyHeader::decode(&rsp.hdr).status);
        // What was sent to provoke a refusal is nothing we could express.
        if !matches!(
            answer,
            Some(Status::Success | Status::Readonly | Status::NoVdi | Status::NoTag)
        ) {
            continue;
        }
        let payload = exchange.req.payload.bytes();
        let Some(request) = ours(&recorded, &payload) else { continue };
        let where_ = format!("{:?}", exchange.req.dec);
        assert_eq!(request.header(recorded.id), as_we_would(&recorded), "{where_}");
        assert_eq!(request.payload_len() as usize, payload.len(), "{where_}");
        if let Payload::Bytes(bytes) = request.payload() {
            assert_eq!(bytes.as_ref(), payload.as_slice(), "{where_}");
        }
        *compared.entry(recorded.opcode).or_default() += 1;
    }
    let kinds = compared.len();
    let count: usize = compared.values().sum();
    assert!(kinds >= 15 && count > 500, "{kinds} kinds, {count} requests: {compared:?}");
}

#[test]
fn recorded_inode_headers_survive_both_ways() {
    let mut headers = 0;
    for exchange in exchanges() {
        let request = RequestHeader::decode(&exchange.req.hdr);
        let obj = request.obj();
        let oid = ObjectId::from_raw(obj.oid);
        let reads = Opcode::from_code(request.opcode) == Some(Opcode::ReadObj);
        let Some(rsp) = exchange.rsp.filter(|_| reads && oid.kind() == ObjectKind::Inode) else {
            continue;
        };
        let bytes = rsp.payload.bytes();
        if obj.offset != 0 || bytes.len() < INODE_HEADER_LEN {
            continue;
        }
        let header = InodeHeader::decode(&bytes).unwrap();
        let mut copy: [u8; INODE_HEADER_LEN] = bytes[..INODE_HEADER_LEN].try_into().unwrap();
        header.write_into(&mut copy);
        assert_eq!(copy.as_slice(), &bytes[..INODE_HEADER_LEN]);
        if !header.name.is_empty() {
            assert_eq!(header.vdi_id, oid.vid_raw());
        }
        headers += 1;
    }
    assert!(headers > 50, "{headers}");
}

#[test]
fn a_new_vdi_gets_the_vid_that_its_name_hashes_to() {
    let mut made = 0;
    for exchange in exchanges() {
        let request = RequestHeader::decode(&exchange.req.hdr);
        let Some(rsp) = exchange.rsp else { continue };
        let reply = ReplyHeader::decode(&rsp.hdr);
        let new = Opcode::from_code(request.opcode) == Some(Opcode::NewVdi);
        if new && reply.status.is_success() && reply.vdi().vdi_id > 0xffff {
            let payload = exchange.req.payload.bytes();
            let candidate = vid_candidate(field_bytes(&payload));
            // Later generations of a name take the next free numbers.
            assert!((candidate..candidate + 16).contains(&reply.vdi().vdi_id));
            made += 1;
        }
    }
    assert!(made > 15, "{made}");
}
