//! What the data path keeps under its lock: the worker in use with its book of
//! slots, the in-flight table, and who waits for what.
//!
//! Everything here is bookkeeping and returns at once. What takes longer, the
//! copying and the replying, is handed back to be done without the lock.

use super::blocked::{Blocked, Blocker};
use super::counters::Counters;
use crate::claims::Claims;
use crate::fence::{Fences, Object};
use crate::inflight::{Allegation, Entry, InFlight, Kind, Payload, Request, Slot, Stage};
use crate::link::{Link, Outcome};
use nix::errno::Errno;
use sheepfs::ipc::{Failure, Slots, Tag, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of waiting writes that are kept whole. A write that finds no room is cut
/// to its first [`SHORT_LEN`] bytes, and answered short when these are written, as
/// any write may be; so its writer goes on with the rest later. Writes of the
/// kernel's own page cache are never cut: it would not notice. There is no other
/// way: to leave requests in the kernel would leave those for the control files
/// there as well, since they come through the same queue.
pub const KEPT_LEN_MAX: usize = 96 << 20;
/// What is kept of a write that finds no room.
pub const SHORT_LEN: u32 = 4096;

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
    /// The write that creates an object, from the worker's word to the write's end.
    pub(super) creating: BTreeMap<Object, Tag>,
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
}

/// What becomes of a new request.
#[derive(Debug)]
pub enum Admission<R> {
    /// It can be told at once.
    Started(Start),
    /// It must wait, with a copy of its bytes: that many of them.
    Wait(R, u32),
    /// It can't be served.
    Refused(R, Errno),
}

/// Whether a worker may be told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Yes.
    Now,
    /// No: that worker is gone. The bytes are to be given back.
    Later,
    /// No: the request was answered meanwhile.
    Never,
}

/// Requests to be told, with the bytes of writes.
pub type Started = Vec<(Start, Payload)>;
/// Requests that are over, and how.
pub type Finished<R> = Vec<(Entry<R>, Option<Slot>, Result<(), Failure>)>;

impl<R> State<R> {
    /// Nothing yet. Fences will last `fence_time` at most.
    pub fn new(fence_time: Option<Duration>) -> Self {
        Self {
            worker: None,
            table: InFlight::default(),
            queued: BTreeSet::new(),
            blocked: Blocked::default(),
            claims: Claims::default(),
            fences: Fences::new(fence_time),
            creating: BTreeMap::new(),
            repairing: BTreeSet::new(),
            names: BTreeMap::new(),
            absent: BTreeSet::new(),
            replaced: BTreeSet::new(),
            suspects: BTreeSet::new(),
            abandoned: BTreeMap::new(),
            single: false,
            refusing: false,
            outstanding: 0,
            kept_len: 0,
            counted: Counters::default(),
            longest: Duration::ZERO,
        }
    }

    /// Takes a new request. `whole`: it must not be cut.
    pub fn admit(&mut self, request: Request, whole: bool, reply: R, now: Instant) -> Admission<R> {
        if self.is_refused(request) {
            return Admission::Refused(reply, Errno::EIO);
        }
        let free = self.queued.is_empty()
            && self.may_tell()
            && self.blocker(request, None, false).is_none();
        if free && let Some((link, slot)) = self.lease(request) {
            let stage = Stage::Filling(link.generation());
            let tag = self.table.insert(request, reply, stage, now);
            self.begin(tag, request);
            return Admission::Started(Start { link, tag, request, slot });
        }
        Admission::Wait(reply, self.reserve(request, whole))
    }

    /// Room for a copy of a write's bytes: how many of them.
    fn reserve(&mut self, request: Request, whole: bool) -> u32 {
        if !request.is_write() {
            return request.len;
        }
        let fits = self.kept_len + request.len as usize <= KEPT_LEN_MAX;
        let len = if fits || whole { request.len } else { request.len.min(SHORT_LEN) };
        self.counted.short_writes += u64::from(len < request.len);
        self.kept_len += len as usize;
        len
    }

