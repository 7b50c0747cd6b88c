//! The cluster: objects and inodes in memory, and the rules that it checks.

mod references;
mod slow;

use crate::context::Wire;
use sheepfs::ipc::{Arena, Span};
use sheepfs::wire::cluster::{Lock, NodeId, VdiState};
use sheepfs::wire::header::{ReplyHeader, RequestHeader, VdiReply, flags};
use sheepfs::wire::inode::{GREF_OFFSET, INODE_HEADER_LEN, InodeHeader, index_offset};
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::request::Payload;
use sheepfs::wire::{ObjectId, Opcode, Request, Status, VdiId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

/// Entries of the index that are kept: one page, more than any test uses.
const ENTRIES: usize = 1024;

/// Where an inode says how large its VDI is (protocol 4.1).
pub const SIZE_OFFSET: usize = 536;
/// The node through which everything is asked.
pub const GATEWAY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7000));

/// What the VDI is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// log2 of its objects.
    pub shift: u8,
    /// Bytes.
    pub len: usize,
    /// 0 replicated, else erasure coded.
    pub copy_policy: u8,
}

impl Shape {
    /// Bytes of an object.
    pub fn object_len(self) -> usize {
        1 << self.shift
    }
}

/// A request on its way, with the payload it had when it was sent.
pub struct Sent {
    pub id: u32,
    pub request: Request,
    pub span: Option<Span>,
    /// What was there when its worker died, if it is late: the next one may use the place.
    pub left: Option<Vec<u8>>,
}

/// The used part of an inode: the header with the index's first page, and the
/// reference counts that were written.
#[derive(Clone)]
pub struct Inode {
    pub bytes: Vec<u8>,
    pub grefs: HashMap<usize, Vec<u8>>,
}

/// See the module.
pub struct Cluster {
    pub shape: Shape,
    pub working: u32,
    pub objects: HashMap<u64, Vec<u8>>,
    pub inodes: BTreeMap<u32, Inode>,
    pub sent: Vec<Sent>,
    /// Requests that were ever sent.
    pub asked: usize,
    next_id: u32,
    pub snapshots: usize,
    /// Whether a snapshot loses the entry that was written last.
    pub lose_entry: bool,
    /// That entry, and what stood there before.
    newest: Option<(u32, u32)>,
    /// Entries of other vids that were written: repairs.
    pub repaired: usize,
    /// Whether requests that were carried out may be reported as failed, so that
    /// an own entry may be written over itself.
    pub lies: bool,
    /// Index entries written.
    pub updates: usize,
    /// The vids whose locks were given back.
    pub released: Vec<u32>,
    /// The vids that are locked, all by [`GATEWAY`]; `None` where locks lock nothing.
    pub locks: Option<BTreeSet<u32>>,
    /// Whether it says of no lock that somebody has it.
    pub hides_owners: bool,
    /// How often it still says that it recovers.
    pub recovering: usize,
    /// Whether references that index updates give up are counted.
    pub counts: bool,
    /// What is left of shared objects' references.
    pub ledgers: HashMap<u64, Vec<i32>>,
    /// What a snapshot that is being made has read.
    slow: Option<Inode>,
    /// Whether index updates are lost that a snapshot is made beside.
    pub loses: bool,
    /// How many were.
    pub lost_updates: usize,
    /// What updates that came behind the snapshot have given up: the new vid's reference to
    /// it was counted.
    pub behind: BTreeSet<u64>,
    /// How many left the count of another entry.
    pub miscounted: usize,
    /// What discards have done.
    pub discarded: Discarded,
    /// Whether its VDI is a hyper volume.
    pub hyper: bool,
    /// Writes of nodes of its tree.
    pub node_writes: usize,
}

/// How often what was done for discards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discarded {
    /// Entries cleared.
    pub cleared: usize,
    /// Entries put back in snapshots.
    pub restored: usize,
    /// Objects removed that were there.
    pub removed: usize,
    /// References given up.
    pub dropped: usize,
    /// Entries that a snapshot has written back.
    pub reverted: usize,
}

