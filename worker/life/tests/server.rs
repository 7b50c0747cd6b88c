//! A cluster that knows VDIs and nothing else.

use sheepfs::wire::cluster::{ClusterFlags, ClusterInfo, ClusterStatus, Lock, NodeId, VdiState};
use sheepfs::wire::inode::{INDEX_OFFSET, INODE_HEADER_LEN, InodeHeader};
use sheepfs::wire::name::{NAME_FIELD_LEN, VdiName, field_bytes};
use sheepfs::wire::request::{NewVdi, Payload};
use sheepfs::wire::{Opcode, Request, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

#[derive(Clone, Debug)]
struct Vdi {
    header: InodeHeader,
    index: BTreeMap<u32, u32>,
    is_deleted: bool,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub struct Server {
    vdis: BTreeMap<u32, Vdi>,
    time: u64,
    locked: BTreeSet<u32>,
    /// Whether a real one would have ended.
    pub aborted: bool,
    /// VDIs that were thrown back to an older vid.
    pub rebased: usize,
    /// What is refused, and how.
    pub refused: Option<(Opcode, Status)>,
}

type Reply = (Status, Vec<u8>, u32);

fn failed(status: Status) -> Reply {
    (status, Vec::new(), 0)
}

impl Server {
    /// Answers a request.
    pub fn serve(&mut self, request: &Request) -> Reply {
        let opcode = request.opcode().unwrap();
        if let Some((refused, status)) = self.refused
            && refused == opcode
        {
            return failed(status);
        }
        let header = request.header(1);
        let payload = match request.payload() {
            Payload::Bytes(bytes) => bytes.to_vec(),
            Payload::None => Vec::new(),
            Payload::External => panic!("no data is written"),
        };
        let vid = request.object().vid_raw();
        match opcode {
            Opcode::GetVdiInfo => match self.find(&payload, header.vdi().snapid) {
                Ok(vid) => (Status::Success, Vec::new(), vid),
                Err(status) => failed(status),
            },
            Opcode::ReadObj => self.read(vid, header.obj().offset, header.data_length),
            Opcode::WriteObj => self.write(vid, header.obj().offset, &payload),
            Opcode::NewVdi => self.new_vdi(&payload, request),
            Opcode::DelVdi => match self.find(&payload, header.vdi().snapid) {
                Ok(vid) => self.delete(vid),
                Err(status) => failed(status),
            },
            Opcode::GetVdiCopies => (Status::Success, self.states(), 0),
            Opcode::ClusterInfo => (Status::Success, cluster_info(), 0),
            other => panic!("{other:?}"),
        }
    }

    fn find(&self, payload: &[u8], snapid: u32) -> Result<u32, Status> {
        let (name, tag) = payload.split_at(NAME_FIELD_LEN);
        let (name, tag) = (field_bytes(name), field_bytes(tag));
        let is_named = |vdi: &&Vdi| !vdi.is_deleted && vdi.header.name == name;
        let mut all = self.vdis.values().rev().filter(is_named).peekable();
        if all.peek().is_none() {
            return Err(Status::NoVdi);
        }
        let working = snapid == 0 && tag.is_empty();
        let found = all.find(|vdi| match (working, vdi.header.is_snapshot()) {
            (true, is_snapshot) => !is_snapshot,
            (false, true) => {
                vdi.header.snap_id == snapid || !tag.is_empty() && vdi.header.tag == tag
            }
            (false, false) => false,
        });
        let missing = if working { Status::NoVdi } else { Status::NoTag };
        found.map(|vdi| vdi.header.vdi_id).ok_or(missing)
    }

    fn read(&self, vid: u32, offset: u32, len: u32) -> Reply {
        let Some(vdi) = self.vdis.get(&vid) else { return failed(Status::NoObj) };
        let bytes = if offset == 0 {
            vdi.header.encode()[..len as usize].to_vec()
        } else {
            let first = (offset - INDEX_OFFSET) / 4;
            let entry = |block: u32| vdi.index.get(&block).copied().unwrap_or(0).to_le_bytes();
            (first..first + len / 4).flat_map(entry).collect()
        };
        (Status::Success, bytes, 0)
    }

    fn write(&mut self, vid: u32, offset: u32, bytes: &[u8]) -> Reply {
        let Some(vdi) = self.vdis.get_mut(&vid) else { return failed(Status::NoObj) };
        if offset < INDEX_OFFSET {
            let mut header = vdi.header.encode();
            assert!(offset as usize + bytes.len() <= INODE_HEADER_LEN);
            header[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            vdi.header = InodeHeader::decode(&header).unwrap();
        } else {
            self.aborted |= vdi.header.store_policy != 0;
            assert!(bytes.iter().all(|byte| *byte == 0), "only clearing is wanted");
            let first = (offset - INDEX_OFFSET) / 4;
            let count = u32::try_from(bytes.len() / 4).unwrap();
            let ends = [first, first + count - 1].map(|block| vdi.index.contains_key(&block));
            assert_eq!(ends, [true, true], "more than what is used");
            vdi.index.retain(|block, _| !(first..first + count).contains(block));
        }
        (Status::Success, Vec::new(), 0)
    }

    fn new_vdi(&mut self, payload: &[u8], request: &Request) -> Reply {
        let fields = request.header(1).vdi();
        let name = field_bytes(payload).to_vec();
        let working = self.find(&[payload, &[0; NAME_FIELD_LEN]].concat(), 0).ok();
        let base = fields.base_vdi_id;
        if base != 0 && !self.vdis.contains_key(&base) {
            return failed(Status::BaseVdiRead);
        }
        let now = self.now();
        match (fields.snapid, working) {
            (0, Some(_)) => return failed(Status::VdiExist),
            (0, None) => {}
            (_, None) => return failed(Status::NoVdi),
            (_, Some(working)) => {
                self.rebased += usize::from(working != base);
                self.vdis.get_mut(&working).unwrap().header.snap_ctime = now;
            }
        }
        let or = |asked: u8, default: u8| if asked == 0 { default } else { asked };
        let of_name = self.vdis.values().filter(|vdi| vdi.header.name == name);
        let snap_id = of_name.map(|vdi| vdi.header.snap_id).max().unwrap_or(0) + 1;
        let header = InodeHeader {
            name,
            tag: Vec::new(),
            create_time: now,
            snap_ctime: 0,
            vdi_size: fields.vdi_size,
            copy_policy: fields.copy_policy,
            store_policy: fields.store_policy,
            nr_copies: or(fields.copies, 3),
            block_size_shift: or(fields.block_size_shift, 22),
            snap_id,
            vdi_id: self.vdis.keys().last().map_or(7, |last| last + 1),
            parent_vdi_id: base,
        };
        let index = self.vdis.get(&base).map(|base| base.index.clone()).unwrap_or_default();
        let vid = header.vdi_id;
        self.vdis.insert(vid, Vdi { header, index, is_deleted: false });
        (Status::Success, Vec::new(), vid)
    }

    fn delete(&mut self, vid: u32) -> Reply {
        let vdi = self.vdis.get_mut(&vid).unwrap();
        vdi.is_deleted = true;
        if vdi.index.is_empty() || vdi.header.store_policy != 0 {
            vdi.index.clear();
            vdi.header.name.clear();
        }
        (Status::Success, Vec::new(), vid)
    }

    fn states(&self) -> Vec<u8> {
        let owner = NodeId::new(SocketAddr::from(([10, 0, 0, 1], 7000)));
        let state = |(vid, vdi): (&u32, &Vdi)| VdiState {
            vid: *vid,
            nr_copies: vdi.header.nr_copies,
            snapshot: vdi.header.is_snapshot(),
            deleted: vdi.is_deleted,
            copy_policy: 0,
            block_size_shift: vdi.header.block_size_shift,
            parent_vid: vdi.header.parent_vdi_id,
            lock: if self.locked.contains(vid) { Lock::Locked(owner) } else { Lock::Unlocked },
        };
        self.vdis.iter().flat_map(|one| state(one).encode()).collect()
    }

    fn now(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    /// A VDI that somebody made.
    pub fn make(&mut self, name: &str, size: u64) {
        let new = NewVdi { size, ..NewVdi::default() };
        self.made(name, &new);
    }

    fn made(&mut self, name: &str, new: &NewVdi) {
        let request = Request::new_vdi(&VdiName::new(name).unwrap(), new);
        assert_eq!(self.serve(&request).0, Status::Success);
    }

    /// A hyper volume with some blocks.
    pub fn make_hyper(&mut self, name: &str) {
        self.make(name, 1 << 50);
        let vdi = self.working(name);
        vdi.header.store_policy = 1;
        vdi.index.insert(3, 1);
    }

    /// Blocks that were written.
    pub fn allocate<const N: usize>(&mut self, name: &str, blocks: [u32; N]) {
        let vdi = self.working(name);
        let own = vdi.header.vdi_id;
        vdi.index.extend(blocks.map(|block| (block, own)));
    }

    /// Somebody else begins to take a snapshot.
    pub fn write_tag(&mut self, name: &str, tag: &str) {
        self.working(name).header.tag = tag.as_bytes().to_vec();
    }

    /// A snapshot that somebody else takes.
    pub fn take_snapshot(&mut self, name: &str, tag: &str) {
        self.write_tag(name, tag);
        let InodeHeader { vdi_size: size, vdi_id: base, .. } = self.working(name).header;
        self.made(name, &NewVdi { size, base, snapshot: true, ..NewVdi::default() });
    }

    /// Somebody has that lock.
    pub fn lock(&mut self, name: &str) {
        let vid = self.working(name).header.vdi_id;
        self.locked.insert(vid);
    }

    /// The VDI's vid becomes another VDI's.
    pub fn replace(&mut self, name: &str, by: &str) {
        let now = self.now();
        let vdi = self.working(name);
        vdi.header.name = by.as_bytes().to_vec();
        vdi.header.create_time = now;
    }

    fn working(&mut self, name: &str) -> &mut Vdi {
        let is = |vdi: &&mut Vdi| {
            vdi.header.name == name.as_bytes() && !vdi.is_deleted && !vdi.header.is_snapshot()
        };
        self.vdis.values_mut().find(is).unwrap()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Vdi> {
        let name = name.as_bytes().to_vec();
        self.vdis.values().filter(move |vdi| vdi.header.name == name && !vdi.is_deleted)
    }

    /// How many VDIs have that name.
    pub fn count(&self, name: &str) -> usize {
        self.named(name).count()
    }

    /// The tags of all that have that name.
    pub fn tags(&self, name: &str) -> Vec<String> {
        self.named(name).map(|vdi| String::from_utf8_lossy(&vdi.header.tag).into()).collect()
    }

    /// All that there is, whenever it was made.
    pub fn described(&self) -> Vec<String> {
        let describe = |vdi: &Vdi| {
            let InodeHeader { name, tag, vdi_size, nr_copies, snap_id, .. } = &vdi.header;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            format!(
                "{}:{}:{} {vdi_size} x{nr_copies} #{snap_id} of {} {:?}",
                text(name),
                text(tag),
                vdi.header.is_snapshot(),
                vdi.header.parent_vdi_id,
                vdi.index
            )
        };
        self.vdis.values().filter(|vdi| !vdi.is_deleted).map(describe).collect()
    }
}

fn cluster_info() -> Vec<u8> {
    let info = ClusterInfo {
        proto_ver: 10,
        disable_recovery: false,
        epoch: 1,
        ctime: 1,
        flags: ClusterFlags::default(),
        nr_copies: 3,
        copy_policy: 0,
        status: ClusterStatus::Ok,
        block_size_shift: 22,
        store: *b"plain\0\0\0\0\0\0\0\0\0\0\0",
        nodes: Vec::new(),
    };
    info.encode()
}
