//! Who needs an object: bare index entries, removals, and the counting of references
//! (protocol 9).

use super::{Cluster, gref_at};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::inode::INODE_HEADER_LEN;
use sheepfs::wire::{ObjectId, Status, VdiId};

type Answer = (Status, Vec<u8>, u32);

const DONE: Answer = (Status::Success, Vec::new(), 0);

impl Cluster {
    fn gref(&self, vid: u32, index: u32) -> (i32, i32) {
        let gref = self.inodes[&vid].grefs.get(&gref_at(index)).cloned().unwrap_or(vec![0; 8]);
        let word = |at: usize| i32::from_le_bytes(gref[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }

    /// An entry alone: cleared, or put back in a snapshot that has kept its count.
    pub(super) fn write_bare(&mut self, vid: u32, at: usize, payload: &[u8]) -> Answer {
        assert_eq!((at - INODE_HEADER_LEN) % 4, 0);
        let index = u32::try_from((at - INODE_HEADER_LEN) / 4).unwrap();
        let value = u32::from_le_bytes([payload[0], payload[1], payload[2], 0]);
        if value == 0 {
            self.discarded.cleared += 1;
        } else {
            let old = self.entry(vid, index);
            assert!(
                vid != self.working && self.gref(vid, index).1 > 0,
                "it was put back for nobody"
            );
            assert!(old == 0 || old == value, "an entry was put back over another");
            let object = u64::from(value) << 32 | u64::from(index);
            assert!(self.objects.contains_key(&object), "an entry was put back without its object");
            self.discarded.restored += 1;
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

    /// Deletes all that there is. Gives the objects that are left, or whose
    /// ledgers are.
    pub fn delete_all(&mut self) -> Vec<u64> {
        let vids: Vec<u32> = self.inodes.keys().copied().collect();
        let blocks = u32::try_from(self.shape.len.div_ceil(1 << self.shape.shift)).unwrap();
        for vid in vids {
            for index in 0..blocks {
                self.give_up_entry(vid, index, 0);
                self.set_entry(vid, index, 0);
            }
        }
        self.objects.keys().chain(self.ledgers.keys()).copied().collect()
    }

    /// What a vid's disk holds.
    pub fn content(&self, vid: u32) -> Vec<u8> {
        let len = self.shape.object_len();
        let blocks = u32::try_from(self.shape.len.div_ceil(len)).unwrap();
        let block = |index| match self.entry(vid, index) {
            0 => vec![0; len],
            owner => {
                let object = u64::from(owner) << 32 | u64::from(index);
                self.objects.get(&object).unwrap_or_else(|| panic!("{object:x} is missing")).clone()
            }
        };
        let mut content: Vec<u8> = (0..blocks).flat_map(block).collect();
        content.truncate(self.shape.len);
        content
    }
}
