//! All VDIs of the cluster: the bitmaps say which there are, then each inode's
//! header is read, and for a list the used part of its index, a bounded number of
//! VDIs at a time.
//!
//! What a list costs is the sheep's time for each request, so the header comes with the
//! beginning of the index, and most VDIs need no second request.

use crate::context::Context;
use crate::engine::Waiter;
use crate::frame::Reply;
use crate::query::Part;
use sheepfs::ipc::{Failure, Tag};
use sheepfs::text::report::VdiReport;
use sheepfs::wire::cluster::{
    BlockUsage, TREE_HEAD_LEN, TreeHead, TreeUsage, VdiBitmap, covered_entries,
};
use sheepfs::wire::inode::{INDEX_ENTRIES, INODE_HEADER_LEN, InodeHeader};
use sheepfs::wire::oid::vid_candidate;
use sheepfs::wire::{ObjectId, Request, Status, VdiId};
use std::collections::{BTreeMap, VecDeque};

/// VDIs that are read at once: enough to keep three sheep busy, and no more than half of
/// what may be outstanding, so that data is not behind a long list.
const PARALLEL_MAX: usize = 32;
/// Index entries that come with the header: a page of them, which is all that a VDI of
/// 4 GiB has. A sheep sends what it is asked for, also where it is zeros (protocol 1.9).
const FRONT_ENTRIES: u32 = 1024;
/// Index entries that one request reads: 1 MiB of them.
const PIECE_ENTRIES: u32 = 1 << 18;

/// So many copies each object has, whatever its VDI says, which is known only afterwards: the
/// first of an object's holders has it.
const COPIES_SURE: u8 = 1;
/// Bytes of a tree node's head, as a request wants them.
const TREE_HEAD_ROOM: u32 = 8;

const _: () = assert!(TREE_HEAD_ROOM as usize == TREE_HEAD_LEN);

/// Which question about the VDIs a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VdiAnswer {
    /// The vids in use.
    InUse,
    /// The deleted vids.
    Deleted,
    /// The header of a vid, with the front of its index if usage is asked for.
    Header(VdiId),
    /// A piece of the index of a vid, from that entry on.
    Index(VdiId, u32),
    /// The root, or the only leaf, of a hyper volume's tree.
    Tree(VdiId),
    /// The head of a leaf.
    LeafHead(VdiId, ObjectId),
    /// A leaf.
    Leaf(VdiId),
}

/// The scan.
#[derive(Debug)]
pub struct VdiScan {
    tag: Tag,
    with_usage: bool,
    /// Only VDIs of that name are wanted.
    name: Option<Vec<u8>>,
    in_use: Option<VdiBitmap>,
    deleted: Option<VdiBitmap>,
    waiting: VecDeque<VdiId>,
    /// Vids being read, with the answers each still waits for.
    reading: BTreeMap<VdiId, usize>,
    found: BTreeMap<VdiId, VdiReport>,
    /// Why a header could not be read that may be there.
    refused: Option<Failure>,
}

impl VdiScan {
    fn new(tag: Tag, with_usage: bool) -> Self {
        Self {
            tag,
            with_usage,
            name: None,
            in_use: None,
            deleted: None,
            waiting: VecDeque::new(),
            reading: BTreeMap::new(),
            found: BTreeMap::new(),
            refused: None,
        }
    }

    /// Looks at one VDI.
    pub fn of_vid(tag: Tag, vid: VdiId, with_usage: bool, io: &mut Context<Waiter>) -> Self {
        let mut scan = Self::new(tag, with_usage);
        scan.waiting.push_back(vid);
        scan.read_more(io);
        scan
    }

    /// Looks at all VDIs of a name, of whatever bytes that is. They are in the run of vids in
    /// use that begins at the hash of the name (protocol 20); so are others.
    pub fn of_name(tag: Tag, name: Vec<u8>, io: &mut Context<Waiter>) -> Self {
        Self { name: Some(name), ..Self::begin(tag, false, io) }
    }

    /// Begins; asks for the bitmaps.
    pub fn begin(tag: Tag, with_usage: bool, io: &mut Context<Waiter>) -> Self {
        let scan = Self::new(tag, with_usage);
        scan.ask(Request::read_vdis(), VdiAnswer::InUse, io);
        scan.ask(Request::read_del_vdis(), VdiAnswer::Deleted, io);
        scan
    }

