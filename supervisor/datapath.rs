//! The data path: reads, writes, flushes, discards, copies and seeks of volumes, from the FUSE
//! threads to the worker and back, over the deaths of workers.
//!
//! A FUSE thread leases a slot of the arena, copies a write's bytes into it, parks
//! the kernel's owned reply in the in-flight table, sends a message, and returns.
//! It never waits: not for a slot, not for the worker, not for the network
//! (hazard 32). Without a slot, or without a worker, the request queues, and behind
//! it all later ones, in order; a queued write owns its bytes. The bytes are bounded
//! (see [`admission::KEPT_LEN_MAX`] and what happens there); requests without bytes are
//! bounded by what the kernel has outstanding: 96 in the background, and one for
//! each thread inside a read or write. The link's reader completes replies straight
//! out of the arena, gives the slots back and starts what was queued.
//!
//! Two things hold a write back besides: an unanswered write that it overlaps
//! ([`crate::claims`]), and a fence on one of its objects ([`crate::fence`]). Such a
//! write stands aside and holds nobody else up. How requests outlive a worker is
//! said in [`replay`].
//!
//! Requests may overtake each other between here and the worker. That breaks no
//! promise: the kernel orders nothing that is outstanding at the same time, and
//! whatever must wait for an answer was not submitted yet.
//!
//! # Locks
//!
//! Each is held for a few hundred instructions, never across a copy of payload, a
//! reply to the kernel or anything that waits. The one exception is the loss of a
//! worker, which goes through all it was told of. A thread may take one further to
//! the right while it holds one to the left.
//!
//! `Handles`, `Allocations` → `Volumes` → a volume's facts → `DataPath` → a link's outbox →
//! `Texts` → `Uniques` → `State`

mod admission;
mod blocked;
mod clear;
mod copy;
mod counters;
mod finish;
mod queue;
mod replay;
mod reply;
mod standing;
mod succession;
mod told;

pub use admission::{Cut, KEPT_LEN_MAX, SHORT_LEN};
pub use counters::Counters;
pub use replay::Pace;
pub use reply::{Parked, ParkedReply};

use crate::allocations::Allocations;
use crate::fence::Object;
use crate::inflight::{Allegation, Entry, Kind, Payload, Request, Slot, Sought};
use crate::link::{Link, Outcome};
use crate::state::Records;
use crate::volumes::Volume;
use admission::{Admission, Told};
use nix::errno::Errno;
use queue::{Start, Started, State};
use sheepfs::ipc::{Allocation, Failure, QuietReason, SeekTarget, Tag, VolumeId};
use sheepfs::wire::cluster::BlockUsage;
use sheepfs::wire::name::VolumeName;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The data path; `R` is what is parked for each request.
#[derive(Debug)]
pub struct DataPath<R> {
    state: Mutex<State<R>>,
    allocations: Arc<Allocations>,
    panic_at: Option<usize>,
}

/// For tests: with fences that end by proof.
#[cfg(test)]
impl<R> Default for DataPath<R> {
    fn default() -> Self {
        let state = crate::state::State::create().unwrap();
        let allocations = Arc::new(Allocations::new(Arc::default(), state.allocations()));
        Self::new(Some(Duration::from_secs(30)), state.told(), allocations)
    }
}

impl<R> DataPath<R> {
    /// No worker yet, so everything waits. Without a fence time nothing is fenced.
    /// Writes that a worker is told of are recorded in `told`.
    pub fn new(
        fence_time: Option<Duration>,
        told: Records<3>,
        allocations: Arc<Allocations>,
    ) -> Self {
        Self { state: Mutex::new(State::new(fence_time, told)), allocations, panic_at: None }
    }

