//! The in-flight table: every read, write and flush that the kernel waits for
//! and a worker was asked, or is about to be asked, to do.
//!
//! It is ordered by age, so that a replay can go through it from the oldest to
//! the youngest, and it holds all that a replay needs: the request, its slot in
//! the arena, and the kernel's owned reply. Pure: no socket and no lock; the kind
//! of reply is a parameter, so tests can park something of their own.
//!
//! A tag that comes back from a worker is an allegation. An entry leaves the
//! table once, and only after it was marked as sent; anything else is refused.

use sheepfs::ipc::{RawSpan, Span, Tag, ToWorker, VolumeId};
use std::collections::BTreeMap;
use thiserror::Error;

/// Set in the tags of the control loop, clear in those of the data path.
pub const CONTROL_TAG: u64 = 1 << 63;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes into the slot.
    Read,
    /// Bytes out of the slot.
    Write,
    /// Everything earlier made durable; has no slot.
    Flush,
}

/// A request of the kernel's, cut to the volume's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub kind: Kind,
    /// Where.
    pub volume: VolumeId,
    /// First byte, in the volume.
    pub offset: u64,
    /// Bytes; 0 for a flush only.
    pub len: u32,
}

impl Request {
    /// What the worker is told.
    pub fn message(self, tag: Tag, slot: Option<Slot>) -> ToWorker {
        let Self { kind, volume, offset, .. } = self;
        match (kind, slot) {
            (Kind::Read, Some(Slot { raw: span, .. })) => {
                ToWorker::Read { tag, volume, offset, span }
            }
            (Kind::Write, Some(Slot { raw: span, .. })) => {
                ToWorker::Write { tag, volume, offset, span }
            }
            (Kind::Flush, _) | (_, None) => ToWorker::Flush { tag, volume },
        }
    }
}

/// A leased part of the arena, as the book of slots and as the arena know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// For messages and for the book.
    pub raw: RawSpan,
    /// For the arena.
    pub span: Span,
}

/// A request and who waits for it.
#[derive(Debug)]
pub struct Entry<R> {
    /// What was asked.
    pub request: Request,
    /// Where its bytes are; a flush has none.
    pub slot: Option<Slot>,
    /// The parked reply.
    pub reply: R,
    /// Whether the worker was told. Until then its bytes may still be on their
    /// way into the slot, and no answer can be true.
    sent: bool,
}

/// A worker said something that can't be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Allegation {
    /// There is no such request, or it was answered already.
    #[error("it answered request {0}, which is not in flight")]
    Unknown(u64),
    /// It was not told of that request yet.
    #[error("it answered request {0} before it was told of it")]
    NotSent(u64),
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
    /// Adds a request, not yet sent, as the youngest. Tags are never used again:
    /// 2^63 of them last for some thousand years.
    pub fn insert(&mut self, request: Request, slot: Option<Slot>, reply: R) -> Tag {
        let tag = Tag(self.next);
        self.next = (self.next + 1) & !CONTROL_TAG;
        self.entries.insert(tag, Entry { request, slot, reply, sent: false });
        tag
    }

    /// Notes that the worker is told now. `false`: the entry is gone, since the
    /// worker is; nobody is to be told.
    pub fn mark_sent(&mut self, tag: Tag) -> bool {
        self.entries.get_mut(&tag).map(|entry| entry.sent = true).is_some()
    }

    /// Takes out what a worker says is over.
    ///
    /// # Errors
    /// When that can't be.
    pub fn finish(&mut self, tag: Tag) -> Result<Entry<R>, Allegation> {
        match self.entries.get(&tag) {
            None => Err(Allegation::Unknown(tag.0)),
            Some(entry) if !entry.sent => Err(Allegation::NotSent(tag.0)),
            Some(_) => self.entries.remove(&tag).ok_or(Allegation::Unknown(tag.0)),
        }
    }

    /// Takes out everything, oldest first.
    pub fn take_all(&mut self) -> Vec<Entry<R>> {
        std::mem::take(&mut self.entries).into_values().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(volume: u32, offset: u64) -> Request {
        Request { kind: Kind::Flush, volume: VolumeId(volume), offset, len: 0 }
    }

    #[test]
    fn an_answer_counts_once_and_only_after_the_question() {
        let mut table = InFlight::default();
        let tag = table.insert(request(1, 0), None, "reply");
        assert_eq!(table.finish(tag).unwrap_err(), Allegation::NotSent(tag.0));
        assert!(table.mark_sent(tag));
        assert_eq!(table.finish(tag).unwrap().reply, "reply");
        assert_eq!(table.finish(tag).unwrap_err(), Allegation::Unknown(tag.0));
        assert!(!table.mark_sent(tag));
        assert_eq!(table.finish(Tag(CONTROL_TAG)).unwrap_err(), Allegation::Unknown(CONTROL_TAG));
    }

    #[test]
    fn tags_of_the_data_path_never_look_like_control_tags() {
        let mut table = InFlight { next: CONTROL_TAG - 1, entries: BTreeMap::new() };
        for _ in 0..3 {
            assert_eq!(table.insert(request(0, 0), None, ()).0 & CONTROL_TAG, 0);
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
                        let tag = table.insert(request(volume, 0), None, volume);
                        model.push((tag, volume, false));
                    }
                    2 if !model.is_empty() => {
                        let at = which.index(model.len());
                        model[at].2 = true;
                        prop_assert!(table.mark_sent(model[at].0));
                    }
                    3 if !model.is_empty() => {
                        let at = which.index(model.len());
                        let (tag, volume, sent) = model[at];
                        let finished = table.finish(tag);
                        prop_assert_eq!(finished.is_ok(), sent);
                        if let Ok(entry) = finished {
                            prop_assert_eq!(entry.reply, volume);
                            model.remove(at);
                        }
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let rest: Vec<u32> = table.take_all().into_iter().map(|entry| entry.reply).collect();
            prop_assert_eq!(rest, model.iter().map(|(_, volume, _)| *volume).collect::<Vec<_>>());
        }
    }
}
