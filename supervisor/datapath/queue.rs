//! What the data path keeps under its lock: the worker in use with its book of
//! slots, the in-flight table, and who waits for what.
//!
//! Everything here is bookkeeping and returns at once. What takes longer, the
//! copying and the replying, is handed back to be done without the lock.

use super::blocked::{Blocked, Blocker};
use super::counters::Counters;
use super::told::Told;
use crate::claims::Claims;
use crate::fence::{Fences, Object};
use crate::inflight::{InFlight, Kind, Payload, Request, Slot, Stage};
use crate::link::Link;
use crate::state::Records;
use sheepfs::ipc::{Slots, Tag, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub struct State<R> {
    pub(super) worker: Option<Worker>,
    pub(super) table: InFlight<R>,
    /// Those that wait for a worker and a slot, oldest first.
    pub(super) queued: BTreeSet<Tag>,
    pub(super) blocked: Blocked,
    pub(super) claims: Claims,
    pub(super) fences: Fences,
    pub(super) told: Told,
    /// The write that creates an object, from the worker's word to the write's end.
    pub(super) creating: BTreeMap<Object, Tag>,
    /// The writes and discards that change the trees of hyper volumes, likewise.
    pub(super) growing: BTreeMap<Tag, VolumeId>,
    /// Objects whose index entries a worker writes again after a snapshot.
    pub(super) repairing: BTreeSet<Object>,
    /// The newest id of each VDI that ever was a volume.
    pub(super) names: BTreeMap<VolumeName, VolumeId>,
    /// Volumes that the worker does not have.
    pub(super) absent: BTreeSet<VolumeId>,
    /// Volumes whose VDI is another now.
    pub(super) replaced: BTreeSet<VolumeId>,
    /// What the last worker had not answered when it was lost.
    pub(super) suspects: BTreeSet<Tag>,
    /// Answered with an error while the worker was at them.
    pub(super) abandoned: BTreeMap<Tag, (Request, Option<Slot>)>,
    /// Whether requests are told one at a time.
    pub(super) single: bool,
    /// Whether new requests fail at once.
    pub(super) refusing: bool,
    /// Until then a request may be one that a worker of an earlier process began with.
    pub(super) unsure_until: Option<Instant>,
    /// Requests that a worker was told of, or is about to be.
    pub(super) outstanding: usize,
    pub(super) kept_len: usize,
    pub(super) counted: Counters,
    pub(super) longest: Duration,
}

/// The worker in use.
#[derive(Debug)]
pub struct Worker {
    pub(super) link: Arc<Link>,
    pub(super) slots: Slots,
    /// Whether it is told nothing new.
    pub(super) held: bool,
}

/// A request that a worker is to be told of as soon as its bytes are in the slot.
#[derive(Debug)]
pub struct Start {
    /// Whom to tell, and whose arena the slot is in.
    pub link: Arc<Link>,
    /// Its name.
    pub tag: Tag,
    /// What.
    pub request: Request,
    /// Where its bytes go.
    pub slot: Option<Slot>,
    /// Whether an earlier worker may have begun with it.
    pub again: bool,
}

/// Requests to be told, with the bytes of writes.
pub type Started = Vec<(Start, Payload)>;
impl<R> State<R> {
    /// Nothing yet. Fences will last `fence_time` at most.
    pub fn new(fence_time: Option<Duration>, told: Records<3>) -> Self {
        Self {
            worker: None,
            table: InFlight::default(),
            queued: BTreeSet::new(),
            blocked: Blocked::default(),
            claims: Claims::default(),
            fences: Fences::new(fence_time),
            told: Told(told),
            creating: BTreeMap::new(),
            growing: BTreeMap::new(),
            repairing: BTreeSet::new(),
            names: BTreeMap::new(),
            absent: BTreeSet::new(),
            replaced: BTreeSet::new(),
            suspects: BTreeSet::new(),
            abandoned: BTreeMap::new(),
            single: false,
            refusing: false,
            unsure_until: None,
            outstanding: 0,
            kept_len: 0,
            counted: Counters::default(),
            longest: Duration::ZERO,
        }
    }

    pub(super) fn wake(&mut self, blocker: Blocker) {
        for tag in self.blocked.wake(blocker) {
            self.enqueue(tag);
        }
    }

    /// Lets a request wait for what is in its way, or for its turn.
    pub(super) fn enqueue(&mut self, tag: Tag) {
        let Some(entry) = self.table.get(tag) else { return };
        let blocker = self.blocker(entry.request, Some(tag), entry.repeats);
        let stage = match blocker {
            Some(blocker) => {
                self.blocked.add(blocker, tag);
                Stage::Blocked
            }
            None => {
                self.queued.insert(tag);
                Stage::Queued
            }
        };
        if let Some(entry) = self.table.get_mut(tag) {
            entry.stage = stage;
        }
    }

    /// What is in a request's way. One that repeats what may be on the wire
    /// already does not wait for fences, but for that of a tree.
    pub(super) fn blocker(
        &self,
        request: Request,
        tag: Option<Tag>,
        repeats: bool,
    ) -> Option<Blocker> {
        for volume in request.source().into_iter().chain([request.volume]) {
            if self.absent.contains(&volume) {
                return Some(Blocker::Volume(volume));
            }
            let tree = Object::tree(volume);
            if request.kind != Kind::Flush && self.fences.holds(tree) {
                return Some(Blocker::Fence(tree));
            }
        }
        if !request.is_write() {
            return None;
        }
        if let Some(other) = self.claims.in_the_way(request, tag) {
            return Some(Blocker::Write(other));
        }
        if repeats || self.fences.is_empty() {
            return None;
        }
        Object::of(request).find(|object| self.fences.holds(*object)).map(Blocker::Fence)
    }

    /// Takes from the queue what can be told now.
    pub(super) fn start_waiting(&mut self) -> Started {
        let mut started = Vec::new();
        while self.may_tell()
            && let Some(tag) = self.queued.first().copied()
        {
            let Some(entry) = self.table.get(tag) else {
                self.queued.remove(&tag);
                continue;
            };
            let (request, repeats, again) = (entry.request, entry.repeats, entry.again);
            if self.blocker(request, Some(tag), repeats).is_some() {
                self.queued.remove(&tag);
                self.enqueue(tag);
                continue;
            }
            let Some((link, slot)) = self.lease(request) else { break };
            self.queued.remove(&tag);
            let payload = self.take_for(tag, link.generation());
            self.begin(tag, request);
            started.push((Start { link, tag, request, slot, again }, payload));
        }
        started
    }

    /// A queued request leaves for a worker: takes its bytes.
    fn take_for(&mut self, tag: Tag, generation: u64) -> Payload {
        let Some(entry) = self.table.get_mut(tag) else { return Payload::None };
        entry.stage = Stage::Filling(generation);
        self.counted.replayed += u64::from(entry.told_before);
        let payload = std::mem::replace(&mut entry.payload, Payload::None);
        self.kept_len -= payload.kept_len();
        payload
    }

    pub(super) fn begin(&mut self, tag: Tag, request: Request) {
        self.outstanding += 1;
        if request.is_write() {
            self.claims.claim(request, tag);
        }
    }

    pub(super) fn is_refused(&self, request: Request) -> bool {
        let too_long =
            self.worker.as_ref().is_some_and(|w| request.slot_len() > w.link.arena().len());
        let is_replaced = |volume| self.replaced.contains(&volume);
        let replaced = is_replaced(request.volume) || request.source().is_some_and(is_replaced);
        self.refusing || too_long || replaced
    }

    pub(super) fn may_tell(&self) -> bool {
        let ready = self.worker.as_ref().is_some_and(|worker| !worker.held);
        ready && (!self.single || self.outstanding == 0)
    }

    /// A slot of the worker in use; no slot for a request that needs none. `None`:
    /// there is no free one.
    pub(super) fn lease(&mut self, request: Request) -> Option<(Arc<Link>, Option<Slot>)> {
        let worker = self.worker.as_mut()?;
        let link = Arc::clone(&worker.link);
        if matches!(request.kind, Kind::Flush | Kind::Seek(_)) {
            return Some((link, None));
        }
        let raw = worker.slots.take(request.slot_len())?;
        let span = link.arena().check(raw)?;
        Some((link, Some(Slot { raw, span })))
    }

    pub(super) fn worker_of(&self, generation: u64) -> Option<&Worker> {
        self.worker.as_ref().filter(|worker| worker.generation() == generation)
    }
}

impl Worker {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let slots = Slots::new(link.arena().len());
        Self { link, slots, held: false }
    }

    pub(super) fn generation(&self) -> u64 {
        self.link.generation()
    }
}
