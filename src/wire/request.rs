//! The only way to make a request.
//!
//! Some requests kill or poison a server (protocol 18): a WRITE flag that does
//! not match the opcode, a buffer of the wrong length, an offset outside the
//! object, a number of copies. The constructors here cannot express any of
//! them: the flag follows from the constructor, the length from the payload, the
//! place from an [`Extent`] that was checked against the object's size, and
//! copies are always 0.

mod discard;
mod manage;
mod tree;

use super::cluster;
use super::header::{ClusterFields, ObjFields, RequestHeader, VdiFields, flags};
use super::inode::{
    self, BLOCK_SHIFT_MAX, INDEX_ENTRIES, INDEX_OFFSET, INODE_LEN, gref_offset, index_offset,
};
use super::name::{Generation, NAME_FIELD_LEN, VdiName, VdiRef, VdiTag};
use super::oid::{ObjectId, ObjectKind, VdiId};
use super::opcode::Opcode;

/// The largest piece of an object that one request reads or writes: 4 MiB
/// (protocol 1.5 advises 1 to 4 MiB; a FUSE request has at most 1 MiB).
pub const TRANSFER_LEN_MAX: u32 = 4 << 20;
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
const TAG_OFFSET: u32 = 256;

const _: () = assert!(NODE_ROOM as usize == cluster::NODE_LEN);
const _: () = assert!(EPOCH_ROOM as usize == cluster::EPOCH_RECORD_LEN);
const _: () = assert!(CLUSTER_INFO_ROOM as usize == cluster::CLUSTER_INFO_LEN);
const _: () = assert!(STAT_ROOM as usize == cluster::STAT_LEN);
const _: () = assert!(STAT_RECOVERY_ROOM as usize == cluster::STAT_RECOVERY_LEN);
const _: () = assert!(VDI_STATE_ROOM as usize == cluster::VDI_STATE_LEN);

/// A piece of a data object that is known to lie inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    offset: u32,
    len: u32,
}

impl Extent {
    /// A piece of an object of `1 << shift` bytes; `None` when it does not fit
    /// or is longer than [`TRANSFER_LEN_MAX`].
    #[must_use]
    pub fn new(offset: u32, len: u32, shift: u8) -> Option<Self> {
        let end = u64::from(offset) + u64::from(len);
        let fits = shift <= BLOCK_SHIFT_MAX && end <= 1 << shift && len <= TRANSFER_LEN_MAX;
        fits.then_some(Self { offset, len })
    }

    /// First byte, counted in the object.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.offset
    }

    /// Bytes.
    #[must_use]
    pub fn len(self) -> u32 {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// What follows a request's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(Box<[u8]>),
    /// As many bytes as the header says, which whoever sends it has at hand.
    External,
}

/// A request, complete but for its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    header: RequestHeader,
    payload: Payload,
}

/// What a new VDI shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewVdi {
    /// Bytes.
    pub size: u64,
    /// Replicas; 0 is the cluster's default.
    pub copies: u8,
    /// Erasure code; 0 is the cluster's default.
    pub copy_policy: u8,
    /// log2 of the block size; 0 is the cluster's default.
    pub block_size_shift: u8,
    /// The parent's vid, or 0.
    pub base: u32,
    /// Turn the working VDI into a snapshot and go on in a new one.
    pub snapshot: bool,
    /// 0 an array for an index, 1 a tree (protocol 5).
    pub store_policy: u8,
}

impl Request {
    /// The header, with that id.
    #[must_use]
    pub fn header(&self, id: u32) -> RequestHeader {
        RequestHeader { id, ..self.header }
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// What follows the header, taken out.
    #[must_use]
    pub fn into_payload(self) -> Payload {
        self.payload
    }

    /// Bytes of payload to be sent.
    #[must_use]
    pub fn payload_len(&self) -> u32 {
        if self.header.has_payload() { self.header.data_length } else { 0 }
    }

    /// The most bytes that a well-behaved server answers.
    #[must_use]
    pub fn reply_len_max(&self) -> u32 {
        if self.header.has_payload() { 0 } else { self.header.data_length }
    }

    /// The request's kind.
    #[must_use]
    pub fn opcode(&self) -> Option<Opcode> {
        Opcode::from_code(self.header.opcode)
    }

    /// The object that it is for, if it is for one.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        ObjectId::from_raw(self.header.obj().oid)
    }

