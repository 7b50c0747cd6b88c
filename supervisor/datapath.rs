//! The data path: reads, writes and flushes of volumes, from the FUSE threads to
//! the worker and back.
//!
//! A FUSE thread leases a slot of the arena, copies a write's bytes into it, parks
//! the kernel's owned reply in the in-flight table, sends a message, and returns.
//! It never waits: not for a slot, not for the worker, not for the network
//! (hazard 32). With no slot free the request queues, and behind it all later
//! ones, in order; a queued write owns its bytes on the heap. The queue is
//! bounded by what the kernel has outstanding: 512 requests in the background
//! and one for each thread inside a read or write, of 1 MiB at most. The link's
//! reader completes replies straight out of the arena, gives the slots back and
//! starts what was queued.
//!
//! Requests may overtake each other between here and the worker. That breaks no
//! promise: the kernel orders nothing that is outstanding at the same time, and
//! whatever must wait for an answer was not submitted yet.
//!
//! # Locks
//!
//! Each is held for a few hundred instructions, never across a copy of payload, a
//! reply to the kernel or anything that waits. A thread may take one further to
//! the right while it holds one to the left; nothing here holds two today.
//!
//! `Volumes` → a volume's facts → `DataPath` → a link's outbox → `Texts`

mod queue;
mod reply;

pub use reply::{Parked, ParkedReply};

use crate::inflight::{Allegation, Entry, Kind, Request, Slot};
use crate::link::{Link, Outcome};
use crate::volumes::Volume;
use nix::errno::Errno;
use queue::{Admission, Start, State};
use sheepfs::ipc::Failure;
use sheepfs::ipc::{QuietReason, Tag, VolumeId};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a worker gets what is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All at once.
    All,
    /// Suspects one at a time.
    Single,
}

/// For `config/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub replayed: u64,
    pub fenced: u64,
    pub fenced_now: u64,
    pub held: u64,
    pub released_drained: u64,
    pub released_gone: u64,
    pub released_not_member: u64,
    pub released_time: u64,
    pub queued_bytes: u64,
    pub short_writes: u64,
    pub poisoned: u64,
    pub longest_stall_ms: u64,
}

/// The data path; `R` is what is parked for each request.
#[derive(Debug)]
pub struct DataPath<R> {
    state: Mutex<State<R>>,
}

impl<R> Default for DataPath<R> {
    fn default() -> Self {
        Self { state: Mutex::default() }
    }
}

/// Stubs of what recovery needs.
#[expect(clippy::unused_self, reason = "a stub")]
impl<R: Parked> DataPath<R> {
    /// With that fence time.
    pub fn new(_fence: Option<Duration>) -> Self {
        Self::default()
    }

    /// A stub.
    pub fn hold(&self) {}

    /// A stub.
    pub fn outstanding(&self) -> usize {
        self.in_flight()
    }

    /// A stub.
    pub fn lost(&self, _generation: u64, _gateway: Option<SocketAddr>, _now: Instant) -> Vec<Tag> {
        self.disconnect();
        Vec::new()
    }

    /// A stub.
    pub fn quiet(&self, _gateway: SocketAddr, _generation: u64, _how: QuietReason) {}