    /// For tests: this process ends by a panic when so many requests are in flight.
    #[must_use]
    pub fn with_panic_at(self, panic_at: Option<usize>) -> Self {
        Self { panic_at, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker gets nothing new from now on; what it was told goes on.
    pub fn hold(&self) {
        self.lock().hold();
    }

    /// The worker gets what is new again.
    pub fn release(&self)
    where
        R: Parked,
    {
        let started = self.lock().release();
        self.launch_all(started);
    }

    /// A worker is dead, and all that it said was heard: its requests wait for the
    /// next one. `gateways` are those of its session, where they may still run.
    /// Gives what it was told of and has not answered.
    pub fn lost(&self, generation: u64, gateways: &[SocketAddr], now: Instant) -> Vec<Tag> {
        let mut state = self.lock();
        let (told, link) = state.lost(generation, gateways, now);
        let fenced = state.fences.len();
        drop(state);
        // It may be the last owner of an arena, whose end takes its time.
        drop(link);
        if !told.is_empty() {
            tracing::debug!(
                worker = generation,
                requests = told.len(),
                fenced,
                "requests wait for the next worker"
            );
        }
        told
    }

    /// From now on new requests fail at once, until the next worker serves.
    pub fn refuse_new(&self, refuse: bool) {
        self.lock().refusing = refuse;
    }

    /// A volume is new. If its VDI was a volume before, what was fenced still is.
    pub fn volume_attached(&self, volume: VolumeId, name: VolumeName) {
        self.lock().volume_attached(volume, name);
    }

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

impl<R: Parked> DataPath<R> {
    /// Reads; short where the volume ends.
    pub fn read(&self, volume: &Volume, offset: u64, len: u32, reply: R) {
        let len = inside(volume.size(), offset, len);
        if len == 0 {
            return reply.done(&[]);
        }
        self.submit(request(Kind::Read, volume, offset, len), &[], Cut::Never, reply);
    }

    /// Writes; short where the volume ends, `ENOSPC` behind it, as a block device
    /// does. `cut`: when it may be cut for want of memory.
    pub fn write(&self, volume: &Volume, offset: u64, bytes: &[u8], cut: Cut, reply: R) {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let len = inside(volume.size(), offset, wanted);
        match (len, wanted) {
            (0, 0) => reply.done(&[]),
            (0, _) => reply.fail(Errno::ENOSPC),
            _ => {
                let request = request(Kind::Write, volume, offset, len);
                self.submit(request, &bytes[..len as usize], cut, reply);
            }
        }
    }

    /// Makes everything durable that was answered before.
    pub fn flush(&self, volume: &Volume, reply: R) {
        self.submit(request(Kind::Flush, volume, 0, 0), &[], Cut::Never, reply);
    }

    /// Looks for data or for a hole, from inside the volume on.
    pub fn seek(&self, volume: &Volume, offset: u64, target: SeekTarget, reply: R) {
        self.submit(request(Kind::Seek(target), volume, offset, 0), &[], Cut::Never, reply);
    }

    /// That worker serves from now on: it is connected, and it is told of all that
    /// waits, the oldest first.
    pub fn connect(&self, link: Arc<Link>, pace: Pace) {
        let started = self.lock().connect(link, pace);
        self.launch_all(started);
    }

    /// The worker of generation `said_by` has proof that nothing of earlier workers
    /// runs on a gateway any more.
    pub fn quiet(&self, gateway: SocketAddr, said_by: u64, how: QuietReason) {
        let (free, started) = self.lock().quiet(gateway, said_by, how);
        if free > 0 {
            tracing::info!(sheep = %gateway, ?how, objects = free, "nothing of ours runs there any more; its fences are gone");
        }
        self.launch_all(started);
    }

    /// Releases fences whose time is over.
    pub fn tick(&self, now: Instant) {
        let (free, started) = self.lock().expire(now);
        if free > 0 {
            tracing::warn!(
                objects = free,
                "fences are released by time: nothing is known of what an old gateway may still do"
            );
        }
        self.launch_all(started);
    }

    /// Whether the worker has a volume; the requests of one that it does not have
    /// wait.
    pub fn volume_absent(&self, volume: VolumeId, absent: bool) {
        let started = self.lock().set_absent(volume, absent);
        self.launch_all(started);
    }

    /// A volume's VDI is another now: its requests fail, now and later (hazard 10).
    pub fn volume_replaced(&self, volume: VolumeId) {
        let (entries, started) = self.lock().replace(volume, Instant::now());
        fail_entries(entries);
        self.launch_all(started);
    }

    /// Everything that waits fails. Returns how many requests that were.
    pub fn fail_all(&self) -> usize {
        let entries = self.lock().take_all(Instant::now());
        let count = entries.len();
        fail_entries(entries);
        count
    }

    /// A request that kills workers fails.
    pub fn poison(&self, tag: Tag) {
        let entry = {
            let mut state = self.lock();
            let entry = state.take_one(tag, Instant::now());
            state.counted.poisoned += u64::from(entry.is_some());
            entry
        };
        if let Some(entry) = entry {
            let Request { kind, volume, offset, len, shift } = entry.request;
            tracing::error!(
                ?kind,
                volume_id = volume.0,
                offset,
                len,
                shift,
                errno = Errno::EIO as i32,
                "a request that ended three workers by itself fails with an input/output error; please report it"
            );
            entry.reply.fail(Errno::EIO);
        }
    }

    /// Completes what the worker of that generation says is over. What an earlier
    /// worker says no longer matters.
    ///
    /// # Errors
    /// When the worker names a request that it can't have finished. Those before
    /// it are completed.
    pub fn complete(&self, generation: u64, batch: Vec<Outcome>) -> Result<(), Allegation> {
        if batch.is_empty() {
            return Ok(());
        }
        let (link, finished, verdict) = self.lock().finish(generation, batch, Instant::now());
        let Some(link) = link else { return Ok(()) };
        let mut slots = Vec::with_capacity(finished.len());
        for (entry, slot, outcome) in finished {
            slots.extend(slot);
            answer(&link, entry, slot, outcome);
        }
        let started = self.lock().give_back(generation, slots);
        self.launch_all(started);
        verdict
    }

    fn submit(&self, mut request: Request, bytes: &[u8], cut: Cut, reply: R) {
        if let Some(limit) = self.panic_at {
            assert!(self.in_flight() < limit, "{limit} requests are in flight, as was wished for");
        }
        let now = Instant::now();
        let admission = self.lock().admit(request, cut, reply, now);
        match admission {
            // It counts as told already.
            Admission::Started(Start { link, tag, request, slot, again })
                if request.kind == Kind::Read =>
            {
                link.send(request.message(tag, slot, again));
            }
            Admission::Started(start) => {
                if self.fill_and_tell(&start, bytes) == Told::Later {
                    self.come_back(start.tag, Payload::Kept(bytes.to_vec()));
                }
            }
            Admission::Refused(reply, errno) => reply.fail(errno),
            Admission::Wait(reply, len) => {
                request.len = len;
                let payload = match request.kind {
                    Kind::Write => Payload::Kept(bytes[..len as usize].to_vec()),
                    Kind::Read
                    | Kind::Flush
                    | Kind::Zero
                    | Kind::Discard
                    | Kind::Copy { .. }
                    | Kind::Seek(_) => Payload::None,
                };
                let parked = self.lock().park(request, payload, reply, now);
                match parked {
                    Ok(started) => self.launch_all(started),
                    Err((reply, errno)) => reply.fail(errno),
                }
            }
        }
    }

    fn launch_all(&self, started: Started) {
        for (start, payload) in started {
            if self.fill_and_tell(&start, payload.bytes()) == Told::Later {
                self.come_back(start.tag, payload);
            }
        }
    }

    /// Its worker is gone: it waits for the next one.
    fn come_back(&self, tag: Tag, payload: Payload) {
        let started = self.lock().come_back(tag, payload);
        self.launch_all(started);
    }

    /// Fills the slot and tells the worker, unless it is gone meanwhile.
    fn fill_and_tell(&self, start: &Start, bytes: &[u8]) -> Told {
        let Start { link, tag, request, slot, again } = start;
        if let (true, Some(Slot { span, .. })) = (request.has_payload(), slot) {
            link.arena().fill(*span, bytes);
        }
        let (told, started) = self.lock().mark_told(start);
        if told == Told::Now {
            link.send(request.message(*tag, *slot, *again));
        }
        self.launch_all(started);
        told
    }
}

fn request(kind: Kind, volume: &Volume, offset: u64, len: u32) -> Request {
    Request { kind, volume: volume.id, offset, len, shift: volume.shift() }
}

fn answer<R: Parked>(
    link: &Link,
    entry: Entry<R>,
    slot: Option<Slot>,
    outcome: Result<(), Failure>,
) {
    match (outcome, slot) {
        (Err(failure), _) => {
            let Request { kind, volume, offset, len, .. } = entry.request;
            let errno = failure.errno();
            tracing::warn!(
                ?kind,
                volume_id = volume.0,
                offset,
                len,
                errno = errno as i32,
                "a request failed: {failure}"
            );
            entry.reply.fail(errno);
        }
        (Ok(()), None) => match entry.sought {
            Sought::Unsaid => entry.reply.done(&[]),
            Sought::Nowhere => entry.reply.fail(Errno::ENXIO),
            Sought::At(offset) => entry.reply.sought(offset),
        },
        (Ok(()), Some(slot)) => {
            if entry.request.kind == Kind::Read {
                link.arena().touch(slot.span);
            }
            entry.reply.done(link.arena().bytes(slot.span));
        }
    }
}

fn fail_entries<R: Parked>(entries: Vec<Entry<R>>) {
    for entry in entries {
        entry.reply.fail(Errno::EIO);
    }
}

/// How many of `len` bytes at `offset` lie inside a volume.
fn inside(size: u64, offset: u64, len: u32) -> u32 {
    let left = size.saturating_sub(offset);
    u32::try_from(left).map_or(len, |left| left.min(len))
}

#[cfg(test)]
mod tests;