    /// Whether any node may be asked for it: it reads an object, or it writes or makes a data
    /// object.
    #[must_use]
    pub fn is_for_any_node(&self) -> bool {
        match self.opcode() {
            Some(Opcode::ReadObj) => true,
            Some(Opcode::WriteObj | Opcode::CreateAndWriteObj) => {
                self.object().kind() == ObjectKind::Data
            }
            Some(_) | None => false,
        }
    }

    /// Reads a piece of a data object.
    #[must_use]
    pub fn read(vid: VdiId, index: u32, extent: Extent) -> Self {
        let fields = data_fields(vid, index, extent);
        Self::plain(Opcode::ReadObj, extent.len, |header| header.with_obj(&fields))
    }

    /// Overwrites a piece of an existing data object.
    #[must_use]
    pub fn write(vid: VdiId, index: u32, extent: Extent) -> Self {
        let fields = data_fields(vid, index, extent);
        Self::external(Opcode::WriteObj, 0, extent.len).obj(&fields)
    }

    /// Overwrites a piece of an existing data object with bytes that the request
    /// carries itself. `None` when they are more or fewer than the piece.
    #[must_use]
    pub fn write_bytes(vid: VdiId, index: u32, extent: Extent, bytes: Vec<u8>) -> Option<Self> {
        let fields = data_fields(vid, index, extent);
        (bytes.len() == extent.len as usize)
            .then(|| Self::bytes(Opcode::WriteObj, bytes).obj(&fields))
    }

    /// Makes a data object: zeros but for the payload.
    #[must_use]
    pub fn create(vid: VdiId, index: u32, extent: Extent) -> Self {
        let fields = data_fields(vid, index, extent);
        Self::external(Opcode::CreateAndWriteObj, 0, extent.len).obj(&fields)
    }

    /// Makes a data object: the parent's content but for the payload.
    #[must_use]
    pub fn create_from(vid: VdiId, index: u32, base: VdiId, extent: Extent) -> Self {
        let cow_oid = ObjectId::data(base, index).raw();
        let fields = ObjFields { cow_oid, ..data_fields(vid, index, extent) };
        Self::external(Opcode::CreateAndWriteObj, flags::COW, extent.len).obj(&fields)
    }

    /// Reads an inode's header.
    #[must_use]
    pub fn read_inode_header(vid: VdiId) -> Self {
        Self::read_inode(vid, 0, INDEX_OFFSET)
    }

    /// Reads an inode's header and, behind it, the first `count` index entries.
    #[must_use]
    pub fn read_inode_front(vid: VdiId, count: u32) -> Self {
        Self::read_inode(vid, 0, index_offset(count.min(INDEX_ENTRIES)))
    }

    /// Reads `count` index entries from block `first` on, cut at the index's end.
    #[must_use]
    pub fn read_index(vid: VdiId, first: u32, count: u32) -> Self {
        let first = first.min(INDEX_ENTRIES);
        let count = count.min(INDEX_ENTRIES - first);
        Self::read_inode(vid, index_offset(first), 4 * count)
    }

    /// Reads the reference count of one block: generation and count, `i32` each.
    #[must_use]
    pub fn read_gref(vid: VdiId, index: u32) -> Self {
        Self::read_inode(vid, gref_offset(index.min(INDEX_ENTRIES - 1)), 8)
    }

