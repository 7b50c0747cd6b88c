//! The in-flight table: every read, write, flush and seek that the kernel waits for,
//! whether a worker was told of it or not.
//!
//! It is ordered by age, and it holds all that a replay needs: the request, its
//! bytes or where they are, and the kernel's owned reply. A request stays until it
//! is answered, over any number of workers. Pure: no socket and no lock; the kind
//! of reply is a parameter, so tests can park something of their own.
//!
//! ```text
//!            ┌──────────── the worker died ────────────┐
//!            v                                         │
//!  new ──> Queued ── a slot ──> Filling ── bytes ──> Told ── done ──> answered
//!            ^                                         │
//!            └── Blocked <── newer than an orphan ─────┘
//! ```
//!
//! A tag that comes back from a worker is an allegation. A request leaves the
//! table once, and only after that worker was told of it; anything else is refused.

mod request;

pub use request::{Kind, Payload, Request, Slot};

use crate::steps::Rest;
use sheepfs::ipc::Tag;
use std::collections::BTreeMap;
use std::time::Instant;
use thiserror::Error;

/// Set in the tags of the control loop, clear in those of the data path.
pub const CONTROL_TAG: u64 = 1 << 63;

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for a worker and a slot, in order.
    Queued,
    /// It waits for another write, a fence or its volume.
    Blocked,
    /// It has a slot of that worker; somebody copies its bytes there. No answer can
    /// be true yet.
    Filling(u64),
    /// That worker was told.
    Told(u64, Option<Slot>),
}

/// Where a seek ends, as the worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// It has not said so yet.
    Unsaid,
    /// There is no data any more.
    Nowhere,
    /// There.
    At(u64),
}

/// A request and who waits for it.
#[derive(Debug)]
pub struct Entry<R> {
    /// What was asked.
    pub request: Request,
    /// Its bytes, when they are ours to keep.
    pub payload: Payload,
    /// The parked reply.
    pub reply: R,
    /// Where it stands.
    pub stage: Stage,
    /// Whether an earlier worker may have had exactly this on the wire, so that
    /// it need not wait for the fences that this caused.
    pub repeats: bool,
    /// Whether an earlier worker was told of it.
    pub told_before: bool,
    /// Whether a worker may have begun with it, of this process or of the one before.
    pub again: bool,
    /// Where it ends, if it is a seek.
    pub sought: Sought,
    /// When the kernel asked.
    pub since: Instant,
    /// What the kernel wants cleared after this step.
    pub rest: Option<Rest>,
}

/// A worker said something that can't be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Allegation {
    /// There is no such request, or it was answered already.
    #[error("it answered request {0}, which is not in flight")]
    Unknown(u64),
    /// It was not told of that request yet.
    #[error("it answered request {0} before it was told of it")]
    NotTold(u64),
    /// That request does not create such an object.
    #[error("it says that request {0} creates an object, which it can't")]
    CreatesNothing(u64),
    /// That request looks for nothing, or not there.
    #[error("it says where request {0} ends, which can't be")]
    SeeksNothing(u64),
}

/// The table.
#[derive(Debug)]
pub struct InFlight<R> {
    next: u64,
    entries: BTreeMap<Tag, Entry<R>>,
}

impl<R> Default for InFlight<R> {
    fn default() -> Self {
        Self { next: 0, entries: BTreeMap::new() }
    }
}

impl<R> InFlight<R> {
    /// Adds a request as the youngest. Tags are never used again: 2^63 of them last
    /// for some thousand years.
    pub fn insert(&mut self, request: Request, reply: R, stage: Stage, now: Instant) -> Tag {
        let tag = Tag(self.next);
        self.next = (self.next + 1) & !CONTROL_TAG;
        let entry = Entry {
            request,
            payload: Payload::None,
            reply,
            stage,
            repeats: false,
            told_before: false,
            again: false,
            sought: Sought::Unsaid,
            since: now,
            rest: None,
        };
        self.entries.insert(tag, entry);
        tag
    }

    /// A request.
    pub fn get(&self, tag: Tag) -> Option<&Entry<R>> {
        self.entries.get(&tag)
    }

    /// A request, to be changed.
    pub fn get_mut(&mut self, tag: Tag) -> Option<&mut Entry<R>> {
        self.entries.get_mut(&tag)
    }

