//! Requests that take a block out of an index and its object out of the cluster. What
//! order they must come in is said in the worker's `volume::discard`.

use super::Request;
use crate::wire::header::ObjFields;
use crate::wire::inode::{INDEX_ENTRIES, gref_offset, index_offset};
use crate::wire::oid::{ObjectId, VDI_ID_COUNT, VdiId};
use crate::wire::opcode::Opcode;

/// The bytes of an index entry that hold a vid. The fourth is always 0.
const ENTRY_BYTES: usize = 3;

const _: () = assert!(VDI_ID_COUNT == 1 << (8 * ENTRY_BYTES));

impl Request {
    /// Sets an index entry, or clears it, without a change of any reference.
    ///
    /// A gateway that sees a write to the index counts the whole entries in it, notes what
    /// their references were, forgets their reference counts, and gives the old references
    /// up later, at a time that nobody is told (protocol 9, 10). Three bytes are no whole
    /// entry, so none of that happens; and they are all of a vid, so the entry changes at
    /// once. For array volumes only. `None` behind the index's end.
    #[must_use]
    pub fn write_bare_entry(inode: VdiId, index: u32, owner: Option<VdiId>) -> Option<Self> {
        let bytes = owner.map_or(0, VdiId::get).to_le_bytes()[..ENTRY_BYTES].to_vec();
        (index < INDEX_ENTRIES).then(|| Self::write_inode(inode, index_offset(index), bytes))
    }

    /// Reads the reference counts of `count` blocks from `first` on, cut at the index's
    /// end: generation and count, `i32` each.
    #[must_use]
    pub fn read_grefs(vid: VdiId, first: u32, count: u32) -> Self {
        let first = first.min(INDEX_ENTRIES);
        let count = count.min(INDEX_ENTRIES - first);
        Self::read_inode(vid, gref_offset(first), 8 * count)
    }

    /// Removes a data object, whoever needs it: send it only when nobody can.
    #[must_use]
    pub fn remove(vid: VdiId, index: u32) -> Self {
        let fields = ObjFields { oid: ObjectId::data(vid, index).raw(), ..ObjFields::default() };
        Self::plain(Opcode::RemoveObj, 0, |header| header.with_obj(&fields))
    }

    /// Gives up the reference of that generation to a data object, which nobody has made
    /// anything of (its count is 0). To be sent once: it counts each time.
    #[must_use]
    pub fn drop_reference(owner: VdiId, index: u32, generation: u32) -> Self {
        let oid = ObjectId::ledger(owner, index).raw();
        // The two words lie where other requests have the object to copy from.
        let fields = ObjFields { oid, cow_oid: generation.into(), ..ObjFields::default() };
        Self::plain(Opcode::DecrefObj, 0, |header| header.with_obj(&fields))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::*;
    use crate::wire::inode::INDEX_OFFSET;

    fn vid() -> VdiId {
        VdiId::new(0x70_9128).unwrap()
    }

    #[test]
    fn a_bare_entry_is_a_vid_and_no_whole_entry() {
        let set = Request::write_bare_entry(vid(), 2, Some(vid())).unwrap();
        assert_eq!(*set.payload(), Payload::Bytes(Box::new([0x28, 0x91, 0x70])));
        assert_eq!(set.header(0).obj().offset, INDEX_OFFSET + 8);
        let clear = Request::write_bare_entry(vid(), INDEX_ENTRIES - 1, None).unwrap();
        assert_eq!((clear.payload_len(), clear.header(0).data_length), (3, 3));
        assert!(Request::write_bare_entry(vid(), INDEX_ENTRIES, None).is_none());
    }

    #[test]
    fn references_are_named_by_their_ledger() {
        let dropped = Request::drop_reference(vid(), 5, 3).header(0);
        assert_eq!((dropped.opcode, dropped.version, dropped.flags), (0xc1, 0x0a, 0));
        assert_eq!(dropped.obj().oid, 1 << 59 | 0x70_9128 << 32 | 5);
        assert_eq!(dropped.union[8..16], [3, 0, 0, 0, 0, 0, 0, 0]);
        let removed = Request::remove(vid(), 5).header(0);
        assert_eq!((removed.opcode, removed.obj().oid), (4, 0x70_9128 << 32 | 5));
        assert_eq!(Request::read_grefs(vid(), INDEX_ENTRIES - 2, 64).reply_len_max(), 16);
    }
}
