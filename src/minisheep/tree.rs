//! The index tree of a hyper volume, as far as a sheep looks into it (protocol 5).
//!
//! The client makes the tree; a sheep looks for the entry of a block that is discarded. Besides,
//! what a client enters is checked here: an entry whose object is not there is its bug.

use std::io;

use super::lives::Life;
use super::rules::Rule;
use super::sheep::{Incoming, Sheep};
use crate::wire::btree::{Entry, HEAD_LEN, Head, LEAF_ENTRY_LEN, Leaf, Root};
use crate::wire::inode::INDEX_OFFSET;
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, VdiId};

/// Where an entry's vid stands behind its block.
const OWNER_OFFSET: u64 = 4;

/// A node: its object, and where in it the node begins.
#[derive(Clone, Copy)]
struct Node {
    oid: ObjectId,
    start: u64,
}

impl Node {
    fn top(vid: VdiId) -> Self {
        Self { oid: ObjectId::inode(vid), start: INDEX_OFFSET.into() }
    }

    fn leaf(oid: ObjectId) -> Self {
        Self { oid, start: 0 }
    }

    fn head(self, sheep: &Sheep) -> io::Result<Head> {
        let mut bytes = [0; HEAD_LEN as usize];
        sheep.store.read(self.oid, self.start, &mut bytes)?;
        Head::decode(&bytes).map_err(io::Error::other)
    }

    /// The used part.
    fn read(self, sheep: &Sheep) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.head(sheep)?.used_len() as usize];
        sheep.store.read(self.oid, self.start, &mut bytes)?;
        Ok(bytes)
    }

    fn entries(self, sheep: &Sheep) -> io::Result<Vec<Entry>> {
        let leaf = Leaf::decode(&self.read(sheep)?).map_err(io::Error::other)?;
        Ok(leaf.entries().to_vec())
    }
}

/// The entry of a block, with its leaf and its place there.
struct Found {
    leaf: Node,
    place: u64,
    owner: u32,
}

fn find(sheep: &Sheep, vid: VdiId, block: u32) -> io::Result<Option<Found>> {
    let top = Node::top(vid);
    let leaf = match top.head(sheep)? {
        Head::Leaf(_) => top,
        Head::Root(_) => {
            let root = Root::decode(&top.read(sheep)?).map_err(io::Error::other)?;
            let part = root.parts(block, block).into_iter().find(|part| !part.misfiled);
            let Some(part) = part else { return Ok(None) };
            Node::leaf(part.leaf)
        }
    };
    let entries = leaf.entries(sheep)?;
    let found = entries.binary_search_by_key(&block, |entry| entry.block).ok();
    Ok(found.map(|place| Found { leaf, place: place as u64, owner: entries[place].owner }))
}

/// The owner of a block; `None` when it has none.
pub fn owner(sheep: &Sheep, vid: VdiId, block: u32) -> Option<u32> {
    let found = find(sheep, vid, block).ok()??;
    Some(found.owner).filter(|owner| *owner != 0)
}

/// Leaves the entry of a block with no owner, as DISCARD_OBJ does; gives the owner it had.
pub fn clear(sheep: &Sheep, vid: VdiId, block: u32) -> io::Result<Option<u32>> {
    let Some(Found { leaf, place, owner }) = find(sheep, vid, block)? else { return Ok(None) };
    let at = leaf.start + u64::from(HEAD_LEN) + place * u64::from(LEAF_ENTRY_LEN) + OWNER_OFFSET;
    sheep.store.write(leaf.oid, at, &[0; 4])?;
    Ok(Some(owner).filter(|owner| *owner != 0))
}

/// What a node listed before a write to it.
pub struct Before {
    node: Node,
    listed: Vec<Entry>,
}

/// Looks at a node that is about to be written: in an inode, or a leaf. `None` for a root, and
/// for what is no node.
pub fn before(sheep: &Sheep, oid: ObjectId) -> Option<Before> {
    let node = match (oid.kind(), VdiId::new(oid.vid_raw())) {
        (ObjectKind::Inode, Some(vid)) => Node::top(vid),
        _ => Node::leaf(oid),
    };
    let listed = node.entries(sheep).ok()?;
    Some(Before { node, listed })
}

impl Before {
    /// Counts new entries whose objects are not there as a bug of the client's.
    pub fn check(&self, sheep: &Sheep, request: &Incoming) {
        let Ok(now) = self.node.entries(sheep) else { return };
        let life = Life::of(&request.header);
        let missing = now.iter().filter(|entry| !self.lists(entry)).any(|entry| {
            let oid = ObjectId::from_raw(u64::from(entry.owner) << 32 | u64::from(entry.block));
            sheep.inflight.is_being_made(oid, life) || !sheep.store.exists(oid)
        });
        if missing {
            sheep.broken(Rule::IndexBeforeObject, request);
        }
    }

    fn lists(&self, entry: &Entry) -> bool {
        let place = self.listed.binary_search_by_key(&entry.block, |listed| listed.block);
        entry.owner == 0 || place.is_ok_and(|place| self.listed[place].owner == entry.owner)
    }
}
