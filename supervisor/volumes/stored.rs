//! How many objects a volume has, as its workers say.
//!
//! The link hears of it before the write that made an object is answered, and notes it at
//! once. Of a volume that is not in the tree yet, the control loop hears instead, so an
//! old word may come after a newer one: each has a number, and workers are numbered too.
//!
//! When a worker is dead, what it was told to write may still make objects, and is perhaps
//! answered with an error before another worker counts. So its number counts no more then.

use super::Volume;
use sheepfs::wire::cluster::BlockUsage;
use std::sync::{PoisonError, RwLock};

/// What is known.
#[derive(Debug, Default)]
pub struct Stored(RwLock<Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Which worker has said it, and which of its words it was.
    said: (u64, u64),
    usage: Option<BlockUsage>,
}

impl Volume {
    /// The worker of that generation says how many objects there are.
    pub fn note_stored(&self, generation: u64, number: u64, usage: Option<BlockUsage>) {
        let mut known = self.stored.0.write().unwrap_or_else(PoisonError::into_inner);
        let said = (generation, number);
        if known.said < said {
            *known = Known { said, usage };
        }
    }

    /// The worker of that generation is dead, and changes that it has not answered may still
    /// be carried out.
    pub fn forget_stored(&self, generation: u64) {
        self.note_stored(generation, u64::MAX, None);
    }

    /// How many objects it has, if they are counted.
    pub fn usage(&self) -> Option<BlockUsage> {
        self.stored.0.read().unwrap_or_else(PoisonError::into_inner).usage
    }

    /// Bytes that may be stored of it: never fewer than there are, and no more than its
    /// size. All of it while nothing is known: programs take what is not stored for a
    /// hole and do not read it.
    pub fn stored_len(&self) -> u64 {
        let object_len = 1_u64.checked_shl(self.shift.into()).unwrap_or(u64::MAX);
        let len =
            |usage: BlockUsage| usage.own.saturating_add(usage.shared).saturating_mul(object_len);
        self.usage().map_or(u64::MAX, len).min(self.size())
    }
}

#[cfg(test)]
mod tests {
    use crate::fake;
    use sheepfs::wire::cluster::BlockUsage;

    #[test]
    fn the_newest_word_counts_and_without_one_it_is_full() {
        let volume = fake::volume(1, "disk", (40 << 20) + 5, false);
        let objects = |own, shared| Some(BlockUsage { own, shared });
        assert_eq!(volume.stored_len(), (40 << 20) + 5);
        volume.note_stored(1, 2, objects(1, 2));
        volume.note_stored(1, 1, None);
        assert_eq!((volume.stored_len(), volume.usage()), (12 << 20, objects(1, 2)));
        volume.note_stored(1, 3, objects(11, 0));
        assert_eq!(volume.stored_len(), (40 << 20) + 5, "the last object is short");
        volume.note_stored(2, 1, None);
        volume.note_stored(1, 4, objects(1, 0));
        assert_eq!(volume.stored_len(), (40 << 20) + 5, "an earlier worker's");
        volume.note_stored(2, 2, objects(u64::MAX, u64::MAX));
        assert_eq!(volume.stored_len(), (40 << 20) + 5);
        volume.note_stored(2, 3, objects(0, 0));
        assert_eq!(volume.stored_len(), 0);
        volume.forget_stored(2);
        volume.note_stored(2, 4, objects(0, 0));
        assert_eq!(volume.stored_len(), (40 << 20) + 5, "of a dead worker");
        volume.note_stored(3, 1, objects(1, 0));
        volume.forget_stored(2);
        assert_eq!(volume.stored_len(), 4 << 20);
    }
}
