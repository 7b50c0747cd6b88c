//! Which life of a client changed what last.
//!
//! A client that recovers sends again what was not answered, although the first copy may have
//! been carried out, and the copy changes nothing: that is no bug. sheepfs puts the number of its
//! session into the upper byte of its requests' ids, so such a copy is known by its other life.
//! Within one life, the same request is a bug. What nobody is known to have changed was changed
//! by nobody: a rule that asks is as strict as without this module.
//!
//! Each data object and each index entry that was changed since the start takes a few bytes of
//! memory; those of a VDI go with its vid.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::wire::{ObjectId, RequestHeader, VdiId};

const SHARDS: usize = 32;

/// One life of a client: a number that is another one after each recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life(u8);

impl Life {
    /// The life that a request is from.
    #[must_use]
    pub fn of(request: &RequestHeader) -> Self {
        Self(request.id.to_be_bytes()[0])
    }
}

/// The last changes of all objects and entries.
#[derive(Debug)]
pub struct Lives {
    objects: [Mutex<HashMap<u64, Life>>; SHARDS],
    /// By vid, then by block.
    entries: Mutex<HashMap<u32, HashMap<u32, Life>>>,
}

impl Default for Lives {
    fn default() -> Self {
        let objects = std::array::from_fn(|_| Mutex::new(HashMap::new()));
        Self { objects, entries: Mutex::default() }
    }
}

impl Lives {
    /// The object was made or written.
    pub fn changed(&self, oid: ObjectId, life: Life) {
        lock(self.shard(oid)).insert(oid.raw(), life);
    }

    /// Whether another life than `life` is known to have changed the object last.
    #[must_use]
    pub fn is_of_another(&self, oid: ObjectId, life: Life) -> bool {
        lock(self.shard(oid)).get(&oid.raw()).is_some_and(|last| *last != life)
    }

    /// Entries of a VDI's index were written: all that have a new value, and those without one
    /// that were written before.
    pub fn indexed(&self, vid: VdiId, written: impl Iterator<Item = (u32, bool)>, life: Life) {
        let mut all = lock(&self.entries);
        let entries = all.entry(vid.get()).or_default();
        for (block, changed) in written {
            if changed {
                entries.insert(block, life);
            } else if let Some(last) = entries.get_mut(&block) {
                *last = life;
            }
        }
    }

    /// Which entries of a range another life than `life` is known to have written last.
    #[must_use]
    pub fn entries_of_others(&self, vid: VdiId, blocks: Range<u32>, life: Life) -> Vec<u32> {
        let all = lock(&self.entries);
        let Some(entries) = all.get(&vid.get()) else { return Vec::new() };
        let others = |block: &u32| entries.get(block).is_some_and(|last| *last != life);
        blocks.filter(others).collect()
    }

    /// A vid is free again.
    pub fn forget(&self, vid: VdiId) {
        let others = |raw: &u64, _: &mut Life| ObjectId::from_raw(*raw).vid_raw() != vid.get();
        self.objects.iter().for_each(|shard| lock(shard).retain(others));
        lock(&self.entries).remove(&vid.get());
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.objects.iter().for_each(|shard| lock(shard).clear());
        lock(&self.entries).clear();
    }

    fn shard(&self, oid: ObjectId) -> &Mutex<HashMap<u64, Life>> {
        &self.objects[oid.index() as usize % SHARDS]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Opcode;

    #[test]
    fn the_upper_byte_of_the_id_is_the_life() {
        let request = |id| RequestHeader { id, ..RequestHeader::new(Opcode::ReadObj, 0, 0) };
        assert_eq!(Life::of(&request(0x0300_0001)), Life(3));
        assert_eq!(Life::of(&request(0x00ff_ffff)), Life(0));
    }

    #[test]
    fn objects_know_who_changed_them_last() {
        let lives = Lives::default();
        let vid = VdiId::new(7).unwrap();
        let oid = ObjectId::data(vid, 3);
        assert!(!lives.is_of_another(oid, Life(1)), "nobody is known");
        lives.changed(oid, Life(1));
        assert!(lives.is_of_another(oid, Life(2)) && !lives.is_of_another(oid, Life(1)));
        lives.changed(oid, Life(2));
        assert!(!lives.is_of_another(oid, Life(2)));
        lives.forget(VdiId::new(8).unwrap());
        assert!(lives.is_of_another(oid, Life(1)));
        lives.forget(vid);
        assert!(!lives.is_of_another(oid, Life(1)));
    }

    #[test]
    fn entries_know_who_wrote_them_last() {
        let lives = Lives::default();
        let vid = VdiId::new(7).unwrap();
        let of_others = |life| lives.entries_of_others(vid, 0..10, Life(life));
        lives.indexed(vid, [(1, true), (2, true), (3, false)].into_iter(), Life(1));
        assert_eq!(of_others(1), [] as [u32; 0]);
        assert_eq!(of_others(2), [1, 2], "an entry that nobody changed is nobody's");
        lives.indexed(vid, [(1, false), (3, false)].into_iter(), Life(2));
        assert_eq!((of_others(2), of_others(1)), (vec![2], vec![1]));
        lives.forget(vid);
        assert_eq!(of_others(1), [] as [u32; 0]);
    }
}
