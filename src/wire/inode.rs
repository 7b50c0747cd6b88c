//! The inode of a VDI (protocol 4): a header of 4664 bytes, then the index with
//! one `u32` for each block, then the server's reference counts.
//!
//! Only the header is decoded here. The index is read in pieces, as it is
//! needed, and the reference counts are touched in one repair only (protocol
//! 7.4), so for these there are offsets.

use super::name::{NAME_FIELD_LEN, field_bytes};
use super::oid::VdiId;
use super::{u32_at, u64_at};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of the header: all that stands before the index.
pub const INODE_HEADER_LEN: usize = INDEX_OFFSET as usize;
/// Where the index begins.
pub const INDEX_OFFSET: u32 = 4664;
/// Entries of the index.
pub const INDEX_ENTRIES: u32 = 1 << 20;
/// Where the reference counts begin.
pub const GREF_OFFSET: u32 = 4_198_968;
/// Bytes of the whole inode.
pub const INODE_LEN: u32 = 12_587_576;
/// The smallest block: 512 bytes.
pub const BLOCK_SHIFT_MIN: u8 = 9;
/// The largest block: 2 GiB.
pub const BLOCK_SHIFT_MAX: u8 = 31;

const _: () = assert!(INDEX_OFFSET + 4 * INDEX_ENTRIES == GREF_OFFSET);
const _: () = assert!(GREF_OFFSET + 8 * INDEX_ENTRIES == INODE_LEN);

const NAME: usize = 0;
const TAG: usize = 256;
const CREATE_TIME: usize = 512;
const SNAP_CTIME: usize = 520;
const VDI_SIZE: usize = 536;
const COPY_POLICY: usize = 552;
const STORE_POLICY: usize = 553;
const NR_COPIES: usize = 554;
const BLOCK_SIZE_SHIFT: usize = 555;
const SNAP_ID: usize = 556;
const VDI_ID: usize = 560;
const PARENT_VDI_ID: usize = 564;
/// Where the next free number of a hyper volume's leaves stands.
pub const BTREE_COUNTER_OFFSET: u32 = 568;

/// `store_policy` of hyper volumes, whose index is a tree.
pub const STORE_POLICY_HYPER: u8 = 1;
/// The most bytes of a hyper volume: 16 PiB.
pub const HYPER_SIZE_MAX: u64 = 1 << 54;

/// The part of an inode that describes the VDI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeHeader {
    /// Name, without its padding. Empty: the VDI was deleted.
    pub name: Vec<u8>,
    /// Snapshot tag, without its padding.
    pub tag: Vec<u8>,
    /// Seconds << 32 | nanoseconds.
    pub create_time: u64,
    /// 0 for a working VDI, else when it became a snapshot.
    pub snap_ctime: u64,
    /// Bytes; any value.
    pub vdi_size: u64,
    /// 0 replicated, else erasure coded (protocol 6.1).
    pub copy_policy: u8,
    /// 0 array index, 1 hyper volume.
    pub store_policy: u8,
    /// Replicas, or data and parity strips together.
    pub nr_copies: u8,
    /// log2 of the size of a data object.
    pub block_size_shift: u8,
    /// Number in the chain of this name, from 1.
    pub snap_id: u32,
    /// Own vid.
    pub vdi_id: u32,
    /// The vid it was made from, or 0.
    pub parent_vdi_id: u32,
}

/// Why an inode can't be used as a volume.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum InodeError {
    /// Fewer bytes than a header has.
    #[error("an inode header of {0} bytes is too short")]
    Short(usize),
    /// The inode says it is another VDI's.
    #[error("the inode says it belongs to vid {found:x}, not {wanted:x}")]
    OtherVid {
        /// The vid whose inode was read.
        wanted: u32,
        /// The vid it names.
        found: u32,
    },
    /// An index format from the future.
    #[error("store policy {0} is unknown")]
    StorePolicy(u8),
    /// Outside 9 to 31.
    #[error("a block size shift of {0} is outside 9 to 31")]
    BlockShift(u8),
    /// The index would run into the reference counts (protocol 4.2).
    #[error("{size} bytes are more than an index of blocks of 2^{shift} bytes can hold")]
    TooLarge {
        /// Bytes of the VDI.
        size: u64,
        /// log2 of its blocks.
        shift: u8,
    },
}