    /// Sizes of all working VDIs, added up.
    pub fn virtual_bytes(&self) -> u64 {
        let working = self.found.values().filter(|vdi| !vdi.header.is_snapshot());
        working.map(|vdi| vdi.header.vdi_size).fold(0, u64::saturating_add)
    }

    /// All VDIs, by ascending vid.
    pub fn take(&mut self) -> Vec<VdiReport> {
        std::mem::take(&mut self.found).into_values().collect()
    }

    fn ask(&self, request: Request, answer: VdiAnswer, io: &mut Context<Waiter>) {
        io.send(request, None, Waiter::Query(self.tag, Part::Vdis(answer)));
    }

    /// Asks about a vid that is being read.
    fn ask_vid(
        &mut self,
        vid: VdiId,
        request: Request,
        answer: VdiAnswer,
        io: &mut Context<Waiter>,
    ) {
        *self.reading.entry(vid).or_default() += 1;
        let waiter = Waiter::Query(self.tag, Part::Vdis(answer));
        io.send_of(request, None, COPIES_SURE, waiter);
    }

    /// Takes an answer. `true`: it was the last.
    ///
    /// # Errors
    /// When a bitmap can't be had. A single VDI that can't be read, since it was
    /// deleted meanwhile, is left out, as `dog` does.
    pub fn reply(
        &mut self,
        answer: VdiAnswer,
        reply: &Reply,
        io: &mut Context<Waiter>,
    ) -> Result<bool, Failure> {
        match answer {
            VdiAnswer::InUse => self.in_use = Some(bitmap(reply)?),
            VdiAnswer::Deleted => self.deleted = Some(bitmap(reply)?),
            VdiAnswer::Header(vid) => self.header(vid, reply, io),
            VdiAnswer::Index(vid, _) => self.index(vid, reply),
            VdiAnswer::Tree(vid) => self.tree(vid, reply, io),
            VdiAnswer::LeafHead(vid, oid) => self.leaf_head(vid, oid, reply, io),
            VdiAnswer::Leaf(vid) => self.leaf(vid, reply),
        }
        if let Some(vid) = vid_of(answer) {
            self.answered(vid);
        }
        if let (Some(in_use), Some(deleted)) = (&self.in_use, &self.deleted) {
            self.waiting = match &self.name {
                None => in_use.without(deleted).collect(),
                Some(name) => {
                    let run = in_use.run_of(vid_candidate(name));
                    run.filter(|vid| !deleted.contains(*vid)).collect()
                }
            };
            (self.in_use, self.deleted) = (None, None);
        } else if self.in_use.is_some() || self.deleted.is_some() {
            return Ok(false);
        }
        self.read_more(io);
        Ok(self.reading.is_empty())
    }

    fn answered(&mut self, vid: VdiId) {
        if let Some(left) = self.reading.get_mut(&vid) {
            *left -= 1;
            if *left == 0 {
                self.reading.remove(&vid);
            }
        }
    }

    fn read_more(&mut self, io: &mut Context<Waiter>) {
        while self.reading.len() < PARALLEL_MAX
            && let Some(vid) = self.waiting.pop_front()
        {
            let front = if self.with_usage { FRONT_ENTRIES } else { 0 };
            self.ask_vid(vid, Request::read_inode_front(vid, front), VdiAnswer::Header(vid), io);
        }
    }

    fn header(&mut self, vid: VdiId, reply: &Reply, io: &mut Context<Waiter>) {
        let Some(bytes) = usable(reply) else { return self.refused(reply.status) };
        let Ok(header) = InodeHeader::decode(bytes) else { return };
        let is_wanted = self.name.as_ref().is_none_or(|name| *name == header.name);
        if header.name.is_empty() || !is_wanted {
            return;
        }
        let entries = covered_entries(&header).min(INDEX_ENTRIES);
        let hyper = header.store_policy == 1;
        self.found.insert(vid, VdiReport { header, usage: BlockUsage::default() });
        if !self.with_usage {
            return;
        }
        let index = bytes.get(INODE_HEADER_LEN..).unwrap_or_default();
        if hyper {
            return self.tree_head(vid, index, io);
        }
        // Only entries of blocks within the size count.
        let front = &index[..index.len().min(4 * entries as usize)];
        self.count(vid, BlockUsage::of_index(front, vid));
        let pieces = (FRONT_ENTRIES..entries).step_by(PIECE_ENTRIES as usize);
        for first in pieces {
            let count = PIECE_ENTRIES.min(entries - first);
            self.ask_vid(
                vid,
                Request::read_index(vid, first, count),
                VdiAnswer::Index(vid, first),
                io,
            );
        }
    }