    /// Writes own entries for `count` neighbouring blocks from `first` on. All
    /// of them must change by it (protocol 8.7). `None` when they run over the
    /// index's end or there are none. For array volumes only (protocol 5.4).
    #[must_use]
    pub fn write_index(inode: VdiId, first: u32, count: u32, value: VdiId) -> Option<Self> {
        let end = first.checked_add(count)?;
        if count == 0 || end > INDEX_ENTRIES {
            return None;
        }
        let entries = value.get().to_le_bytes().repeat(count as usize);
        Some(Self::write_inode(inode, index_offset(first), entries))
    }

    /// Sets the reference count of one block; only the repair of an entry that
    /// the server lost does that (protocol 7.4).
    #[must_use]
    pub fn write_gref(inode: VdiId, index: u32, generation: i32, count: i32) -> Self {
        let mut bytes = generation.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        Self::write_inode(inode, gref_offset(index.min(INDEX_ENTRIES - 1)), bytes)
    }

    /// Gives a working VDI the tag it will have as a snapshot (protocol 7.3).
    #[must_use]
    pub fn write_tag(inode: VdiId, tag: &VdiTag) -> Self {
        Self::write_inode(inode, TAG_OFFSET, tag.field().to_vec())
    }

    /// Looks a VDI up.
    #[must_use]
    pub fn get_vdi_info(vdi: &VdiRef) -> Self {
        Self::lookup(Opcode::GetVdiInfo, vdi)
    }

    /// Looks a VDI up and takes its lock.
    #[must_use]
    pub fn lock_vdi(vdi: &VdiRef) -> Self {
        Self::lookup(Opcode::LockVdi, vdi)
    }

    /// Gives a lock back, whoever holds it (protocol 13.3): send it for own locks, or
    /// when the user said that the holder is dead.
    #[must_use]
    pub fn release_vdi(vid: VdiId) -> Self {
        let fields = VdiFields { base_vdi_id: vid.get(), ..VdiFields::default() };
        Self::plain(Opcode::ReleaseVdi, 0, |header| header.with_vdi(&fields))
    }

    /// Makes a VDI, a snapshot or a clone (protocol 12.2).
    #[must_use]
    pub fn new_vdi(name: &VdiName, new: &NewVdi) -> Self {
        let fields = VdiFields {
            vdi_size: new.size,
            base_vdi_id: new.base,
            copies: new.copies,
            copy_policy: new.copy_policy,
            block_size_shift: new.block_size_shift,
            store_policy: new.store_policy,
            snapid: u32::from(new.snapshot),
            ..VdiFields::default()
        };
        Self::bytes(Opcode::NewVdi, name.field().to_vec()).vdi(&fields)
    }

    /// Deletes a VDI whose index is empty.
    #[must_use]
    pub fn del_vdi(vdi: &VdiRef) -> Self {
        Self::lookup(Opcode::DelVdi, vdi)
    }

    /// Flushes; a refusal as invalid means that the server writes through.
    #[must_use]
    pub fn flush_vdi(vid: VdiId) -> Self {
        let fields = ObjFields { oid: ObjectId::inode(vid).raw(), ..ObjFields::default() };
        Self::plain(Opcode::FlushVdi, 0, |header| header.with_obj(&fields))
    }

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

    fn read_inode(vid: VdiId, offset: u32, len: u32) -> Self {
        debug_assert!(offset + len <= INODE_LEN);
        let fields = inode_fields(vid, offset);
        Self::plain(Opcode::ReadObj, len, |header| header.with_obj(&fields))
    }

    fn write_inode(vid: VdiId, offset: u32, bytes: Vec<u8>) -> Self {
        Self::bytes(Opcode::WriteObj, bytes).obj(&inode_fields(vid, offset))
    }

    fn lookup(opcode: Opcode, vdi: &VdiRef) -> Self {
        let mut payload = vdi.name.field().to_vec();
        payload.resize(2 * NAME_FIELD_LEN, 0);
        let mut fields = VdiFields::default();
        match &vdi.generation {
            Generation::Working => {}
            Generation::SnapId(id) => fields.snapid = *id,
            Generation::Tag(tag) => payload[NAME_FIELD_LEN..].copy_from_slice(&tag.field()),
        }
        Self::bytes(opcode, payload).vdi(&fields)
    }