impl InodeHeader {
    /// Reads a header; bytes behind it are ignored.
    ///
    /// # Errors
    /// [`InodeError::Short`] when bytes are missing.
    pub fn decode(bytes: &[u8]) -> Result<Self, InodeError> {
        if bytes.len() < INODE_HEADER_LEN {
            return Err(InodeError::Short(bytes.len()));
        }
        Ok(Self {
            name: field_bytes(&bytes[NAME..NAME + NAME_FIELD_LEN]).to_vec(),
            tag: field_bytes(&bytes[TAG..TAG + NAME_FIELD_LEN]).to_vec(),
            create_time: u64_at(bytes, CREATE_TIME),
            snap_ctime: u64_at(bytes, SNAP_CTIME),
            vdi_size: u64_at(bytes, VDI_SIZE),
            copy_policy: bytes[COPY_POLICY],
            store_policy: bytes[STORE_POLICY],
            nr_copies: bytes[NR_COPIES],
            block_size_shift: bytes[BLOCK_SIZE_SHIFT],
            snap_id: u32_at(bytes, SNAP_ID),
            vdi_id: u32_at(bytes, VDI_ID),
            parent_vdi_id: u32_at(bytes, PARENT_VDI_ID),
        })
    }

    /// Writes the fields this structure knows over a header of zeros.
    #[must_use]
    pub fn encode(&self) -> [u8; INODE_HEADER_LEN] {
        let mut out = [0; INODE_HEADER_LEN];
        self.write_into(&mut out);
        out
    }

    /// Writes the fields this structure knows into `out` and leaves all others.
    pub fn write_into(&self, out: &mut [u8; INODE_HEADER_LEN]) {
        put_field(&mut out[NAME..NAME + NAME_FIELD_LEN], &self.name);
        put_field(&mut out[TAG..TAG + NAME_FIELD_LEN], &self.tag);
        out[CREATE_TIME..CREATE_TIME + 8].copy_from_slice(&self.create_time.to_le_bytes());
        out[SNAP_CTIME..SNAP_CTIME + 8].copy_from_slice(&self.snap_ctime.to_le_bytes());
        out[VDI_SIZE..VDI_SIZE + 8].copy_from_slice(&self.vdi_size.to_le_bytes());
        out[COPY_POLICY] = self.copy_policy;
        out[STORE_POLICY] = self.store_policy;
        out[NR_COPIES] = self.nr_copies;
        out[BLOCK_SIZE_SHIFT] = self.block_size_shift;
        out[SNAP_ID..SNAP_ID + 4].copy_from_slice(&self.snap_id.to_le_bytes());
        out[VDI_ID..VDI_ID + 4].copy_from_slice(&self.vdi_id.to_le_bytes());
        out[PARENT_VDI_ID..PARENT_VDI_ID + 4].copy_from_slice(&self.parent_vdi_id.to_le_bytes());
    }

    /// Whether the VDI is frozen.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        self.snap_ctime != 0
    }

    /// Whether the index is a tree ([`super::btree`]).
    #[must_use]
    pub fn is_hyper(&self) -> bool {
        self.store_policy == STORE_POLICY_HYPER
    }

    /// Whether data objects are erasure coded.
    #[must_use]
    pub fn is_erasure_coded(&self) -> bool {
        self.copy_policy != 0
    }

    /// Checks that this is the inode of `vid` and that sheepfs can use it.
    ///
    /// # Errors
    /// [`InodeError`] says what is wrong (protocol 21, item 1).
    pub fn check_usable(&self, vid: VdiId) -> Result<(), InodeError> {
        if self.vdi_id != vid.get() {
            return Err(InodeError::OtherVid { wanted: vid.get(), found: self.vdi_id });
        }
        let shift = self.block_size_shift;
        let size_max = match self.store_policy {
            0 => u64::from(INDEX_ENTRIES) << shift.min(BLOCK_SHIFT_MAX),
            STORE_POLICY_HYPER => HYPER_SIZE_MAX.min(1 << (32 + shift.min(BLOCK_SHIFT_MAX))),
            other => return Err(InodeError::StorePolicy(other)),
        };
        if !(BLOCK_SHIFT_MIN..=BLOCK_SHIFT_MAX).contains(&shift) {
            return Err(InodeError::BlockShift(shift));
        }
        if self.vdi_size > size_max {
            return Err(InodeError::TooLarge { size: self.vdi_size, shift });
        }
        Ok(())
    }
}