    /// A stub.
    pub fn watched(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    /// A stub.
    pub fn tick(&self, _now: Instant) {}

    /// A stub.
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// A stub.
    pub fn poison(&self, _tag: Tag) {}

    /// A stub.
    pub fn fail_all(&self) -> usize {
        self.disconnect()
    }

    /// A stub.
    pub fn refuse_new(&self, _refuse: bool) {}

    /// A stub.
    pub fn volume_absent(&self, _id: VolumeId, _absent: bool) {}

    /// A stub.
    pub fn volume_replaced(&self, _id: VolumeId) {}

    /// A stub.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}

impl<R: Parked> DataPath<R> {
    /// Reads; short where the volume ends.
    pub fn read(&self, volume: &Volume, offset: u64, len: u32, reply: R) {
        let len = inside(volume.size(), offset, len);
        if len == 0 {
            return reply.done(&[]);
        }
        self.submit(Request { kind: Kind::Read, volume: volume.id, offset, len }, &[], reply);
    }

    /// Writes; short where the volume ends, `ENOSPC` behind it, as a block device
    /// does.
    pub fn write(&self, volume: &Volume, offset: u64, bytes: &[u8], reply: R) {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let len = inside(volume.size(), offset, wanted);
        match (len, wanted) {
            (0, 0) => reply.done(&[]),
            (0, _) => reply.fail(Errno::ENOSPC),
            _ => {
                let request = Request { kind: Kind::Write, volume: volume.id, offset, len };
                self.submit(request, &bytes[..len as usize], reply);
            }
        }
    }

    /// Makes everything durable that was answered before.
    pub fn flush(&self, volume: &Volume, reply: R) {
        let request = Request { kind: Kind::Flush, volume: volume.id, offset: 0, len: 0 };
        self.submit(request, &[], reply);
    }

    /// Requests go to that worker from now on. It is connected, and knows every
    /// volume that is in the tree.
    pub fn connect(&self, link: Arc<Link>, _pace: Pace, _now: Instant) {
        self.disconnect();
        self.lock().connect(link);
    }

    /// The worker is gone, and with it its right to write: everything outstanding
    /// fails, and so does everything new. Returns how many requests failed.
    pub fn disconnect(&self) -> usize {
        let replies = self.lock().disconnect();
        let count = replies.len();
        replies.into_iter().for_each(|reply| reply.fail(Errno::EIO));
        count
    }

    /// How many requests wait for an answer, queued ones among them.
    pub fn in_flight(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is outstanding.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    /// Completes what the worker of that generation says is over. What an earlier
    /// worker says no longer matters.
    ///
    /// # Errors
    /// When the worker names a request that it can't have finished. Those before
    /// it are completed.
    pub fn complete(&self, generation: u64, batch: Vec<Outcome>) -> Result<(), Allegation> {
        let mut finished = Vec::with_capacity(batch.len());
        let (link, verdict) = self.lock().finish(generation, batch, &mut finished);
        let Some(link) = link else { return Ok(()) };
        let mut slots = Vec::with_capacity(finished.len());
        for (entry, outcome) in finished {
            slots.extend(entry.slot);
            answer(&link, entry, outcome);
        }
        let started = self.lock().give_back(generation, slots);
        self.launch_all(started);
        verdict
    }

    fn submit(&self, request: Request, bytes: &[u8], reply: R) {
        let admission = self.lock().admit(request, reply);
        match admission {
            Admission::Started(start) => self.launch(start, bytes),
            Admission::Refused(reply) => reply.fail(Errno::EIO),
            Admission::NoSlot(reply) => self.queue(request, bytes.to_vec(), reply),
        }
    }

    fn queue(&self, request: Request, bytes: Vec<u8>, reply: R) {
        let queued = self.lock().queue(request, bytes, reply);
        match queued {
            Ok(started) => self.launch_all(started),
            Err(reply) => reply.fail(Errno::EIO),
        }
    }

    fn launch_all(&self, started: Vec<(Start, Vec<u8>)>) {
        for (start, bytes) in started {
            self.launch(start, &bytes);
        }
    }

    /// Fills the slot and tells the worker, unless it is gone meanwhile.
    fn launch(&self, start: Start, bytes: &[u8]) {
        let Start { link, tag, request, slot } = start;
        if let (Kind::Write, Some(Slot { span, .. })) = (request.kind, slot) {
            link.arena().fill(span, bytes);
        }
        let wanted = self.lock().mark_sent(tag);
        if wanted {
            link.send(request.message(tag, slot));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer<R: Parked>(link: &Link, entry: Entry<R>, outcome: Result<(), Failure>) {
    match (outcome, entry.slot) {
        (Err(failure), _) => {
            let Request { kind, volume, offset, len } = entry.request;
            tracing::warn!(?kind, volume = volume.0, offset, len, "a request failed: {failure}");
            entry.reply.fail(failure.errno());
        }
        (Ok(()), None) => entry.reply.done(&[]),
        (Ok(()), Some(slot)) => entry.reply.done(link.arena().bytes(slot.span)),
    }
}

/// How many of `len` bytes at `offset` lie inside a volume.
fn inside(size: u64, offset: u64, len: u32) -> u32 {
    let left = size.saturating_sub(offset);
    u32::try_from(left).map_or(len, |left| left.min(len))
}

#[cfg(test)]
mod tests;
