//! The two 48-byte headers (protocol 1.2, 1.3).
//!
//! The first sixteen bytes have one meaning for all; what follows is a union
//! that depends on the opcode, so it is kept as bytes, with typed views on it.

use super::opcode::Opcode;
use super::status::Status;
use super::{array_at, u16_at, u32_at, u64_at};

/// The length of either header.
pub const HEADER_LEN: usize = 48;

/// Request flags (protocol 1.6). Only `WRITE` and `COW` are for clients.
pub mod flags {
    /// A payload follows the header.
    pub const WRITE: u16 = 0x01;
    /// Copy `cow_oid` before writing.
    pub const COW: u16 = 0x02;
    /// `GET_VDI_ATTR`: make the attribute.
    pub const ATTR_CREATE: u16 = 0x100;
    /// `GET_VDI_ATTR`: fail when it is there.
    pub const ATTR_EXCLUSIVE: u16 = 0x200;
    /// `GET_VDI_ATTR`: delete it.
    pub const ATTR_DELETE: u16 = 0x400;
}

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Protocol version.
    pub version: u8,
    /// The opcode as a number; a server must take any.
    pub opcode: u8,
    /// See [`flags`].
    pub flags: u16,
    /// Ignored for everything a client sends.
    pub epoch: u32,
    /// Comes back in the reply.
    pub id: u32,
    /// Bytes of payload that follow, or of room for the answer (protocol 1.5).
    pub data_length: u32,
    /// What depends on the opcode: bytes 16 to 47.
    pub union: [u8; 32],
}

/// The union of object requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjFields {
    /// The object.
    pub oid: u64,
    /// With flag COW: the object to copy from.
    pub cow_oid: u64,
    /// Replicas; 0 is "as the VDI says" and the only right value (protocol 6.2).
    pub copies: u8,
    /// As `copies`.
    pub copy_policy: u8,
    /// Byte offset in the object.
    pub offset: u32,
}

/// The union of VDI requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VdiFields {
    /// `NEW_VDI`: bytes.
    pub vdi_size: u64,
    /// `NEW_VDI`: parent; `RELEASE_VDI`: the vid.
    pub base_vdi_id: u32,
    /// `NEW_VDI`: 0 is the cluster's default.
    pub copies: u8,
    /// `NEW_VDI`: erasure code.
    pub copy_policy: u8,
    /// `NEW_VDI`: 0 array, 1 hyper volume.
    pub store_policy: u8,
    /// `NEW_VDI`: 0 is the cluster's default.
    pub block_size_shift: u8,
    /// `NEW_VDI`: make a snapshot; lookups: the snapshot wanted.
    pub snapid: u32,
    /// Lock type: 0 normal, 1 shared.
    pub lock_type: u32,
}

/// The union of cluster requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterFields {
    /// `MAKE_FS`: creation time, seconds << 32 | nanoseconds.
    pub ctime: u64,
    /// `MAKE_FS`: 0 is 3.
    pub copies: u8,
    /// `MAKE_FS`: erasure code.
    pub copy_policy: u8,
    /// `MAKE_FS`: cluster flags (protocol 15.2).
    pub flags: u16,
    /// Unused by clients.
    pub tag: u32,
    /// `STAT_CLUSTER`: room for so many nodes in each record.
    pub nodes_nr: u32,
    /// `MAKE_FS`: 0 is 22.
    pub block_size_shift: u8,
}

impl RequestHeader {
    /// A header for `opcode` with an empty union and the right version.
    #[must_use]
    pub fn new(opcode: Opcode, flags: u16, data_length: u32) -> Self {
        Self {
            version: opcode.version(),
            opcode: opcode.code(),
            flags,
            epoch: 0,
            id: 0,
            data_length,
            union: [0; 32],
        }
    }

