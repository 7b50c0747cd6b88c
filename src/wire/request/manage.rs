//! Requests that change what a VDI is, beside its data.

use super::Request;
use super::inode::TAG_OFFSET;
use crate::wire::inode::{INDEX_ENTRIES, index_offset};
use crate::wire::name::NAME_FIELD_LEN;
use crate::wire::oid::VdiId;

/// Where an inode says how large its VDI is (protocol 4.1).
const SIZE_OFFSET: u32 = 536;

impl Request {
    /// Clears `count` neighbouring entries of an array index from block `first` on, with all
    /// the references that they are. For a VDI that is being deleted: its other entries may
    /// be among them, since nobody goes by what else that changes. `None` when they run over
    /// the index's end or there are none.
    #[must_use]
    pub fn clear_index(inode: VdiId, first: u32, count: u32) -> Option<Self> {
        let end = first.checked_add(count)?;
        if count == 0 || end > INDEX_ENTRIES {
            return None;
        }
        let zeros = vec![0; 4 * count as usize];
        Some(Self::write_inode(inode, index_offset(first), zeros))
    }

    /// Says how large a VDI is. Nothing else of its header is touched, so that whoever
    /// changes that meanwhile is not undone (protocol 12.5).
    #[must_use]
    pub fn write_size(inode: VdiId, size: u64) -> Self {
        Self::write_inode(inode, SIZE_OFFSET, size.to_le_bytes().to_vec())
    }

    /// Takes back the tag of a VDI that did not become a snapshot after all.
    #[must_use]
    pub fn clear_tag(inode: VdiId) -> Self {
        Self::write_inode(inode, TAG_OFFSET, vec![0; NAME_FIELD_LEN])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::request::Payload;

    fn vid() -> VdiId {
        VdiId::new(0x70_9128).unwrap()
    }

    #[test]
    fn clearing_stays_inside_the_index() {
        assert!(Request::clear_index(vid(), INDEX_ENTRIES - 1, 2).is_none());
        assert!(Request::clear_index(vid(), 5, 0).is_none());
        let some = Request::clear_index(vid(), 5, 3).unwrap();
        assert_eq!((some.header(0).obj().offset, some.payload_len()), (4664 + 20, 12));
        assert_eq!(some.payload(), &Payload::Bytes(vec![0; 12].into_boxed_slice()));
    }

    #[test]
    fn a_size_touches_eight_bytes() {
        let size = Request::write_size(vid(), 5 << 30);
        assert_eq!(size.header(0).obj().offset, 536);
        assert_eq!(size.payload(), &Payload::Bytes((5u64 << 30).to_le_bytes().into()));
        assert_eq!(Request::clear_tag(vid()).payload_len(), 256);
    }
}
