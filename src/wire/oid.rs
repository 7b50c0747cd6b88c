//! Object ids and VDI ids (protocol 3).
//!
//! A 64-bit object id holds a kind in its upper bits, the 24-bit VDI id in bits
//! 32 to 55, and an index in the lower 32 bits. The kinds differ in size and in
//! who may write them, so they have constructors of their own.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of VDI ids there are.
pub const VDI_ID_COUNT: u32 = 1 << 24;

const INODE_BIT: u64 = 1 << 63;
const VM_STATE_BIT: u64 = 1 << 62;
const ATTRIBUTE_BIT: u64 = 1 << 61;
const BTREE_BIT: u64 = 1 << 60;
const LEDGER_BIT: u64 = 1 << 59;
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_FACTOR: u64 = 0x0100_0000_01b3;

/// The id of a VDI: 24 bits, never 0 for a VDI that exists.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct VdiId(u32);

impl VdiId {
    /// Takes a raw id. `None` when it does not fit in 24 bits or is 0.
    #[must_use]
    pub fn new(raw: u32) -> Option<Self> {
        (raw != 0 && raw < VDI_ID_COUNT).then_some(Self(raw))
    }

    /// The number on the wire.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for VdiId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What an object is, from the upper bits of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A block of a VDI's data.
    Data,
    /// A VDI's inode.
    Inode,
    /// A piece of a virtual machine's saved state.
    VmState,
    /// A named attribute of a VDI.
    Attribute,
    /// A node of a hyper volume's index tree.
    Btree,
    /// The reference counts of a data object; the server's own.
    Ledger,
}

/// The id of an object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectId(u64);

impl ObjectId {
    /// The object that holds block `index` of `vid`.
    #[must_use]
    pub fn data(vid: VdiId, index: u32) -> Self {
        Self(u64::from(vid.0) << 32 | u64::from(index))
    }

    /// The reference counts of block `index` of `vid`.
    #[must_use]
    pub fn ledger(vid: VdiId, index: u32) -> Self {
        Self(LEDGER_BIT | Self::data(vid, index).0)
    }

    /// The inode of `vid`.
    #[must_use]
    pub fn inode(vid: VdiId) -> Self {
        Self(INODE_BIT | u64::from(vid.0) << 32)
    }

    /// Leaf `number` of the index tree of the hyper volume `vid`.
    #[must_use]
    pub fn btree(vid: VdiId, number: u32) -> Self {
        Self(BTREE_BIT | u64::from(vid.0) << 32 | u64::from(number))
    }

    /// Takes an id as it came over the wire; a server must accept any.
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number on the wire.
    #[must_use]
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The VDI the object belongs to, as a raw number that may be 0.
    #[must_use]
    pub fn vid_raw(self) -> u32 {
        (self.0 >> 32) as u32 & (VDI_ID_COUNT - 1)
    }

    /// The lower 32 bits: the block number of a data object.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub fn index(self) -> u32 {
        self.0 as u32
    }

    /// What the object is.
    #[must_use]
    pub fn kind(self) -> ObjectKind {
        let kinds = [
            (INODE_BIT, ObjectKind::Inode),
            (VM_STATE_BIT, ObjectKind::VmState),
            (ATTRIBUTE_BIT, ObjectKind::Attribute),
            (BTREE_BIT, ObjectKind::Btree),
            (LEDGER_BIT, ObjectKind::Ledger),
        ];
        let found = kinds.iter().find(|(bit, _)| self.0 & bit != 0);
        found.map_or(ObjectKind::Data, |(_, kind)| *kind)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// 64-bit FNV-1a with the usual start value.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_from(bytes, FNV_START)
}

/// 64-bit FNV-1a with a chosen start value (protocol 15.9).
#[must_use]
pub fn fnv1a_from(bytes: &[u8], start: u64) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_FACTOR))
}

/// The first VDI id a server tries for a new name: the low 24 bits of its hash.
#[must_use]
pub fn vid_candidate(name: &[u8]) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the low 24 bits are meant")]
    let candidate = fnv1a(name) as u32 & (VDI_ID_COUNT - 1);
    candidate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_to_the_recorded_candidates() {
        assert_eq!(vid_candidate(b"v1"), 0x70_9128);
        assert_eq!(vid_candidate(b"s1"), 0x78_d149);
        assert_eq!(vid_candidate(b"w1"), 0x6d_7b05);
    }

    #[test]
    fn ids_come_apart_as_they_were_put_together() {
        let vid = VdiId::new(0x70_9128).unwrap();
        let data = ObjectId::data(vid, 17);
        assert_eq!(data.raw(), 0x0070_9128_0000_0011);
        assert_eq!((data.vid_raw(), data.index(), data.kind()), (0x70_9128, 17, ObjectKind::Data));
        assert_eq!(ObjectId::inode(vid).raw(), 0x8070_9128_0000_0000);
        assert_eq!(ObjectId::inode(vid).kind(), ObjectKind::Inode);
    }

    #[test]
    fn a_vid_has_24_bits_and_is_not_0() {
        assert_eq!(VdiId::new(0), None);
        assert_eq!(VdiId::new(1 << 24), None);
        assert!(VdiId::new((1 << 24) - 1).is_some());
    }
}
