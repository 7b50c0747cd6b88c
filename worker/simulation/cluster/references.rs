//! Who needs an object: bare index entries, removals, and the counting of references
//! (protocol 9).

use super::{Cluster, Inode, gref_at};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::inode::{INODE_HEADER_LEN, index_offset};
use sheepfs::wire::{ObjectId, Status, VdiId};

type Answer = (Status, Vec<u8>, u32);

const DONE: Answer = (Status::Success, Vec::new(), 0);

impl Cluster {
    /// Generation and count.
    pub fn gref(&self, vid: u32, index: u32) -> (i32, i32) {
        let gref = self.inodes[&vid].grefs.get(&gref_at(index)).cloned().unwrap_or(vec![0; 8]);
        let word = |at: usize| i32::from_le_bytes(gref[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }

    /// An entry alone: cleared, put back in a snapshot that has kept its count, or done once
    /// more where a snapshot that was made has lost it.
    pub(super) fn write_bare(&mut self, vid: u32, at: usize, payload: &[u8]) -> Answer {
        assert_eq!((at - INODE_HEADER_LEN) % 4, 0);
        let index = u32::try_from((at - INODE_HEADER_LEN) / 4).unwrap();
        let value = u32::from_le_bytes([payload[0], payload[1], payload[2], 0]);
        if value == 0 {
            self.discarded.cleared += 1;
        } else {
            let (old, (generation, count)) = (self.entry(vid, index), self.gref(vid, index));
            if vid == self.working {
                assert!(generation > 0, "a repaired entry has no reference");
                self.repaired += 1;
            } else {
                // A repair may find that its new vid has become a snapshot, too.
                let repairs = self.lies || value != vid;
                assert!(count > 0 || repairs, "it was put back for nobody");
                self.discarded.restored += usize::from(old == 0);
            }
            // What a dead worker's late update has made of it, nobody was told of.
            assert!(value >= old || self.lies, "an entry was put back over a newer one");
            let object = u64::from(value) << 32 | u64::from(index);
            assert!(self.objects.contains_key(&object), "an entry was put back without its object");
        }
        self.set_entry(vid, index, value);
        DONE
    }

    /// Nobody may need it: no index, and no snapshot that is being made.
    pub(super) fn remove(&mut self, raw: u64) -> Answer {
        let oid = ObjectId::from_raw(raw);
        if self.hyper {
            assert!(!self.lists(oid.index()), "{raw:x} was removed, and is listed");
        } else {
            let named =
                self.inodes.keys().filter(|vid| self.entry(**vid, oid.index()) == oid.vid_raw());
            let named: Vec<_> = named.collect();
            assert!(named.is_empty(), "{raw:x} was removed, which {named:x?} name");
            assert!(!self.is_being_copied(oid), "{raw:x} was removed under a snapshot");
        }
        match self.objects.remove(&raw) {
            Some(_) => self.discarded.removed += 1,
            None => return (Status::NoObj, Vec::new(), 0),
        }
        DONE
    }

    pub(super) fn decref(&mut self, header: &RequestHeader) -> Answer {
        let fields = header.obj();
        let oid = ObjectId::from_raw(fields.oid & !(1 << 59));
        let generation = i32::try_from(fields.cow_oid).unwrap();
        assert!(generation > 0, "a first reference is no ledger's");
        assert!(!self.is_being_copied(oid), "a reference was given up under a snapshot");
        self.discarded.dropped += 1;
        self.give_up(oid.vid_raw(), oid.index(), (generation, 0));
        DONE
    }

    /// An index update is about to change an entry.
    pub(super) fn give_up_entry(&mut self, vid: u32, index: u32, new: u32) {
        let old = self.entry(vid, index);
        if self.counts && old != 0 && old != new {
            self.give_up(old, index, self.gref(vid, index));
        }
    }

    fn give_up(&mut self, owner: u32, index: u32, (generation, count): (i32, i32)) {
        let object = ObjectId::data(VdiId::new(owner).unwrap(), index).raw();
        if (generation, count) == (0, 0) {
            self.objects.remove(&object);
            return;
        }
        let generation = usize::try_from(generation).unwrap();
        let ledger = self.ledgers.entry(object).or_insert_with(|| vec![1]);
        if ledger.len() < generation + 2 {
            ledger.resize(generation + 2, 0);
        }
        ledger[generation] -= 1;
        ledger[generation + 1] += count;
        if ledger.iter().all(|word| *word == 0) {
            self.ledgers.remove(&object);
            self.objects.remove(&object);
        }
    }

    /// Deletes all that there is, the oldest first. Gives the objects that are left, or
    /// whose ledgers are.
    pub fn delete_all(&mut self) -> Vec<u64> {
        let vids: Vec<u32> = self.inodes.keys().copied().collect();
        vids.into_iter().for_each(|vid| self.delete_one(vid));
        self.objects.keys().chain(self.ledgers.keys()).copied().collect()
    }

    /// Whoever makes a clone has read a vid as it was in `base`, and writes its counts back.
    pub fn end_clone(&mut self, base: &Inode, vid: u32, clone: u32) {
        let (mut child, mut back) = (base.clone(), base.grefs.clone());
        child.grefs.clear();
        for index in 0..self.blocks() {
            let at = index_offset(index) as usize;
            if base.bytes[at..at + 4] == [0; 4] {
                continue;
            }
            let gref = back.entry(gref_at(index)).or_insert(vec![0; 8]);
            let word = |at: usize| i32::from_le_bytes(gref[at..at + 4].try_into().unwrap());
            let (generation, count) = (word(0), word(4) + 1);
            gref[4..].copy_from_slice(&count.to_le_bytes());
            child.grefs.insert(gref_at(index), [(generation + 1).to_le_bytes(), [0; 4]].concat());
        }
        self.inodes.get_mut(&vid).unwrap().grefs = back;
        self.inodes.insert(clone, child);
    }

    /// Sets a generation and a count.
    pub fn set_gref(&mut self, vid: u32, index: u32, (generation, count): (i32, i32)) {
        let bytes = [generation.to_le_bytes(), count.to_le_bytes()].concat();
        self.inodes.get_mut(&vid).unwrap().grefs.insert(gref_at(index), bytes);
    }

    /// Deletes a VDI.
    pub fn delete_one(&mut self, vid: u32) {
        for index in 0..self.blocks() {
            self.give_up_entry(vid, index, 0);
            self.set_entry(vid, index, 0);
            self.set_gref(vid, index, (0, 0));
        }
    }

    fn blocks(&self) -> u32 {
        u32::try_from(self.shape.len.div_ceil(self.shape.object_len())).unwrap()
    }

    /// What a vid's disk holds.
    pub fn content(&self, vid: u32) -> Vec<u8> {
        let len = self.shape.object_len();
        let block = |index| match self.entry(vid, index) {
            0 => vec![0; len],
            owner => {
                let object = u64::from(owner) << 32 | u64::from(index);
                self.objects.get(&object).unwrap_or_else(|| panic!("{object:x} is missing")).clone()
            }
        };
        let mut content: Vec<u8> = (0..self.blocks()).flat_map(block).collect();
        content.truncate(self.shape.len);
        content
    }
}