    /// All requests, oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Tag, &mut Entry<R>)> {
        self.entries.iter_mut().map(|(tag, entry)| (*tag, entry))
    }

    /// All requests, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (Tag, &Entry<R>)> {
        self.entries.iter().map(|(tag, entry)| (*tag, entry))
    }

    /// Takes out what that worker says is over, with its slot.
    ///
    /// # Errors
    /// When that can't be.
    pub fn finish(
        &mut self,
        tag: Tag,
        worker: u64,
    ) -> Result<(Entry<R>, Option<Slot>), Allegation> {
        match self.entries.get(&tag).map(|entry| entry.stage) {
            None => Err(Allegation::Unknown(tag.0)),
            Some(Stage::Told(generation, slot)) if generation == worker => {
                let entry = self.entries.remove(&tag).ok_or(Allegation::Unknown(tag.0))?;
                Ok((entry, slot))
            }
            Some(_) => Err(Allegation::NotTold(tag.0)),
        }
    }

    /// Takes one out, whatever its stage.
    pub fn remove(&mut self, tag: Tag) -> Option<Entry<R>> {
        self.entries.remove(&tag)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Since when the oldest one waits.
    pub fn oldest(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(_, entry)| entry.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sheepfs::ipc::VolumeId;

    fn request(volume: u32) -> Request {
        Request { kind: Kind::Flush, volume: VolumeId(volume), offset: 0, len: 0, shift: 22 }
    }

    #[test]
    fn an_answer_counts_once_and_only_after_the_question() {
        let mut table = InFlight::default();
        let tag = table.insert(request(1), "reply", Stage::Queued, Instant::now());
        assert_eq!(table.finish(tag, 1).unwrap_err(), Allegation::NotTold(tag.0));
        table.get_mut(tag).unwrap().stage = Stage::Filling(1);
        assert_eq!(table.finish(tag, 1).unwrap_err(), Allegation::NotTold(tag.0));
        table.get_mut(tag).unwrap().stage = Stage::Told(1, None);
        assert_eq!(table.finish(tag, 2).unwrap_err(), Allegation::NotTold(tag.0));
        assert_eq!(table.finish(tag, 1).unwrap().0.reply, "reply");
        assert_eq!(table.finish(tag, 1).unwrap_err(), Allegation::Unknown(tag.0));
        assert_eq!(
            table.finish(Tag(CONTROL_TAG), 1).unwrap_err(),
            Allegation::Unknown(CONTROL_TAG)
        );
    }

    #[test]
    fn tags_of_the_data_path_never_look_like_control_tags() {
        let mut table = InFlight { next: CONTROL_TAG - 1, entries: BTreeMap::new() };
        for _ in 0..3 {
            let tag = table.insert(request(0), (), Stage::Queued, Instant::now());
            assert_eq!(tag.0 & CONTROL_TAG, 0);
        }
    }

    proptest! {
        /// Against a plain list in order of arrival.
        #[test]
        fn it_keeps_everything_once_and_in_order(
            steps in proptest::collection::vec((0u8..4, 0u32..3, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut table = InFlight::default();
            let mut model: Vec<(Tag, u32, bool)> = Vec::new();
            for (step, volume, which) in steps {
                match step {
                    0 | 1 => {
                        let tag = table.insert(request(volume), volume, Stage::Queued, Instant::now());
                        model.push((tag, volume, false));
                    }
                    2 if !model.is_empty() => {
                        let at = which.index(model.len());
                        model[at].2 = true;
                        table.get_mut(model[at].0).unwrap().stage = Stage::Told(1, None);
                    }
                    3 if !model.is_empty() => {
                        let at = which.index(model.len());
                        let (tag, volume, told) = model[at];
                        let finished = table.finish(tag, 1);
                        prop_assert_eq!(finished.is_ok(), told);
                        if let Ok((entry, _)) = finished {
                            prop_assert_eq!(entry.reply, volume);
                            model.remove(at);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let rest: Vec<u32> = table.iter().map(|(_, entry)| entry.reply).collect();
            prop_assert_eq!(rest, model.iter().map(|(_, volume, _)| *volume).collect::<Vec<_>>());
        }
    }
}
