//! Requests for whole VDIs: they are looked up, locked and released, made and deleted, and
//! flushed. But for the flush these are operations of the whole cluster, which does them one
//! after the other: a look-up waits for a deletion (protocol 1.8).

use super::Request;
use crate::wire::header::{ObjFields, VdiFields};
use crate::wire::name::{Generation, NAME_FIELD_LEN, VdiName, VdiRef};
use crate::wire::oid::{ObjectId, VdiId};
use crate::wire::opcode::Opcode;

/// What a new VDI shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewVdi {
    /// Bytes.
    pub size: u64,
    /// Replicas; 0 is the cluster's default.
    pub copies: u8,
    /// Erasure code; 0 is the cluster's default.
    pub copy_policy: u8,
    /// log2 of the block size; 0 is the cluster's default.
    pub block_size_shift: u8,
    /// The parent's vid, or 0.
    pub base: u32,
    /// Turn the working VDI into a snapshot and go on in a new one.
    pub snapshot: bool,
    /// 0 an array for an index, 1 a tree (protocol 5).
    pub store_policy: u8,
}

impl Request {
    /// Looks a VDI up.
    #[must_use]
    pub fn get_vdi_info(vdi: &VdiRef) -> Self {
        Self::lookup(Opcode::GetVdiInfo, vdi)
    }

    /// Looks a VDI up and takes its lock.
    #[must_use]
    pub fn lock_vdi(vdi: &VdiRef) -> Self {
        Self::lookup(Opcode::LockVdi, vdi)
    }

    /// Gives a lock back, whoever holds it (protocol 13.3): send it for own locks, or
    /// when the user said that the holder is dead.
    #[must_use]
    pub fn release_vdi(vid: VdiId) -> Self {
        let fields = VdiFields { base_vdi_id: vid.get(), ..VdiFields::default() };
        Self::plain(Opcode::ReleaseVdi, 0, |header| header.with_vdi(&fields))
    }

    /// Makes a VDI, a snapshot or a clone (protocol 12.2).
    #[must_use]
    pub fn new_vdi(name: &VdiName, new: &NewVdi) -> Self {
        let fields = VdiFields {
            vdi_size: new.size,
            base_vdi_id: new.base,
            copies: new.copies,
            copy_policy: new.copy_policy,
            block_size_shift: new.block_size_shift,
            store_policy: new.store_policy,
            snapid: u32::from(new.snapshot),
            ..VdiFields::default()
        };
        Self::bytes(Opcode::NewVdi, name.field().to_vec()).vdi(&fields)
    }

    /// Deletes a VDI whose index is empty.
    #[must_use]
    pub fn del_vdi(vdi: &VdiRef) -> Self {
        Self::lookup(Opcode::DelVdi, vdi)
    }

    /// Flushes; a refusal as invalid means that the server writes through.
    #[must_use]
    pub fn flush_vdi(vid: VdiId) -> Self {
        let fields = ObjFields { oid: ObjectId::inode(vid).raw(), ..ObjFields::default() };
        Self::plain(Opcode::FlushVdi, 0, |header| header.with_obj(&fields))
    }

    fn lookup(opcode: Opcode, vdi: &VdiRef) -> Self {
        let mut payload = vdi.name.field().to_vec();
        payload.resize(2 * NAME_FIELD_LEN, 0);
        let mut fields = VdiFields::default();
        match &vdi.generation {
            Generation::Working => {}
            Generation::SnapId(id) => fields.snapid = *id,
            Generation::Tag(tag) => payload[NAME_FIELD_LEN..].copy_from_slice(&tag.field()),
        }
        Self::bytes(opcode, payload).vdi(&fields)
    }
}