impl Wire for Cluster {
    fn request(&mut self, request: Request, span: Option<Span>) -> u32 {
        self.next_id += 1;
        self.asked += 1;
        let id = self.next_id;
        self.check_rules(&request);
        self.sent.push(Sent { id, request, span, left: None });
        id
    }

    fn request_of(&mut self, request: Request, span: Option<Span>, _: u8) -> u32 {
        self.request(request, span)
    }

    fn ask_node(&mut self, _: SocketAddr, _: Request, _: Instant) -> Option<u32> {
        None
    }
}

impl Cluster {
    pub fn new(shape: Shape) -> Self {
        let header = InodeHeader {
            name: b"disk".to_vec(),
            tag: Vec::new(),
            create_time: 1,
            snap_ctime: 0,
            vdi_size: shape.len as u64,
            copy_policy: shape.copy_policy,
            store_policy: 0,
            nr_copies: 1,
            block_size_shift: shape.shift,
            snap_id: 1,
            vdi_id: 7,
            parent_vdi_id: 0,
        };
        let mut bytes = header.encode().to_vec();
        // Whole pages of it are read.
        let entries = shape.len.div_ceil(1 << shape.shift).next_multiple_of(ENTRIES);
        bytes.resize(INODE_HEADER_LEN + 4 * entries, 0);
        Self {
            shape,
            working: 7,
            objects: HashMap::new(),
            inodes: BTreeMap::from([(7, Inode { bytes, grefs: HashMap::new() })]),
            sent: Vec::new(),
            asked: 0,
            next_id: 0,
            snapshots: 0,
            lose_entry: false,
            newest: None,
            repaired: 0,
            lies: false,
            updates: 0,
            released: Vec::new(),
            locks: None,
            hides_owners: false,
            recovering: 0,
            counts: false,
            ledgers: HashMap::new(),
            slow: None,
            loses: false,
            lost_updates: 0,
            behind: BTreeSet::new(),
            miscounted: 0,
            discarded: Discarded::default(),
            hyper: false,
            node_writes: 0,
        }
    }

    pub fn entry(&self, vid: u32, index: u32) -> u32 {
        let at = index_offset(index) as usize;
        u32::from_le_bytes(self.inodes[&vid].bytes[at..at + 4].try_into().unwrap())
    }

