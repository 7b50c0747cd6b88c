//! Snapshots that take their time: the inode is read, and written back later, over what
//! was written to it meanwhile (protocol 7.4). Entries that an index update sets are spared,
//! unless all is to be lost.

use super::{Cluster, Inode, gref_at};
use sheepfs::wire::ObjectId;
use sheepfs::wire::inode::index_offset;

impl Cluster {
    /// Somebody begins to make a snapshot: data is frozen from now on.
    pub fn begin_snapshot(&mut self) {
        self.end_snapshot();
        self.slow = Some(self.inodes[&self.working].clone());
    }

    /// The snapshot that is being made is there.
    pub fn end_snapshot(&mut self) {
        let Some(inode) = self.slow.take() else { return };
        let blocks = u32::try_from(self.shape.len.div_ceil(1 << self.shape.shift)).unwrap();
        let entry = |inode: &Inode, index| {
            let at = index_offset(index) as usize;
            inode.bytes[at..at + 4] != [0; 4]
        };
        let present = &self.inodes[&self.working];
        let reverted = |index: &u32| entry(&inode, *index) && !entry(present, *index);
        self.discarded.reverted += (0..blocks).filter(reverted).count();
        for block in 0..blocks {
            let at = index_offset(block) as usize;
            let word =
                |inode: &Inode| u32::from_le_bytes(inode.bytes[at..at + 4].try_into().unwrap());
            let is_own = |inode: &Inode| word(inode) == self.working;
            self.lost_updates += usize::from(is_own(present) && !is_own(&inode));
        }
        self.inodes.insert(self.working, inode);
        self.snapshot();
    }

    /// An index update is not lost, unless all are. Then of some the entry is not, and what
    /// the gateway does behind it is: the count stays that of what was named before.
    pub(super) fn copy_entry(&mut self, vid: u32, index: u32, value: u32) {
        let (loses, halves) = (self.loses, self.loses && index % 3 == 1);
        let reads = vid == self.working && (!loses || halves);
        let Some(inode) = self.slow.as_mut().filter(|_| reads) else { return };
        let at = index_offset(index) as usize;
        inode.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        if halves {
            self.miscounted += usize::from(inode.grefs.contains_key(&gref_at(index)));
        } else {
            inode.grefs.remove(&gref_at(index));
        }
    }

    /// Whether data of a vid can't be written.
    pub(super) fn is_frozen(&self, vid: u32) -> bool {
        let slow = self.slow.is_some() && vid == self.working;
        slow || self.inodes[&vid].bytes[520..528] != [0; 8]
    }

    /// Whether a snapshot that is being made will need an object.
    pub(super) fn is_being_copied(&self, oid: ObjectId) -> bool {
        let at = index_offset(oid.index()) as usize;
        let named = oid.vid_raw().to_le_bytes();
        self.slow.as_ref().is_some_and(|inode| inode.bytes[at..at + 4] == named)
    }
}
