//! The tree of a hyper volume in the simulated cluster, and the rules that it checks.

use super::cluster::{Cluster, Shape};
use sheepfs::wire::btree::{Head, Leaf, Root, RootEntry};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::inode::{BTREE_COUNTER_OFFSET, INODE_HEADER_LEN, InodeHeader};
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::{ObjectId, Opcode, Status};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Bytes of the inode that are kept: the header, and a front of the node.
const INODE_KEPT: usize = INODE_HEADER_LEN + (64 << 10);

impl Cluster {
    /// A cluster whose VDI is a hyper volume of that many bytes, in objects of 4 KiB.
    pub fn of_hyper(size: u64) -> Self {
        let mut cluster = Self::new(Shape { shift: 12, len: 4096, copy_policy: 0 });
        cluster.hyper = true;
        let vid = cluster.working;
        let inode = cluster.inodes.get_mut(&vid).unwrap();
        let mut header = InodeHeader::decode(&inode.bytes).unwrap();
        (header.store_policy, header.vdi_size) = (1, size);
        inode.bytes = header.encode().to_vec();
        inode.bytes.extend([0x74, 0x62, 1, 0, 0, 0, 0, 0]);
        inode.bytes.resize(INODE_KEPT, 0);
        cluster
    }

    /// The node in the inode.
    pub fn top(&self) -> &[u8] {
        &self.inodes[&self.working].bytes[INODE_HEADER_LEN..]
    }

    pub fn is_split(&self) -> bool {
        matches!(Head::decode(self.top()), Ok(Head::Root(_)))
    }

    /// Each leaf, and the blocks that it may list.
    fn leaves(&self) -> Vec<(RangeInclusive<u32>, Leaf)> {
        match Head::decode(self.top()).unwrap() {
            Head::Leaf(_) => vec![(0..=u32::MAX, Leaf::decode(self.top()).unwrap())],
            Head::Root(_) => {
                let root = Root::decode(self.top()).unwrap();
                let firsts = root.entries().iter().map(|entry| entry.last.saturating_add(1));
                let firsts = std::iter::once(0).chain(firsts);
                let leaf = |(first, entry): (u32, &RootEntry)| {
                    (first..=entry.last, Leaf::decode(&self.objects[&entry.leaf.raw()]).unwrap())
                };
                firsts.zip(root.entries()).map(leaf).collect()
            }
        }
    }

    /// Whether the tree lists an object for a block.
    pub fn lists(&self, block: u32) -> bool {
        let leaves = self.leaves();
        let found = leaves.iter().find(|(blocks, _)| blocks.contains(&block));
        found.is_some_and(|(_, leaf)| leaf.range(block, block).iter().any(|one| one.owner != 0))
    }

    /// Data that the tree does not list: what would stay if the VDI were deleted.
    pub fn unlisted(&self) -> Vec<u64> {
        let leaves = self.leaves();
        let entries = leaves.iter().flat_map(|(blocks, leaf)| {
            leaf.range(*blocks.start(), *blocks.end()).iter().filter(|entry| entry.owner != 0)
        });
        let listed: BTreeMap<_, _> = entries.map(|entry| (entry.block, entry.owner)).collect();
        let data = self.objects.keys().map(|oid| ObjectId::from_raw(*oid));
        let data = data.filter(|oid| oid.kind() == ObjectKind::Data);
        let left = data.filter(|oid| listed.get(&oid.index()) != Some(&oid.vid_raw()));
        left.map(ObjectId::raw).collect()
    }

    /// A change has the tree for itself.
    pub(super) fn check_tree_rules(&self, new: &RequestHeader) {
        if !self.hyper || !touches_tree(new) {
            return;
        }
        for other in &self.sent {
            let old = other.request.header(0);
            let changes = old.has_payload() || new.has_payload();
            assert!(!touches_tree(&old) || !changes, "a change of the tree beside another request");
        }
    }

    pub(super) fn write_tree(
        &mut self,
        header: &RequestHeader,
        payload: &[u8],
    ) -> (Status, Vec<u8>, u32) {
        let (oid, at) = (ObjectId::from_raw(header.obj().oid), header.obj().offset as usize);
        let creates = header.opcode == Opcode::CreateAndWriteObj.code();
        let vid = self.working;
        self.node_writes += 1;
        let node = if oid.kind() == ObjectKind::Inode {
            let counter = at == BTREE_COUNTER_OFFSET as usize && payload.len() == 4;
            assert!(counter || at == INODE_HEADER_LEN - 4, "an index write at {at}");
            assert!(counter || payload[..4] == [0; 4], "the last word of the header");
            &mut self.inodes.get_mut(&vid).unwrap().bytes
        } else if creates {
            let counter = &self.inodes[&vid].bytes[BTREE_COUNTER_OFFSET as usize..][..4];
            assert!(
                oid.index().to_le_bytes() < *counter.first_chunk().unwrap(),
                "the counter is low"
            );
            self.objects.insert(oid.raw(), Vec::new());
            self.objects.get_mut(&oid.raw()).unwrap()
        } else {
            match self.objects.get_mut(&oid.raw()) {
                Some(node) => node,
                None => return (Status::NoObj, Vec::new(), 0),
            }
        };
        node.resize(node.len().max(at + payload.len()), 0);
        node[at..at + payload.len()].copy_from_slice(payload);
        self.check_node(oid);
        (Status::Success, Vec::new(), 0)
    }

    /// What a node names is there.
    fn check_node(&self, oid: ObjectId) {
        let node = match oid.kind() {
            ObjectKind::Inode => self.top(),
            _ => &self.objects[&oid.raw()],
        };
        match Head::decode(node).unwrap() {
            Head::Leaf(_) => {
                let leaf = Leaf::decode(node).unwrap();
                for entry in leaf.entries().iter().filter(|entry| entry.owner != 0) {
                    let object = u64::from(entry.owner) << 32 | u64::from(entry.block);
                    assert!(self.objects.contains_key(&object), "the entry came before the object");
                }
            }
            Head::Root(_) => {
                for entry in Root::decode(node).unwrap().entries() {
                    assert!(self.objects.contains_key(&entry.leaf.raw()), "the root came before");
                }
            }
        }
    }
}

/// Whether a request is about more than data and the header.
fn touches_tree(header: &RequestHeader) -> bool {
    let obj = header.obj();
    let is_object = header.opcode <= 3;
    let end = obj.offset as usize + header.data_length as usize;
    match ObjectId::from_raw(obj.oid).kind() {
        ObjectKind::Btree => is_object,
        ObjectKind::Inode => is_object && (header.has_payload() || end > INODE_HEADER_LEN),
        _ => false,
    }
}
