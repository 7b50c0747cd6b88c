//! The changes that were received and not yet answered, to notice those that a client must not
//! have at once (protocol 8.5).
//!
//! A change of a closed connection does not count: its client has given up and sends it again.
//! Nor do the changes of two lives of a client count against each other: the second is the
//! client's recovery, and it can't know of what the first one's gateway still does.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::Origin;
use super::lives::Life;
use super::rules::Rule;
use crate::wire::{ObjectId, Opcode, RequestHeader};

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
    /// What a request changes, if anything.
    #[must_use]
    pub fn of(header: &RequestHeader) -> Option<Self> {
        let start = u64::from(header.obj().offset);
        match Opcode::from_code(header.opcode)? {
            Opcode::WriteObj => Some(Self::Bytes(start..start + u64::from(header.data_length))),
            Opcode::CreateAndWriteObj | Opcode::RemoveObj | Opcode::DiscardObj => Some(Self::Whole),
            _ => None,
        }
    }

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
    life: Life,
    origin: Arc<Origin>,
}

impl Entry {
    /// Whether a request of that life must respect this one.
    fn binds(&self, life: Life) -> bool {
        self.life == life && !self.origin.is_gone()
    }
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
    /// Remembers a change to `oid` by a life of a client; says which rule that breaks.
    pub fn begin(
        &self,
        oid: ObjectId,
        change: Change,
        life: Life,
        origin: &Arc<Origin>,
    ) -> (Ticket, Option<Rule>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(oid);
        let entries = shard.entry(oid.raw()).or_default();
        let bound = entries.iter().filter(|entry| entry.binds(life) && !origin.is_gone());
        let broken = bound.filter_map(|entry| conflict(&entry.change, &change)).next();
        entries.push(Entry { number, change, life, origin: Arc::clone(origin) });
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

    /// Whether that life of a client is just making the object.
    #[must_use]
    pub fn is_being_made(&self, oid: ObjectId, life: Life) -> bool {
        let shard = self.shard(oid);
        let mut entries = shard.get(&oid.raw()).into_iter().flatten();
        entries.any(|entry| entry.binds(life) && entry.change == Change::Whole)
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

    fn life(number: u32) -> Life {
        let bare = RequestHeader::new(Opcode::ReadObj, 0, 0);
        Life::of(&RequestHeader { id: number << 24, ..bare })
    }

    #[test]
    fn what_must_not_be_at_once_is_noticed_until_it_ends() {
        let inflight = Inflight::default();
        let origin = Arc::<Origin>::default();
        let oid = ObjectId::from_raw(1);
        let begin = |change| inflight.begin(oid, change, life(1), &origin);
        let (first, broken) = begin(Change::Bytes(0..10));
        assert_eq!(broken, None);
        assert_eq!(begin(Change::Bytes(10..20)).1, None);
        assert_eq!(begin(Change::Bytes(9..11)).1, Some(Rule::Overlap));
        assert_eq!(begin(Change::Whole).1, Some(Rule::ConcurrentCreate));
        assert!(inflight.is_being_made(oid, life(1)));
        let other = ObjectId::from_raw(2);
        assert_eq!(inflight.begin(other, Change::Whole, life(1), &origin).1, None);
        inflight.end(&first);
        origin.leave();
        let next = Arc::<Origin>::default();
        assert_eq!(inflight.begin(oid, Change::Bytes(0..20), life(1), &next).1, None);
        let stripes = Change::Bytes(510..513).in_stripes(512);
        assert_eq!(stripes, Change::Bytes(0..1024));
        assert!(!inflight.is_being_made(oid, life(1)));
    }

    #[test]
    fn lives_of_a_client_are_not_held_against_each_other() {
        let inflight = Inflight::default();
        let oid = ObjectId::from_raw(1);
        // The first life's gateway is stopped: nobody has noticed yet that its client is gone.
        let (stopped, second) = (Arc::<Origin>::default(), Arc::<Origin>::default());
        assert_eq!(inflight.begin(oid, Change::Whole, life(1), &stopped).1, None);
        let (replay, broken) = inflight.begin(oid, Change::Whole, life(2), &second);
        assert_eq!(broken, None);
        let more = inflight.begin(oid, Change::Bytes(0..1), life(2), &second);
        assert_eq!(more.1, Some(Rule::ConcurrentCreate), "within a life it is a bug");
        inflight.end(&replay);
        inflight.end(&more.0);
        assert!(!inflight.is_being_made(oid, life(2)) && inflight.is_being_made(oid, life(1)));
    }

    #[test]
    fn an_orphan_that_comes_late_is_nobodys_bug() {
        let inflight = Inflight::default();
        let oid = ObjectId::from_raw(1);
        let (gone, alive) = (Arc::<Origin>::default(), Arc::<Origin>::default());
        gone.leave();
        assert_eq!(inflight.begin(oid, Change::Bytes(0..9), life(1), &alive).1, None);
        assert_eq!(inflight.begin(oid, Change::Bytes(0..9), life(1), &gone).1, None);
        let again = inflight.begin(oid, Change::Bytes(0..9), life(1), &alive);
        assert_eq!(again.1, Some(Rule::Overlap));
    }
}
