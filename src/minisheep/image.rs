//! A whole inode in memory: 12 MiB, used only where one is made from another (protocol 7.1, 9).

use std::io;

use super::store::Store;
use crate::wire::inode::{
    GREF_OFFSET, INDEX_ENTRIES, INDEX_OFFSET, INODE_HEADER_LEN, INODE_LEN, InodeHeader,
    gref_offset, index_offset,
};
use crate::wire::{ObjectId, array_at, u32_at};

const STORE_POLICY_HYPER: u8 = 1;
const STORE_POLICY_AT: usize = 553;
const SNAP_CTIME_AT: usize = 520;
const HYPER_LEAF_HEAD: [u8; 8] = [0x74, 0x62, 1, 0, 0, 0, 0, 0];

/// The generation and the count of one index entry (protocol 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gref {
    /// How many times the entry was handed on.
    pub generation: i32,
    /// How many children got it from this inode.
    pub count: i32,
}

impl Gref {
    /// Reads eight bytes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        Self {
            generation: i32::from_le_bytes(array_at(bytes, 0)),
            count: i32::from_le_bytes(array_at(bytes, 4)),
        }
    }

    /// Writes eight bytes.
    #[must_use]
    pub fn encode(self) -> [u8; 8] {
        let mut out = [0; 8];
        out[..4].copy_from_slice(&self.generation.to_le_bytes());
        out[4..].copy_from_slice(&self.count.to_le_bytes());
        out
    }
}

/// All bytes of an inode.
#[derive(Debug)]
pub struct InodeImage {
    bytes: Vec<u8>,
}

impl InodeImage {
    /// An inode with nothing but its header; a hyper volume gets its first, empty leaf.
    #[must_use]
    pub fn new(header: &InodeHeader) -> Self {
        let mut bytes = vec![0; INODE_LEN as usize];
        bytes[..INODE_HEADER_LEN].copy_from_slice(&header.encode());
        if header.store_policy == STORE_POLICY_HYPER {
            let at = INDEX_OFFSET as usize;
            bytes[at..at + HYPER_LEAF_HEAD.len()].copy_from_slice(&HYPER_LEAF_HEAD);
        }
        Self { bytes }
    }

    /// Reads the inode `oid`.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn load(store: &Store, oid: ObjectId) -> io::Result<Self> {
        let mut bytes = vec![0; INODE_LEN as usize];
        store.read(oid, 0, &mut bytes)?;
        Ok(Self { bytes })
    }

    /// Writes the inode, all at once.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, store: &Store, oid: ObjectId) -> io::Result<()> {
        store.create_sparse(oid, &self.bytes)
    }

    /// The owner of block `index`.
    #[must_use]
    pub fn entry(&self, index: u32) -> u32 {
        u32_at(&self.bytes, index_offset(index) as usize)
    }

    fn gref(&self, index: u32) -> Gref {
        Gref::decode(&self.bytes[gref_offset(index) as usize..])
    }

    fn set_gref(&mut self, index: u32, gref: Gref) {
        let at = gref_offset(index) as usize;
        self.bytes[at..at + 8].copy_from_slice(&gref.encode());
    }

    /// The blocks that have an owner.
    pub fn owned(&self) -> impl Iterator<Item = u32> + '_ {
        (0..INDEX_ENTRIES).filter(|index| self.entry(*index) != 0)
    }

    /// Whether no block has an owner.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let index = &self.bytes[INDEX_OFFSET as usize..GREF_OFFSET as usize];
        index.iter().all(|byte| *byte == 0)
    }

    /// Gives `child` this inode's index, one generation further, and counts the new child.
    pub fn hand_down(&mut self, child: &mut Self) {
        let index = INDEX_OFFSET as usize..GREF_OFFSET as usize;
        child.bytes[index.clone()].copy_from_slice(&self.bytes[index]);
        if self.bytes[STORE_POLICY_AT] == STORE_POLICY_HYPER {
            return;
        }
        for index in self.owned().collect::<Vec<_>>() {
            let mut own = self.gref(index);
            let generation = own.generation.wrapping_add(1);
            child.set_gref(index, Gref { generation, count: 0 });
            own.count = own.count.wrapping_add(1);
            self.set_gref(index, own);
        }
    }

    /// Makes it a snapshot, taken at `time`.
    pub fn freeze(&mut self, time: u64) {
        self.bytes[SNAP_CTIME_AT..SNAP_CTIME_AT + 8].copy_from_slice(&time.to_le_bytes());
    }

    /// Clears what a deleted VDI's inode loses: name, size, and all behind the header.
    pub fn clear(&mut self) {
        self.bytes[..256].fill(0);
        self.bytes[536..544].fill(0);
        self.bytes[INODE_HEADER_LEN..].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(vid: u32) -> InodeHeader {
        let mut header = InodeHeader::decode(&[0; INODE_HEADER_LEN]).unwrap();
        (header.vdi_id, header.vdi_size) = (vid, 1 << 30);
        header
    }

    #[test]
    fn a_child_gets_the_index_one_generation_further() {
        let mut parent = InodeImage::new(&header(5));
        let at = index_offset(3) as usize;
        parent.bytes[at..at + 4].copy_from_slice(&5_u32.to_le_bytes());
        parent.set_gref(3, Gref { generation: 2, count: 1 });
        let mut child = InodeImage::new(&header(6));
        parent.hand_down(&mut child);
        assert_eq!(child.owned().collect::<Vec<_>>(), [3]);
        assert_eq!((child.entry(3), child.entry(4)), (5, 0));
        assert_eq!(child.gref(3), Gref { generation: 3, count: 0 });
        assert_eq!(parent.gref(3), Gref { generation: 2, count: 2 });
        assert_eq!(parent.gref(4), Gref::default());
    }
}