    pub fn set_entry(&mut self, vid: u32, index: u32, value: u32) {
        let at = index_offset(index) as usize;
        self.inodes.get_mut(&vid).unwrap().bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Deletes the working VDI, as `dog vdi delete` does: the index, then the
    /// name; the objects go with their entries.
    pub fn delete(&mut self) {
        let vid = self.working;
        let inode = self.inodes.get_mut(&vid).unwrap();
        inode.bytes[INODE_HEADER_LEN..].fill(0);
        inode.bytes[..256].fill(0);
        self.objects.retain(|oid, _| ObjectId::from_raw(*oid).vid_raw() != vid);
    }

    /// Panics when a request breaks a rule, given what is on the wire already.
    fn check_rules(&self, request: &Request) {
        let new = request.header(0);
        let obj = new.obj();
        self.check_tree_rules(&new);
        if ObjectId::from_raw(obj.oid).kind() != ObjectKind::Data || !new.has_payload() {
            return;
        }
        let stripe = if self.shape.copy_policy == 0 { 1 } else { 512 };
        let range = |header: &RequestHeader| {
            let start = header.obj().offset;
            (start / stripe * stripe, (start + header.data_length).next_multiple_of(stripe))
        };
        for other in &self.sent {
            let old = other.request.header(0);
            if old.obj().oid != obj.oid || !old.has_payload() || old.opcode > 3 {
                continue;
            }
            let creates = [new.opcode, old.opcode].contains(&Opcode::CreateAndWriteObj.code());
            assert!(!creates, "a write beside a create of {:x}", obj.oid);
            let (a, b) = (range(&new), range(&old));
            assert!(a.1 <= b.0 || b.1 <= a.0, "writes that overlap are under way on {:x}", obj.oid);
        }
    }

    /// Carries a request out.
    pub fn execute(&mut self, sent: &Sent, arena: &Arena) -> (ReplyHeader, Vec<u8>) {
        let header = sent.request.header(sent.id);
        let payload = match sent.request.payload() {
            Payload::Bytes(bytes) => bytes.to_vec(),
            Payload::External => {
                sent.left.clone().unwrap_or_else(|| arena.bytes(sent.span.unwrap()).to_vec())
            }
            Payload::None => Vec::new(),
        };
        if matches!(sent.request.opcode(), Some(Opcode::LockVdi | Opcode::GetVdiInfo)) {
            // Operations of the whole cluster follow each other.
            self.end_snapshot();
        }
        let (status, bytes, vid) = match sent.request.opcode().unwrap() {
            Opcode::ReadObj => self.read(header.obj().oid, header.obj().offset, header.data_length),
            Opcode::WriteObj | Opcode::CreateAndWriteObj => self.write(&header, &payload),
            Opcode::LockVdi => self.lock(&payload),
            Opcode::GetVdiInfo => self.look_up(&payload, header.vdi().snapid),
            Opcode::GetVdiCopies => (Status::Success, self.states(), 0),
            Opcode::StatRecovery => {
                let recovers = u8::from(self.recovering > 0);
                self.recovering = self.recovering.saturating_sub(1);
                (Status::Success, vec![recovers; 24], 0)
            }
            Opcode::FlushVdi => (Status::InvalidParms, Vec::new(), 0),
            Opcode::ReleaseVdi => {
                let vid = header.vdi().base_vdi_id;
                self.released.push(vid);
                if let Some(locks) = &mut self.locks {
                    locks.remove(&vid);
                }
                (Status::Success, Vec::new(), 0)
            }
            Opcode::RemoveObj => self.remove(header.obj().oid),
            Opcode::DecrefObj => self.decref(&header),
            // A cluster of no nodes.
            Opcode::GetNodeList => (Status::Success, Vec::new(), 0),
            other => panic!("nobody asks {other:?} here"),
        };
        if let (Some(span), Status::Success) = (sent.span, status)
            && !header.has_payload()
        {
            arena.fill(span, &bytes);
        }
        let len = u32::try_from(bytes.len()).unwrap();
        let reply = ReplyHeader::new(&header, 1, status, len);
        let fields = VdiReply { vdi_id: vid, ..VdiReply::default() };
        let looked_up = matches!(sent.request.opcode(), Some(Opcode::LockVdi | Opcode::GetVdiInfo));
        (if looked_up { reply.with_vdi(&fields) } else { reply }, bytes)
    }

    fn lock(&mut self, payload: &[u8]) -> (Status, Vec<u8>, u32) {
        let (status, bytes, vid) = self.look_up(payload, 0);
        let refused = match &mut self.locks {
            Some(locks) => status.is_success() && !locks.insert(vid),
            None => false,
        };
        if refused { (Status::VdiLocked, Vec::new(), 0) } else { (status, bytes, vid) }
    }

    fn states(&self) -> Vec<u8> {
        let told = self.locks.as_ref().filter(|_| !self.hides_owners);
        let locked = |vid: &u32| told.is_some_and(|locks| locks.contains(vid));
        let state = |vid: &u32| VdiState {
            vid: *vid,
            nr_copies: 1,
            snapshot: *vid != self.working,
            deleted: false,
            copy_policy: self.shape.copy_policy,
            block_size_shift: self.shape.shift,
            parent_vid: 0,
            lock: if locked(vid) { Lock::Locked(NodeId::new(GATEWAY)) } else { Lock::Unlocked },
        };
        self.inodes.keys().flat_map(|vid| state(vid).encode()).collect()
    }

    fn look_up(&self, payload: &[u8], snap_id: u32) -> (Status, Vec<u8>, u32) {
        let name = sheepfs::wire::name::field_bytes(&payload[..256]);
        let found = self.inodes.iter().rev().find(|(vid, inode)| {
            let header = InodeHeader::decode(&inode.bytes).unwrap();
            let wanted = if snap_id == 0 {
                **vid == self.working
            } else {
                header.is_snapshot() && header.snap_id == snap_id
            };
            header.name == name && wanted
        });
        match found {
            Some((vid, _)) if !name.is_empty() => (Status::Success, Vec::new(), *vid),
            _ => (Status::NoVdi, Vec::new(), 0),
        }
    }

    fn read(&self, oid: u64, offset: u32, len: u32) -> (Status, Vec<u8>, u32) {
        let oid = ObjectId::from_raw(oid);
        let (at, end) = (offset as usize, (offset + len) as usize);
        let found = match (oid.kind(), self.inodes.get(&oid.vid_raw())) {
            (ObjectKind::Inode, Some(inode)) if offset >= GREF_OFFSET => {
                let gref = |at: usize| inode.grefs.get(&at).cloned().unwrap_or(vec![0; 8]);
                Some((at..end).step_by(8).flat_map(gref).collect())
            }
            (ObjectKind::Inode, inode) => inode.map(|inode| inode.bytes[at..end].to_vec()),
            (ObjectKind::Btree, _) => self.objects.get(&oid.raw()).map(|node| piece(node, at, end)),
            _ => self.objects.get(&oid.raw()).map(|object| object[at..end].to_vec()),
        };
        match found {
            Some(bytes) => (Status::Success, bytes, 0),
            None => (Status::NoObj, Vec::new(), 0),
        }
    }

    fn write(&mut self, header: &RequestHeader, payload: &[u8]) -> (Status, Vec<u8>, u32) {
        let obj = header.obj();
        let (oid, at) = (ObjectId::from_raw(obj.oid), obj.offset as usize);
        assert_eq!((obj.copies, obj.copy_policy), (0, 0));
        if self.hyper && oid.kind() != ObjectKind::Data {
            return self.write_tree(header, payload);
        }
        if oid.kind() == ObjectKind::Inode {
            return self.write_inode(oid.vid_raw(), at, payload);
        }
        if self.is_frozen(oid.vid_raw()) {
            return (Status::Readonly, Vec::new(), 0);
        }
        assert!(at + payload.len() <= self.shape.object_len());
        if header.opcode == Opcode::CreateAndWriteObj.code() {
            let base = if header.flags & flags::COW == 0 {
                vec![0; self.shape.object_len()]
            } else {
                self.objects[&obj.cow_oid].clone()
            };
            self.objects.insert(oid.raw(), base);
        }
        let Some(object) = self.objects.get_mut(&oid.raw()) else {
            return (Status::NoObj, Vec::new(), 0);
        };
        object[at..at + payload.len()].copy_from_slice(payload);
        // A gateway forgets to read a stripe that is written from its border on.
        let in_front = at.is_multiple_of(512) && (1..512).contains(&payload.len());
        let overwrites = header.opcode == Opcode::WriteObj.code();
        if self.shape.copy_policy != 0 && in_front && overwrites {
            object[at + payload.len()..at + 512].fill(0);
        }
        (Status::Success, Vec::new(), 0)
    }

    fn write_inode(&mut self, vid: u32, at: usize, payload: &[u8]) -> (Status, Vec<u8>, u32) {
        if at >= GREF_OFFSET as usize {
            self.inodes.get_mut(&vid).unwrap().grefs.insert(at, payload.to_vec());
            return (Status::Success, Vec::new(), 0);
        }
        if at == SIZE_OFFSET {
            self.inodes.get_mut(&vid).unwrap().bytes[at..at + 8].copy_from_slice(payload);
            return (Status::Success, Vec::new(), 0);
        }
        assert!(at >= INODE_HEADER_LEN, "nobody writes the rest of headers here");
        if payload.len() == 3 {
            return self.write_bare(vid, at, payload);
        }
        for (number, word) in (((at - INODE_HEADER_LEN) / 4)..).zip(payload.chunks_exact(4)) {
            let (index, value) =
                (u32::try_from(number).unwrap(), u32::from_le_bytes(word.try_into().unwrap()));
            let unchanged = self.entry(vid, index) == value;
            assert!(!unchanged || self.lies && value == vid, "an unchanged entry was written");
            let object = ObjectId::data(VdiId::new(value).unwrap(), index).raw();
            assert!(self.objects.contains_key(&object), "the entry came before the object");
            assert!(value >= self.entry(vid, index), "a newer entry was written back");
            self.repaired += usize::from(value != vid);
            if !unchanged {
                self.newest = Some((index, self.entry(vid, index)));
            }
            self.updates += 1;
            if vid != self.working {
                self.behind.insert(u64::from(self.entry(vid, index)) << 32 | u64::from(index));
            }
            self.give_up_entry(vid, index, value);
            let inode = self.inodes.get_mut(&vid).unwrap();
            inode.grefs.remove(&gref_at(index));
            self.copy_entry(vid, index, value);
        }
        self.inodes.get_mut(&vid).unwrap().bytes[at..at + payload.len()].copy_from_slice(payload);
        (Status::Success, Vec::new(), 0)
    }

    /// A snapshot counts one reference more of each object, and its child none (protocol 9).
    fn count_references(&mut self, old: u32, new: u32) {
        let blocks = u32::try_from(self.shape.len.div_ceil(1 << self.shape.shift)).unwrap();
        let listed: Vec<u32> = (0..blocks).filter(|index| self.entry(old, *index) != 0).collect();
        for index in listed {
            let at = gref_at(index);
            let frozen = self.inodes.get_mut(&old).unwrap();
            let gref = frozen.grefs.entry(at).or_insert(vec![0; 8]);
            let word = |at: usize| i32::from_le_bytes(gref[at..at + 4].try_into().unwrap());
            let (generation, count) = (word(0), word(4) + 1);
            gref[4..].copy_from_slice(&count.to_le_bytes());
            let child = [(generation + 1).to_le_bytes(), [0; 4]].concat();
            self.inodes.get_mut(&new).unwrap().grefs.insert(at, child);
        }
    }

    /// Makes a snapshot, as somebody else would. The server may lose an entry
    /// that was written while it worked.
    pub fn snapshot(&mut self) {
        let old = self.working;
        let new = old + 1;
        let mut inode = self.inodes[&old].clone();
        let mut header = InodeHeader::decode(&inode.bytes).unwrap();
        header.parent_vdi_id = old;
        header.vdi_id = new;
        header.snap_id += 1;
        inode.bytes[..INODE_HEADER_LEN].copy_from_slice(&header.encode());
        inode.grefs.clear();
        self.inodes.insert(new, inode);
        self.count_references(old, new);
        let frozen = self.inodes.get_mut(&old).unwrap();
        frozen.bytes[520..528].copy_from_slice(&9u64.to_le_bytes());
        if self.lose_entry
            && let Some((lost, before)) = self.newest.take()
            && self.entry(old, lost) == old
        {
            self.set_entry(new, lost, before);
            self.set_entry(old, lost, before);
        }
        self.working = new;
        self.snapshots += 1;
    }
}

/// Some bytes of a node; what is not stored is zeros.
fn piece(node: &[u8], at: usize, end: usize) -> Vec<u8> {
    let mut bytes = node.get(at..end.min(node.len())).unwrap_or_default().to_vec();
    bytes.resize(end - at, 0);
    bytes
}

/// Where the reference count of an entry lies in an inode.
fn gref_at(index: u32) -> usize {
    (GREF_OFFSET + 8 * index) as usize
}