    /// Reads a header.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            version: bytes[0],
            opcode: bytes[1],
            flags: u16_at(bytes, 2),
            epoch: u32_at(bytes, 4),
            id: u32_at(bytes, 8),
            data_length: u32_at(bytes, 12),
            union: array_at(bytes, 16),
        }
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = self.version;
        out[1] = self.opcode;
        out[2..4].copy_from_slice(&self.flags.to_le_bytes());
        out[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        out[8..12].copy_from_slice(&self.id.to_le_bytes());
        out[12..16].copy_from_slice(&self.data_length.to_le_bytes());
        out[16..].copy_from_slice(&self.union);
        out
    }

    /// Whether a payload follows (protocol 1.5: the flag alone decides).
    #[must_use]
    pub fn has_payload(&self) -> bool {
        self.flags & flags::WRITE != 0
    }

    /// The union as an object request's.
    #[must_use]
    pub fn obj(&self) -> ObjFields {
        ObjFields {
            oid: u64_at(&self.union, 0),
            cow_oid: u64_at(&self.union, 8),
            copies: self.union[16],
            copy_policy: self.union[17],
            offset: u32_at(&self.union, 24),
        }
    }

    /// Sets the union to an object request's.
    #[must_use]
    pub fn with_obj(mut self, fields: &ObjFields) -> Self {
        self.union[0..8].copy_from_slice(&fields.oid.to_le_bytes());
        self.union[8..16].copy_from_slice(&fields.cow_oid.to_le_bytes());
        self.union[16] = fields.copies;
        self.union[17] = fields.copy_policy;
        self.union[24..28].copy_from_slice(&fields.offset.to_le_bytes());
        self
    }

    /// The union as a VDI request's.
    #[must_use]
    pub fn vdi(&self) -> VdiFields {
        VdiFields {
            vdi_size: u64_at(&self.union, 0),
            base_vdi_id: u32_at(&self.union, 8),
            copies: self.union[12],
            copy_policy: self.union[13],
            store_policy: self.union[14],
            block_size_shift: self.union[15],
            snapid: u32_at(&self.union, 16),
            lock_type: u32_at(&self.union, 20),
        }
    }

    /// Sets the union to a VDI request's.
    #[must_use]
    pub fn with_vdi(mut self, fields: &VdiFields) -> Self {
        self.union[0..8].copy_from_slice(&fields.vdi_size.to_le_bytes());
        self.union[8..12].copy_from_slice(&fields.base_vdi_id.to_le_bytes());
        self.union[12] = fields.copies;
        self.union[13] = fields.copy_policy;
        self.union[14] = fields.store_policy;
        self.union[15] = fields.block_size_shift;
        self.union[16..20].copy_from_slice(&fields.snapid.to_le_bytes());
        self.union[20..24].copy_from_slice(&fields.lock_type.to_le_bytes());
        self
    }

    /// The union as a cluster request's.
    #[must_use]
    pub fn cluster(&self) -> ClusterFields {
        ClusterFields {
            ctime: u64_at(&self.union, 8),
            copies: self.union[16],
            copy_policy: self.union[17],
            flags: u16_at(&self.union, 18),
            tag: u32_at(&self.union, 20),
            nodes_nr: u32_at(&self.union, 24),
            block_size_shift: self.union[28],
        }
    }

    /// Sets the union to a cluster request's.
    #[must_use]
    pub fn with_cluster(mut self, fields: &ClusterFields) -> Self {
        self.union[8..16].copy_from_slice(&fields.ctime.to_le_bytes());
        self.union[16] = fields.copies;
        self.union[17] = fields.copy_policy;
        self.union[18..20].copy_from_slice(&fields.flags.to_le_bytes());
        self.union[20..24].copy_from_slice(&fields.tag.to_le_bytes());
        self.union[24..28].copy_from_slice(&fields.nodes_nr.to_le_bytes());
        self.union[28] = fields.block_size_shift;
        self
    }
}

