//! What a worker says of its work before it is done. Whatever names a request is an
//! allegation: it counts only if that worker was told of that request, and the request can
//! come to it.

use super::DataPath;
use crate::fence::Object;
use crate::inflight::Allegation;
use sheepfs::ipc::{Allocation, Tag, VolumeId};
use sheepfs::wire::cluster::BlockUsage;
use std::time::Instant;

impl<R> DataPath<R> {
    /// The worker of that generation says that a write is about to create an object.
    ///
    /// # Errors
    /// When that can't be.
    pub fn note_creating(&self, generation: u64, tag: Tag, block: u32) -> Result<(), Allegation> {
        self.lock().note_creating(generation, tag, block)
    }

    /// The worker of that generation says that a write is about to change the index tree of
    /// its volume.
    ///
    /// # Errors
    /// When that can't be.
    pub fn note_growing(&self, generation: u64, tag: Tag) -> Result<(), Allegation> {
        self.lock().note_growing(generation, tag)
    }

    /// The worker of that generation says where a seek ends; `None`: nowhere.
    ///
    /// # Errors
    /// When that can't be.
    pub fn note_sought(
        &self,
        generation: u64,
        tag: Tag,
        offset: Option<u64>,
    ) -> Result<(), Allegation> {
        self.lock().note_sought(generation, tag, offset)
    }

    /// The worker of that generation says how many objects a volume has. `false`: there
    /// is no such volume yet.
    pub fn note_stored(
        &self,
        generation: u64,
        volume: VolumeId,
        number: u64,
        usage: Option<BlockUsage>,
    ) -> bool {
        let volume = self.allocations.volumes().by_id(volume);
        volume.inspect(|volume| volume.note_stored(generation, number, usage)).is_some()
    }

    /// The worker has written an index entry.
    pub fn note_allocated(&self, volume: VolumeId, allocation: Allocation) {
        self.allocations.heard(volume, allocation, Instant::now());
    }

    /// The worker is about to write an index entry again that a snapshot lost.
    pub fn note_repairing(&self, volume: VolumeId, block: u32) {
        self.lock().note_repairing(Object { volume, block });
    }

    /// A volume goes on under a new vid, with all its entries repaired.
    pub fn note_moved(&self, volume: VolumeId) {
        self.lock().note_moved(volume);
    }
}