    /// Takes a request that must wait, with its bytes, for which [`State::admit`]
    /// has reserved the room. Gives what can start now. `Err`: it can't be served.
    pub fn park(
        &mut self,
        request: Request,
        payload: Payload,
        reply: R,
        now: Instant,
    ) -> Result<Started, (R, Errno)> {
        if self.is_refused(request) {
            self.kept_len -= payload.kept_len();
            return Err((reply, Errno::EIO));
        }
        let tag = self.table.insert(request, reply, Stage::Queued, now);
        if let Some(entry) = self.table.get_mut(tag) {
            entry.payload = payload;
        }
        self.enqueue(tag);
        Ok(self.start_waiting())
    }

    /// Notes that the worker is told now, if that is so.
    pub fn mark_told(&mut self, start: &Start) -> Told {
        let generation = start.link.generation();
        let present = self.worker.as_mut().filter(|worker| worker.generation() == generation);
        match (self.table.get_mut(start.tag), present) {
            (Some(entry), Some(_)) if entry.stage == Stage::Filling(generation) => {
                entry.stage = Stage::Told(generation, start.slot);
                Told::Now
            }
            (Some(_), _) => Told::Later,
            (None, present) => {
                if let (Some(worker), Some(slot)) = (present, start.slot) {
                    worker.slots.give_back(slot.raw);
                }
                Told::Never
            }
        }
    }

    /// A request whose worker went away while its bytes were on their way waits
    /// again.
    pub fn come_back(&mut self, tag: Tag, payload: Payload) -> Started {
        self.kept_len += payload.kept_len();
        match self.table.get_mut(tag) {
            Some(entry) => {
                entry.payload = payload;
                self.enqueue(tag);
            }
            None => self.kept_len -= payload.kept_len(),
        }
        self.start_waiting()
    }

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
                    finished.push((entry, slot, outcome));
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
        match object.filter(|_| told && entry.request.is_write()) {
            Some(object) => {
                self.creating.insert(object, tag);
                Ok(())
            }
            None => Err(refused),
        }
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
        if self.creating.is_empty() || !request.is_write() {
            return;
        }
        for object in Object::of(request) {
            if self.creating.get(&object) == Some(&tag) {
                self.creating.remove(&object);
            }
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
    /// already does not wait for fences.
    fn blocker(&self, request: Request, tag: Option<Tag>, repeats: bool) -> Option<Blocker> {
        if self.absent.contains(&request.volume) {
            return Some(Blocker::Volume(request.volume));
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
            let (request, repeats) = (entry.request, entry.repeats);
            if self.blocker(request, Some(tag), repeats).is_some() {
                self.queued.remove(&tag);
                self.enqueue(tag);
                continue;
            }
            let Some((link, slot)) = self.lease(request) else { break };
            self.queued.remove(&tag);
            let payload = self.take_for(tag, link.generation());
            self.begin(tag, request);
            started.push((Start { link, tag, request, slot }, payload));
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

    fn begin(&mut self, tag: Tag, request: Request) {
        self.outstanding += 1;
        if request.is_write() {
            self.claims.claim(request, tag);
        }
    }

    fn is_refused(&self, request: Request) -> bool {
        let too_long =
            self.worker.as_ref().is_some_and(|worker| request.len > worker.link.arena().len());
        self.refusing || too_long || self.replaced.contains(&request.volume)
    }

    fn may_tell(&self) -> bool {
        let ready = self.worker.as_ref().is_some_and(|worker| !worker.held);
        ready && (!self.single || self.outstanding == 0)
    }

    /// A slot of the worker in use; no slot for a request that needs none. `None`:
    /// there is no free one.
    fn lease(&mut self, request: Request) -> Option<(Arc<Link>, Option<Slot>)> {
        let worker = self.worker.as_mut()?;
        let link = Arc::clone(&worker.link);
        if request.kind == Kind::Flush {
            return Some((link, None));
        }
        let raw = worker.slots.take(request.len)?;
        let span = link.arena().check(raw)?;
        Some((link, Some(Slot { raw, span })))
    }

    fn worker_of(&self, generation: u64) -> Option<&Worker> {
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
