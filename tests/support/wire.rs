//! A client of the wire, for what sheepfs does not do: make VDIs, take snapshots, delete; and
//! to look at a VDI's content without sheepfs. One connection, one request at a time.

use sheepfs::wire::btree::{Head, Leaf, NODE_LEN, Root};
use sheepfs::wire::header::{ObjFields, flags};
use sheepfs::wire::inode::{INODE_HEADER_LEN, InodeHeader, index_offset};
use sheepfs::wire::name::{Generation, NAME_FIELD_LEN, VdiRef};
use sheepfs::wire::request::{Extent, NewVdi, Payload};
use sheepfs::wire::{
    HEADER_LEN, ObjectId, Opcode, ReplyHeader, Request, RequestHeader, Status, VdiId, VdiName,
    VdiTag,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A connection to a sheep.
#[derive(Debug)]
pub struct Wire(TcpStream);

/// A VDI, and its snapshot of that tag.
pub fn snapshot_ref(name: &str, tag: &str) -> VdiRef {
    let generation = Generation::Tag(VdiTag::new(tag).unwrap());
    VdiRef { name: VdiName::new(name).unwrap(), generation }
}

/// A working VDI.
pub fn working_ref(name: &str) -> VdiRef {
    VdiRef { name: VdiName::new(name).unwrap(), generation: Generation::Working }
}

impl Wire {
    /// Connects to `host:port`.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends a request with `payload` where it carries one of the caller's, returns the answer.
    pub fn ask(&mut self, request: &Request, payload: &[u8]) -> (ReplyHeader, Vec<u8>) {
        let payload = match request.payload() {
            Payload::None => &[][..],
            Payload::Bytes(bytes) => bytes,
            Payload::External => payload,
        };
        self.exchange(&request.header(1), payload)
    }

    /// As [`Wire::ask`], for what must succeed.
    pub fn done(&mut self, request: &Request, payload: &[u8]) -> (ReplyHeader, Vec<u8>) {
        let (reply, bytes) = self.ask(request, payload);
        assert!(reply.status.is_success(), "{:?}: {:?}", request.opcode(), reply.status);
        (reply, bytes)
    }

    fn exchange(&mut self, header: &RequestHeader, payload: &[u8]) -> (ReplyHeader, Vec<u8>) {
        let message = [&header.encode()[..], payload].concat();
        self.0.write_all(&message).unwrap();
        let mut head = [0; HEADER_LEN];
        self.0.read_exact(&mut head).unwrap();
        let reply = ReplyHeader::decode(&head);
        let mut bytes = vec![0; reply.data_length as usize];
        self.0.read_exact(&mut bytes).unwrap();
        (reply, bytes)
    }

    /// Makes a VDI.
    pub fn new_vdi(&mut self, name: &str, new: &NewVdi) -> VdiId {
        let request = Request::new_vdi(&VdiName::new(name).unwrap(), new);
        vid_of(&self.done(&request, &[]).0)
    }

    /// Makes a VDI of a name that no user could write.
    pub fn new_vdi_of_bytes(&mut self, name: &[u8], size: u64) -> VdiId {
        let plain = VdiName::new("plain").unwrap();
        let header = Request::new_vdi(&plain, &NewVdi { size, ..NewVdi::default() }).header(1);
        let mut field = [0; NAME_FIELD_LEN];
        field[..name.len()].copy_from_slice(name);
        let (reply, _) = self.exchange(&header, &field);
        assert_eq!(reply.status, Status::Success);
        vid_of(&reply)
    }

    /// Makes a hyper volume.
    pub fn new_hyper_volume(&mut self, name: &str, new: &NewVdi) -> VdiId {
        let name = VdiName::new(name).unwrap();
        let mut header = Request::new_vdi(&name, new).header(1);
        let fields = header.vdi();
        header = header.with_vdi(&sheepfs::wire::header::VdiFields { store_policy: 1, ..fields });
        let (reply, _) = self.exchange(&header, &name.field());
        assert!(reply.status.is_success(), "{:?}", reply.status);
        vid_of(&reply)
    }

    /// The working VDI of that name.
    pub fn vid(&mut self, name: &str) -> VdiId {
        self.look_up(&working_ref(name))
    }

    /// The VDI of that name and tag.
    pub fn look_up(&mut self, vdi: &VdiRef) -> VdiId {
        vid_of(&self.done(&Request::get_vdi_info(vdi), &[]).0)
    }

    /// Takes the lock of a working VDI; the answer's code.
    pub fn lock(&mut self, name: &str) -> Status {
        self.ask(&Request::lock_vdi(&working_ref(name)), &[]).0.status
    }

    /// Gives a lock back.
    pub fn release(&mut self, vid: VdiId) {
        self.done(&Request::release_vdi(vid), &[]);
    }

    /// An inode's header.
    pub fn header(&mut self, vid: VdiId) -> InodeHeader {
        let (_, bytes) = self.done(&Request::read_inode_header(vid), &[]);
        assert_eq!(bytes.len(), INODE_HEADER_LEN);
        InodeHeader::decode(&bytes).unwrap()
    }

    /// Takes a snapshot as `dog vdi snapshot -s TAG NAME` does; the new working vid.
    pub fn snapshot(&mut self, name: &str, tag: &str) -> VdiId {
        let old = self.vid(name);
        let header = self.header(old);
        self.done(&Request::write_tag(old, &VdiTag::new(tag).unwrap()), &[]);
        let new = NewVdi {
            size: header.vdi_size,
            copies: header.nr_copies,
            copy_policy: header.copy_policy,
            block_size_shift: header.block_size_shift,
            base: old.get(),
            snapshot: true,
            store_policy: header.store_policy,
        };
        self.new_vdi(name, &new)
    }

    /// The index of a VDI, up to its size.
    pub fn index(&mut self, vid: VdiId) -> Vec<u32> {
        let header = self.header(vid);
        let count = header.vdi_size.div_ceil(1 << header.block_size_shift);
        if header.is_hyper() {
            let listed = self.tree(vid);
            let owner = |block: u64| listed.get(&u32::try_from(block).unwrap()).copied();
            return (0..count).map(|block| owner(block).unwrap_or(0)).collect();
        }
        let request = Request::read_index(vid, 0, u32::try_from(count).unwrap());
        let (_, bytes) = self.done(&request, &[]);
        bytes.chunks(4).map(|entry| u32::from_le_bytes(entry.try_into().unwrap())).collect()
    }

    /// All that the tree of a hyper volume lists: the owner of each block.
    pub fn tree(&mut self, vid: VdiId) -> BTreeMap<u32, u32> {
        let top = self.done(&Request::read_tree_top(vid, 0, NODE_LEN), &[]).1;
        let leaves = match Head::decode(&top).unwrap() {
            Head::Leaf(_) => vec![Leaf::decode(&top).unwrap()],
            Head::Root(_) => {
                let root = Root::decode(&top).unwrap();
                let mut leaf =
                    |oid| Leaf::decode(&self.done(&Request::read_tree_node(oid, NODE_LEN), &[]).1);
                root.entries().iter().map(|entry| leaf(entry.leaf).unwrap()).collect()
            }
        };
        let entries = leaves.iter().flat_map(Leaf::entries).filter(|entry| entry.owner != 0);
        entries.map(|entry| (entry.block, entry.owner)).collect()
    }

    /// A piece of one object, as it is stored.
    pub fn object(&mut self, vid: VdiId, block: u32, extent: Extent) -> Vec<u8> {
        self.done(&Request::read(vid, block, extent), &[]).1
    }

    /// All of a VDI's content, read object by object as its index says.
    pub fn content(&mut self, vid: VdiId) -> Vec<u8> {
        let header = self.header(vid);
        let size = usize::try_from(header.vdi_size).unwrap();
        let object_len = 1_usize << header.block_size_shift;
        let mut content = vec![0; size];
        for (block, owner) in (0..).zip(self.index(vid)) {
            let Some(owner) = VdiId::new(owner) else { continue };
            let start = block as usize * object_len;
            let room = &mut content[start..size.min(start + object_len)];
            self.read_object(owner, block, header.block_size_shift, room);
        }
        content
    }

    fn read_object(&mut self, owner: VdiId, block: u32, shift: u8, room: &mut [u8]) {
        const PIECE: usize = 1 << 20;
        for (number, piece) in (0_u32..).zip(room.chunks_mut(PIECE)) {
            let len = u32::try_from(piece.len()).unwrap();
            let extent = Extent::new(number << 20, len, shift).unwrap();
            let (_, bytes) = self.done(&Request::read(owner, block, extent), &[]);
            piece.copy_from_slice(&bytes);
        }
    }

    /// Deletes a VDI or snapshot as `dog vdi delete` does: its index first, unless it is a
    /// hyper volume, whose tree the sheep itself must find (protocol 5.5).
    pub fn delete(&mut self, vdi: &VdiRef) {
        let vid = self.look_up(vdi);
        if self.header(vid).store_policy == 0 {
            self.clear_index(vid);
        }
        self.done(&Request::del_vdi(vdi), &[]);
    }

    fn clear_index(&mut self, vid: VdiId) {
        for (block, entry) in (0..).zip(self.index(vid)) {
            if entry != 0 {
                self.write_inode(vid, index_offset(block), &[0; 4]);
            }
        }
    }

    /// Writes into an inode, with no regard to what a client may write there.
    pub fn write_inode(&mut self, vid: VdiId, offset: u32, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap();
        let fields = ObjFields { oid: ObjectId::inode(vid).raw(), offset, ..ObjFields::default() };
        let header = RequestHeader::new(Opcode::WriteObj, flags::WRITE, len).with_obj(&fields);
        assert_eq!(self.exchange(&header, bytes).0.status, Status::Success);
    }

    /// Removes a data object behind the index's back.
    pub fn remove_object(&mut self, vid: VdiId, block: u32) {
        let oid = ObjectId::data(vid, block).raw();
        let fields = ObjFields { oid, ..ObjFields::default() };
        let header = RequestHeader::new(Opcode::RemoveObj, 0, 0).with_obj(&fields);
        assert_eq!(self.exchange(&header, &[]).0.status, Status::Success);
    }
}

fn vid_of(reply: &ReplyHeader) -> VdiId {
    VdiId::new(reply.vdi().vdi_id).unwrap()
}
