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
mod calls;
mod clear;
mod copy;
mod counters;
mod finish;
mod launch;
mod queue;
mod replay;
mod reply;
mod said;
mod standing;
mod succession;
mod told;

pub use admission::{Cut, KEPT_LEN_MAX, SHORT_LEN};
pub use counters::Counters;
pub use replay::Pace;
pub use reply::{Parked, ParkedReply};

use crate::allocations::Allocations;
use crate::inflight::{Allegation, Entry, Kind, Request, Slot, Sought};
use crate::link::{Link, Outcome};
use crate::state::Records;
use nix::errno::Errno;
use queue::State;
use sheepfs::ipc::{Failure, QuietReason, Tag, VolumeId};
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
        let (fenced, volumes) = (state.fences.len(), state.fences.volumes());
        drop(state);
        for volume in volumes.into_iter().filter_map(|id| self.allocations.volumes().by_id(id)) {
            volume.forget_stored(generation);
        }
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
}

impl<R: Parked> DataPath<R> {
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

#[cfg(test)]
mod tests;
