//! Requests for an inode: its header, its array index, and its reference counts. What of the
//! index lies in a tree is in `tree`, what takes entries away in `discard` and `manage`.

use super::Request;
use crate::wire::header::ObjFields;
use crate::wire::inode::{INDEX_ENTRIES, INDEX_OFFSET, INODE_LEN, gref_offset, index_offset};
use crate::wire::name::VdiTag;
use crate::wire::oid::{ObjectId, VdiId};
use crate::wire::opcode::Opcode;

/// Where an inode has the tag of a snapshot (protocol 4.1).
pub(super) const TAG_OFFSET: u32 = 256;

impl Request {
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

    pub(super) fn read_inode(vid: VdiId, offset: u32, len: u32) -> Self {
        debug_assert!(offset + len <= INODE_LEN);
        let fields = inode_fields(vid, offset);
        Self::plain(Opcode::ReadObj, len, |header| header.with_obj(&fields))
    }

    pub(super) fn write_inode(vid: VdiId, offset: u32, bytes: Vec<u8>) -> Self {
        Self::bytes(Opcode::WriteObj, bytes).obj(&inode_fields(vid, offset))
    }
}

fn inode_fields(vid: VdiId, offset: u32) -> ObjFields {
    debug_assert!(offset < INODE_LEN);
    ObjFields { oid: ObjectId::inode(vid).raw(), offset, ..ObjFields::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::inode::GREF_OFFSET;

    fn vid() -> VdiId {
        VdiId::new(0x70_9128).unwrap()
    }

    #[test]
    fn index_writes_stay_inside_the_index() {
        assert!(Request::write_index(vid(), INDEX_ENTRIES, 1, vid()).is_none());
        assert!(Request::write_index(vid(), 0, 0, vid()).is_none());
        let last = Request::write_index(vid(), INDEX_ENTRIES - 1, 1, vid()).unwrap();
        assert_eq!(last.header(0).obj().offset, GREF_OFFSET - 4);
        assert_eq!(Request::read_index(vid(), INDEX_ENTRIES - 3, 1024).reply_len_max(), 12);
    }
}
