//! How a request ends, and what else a worker says of its work.

use super::blocked::Blocker;
use super::queue::{Started, State};
use crate::fence::Object;
use crate::inflight::{Allegation, Entry, Kind, Request, Slot, Sought, Stage};
use crate::link::{Link, Outcome};
use sheepfs::ipc::{Failure, Tag, VolumeId};
use std::sync::Arc;
use std::time::Instant;

/// Requests that are over, and how.
pub type Finished<R> = Vec<(Entry<R>, Option<Slot>, Result<(), Failure>)>;

impl<R> State<R> {
    /// Takes what a worker says is over out of the table, up to the first that
    /// can't be. The slots stay leased until [`State::give_back`]. No link: the
    /// worker is not the one in use.
    pub fn finish(
        &mut self,
        generation: u64,
        batch: Vec<Outcome>,
        now: Instant,
    ) -> (Option<Arc<Link>>, Finished<R>, Result<(), Allegation>) {
        let mut finished = Vec::with_capacity(batch.len());
        let Some(link) = self.worker_of(generation).map(|worker| Arc::clone(&worker.link)) else {
            return (None, finished, Ok(()));
        };
        for (tag, outcome) in batch {
            match self.table.finish(tag, generation) {
                Ok((entry, slot)) => {
                    self.created(tag, entry.request);
                    self.ended(tag, &entry, now);
                    self.outstanding -= 1;
                    let unsaid = matches!(entry.request.kind, Kind::Seek(_))
                        && entry.sought == Sought::Unsaid;
                    let outcome =
                        if unsaid { outcome.and(Err(Failure::BadAnswer)) } else { outcome };
                    match Self::rest_of(&entry, outcome) {
                        Some(rest) if !rest.is_over() => {
                            self.free(slot);
                            self.clear_rest(rest, entry, now);
                        }
                        // The kernel asked for no place.
                        Some(_) => {
                            let entry = Entry { sought: Sought::Unsaid, ..entry };
                            finished.push((entry, slot, Ok(())));
                        }
                        None => finished.push((entry, slot, outcome)),
                    }
                }
                Err(allegation) => match self.abandoned.remove(&tag) {
                    Some((request, slot)) => {
                        self.created(tag, request);
                        self.free(slot);
                    }
                    None => return (Some(link), finished, Err(allegation)),
                },
            }
        }
        (Some(link), finished, Ok(()))
    }

    /// Gives slots back, and returns what can start now.
    pub fn give_back(&mut self, generation: u64, slots: Vec<Slot>) -> Started {
        if self.worker_of(generation).is_none() {
            return Vec::new();
        }
        slots.into_iter().for_each(|slot| self.free(Some(slot)));
        self.start_waiting()
    }

    fn free(&mut self, slot: Option<Slot>) {
        if let (Some(worker), Some(slot)) = (&mut self.worker, slot) {
            self.told.over(slot);
            worker.slots.give_back(slot.raw);
        }
    }

    /// The worker of that generation says that a write creates an object.
    ///
    /// # Errors
    /// When that can't be.
    pub fn note_creating(
        &mut self,
        generation: u64,
        tag: Tag,
        block: u32,
    ) -> Result<(), Allegation> {
        if self.worker_of(generation).is_none() || self.abandoned.contains_key(&tag) {
            return Ok(());
        }
        let refused = Allegation::CreatesNothing(tag.0);
        let entry = self.table.get(tag).ok_or(refused)?;
        let told = matches!(entry.stage, Stage::Told(told, _) if told == generation);
        let object = Object::of(entry.request).find(|object| object.block == block);
        match object.filter(|_| told && entry.request.makes_objects()) {
            Some(object) => {
                self.creating.insert(object, tag);
                Ok(())
            }
            None => Err(refused),
        }
    }

    /// The worker of that generation says that a write or a discard changes its volume's tree.
    ///
    /// # Errors
    /// When that can't be.
    pub fn note_growing(&mut self, generation: u64, tag: Tag) -> Result<(), Allegation> {
        if self.worker_of(generation).is_none() {
            return Ok(());
        }
        // Nobody waits for it, and it changes the tree all the same.
        if let Some((request, _)) = self.abandoned.get(&tag) {
            self.growing.insert(tag, request.volume);
            return Ok(());
        }
        let refused = Allegation::CreatesNothing(tag.0);
        let entry = self.table.get(tag).ok_or(refused)?;
        let told = matches!(entry.stage, Stage::Told(told, _) if told == generation);
        if !told || !entry.request.is_write() {
            return Err(refused);
        }
        self.growing.insert(tag, entry.request.volume);
        Ok(())
    }

    /// The worker of that generation says where a seek ends.
    ///
    /// # Errors
    /// When that can't be.
    pub fn note_sought(
        &mut self,
        generation: u64,
        tag: Tag,
        offset: Option<u64>,
    ) -> Result<(), Allegation> {
        if self.worker_of(generation).is_none() || self.abandoned.contains_key(&tag) {
            return Ok(());
        }
        let is_told = |stage| matches!(stage, Stage::Told(told, _) if told == generation);
        let entry = self.table.get_mut(tag).filter(|entry| {
            let seeks = matches!(entry.request.kind, Kind::Seek(_)) && is_told(entry.stage);
            seeks && offset.is_none_or(|offset| offset >= entry.request.offset)
        });
        let entry = entry.ok_or(Allegation::SeeksNothing(tag.0))?;
        entry.sought = offset.map_or(Sought::Nowhere, Sought::At);
        Ok(())
    }

    /// The worker is about to repair an index entry.
    pub fn note_repairing(&mut self, object: Object) {
        self.repairing.insert(object);
    }

    /// A volume's repairs are over.
    pub fn note_moved(&mut self, volume: VolumeId) {
        self.repairing.retain(|object| object.volume != volume);
    }

    /// A request left the table: what waited for it may go on.
    pub(super) fn ended(&mut self, tag: Tag, entry: &Entry<R>, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(entry.since));
        if self.suspects.remove(&tag) && self.suspects.is_empty() {
            self.single = false;
        }
        if !entry.request.is_write() {
            return;
        }
        self.claims.give_back(entry.request, tag);
        self.wake(Blocker::Write(tag));
    }

    /// Whatever a write may have created is there, or will not be.
    pub(super) fn created(&mut self, tag: Tag, request: Request) {
        self.growing.remove(&tag);
        if self.creating.is_empty() || !request.is_write() {
            return;
        }
        for object in Object::of(request) {
            if self.creating.get(&object) == Some(&tag) {
                self.creating.remove(&object);
            }
        }
    }
}
