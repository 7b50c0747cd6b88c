//! The changes that were received and not yet answered, to notice those that a client must not
//! have at once (protocol 8.5).
//!
//! A change of a closed connection does not count: its client has given up and sends it again.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rules::Rule;
use crate::wire::ObjectId;

const SHARDS: usize = 32;

/// What a request does to its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is made, replaced, removed or discarded.
    Whole,
    /// These bytes of it are written.
    Bytes(Range<u64>),
}

impl Change {
    /// The same of an erasure-coded object: whole stripes are read, changed and written, so
    /// writes that share one must not be at once (protocol 6.1).
    #[must_use]
    pub fn in_stripes(self, len: u64) -> Self {
        match self {
            Self::Bytes(range) => {
                Self::Bytes(range.start / len * len..range.end.next_multiple_of(len))
            }
            Self::Whole => Self::Whole,
        }
    }
}

#[derive(Debug)]
struct Entry {
    number: u64,
    change: Change,
    gone: Arc<AtomicBool>,
}

/// The changes in flight.
#[derive(Debug)]
pub struct Inflight {
    shards: [Mutex<HashMap<u64, Vec<Entry>>>; SHARDS],
    next: AtomicU64,
}

/// One change in flight; to be given back before its answer leaves.
#[derive(Debug)]
pub struct Ticket {
    oid: ObjectId,
    number: u64,
}

impl Default for Inflight {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::new()));
        Self { shards, next: AtomicU64::new(0) }
    }
}

impl Inflight {
    /// Remembers a change to `oid` by the connection whose end `gone` tells; says which rule
    /// that breaks.
    pub fn begin(
        &self,
        oid: ObjectId,
        change: Change,
        gone: &Arc<AtomicBool>,
    ) -> (Ticket, Option<Rule>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(oid);
        let entries = shard.entry(oid.raw()).or_default();
        let live = entries.iter().filter(|entry| !entry.gone.load(Ordering::Relaxed));
        let broken = live.filter_map(|entry| conflict(&entry.change, &change)).next();
        entries.push(Entry { number, change, gone: Arc::clone(gone) });
        (Ticket { oid, number }, broken)
    }

    /// Forgets a change.
    pub fn end(&self, ticket: &Ticket) {
        let mut shard = self.shard(ticket.oid);
        if let Some(entries) = shard.get_mut(&ticket.oid.raw()) {
            entries.retain(|entry| entry.number != ticket.number);
            if entries.is_empty() {
                shard.remove(&ticket.oid.raw());
            }
        }
    }

    /// Whether the object is just being made.
    #[must_use]
    pub fn is_being_made(&self, oid: ObjectId) -> bool {
        let live = |entry: &Entry| !entry.gone.load(Ordering::Relaxed);
        let shard = self.shard(oid);
        let mut entries = shard.get(&oid.raw()).into_iter().flatten();
        entries.any(|entry| live(entry) && entry.change == Change::Whole)
    }

    fn shard(&self, oid: ObjectId) -> MutexGuard<'_, HashMap<u64, Vec<Entry>>> {
        let shard = &self.shards[oid.index() as usize % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn conflict(one: &Change, other: &Change) -> Option<Rule> {
    match (one, other) {
        (Change::Bytes(one), Change::Bytes(other)) => {
            let overlap = one.start < other.end && other.start < one.end;
            overlap.then_some(Rule::Overlap)
        }
        (Change::Whole, _) | (_, Change::Whole) => Some(Rule::ConcurrentCreate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_at_once_is_noticed_until_it_ends() {
        let inflight = Inflight::default();
        let gone = Arc::new(AtomicBool::new(false));
        let oid = ObjectId::from_raw(1);
        let begin = |change| inflight.begin(oid, change, &gone);
        let (first, broken) = begin(Change::Bytes(0..10));
        assert_eq!(broken, None);
        assert_eq!(begin(Change::Bytes(10..20)).1, None);
        assert_eq!(begin(Change::Bytes(9..11)).1, Some(Rule::Overlap));
        assert_eq!(begin(Change::Whole).1, Some(Rule::ConcurrentCreate));
        assert!(inflight.is_being_made(oid));
        let other = ObjectId::from_raw(2);
        assert_eq!(inflight.begin(other, Change::Whole, &gone).1, None);
        inflight.end(&first);
        gone.store(true, Ordering::Relaxed);
        assert_eq!(begin(Change::Bytes(0..20)).1, None);
        let stripes = Change::Bytes(510..513).in_stripes(512);
        assert_eq!(stripes, Change::Bytes(0..1024));
        assert!(!inflight.is_being_made(oid));
    }
}