/// A reply's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// Always 0 in practice; ignored.
    pub version: u8,
    /// The request's.
    pub opcode: u8,
    /// Always 0.
    pub flags: u16,
    /// The answering node's epoch.
    pub epoch: u32,
    /// The request's.
    pub id: u32,
    /// Bytes of payload that follow.
    pub data_length: u32,
    /// The result.
    pub status: Status,
    /// What depends on the opcode: bytes 20 to 47; rubbish unless successful.
    pub union: [u8; 28],
}

/// The union of a reply to a VDI request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VdiReply {
    /// The vid found or made.
    pub vdi_id: u32,
    /// `GET_VDI_ATTR`: the attribute's number.
    pub attr_id: u32,
    /// The VDI's copies.
    pub copies: u8,
    /// The VDI's block size shift.
    pub block_size_shift: u8,
}

/// The union of a reply to a node request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeReply {
    /// `GET_NODE_LIST`: how many.
    pub nr_nodes: u32,
    /// `STAT_SHEEP`: bytes in all.
    pub store_size: u64,
    /// `STAT_SHEEP`: bytes free.
    pub store_free: u64,
}

impl ReplyHeader {
    /// A reply to `request` with an empty union.
    #[must_use]
    pub fn new(request: &RequestHeader, epoch: u32, status: Status, data_length: u32) -> Self {
        Self {
            version: 0,
            opcode: request.opcode,
            flags: 0,
            epoch,
            id: request.id,
            data_length,
            status,
            union: [0; 28],
        }
    }

    /// Reads a header.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            version: bytes[0],
            opcode: bytes[1],
            flags: u16_at(bytes, 2),
            epoch: u32_at(bytes, 4),
            id: u32_at(bytes, 8),
            data_length: u32_at(bytes, 12),
            status: Status::from_code(u32_at(bytes, 16)),
            union: array_at(bytes, 20),
        }
    }

    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0] = self.version;
        out[1] = self.opcode;
        out[2..4].copy_from_slice(&self.flags.to_le_bytes());
        out[4..8].copy_from_slice(&self.epoch.to_le_bytes());
        out[8..12].copy_from_slice(&self.id.to_le_bytes());
        out[12..16].copy_from_slice(&self.data_length.to_le_bytes());
        out[16..20].copy_from_slice(&self.status.code().to_le_bytes());
        out[20..].copy_from_slice(&self.union);
        out
    }

    /// The union as a VDI request's.
    #[must_use]
    pub fn vdi(&self) -> VdiReply {
        VdiReply {
            vdi_id: u32_at(&self.union, 4),
            attr_id: u32_at(&self.union, 8),
            copies: self.union[12],
            block_size_shift: self.union[13],
        }
    }

    /// Sets the union to a VDI reply's.
    #[must_use]
    pub fn with_vdi(mut self, fields: &VdiReply) -> Self {
        self.union[4..8].copy_from_slice(&fields.vdi_id.to_le_bytes());
        self.union[8..12].copy_from_slice(&fields.attr_id.to_le_bytes());
        self.union[12] = fields.copies;
        self.union[13] = fields.block_size_shift;
        self
    }

    /// The union as a node request's.
    #[must_use]
    pub fn node(&self) -> NodeReply {
        NodeReply {
            nr_nodes: u32_at(&self.union, 0),
            store_size: u64_at(&self.union, 12),
            store_free: u64_at(&self.union, 20),
        }
    }

    /// Sets the union to a node reply's.
    #[must_use]
    pub fn with_node(mut self, fields: &NodeReply) -> Self {
        self.union[0..4].copy_from_slice(&fields.nr_nodes.to_le_bytes());
        self.union[12..20].copy_from_slice(&fields.store_size.to_le_bytes());
        self.union[20..28].copy_from_slice(&fields.store_free.to_le_bytes());
        self
    }

    /// Sets the union to a `GET_CLUSTER_DEFAULT` reply's: copies, policy, shift.
    #[must_use]
    pub fn with_defaults(mut self, copies: u8, policy: u8, shift: u8) -> Self {
        self.union[..3].copy_from_slice(&[copies, policy, shift]);
        self
    }
}
