//! Requests for the index tree of a hyper volume (protocol 5).
//!
//! A write of the node in the inode must begin before the index does: one that lies
//! completely behind the header is taken for one of array entries, and costs data objects
//! (hazard 42). So it begins with the last word of the header, which is unused.

use super::{Request, TRANSFER_LEN_MAX};
use crate::wire::btree::NODE_LEN;
use crate::wire::header::ObjFields;
use crate::wire::inode::{BTREE_COUNTER_OFFSET, INDEX_OFFSET};
use crate::wire::oid::{ObjectId, VdiId};
use crate::wire::opcode::Opcode;

/// Bytes of the header that a write of the node begins with.
const LEAD: u32 = 4;

impl Request {
    /// Reads the header of an inode and, behind it, the first `len` bytes of the tree's
    /// node there.
    #[must_use]
    pub fn read_inode_tree(vid: VdiId, len: u32) -> Self {
        Self::read_inode(vid, 0, INDEX_OFFSET + len.min(NODE_LEN))
    }

    /// Reads a piece of the tree's node in the inode.
    #[must_use]
    pub fn read_tree_top(vid: VdiId, offset: u32, len: u32) -> Self {
        let offset = offset.min(NODE_LEN);
        Self::read_inode(vid, INDEX_OFFSET + offset, len.min(NODE_LEN - offset))
    }

    /// Reads the first `len` bytes of a leaf.
    #[must_use]
    pub fn read_tree_node(oid: ObjectId, len: u32) -> Self {
        Self::read_tree_piece(oid, 0, len)
    }

    /// Reads a piece of a leaf.
    #[must_use]
    pub fn read_tree_piece(oid: ObjectId, offset: u32, len: u32) -> Self {
        let fields = node_fields(oid, offset);
        let len = len.min(TRANSFER_LEN_MAX).min(NODE_LEN.saturating_sub(offset));
        Self::plain(Opcode::ReadObj, len, |header| header.with_obj(&fields))
    }

    /// Writes the used part of the tree's node in the inode. `None` when it is longer than
    /// a node.
    #[must_use]
    pub fn write_tree_top(vid: VdiId, node: &[u8]) -> Option<Self> {
        if node.len() > NODE_LEN as usize {
            return None;
        }
        let bytes = [&[0; LEAD as usize], node].concat();
        Some(Self::write_inode(vid, INDEX_OFFSET - LEAD, bytes))
    }

    /// Writes the next free number for a leaf.
    #[must_use]
    pub fn write_btree_counter(vid: VdiId, number: u32) -> Self {
        Self::write_inode(vid, BTREE_COUNTER_OFFSET, number.to_le_bytes().to_vec())
    }

    /// Makes a leaf with these bytes at its beginning, and zeros behind.
    #[must_use]
    pub fn create_tree_leaf(leaf: ObjectId, node: Vec<u8>) -> Option<Self> {
        Self::change_leaf(Opcode::CreateAndWriteObj, leaf, 0, node)
    }

    /// Writes a piece of a leaf. `None` when it runs over the end.
    #[must_use]
    pub fn write_tree_leaf(leaf: ObjectId, offset: u32, bytes: Vec<u8>) -> Option<Self> {
        Self::change_leaf(Opcode::WriteObj, leaf, offset, bytes)
    }

    fn change_leaf(opcode: Opcode, leaf: ObjectId, offset: u32, bytes: Vec<u8>) -> Option<Self> {
        let end = (offset as usize).checked_add(bytes.len())?;
        let fits = end <= NODE_LEN as usize;
        fits.then(|| Self::bytes(opcode, bytes).obj(&node_fields(leaf, offset)))
    }
}

fn node_fields(oid: ObjectId, offset: u32) -> ObjFields {
    ObjFields { oid: oid.raw(), offset, ..ObjFields::default() }
}
