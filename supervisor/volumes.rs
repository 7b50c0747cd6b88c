//! The attached volumes: what the tree shows under `volume/` and the data path
//! needs for each request.
//!
//! The control loop alone adds and removes volumes; FUSE threads look them up.
//! A lookup takes a read lock for as long as it takes to clone an `Arc`.

mod stored;

use crate::pages::Pages;
use crate::state::SavedVolume;
use sheepfs::ipc::{VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use stored::Stored;

/// Inode numbers of working volumes start here; the vid follows in the low bits.
const INO_WORKING: u64 = 1 << 32;
/// Inode numbers of snapshot volumes: a VDI that became a snapshot under its
/// mount keeps its number while the snapshot itself is attached besides.
const INO_SNAPSHOT: u64 = 2 << 32;

/// An attached volume.
#[derive(Debug)]
pub struct Volume {
    /// Its name between the processes.
    pub id: VolumeId,
    /// Its file name under `volume/`.
    pub name: VolumeName,
    /// Its inode number, from the vid it had when it was attached.
    pub ino: u64,
    /// What the kernel may have cached of it.
    pub pages: Pages,
    shift: u8,
    facts: RwLock<VolumeFacts>,
    stored: Stored,
    opens: AtomicU64,
}

impl Volume {
    /// A volume as the worker describes it.
    pub fn new(id: VolumeId, name: VolumeName, facts: VolumeFacts) -> Self {
        let base = if facts.snapshot { INO_SNAPSHOT } else { INO_WORKING };
        let ino = base | u64::from(facts.vid);
        let shift = facts.block_size_shift;
        let facts = RwLock::new(facts);
        let (pages, stored, opens) = (Pages::default(), Stored::default(), AtomicU64::new(0));
        Self { id, name, ino, pages, shift, facts, stored, opens }
    }

    /// As a predecessor of this process knew it, under its inode number.
    pub fn restored(saved: &SavedVolume) -> Self {
        let new = Self::new(saved.id, saved.name.clone(), saved.facts.clone());
        Self { ino: saved.ino, ..new }
    }

    /// What it is now.
    pub fn facts(&self) -> VolumeFacts {
        self.facts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new description, after a snapshot or a new worker.
    pub fn set_facts(&self, facts: VolumeFacts) {
        *self.facts.write().unwrap_or_else(PoisonError::into_inner) = facts;
    }

    /// Bytes; does not change while the volume is attached.
    pub fn size(&self) -> u64 {
        self.facts.read().unwrap_or_else(PoisonError::into_inner).size
    }

    /// log2 of the size of its objects; never changes.
    pub fn shift(&self) -> u8 {
        self.shift
    }

    /// Counts an open.
    pub fn opened(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a close. `true`: nobody has it open now.
    pub fn closed(&self) -> bool {
        self.opens.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Whether somebody has it open.
    pub fn is_open(&self) -> bool {
        self.opens.load(Ordering::Relaxed) > 0
    }
}

/// All attached volumes. There may be thousands, so none is ever searched for among all.
#[derive(Debug, Default)]
pub struct Volumes {
    maps: RwLock<Maps>,
}

/// The same volumes, by each of their names.
#[derive(Debug, Default)]
struct Maps {
    by_ino: BTreeMap<u64, Arc<Volume>>,
    by_name: HashMap<VolumeName, Arc<Volume>>,
    by_id: HashMap<VolumeId, Arc<Volume>>,
}

impl Volumes {
    /// The volume of that inode number.
    pub fn by_ino(&self, ino: u64) -> Option<Arc<Volume>> {
        self.read().by_ino.get(&ino).cloned()
    }

    /// The volume of that file name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Volume>> {
        self.read().by_name.get(name).cloned()
    }

    /// The volume of that id.
    pub fn by_id(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.read().by_id.get(&id).cloned()
    }

    /// All, by inode number.
    pub fn all(&self) -> Vec<Arc<Volume>> {
        self.read().by_ino.values().cloned().collect()
    }

    /// Those with an inode number above that one, by inode number, as many as `count`.
    pub fn behind(&self, ino: u64, count: usize) -> Vec<Arc<Volume>> {
        let behind = (Bound::Excluded(ino), Bound::Unbounded);
        self.read().by_ino.range(behind).take(count).map(|(_, volume)| volume.clone()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read().by_ino.len()
    }

    /// Adds one. `false`: its VDI is a volume already, under another name.
    pub fn add(&self, volume: Arc<Volume>) -> bool {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if maps.by_ino.contains_key(&volume.ino) {
            return false;
        }
        maps.by_name.insert(volume.name.clone(), Arc::clone(&volume));
        maps.by_id.insert(volume.id, Arc::clone(&volume));
        maps.by_ino.insert(volume.ino, volume);
        true
    }

    /// Removes one.
    pub fn remove(&self, ino: u64) {
        let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(volume) = maps.by_ino.remove(&ino) {
            maps.by_name.remove(volume.name.as_str());
            maps.by_id.remove(&volume.id);
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Maps> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner)
    }
}
