//! The only way to make a request.
//!
//! Some requests kill or poison a server (protocol 18): a WRITE flag that does
//! not match the opcode, a buffer of the wrong length, an offset outside the
//! object, a number of copies. The constructors here cannot express any of
//! them: the flag follows from the constructor, the length from the payload, the
//! place from an [`Extent`] that was checked against the object's size, and
//! copies are always 0.
//!
//! The constructors are in modules, by what they are for:
//!
//! - `data`: data objects, and `extent`: the places in them;
//! - `inode`: an inode's header and its array index, `tree`: the index of a hyper volume;
//! - `discard`: a block out of an index, `manage`: other changes of what a VDI is;
//! - `vdi`: whole VDIs, found, locked, made and deleted;
//! - `cluster`: what a cluster says of itself.

mod cluster;
mod data;
mod discard;
mod extent;
mod inode;
mod manage;
mod tree;
mod vdi;

pub use cluster::{NODES_MAX, VDI_BITMAP_LEN, VDI_STATES_MAX};
pub use extent::{Extent, TRANSFER_LEN_MAX};
pub use vdi::NewVdi;

use super::header::{ObjFields, RequestHeader, VdiFields, flags};
use super::oid::{ObjectId, ObjectKind};
use super::opcode::Opcode;

/// What follows a request's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// These bytes.
    Bytes(Box<[u8]>),
    /// As many bytes as the header says, which whoever sends it has at hand.
    External,
}

/// A request, complete but for its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    header: RequestHeader,
    payload: Payload,
}

impl Request {
    /// The header, with that id.
    #[must_use]
    pub fn header(&self, id: u32) -> RequestHeader {
        RequestHeader { id, ..self.header }
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// What follows the header, taken out.
    #[must_use]
    pub fn into_payload(self) -> Payload {
        self.payload
    }

    /// Bytes of payload to be sent.
    #[must_use]
    pub fn payload_len(&self) -> u32 {
        if self.header.has_payload() { self.header.data_length } else { 0 }
    }

    /// The most bytes that a well-behaved server answers.
    #[must_use]
    pub fn reply_len_max(&self) -> u32 {
        if self.header.has_payload() { 0 } else { self.header.data_length }
    }

    /// The request's kind.
    #[must_use]
    pub fn opcode(&self) -> Option<Opcode> {
        Opcode::from_code(self.header.opcode)
    }

    /// The object that it is for, if it is for one.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        ObjectId::from_raw(self.header.obj().oid)
    }

    /// Whether any node may be asked for it: it reads an object, or it writes or makes a data
    /// object.
    #[must_use]
    pub fn is_for_any_node(&self) -> bool {
        match self.opcode() {
            Some(Opcode::ReadObj) => true,
            Some(Opcode::WriteObj | Opcode::CreateAndWriteObj) => {
                self.object().kind() == ObjectKind::Data
            }
            Some(_) | None => false,
        }
    }
}

/// What all constructors are made of.
impl Request {
    /// No payload; room for `data_length` bytes of answer.
    fn plain(
        opcode: Opcode,
        data_length: u32,
        set: impl FnOnce(RequestHeader) -> RequestHeader,
    ) -> Self {
        let header = set(RequestHeader::new(opcode, 0, data_length));
        Self { header, payload: Payload::None }
    }

    /// The sender has the payload at hand.
    fn external(opcode: Opcode, extra: u16, len: u32) -> Self {
        let header = RequestHeader::new(opcode, flags::WRITE | extra, len);
        Self { header, payload: Payload::External }
    }

    /// These bytes for a payload.
    fn bytes(opcode: Opcode, payload: Vec<u8>) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most an index, 4 MiB")]
        let len = payload.len() as u32;
        let header = RequestHeader::new(opcode, flags::WRITE, len);
        Self { header, payload: Payload::Bytes(payload.into_boxed_slice()) }
    }

    /// For an object.
    fn obj(mut self, fields: &ObjFields) -> Self {
        self.header = self.header.with_obj(fields);
        self
    }

    /// For a VDI.
    fn vdi(mut self, fields: &VdiFields) -> Self {
        self.header = self.header.with_vdi(fields);
        self
    }
}
