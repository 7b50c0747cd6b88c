//! Reference counting of data objects that snapshots and clones share (protocol 9).
//!
//! A reference with generation and count (0, 0) is the only one, so its object goes at once. For
//! any other the object's ledger is kept: an array of `i32`, born as `[1, 0, 0, …]`; when all of
//! it is 0 nobody needs the object any more. A crash between two steps leaves an object that
//! nobody names, never a name without its object.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tracing::error;

use super::image::Gref;
use super::store::Store;
use crate::wire::{ObjectId, VdiId};

const LEDGER_BIT: u64 = 1 << 59;
const WORD_LEN: usize = 4;

/// One index entry's hold on a data object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The vid that the entry held.
    pub owner: u32,
    /// The block.
    pub index: u32,
    /// The entry's generation and count.
    pub gref: Gref,
}

impl Reference {
    /// The object it holds.
    #[must_use]
    pub fn object(self) -> Option<ObjectId> {
        VdiId::new(self.owner).map(|vid| ObjectId::data(vid, self.index))
    }
}

/// Where references are given up.
#[derive(Debug)]
pub struct References {
    store: Arc<Store>,
    ledgers: Mutex<()>,
}

impl References {
    /// References to the objects of `store`.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, ledgers: Mutex::new(()) }
    }

    /// Gives all of them up. What fails is logged: the index was changed already, so nothing but
    /// space is lost.
    pub fn drop_all(&self, references: &[Reference]) {
        let _guard = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        for reference in references {
            if let Err(error) = self.drop_one(*reference) {
                error!("could not give up {reference:?}: {error}; its space is lost");
            }
        }
    }

    /// As [`References::drop_all`], after `wait`, as the original's background queue may do it.
    pub fn drop_after(
        self: &Arc<Self>,
        references: Vec<Reference>,
        wait: impl FnOnce() + Send + 'static,
    ) {
        let this = Arc::clone(self);
        thread::spawn(move || {
            wait();
            this.drop_all(&references);
        });
    }

    fn drop_one(&self, reference: Reference) -> io::Result<()> {
        let Some(object) = reference.object() else { return Ok(()) };
        if reference.gref == Gref::default() {
            return gone(self.store.remove(object));
        }
        let ledger = ObjectId::from_raw(LEDGER_BIT | object.raw());
        let words = self.updated(ledger, reference.gref)?;
        if words.iter().all(|word| *word == 0) {
            gone(self.store.remove(object))?;
            return gone(self.store.remove(ledger));
        }
        let bytes: Vec<u8> = words.into_iter().flat_map(i32::to_le_bytes).collect();
        self.store.create(ledger, None, 0, &bytes)
    }

    /// The ledger's words after one reference less.
    fn updated(&self, ledger: ObjectId, gref: Gref) -> io::Result<Vec<i32>> {
        let generation = usize::try_from(gref.generation).map_err(io::Error::other)?;
        let mut words = self.words(ledger)?;
        if words.len() < generation + 2 {
            words.resize(generation + 2, 0);
        }
        words[generation] = words[generation].wrapping_sub(1);
        words[generation + 1] = words[generation + 1].wrapping_add(gref.count);
        Ok(words)
    }

    fn words(&self, ledger: ObjectId) -> io::Result<Vec<i32>> {
        if !self.store.exists(ledger) {
            return Ok(vec![1]);
        }
        let len = usize::try_from(self.store.stored_len(ledger)?).map_err(io::Error::other)?;
        let mut bytes = vec![0; len / WORD_LEN * WORD_LEN];
        self.store.read(ledger, 0, &mut bytes)?;
        let (words, _) = bytes.as_chunks::<WORD_LEN>();
        Ok(words.iter().map(|word| i32::from_le_bytes(*word)).collect())
    }
}

/// What is gone already need not go.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references() -> (tempfile::TempDir, References, ObjectId) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path(), 8).unwrap());
        let object = ObjectId::from_raw(5 << 32 | 1);
        store.create(object, None, 0, b"x").unwrap();
        (dir, References::new(store), object)
    }

    fn reference(generation: i32, count: i32) -> Reference {
        Reference { owner: 5, index: 1, gref: Gref { generation, count } }
    }

    #[test]
    fn the_only_reference_takes_its_object_along() {
        let (_dir, references, object) = references();
        references.drop_all(&[reference(0, 0)]);
        assert!(!references.store.exists(object));
    }

    #[test]
    fn a_shared_object_goes_with_its_last_reference_in_any_order() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (_dir, references, object) = references();
            // A snapshot, its child which was frozen too, and the grandchild.
            let holders = [reference(0, 1), reference(1, 1), reference(2, 0)];
            for (nth, holder) in order.into_iter().enumerate() {
                assert!(references.store.exists(object), "{order:?} before {nth}");
                references.drop_all(&[holders[holder]]);
            }
            assert_eq!(references.store.list().unwrap(), [], "{order:?}");
        }
    }
}
