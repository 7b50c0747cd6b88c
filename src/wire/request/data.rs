//! Requests for data objects: pieces of them are read and written, and objects are made.

use super::{Extent, Request};
use crate::wire::header::{ObjFields, flags};
use crate::wire::oid::{ObjectId, VdiId};
use crate::wire::opcode::Opcode;

impl Request {
    /// Reads a piece of a data object.
    #[must_use]
    pub fn read(vid: VdiId, index: u32, extent: Extent) -> Self {
        let fields = data_fields(vid, index, extent);
        Self::plain(Opcode::ReadObj, extent.len(), |header| header.with_obj(&fields))
    }

    /// Overwrites a piece of an existing data object.
    #[must_use]
    pub fn write(vid: VdiId, index: u32, extent: Extent) -> Self {
        let fields = data_fields(vid, index, extent);
        Self::external(Opcode::WriteObj, 0, extent.len()).obj(&fields)
    }

    /// Overwrites a piece of an existing data object with bytes that the request
    /// carries itself. `None` when they are more or fewer than the piece.
    #[must_use]
    pub fn write_bytes(vid: VdiId, index: u32, extent: Extent, bytes: Vec<u8>) -> Option<Self> {
        let fields = data_fields(vid, index, extent);
        (bytes.len() == extent.len() as usize)
            .then(|| Self::bytes(Opcode::WriteObj, bytes).obj(&fields))
    }

    /// Makes a data object: zeros but for the payload.
    #[must_use]
    pub fn create(vid: VdiId, index: u32, extent: Extent) -> Self {
        let fields = data_fields(vid, index, extent);
        Self::external(Opcode::CreateAndWriteObj, 0, extent.len()).obj(&fields)
    }

    /// Makes a data object: the parent's content but for the payload.
    #[must_use]
    pub fn create_from(vid: VdiId, index: u32, base: VdiId, extent: Extent) -> Self {
        let cow_oid = ObjectId::data(base, index).raw();
        let fields = ObjFields { cow_oid, ..data_fields(vid, index, extent) };
        Self::external(Opcode::CreateAndWriteObj, flags::COW, extent.len()).obj(&fields)
    }
}

fn data_fields(vid: VdiId, index: u32, extent: Extent) -> ObjFields {
    let oid = ObjectId::data(vid, index).raw();
    ObjFields { oid, offset: extent.offset(), ..ObjFields::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vid() -> VdiId {
        VdiId::new(0x70_9128).unwrap()
    }

    #[test]
    fn the_write_flag_follows_from_the_constructor() {
        let extent = Extent::new(0, 4096, 22).unwrap();
        let written = [Request::write(vid(), 1, extent), Request::create(vid(), 1, extent)];
        for request in written {
            assert_eq!(request.header(1).flags, flags::WRITE);
            assert_eq!((request.payload_len(), request.reply_len_max()), (4096, 0));
        }
        let cow = Request::create_from(vid(), 1, VdiId::new(7).unwrap(), extent).header(3);
        assert_eq!(cow.flags, flags::WRITE | flags::COW);
        assert_eq!(cow.obj().cow_oid, 7 << 32 | 1);
        let read = Request::read(vid(), 1, extent);
        assert_eq!(read.header(1).flags, 0);
        assert_eq!((read.payload_len(), read.reply_len_max()), (0, 4096));
    }
}