    /// A vid without an inode is nobody's. What can't be read now may be somebody's.
    fn refused(&mut self, status: Status) {
        if status != Status::NoObj {
            self.refused = Some(Failure::from_status(status));
        }
    }

    /// Why a VDI may have been left out that is there.
    pub fn refusal(&self) -> Option<Failure> {
        self.refused
    }

    fn index(&mut self, vid: VdiId, reply: &Reply) {
        if let Some(bytes) = usable(reply) {
            self.count(vid, BlockUsage::of_index(bytes, vid));
        }
    }

    fn count(&mut self, vid: VdiId, usage: BlockUsage) {
        if let Some(found) = self.found.get_mut(&vid) {
            found.usage += usage;
        }
    }

    /// The tree of a hyper volume begins where another's index does.
    fn tree_head(&mut self, vid: VdiId, bytes: &[u8], io: &mut Context<Waiter>) {
        if let Ok(head) = TreeHead::decode(bytes) {
            self.ask_vid(vid, tree_of(vid, head.used_len()), VdiAnswer::Tree(vid), io);
        }
    }

    fn tree(&mut self, vid: VdiId, reply: &Reply, io: &mut Context<Waiter>) {
        match usable(reply).and_then(|bytes| TreeUsage::of_node(bytes, vid).ok()) {
            Some(TreeUsage::Leaf(usage)) => self.count(vid, usage),
            Some(TreeUsage::Root(leaves)) => {
                for oid in leaves {
                    let request = Request::read_tree_node(oid, TREE_HEAD_ROOM);
                    self.ask_vid(vid, request, VdiAnswer::LeafHead(vid, oid), io);
                }
            }
            None => {}
        }
    }

    fn leaf_head(&mut self, vid: VdiId, oid: ObjectId, reply: &Reply, io: &mut Context<Waiter>) {
        if let Some(head) = usable(reply).and_then(|bytes| TreeHead::decode(bytes).ok()) {
            let len = u32::try_from(head.used_len()).unwrap_or(u32::MAX);
            self.ask_vid(vid, Request::read_tree_node(oid, len), VdiAnswer::Leaf(vid), io);
        }
    }

    fn leaf(&mut self, vid: VdiId, reply: &Reply) {
        if let Some(TreeUsage::Leaf(usage)) =
            usable(reply).and_then(|bytes| TreeUsage::of_node(bytes, vid).ok())
        {
            self.count(vid, usage);
        }
    }
}

/// The tree's first node lies where an array index would.
fn tree_of(vid: VdiId, len: usize) -> Request {
    let entries = u32::try_from(len.div_ceil(4)).unwrap_or(INDEX_ENTRIES);
    Request::read_index(vid, 0, entries)
}

fn usable(reply: &Reply) -> Option<&[u8]> {
    reply.status.is_success().then_some(reply.bytes.as_slice())
}

fn bitmap(reply: &Reply) -> Result<VdiBitmap, Failure> {
    if !reply.status.is_success() {
        return Err(Failure::from_status(reply.status));
    }
    VdiBitmap::decode(reply.bytes.clone()).map_err(|_| Failure::BadAnswer)
}

fn vid_of(answer: VdiAnswer) -> Option<VdiId> {
    match answer {
        VdiAnswer::InUse | VdiAnswer::Deleted => None,
        VdiAnswer::Header(vid)
        | VdiAnswer::Index(vid, _)
        | VdiAnswer::Tree(vid)
        | VdiAnswer::LeafHead(vid, _)
        | VdiAnswer::Leaf(vid) => Some(vid),
    }
}