    /// No payload; room for `data_length` bytes of answer.
    fn plain(
        opcode: Opcode,
        data_length: u32,
        set: impl FnOnce(RequestHeader) -> RequestHeader,
    ) -> Self {
        let header = set(RequestHeader::new(opcode, 0, data_length));
        Self { header, payload: Payload::None }
    }

    fn external(opcode: Opcode, extra: u16, len: u32) -> Self {
        let header = RequestHeader::new(opcode, flags::WRITE | extra, len);
        Self { header, payload: Payload::External }
    }

    fn bytes(opcode: Opcode, payload: Vec<u8>) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most an index, 4 MiB")]
        let len = payload.len() as u32;
        let header = RequestHeader::new(opcode, flags::WRITE, len);
        Self { header, payload: Payload::Bytes(payload.into_boxed_slice()) }
    }

    fn obj(mut self, fields: &ObjFields) -> Self {
        self.header = self.header.with_obj(fields);
        self
    }

    fn vdi(mut self, fields: &VdiFields) -> Self {
        self.header = self.header.with_vdi(fields);
        self
    }
}

fn data_fields(vid: VdiId, index: u32, extent: Extent) -> ObjFields {
    let oid = ObjectId::data(vid, index).raw();
    ObjFields { oid, offset: extent.offset, ..ObjFields::default() }
}

fn inode_fields(vid: VdiId, offset: u32) -> ObjFields {
    debug_assert!(offset < inode::INODE_LEN);
    ObjFields { oid: ObjectId::inode(vid).raw(), offset, ..ObjFields::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vid() -> VdiId {
        VdiId::new(0x70_9128).unwrap()
    }

    #[test]
    fn an_extent_stays_inside_its_object() {
        assert!(Extent::new(0, 512, 9).is_some());
        assert!(Extent::new(1, 512, 9).is_none());
        assert!(Extent::new(u32::MAX, 2, 31).is_none());
        assert!(Extent::new(0, TRANSFER_LEN_MAX + 1, 31).is_none());
        assert!(Extent::new(0, 1, 32).is_none());
    }

    #[test]
    fn the_write_flag_follows_from_the_constructor() {
        let extent = Extent::new(0, 4096, 22).unwrap();
        let written = [Request::write(vid(), 1, extent), Request::create(vid(), 1, extent)];
        for request in written {
            assert_eq!(request.header(1).flags, flags::WRITE);
            assert_eq!((request.payload_len(), request.reply_len_max()), (4096, 0));
        }
        let cow = Request::create_from(vid(), 1, VdiId::new(7).unwrap(), extent).header(3);
        assert_eq!(cow.flags, flags::WRITE | flags::COW);
        assert_eq!(cow.obj().cow_oid, 7 << 32 | 1);
        let read = Request::read(vid(), 1, extent);
        assert_eq!(read.header(1).flags, 0);
        assert_eq!((read.payload_len(), read.reply_len_max()), (0, 4096));
    }

    #[test]
    fn the_room_for_an_answer_is_what_a_server_fills() {
        assert_eq!(Request::stat().reply_len_max(), 120);
        assert_eq!(Request::stat_recovery().reply_len_max(), 24);
        assert_eq!(Request::get_vdi_copies(512).reply_len_max(), 512 * 1428);
        assert_eq!(Request::get_vdi_copies(0).reply_len_max(), 1428);
    }

    #[test]
    fn index_writes_stay_inside_the_index() {
        assert!(Request::write_index(vid(), INDEX_ENTRIES, 1, vid()).is_none());
        assert!(Request::write_index(vid(), 0, 0, vid()).is_none());
        let last = Request::write_index(vid(), INDEX_ENTRIES - 1, 1, vid()).unwrap();
        assert_eq!(last.header(0).obj().offset, inode::GREF_OFFSET - 4);
        assert_eq!(Request::read_index(vid(), INDEX_ENTRIES - 3, 1024).reply_len_max(), 12);
    }
}