/// The next free number of a hyper volume's leaves, from its inode's header.
#[must_use]
pub fn btree_counter(header: &[u8]) -> u32 {
    u32_at(header, BTREE_COUNTER_OFFSET as usize)
}

/// Where the index entry of block `index` stands in the inode.
#[must_use]
pub fn index_offset(index: u32) -> u32 {
    INDEX_OFFSET + 4 * index.min(INDEX_ENTRIES)
}

/// Where the reference count of block `index` stands in the inode.
#[must_use]
pub fn gref_offset(index: u32) -> u32 {
    GREF_OFFSET + 8 * index.min(INDEX_ENTRIES)
}

fn put_field(field: &mut [u8], text: &[u8]) {
    field.fill(0);
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> InodeHeader {
        InodeHeader {
            name: b"disk".to_vec(),
            tag: vec![b't'; NAME_FIELD_LEN],
            create_time: 7 << 32 | 8,
            snap_ctime: 0,
            vdi_size: 10 << 30,
            copy_policy: 0,
            store_policy: 0,
            nr_copies: 2,
            block_size_shift: 22,
            snap_id: 3,
            vdi_id: 0xabcdef,
            parent_vdi_id: 5,
        }
    }

    #[test]
    fn a_header_survives_both_ways() {
        let encoded = header().encode();
        assert_eq!(InodeHeader::decode(&encoded), Ok(header()));
        assert_eq!(InodeHeader::decode(&encoded[1..]), Err(InodeError::Short(4663)));
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let vid = VdiId::new(0xabcdef).unwrap();
        assert_eq!(header().check_usable(vid), Ok(()));
        let future = InodeHeader { store_policy: 2, ..header() };
        assert_eq!(future.check_usable(vid), Err(InodeError::StorePolicy(2)));
        let hyper = InodeHeader { store_policy: 1, vdi_size: 1 << 54, ..header() };
        assert_eq!(hyper.check_usable(vid), Ok(()));
        let tiny = InodeHeader { block_size_shift: 21, ..hyper.clone() };
        let large = InodeHeader { vdi_size: (1 << 54) + 1, ..hyper };
        for odd in [tiny, large] {
            assert!(matches!(odd.check_usable(vid), Err(InodeError::TooLarge { .. })));
        }
        for shift in [0, 8, 32, 255] {
            let odd = InodeHeader { block_size_shift: shift, ..header() };
            assert_eq!(odd.check_usable(vid), Err(InodeError::BlockShift(shift)));
        }
        let full = InodeHeader { vdi_size: 4 << 40, ..header() };
        assert_eq!(full.check_usable(vid), Ok(()));
        let large = InodeHeader { vdi_size: (4 << 40) + 1, ..header() };
        assert!(matches!(large.check_usable(vid), Err(InodeError::TooLarge { .. })));
        let other = VdiId::new(1).unwrap();
        assert!(matches!(header().check_usable(other), Err(InodeError::OtherVid { .. })));
    }

    #[test]
    fn offsets_are_those_of_the_layout() {
        assert_eq!(index_offset(0), 4664);
        assert_eq!(index_offset(INDEX_ENTRIES - 1), GREF_OFFSET - 4);
        assert_eq!(gref_offset(INDEX_ENTRIES - 1), INODE_LEN - 8);
    }
}
