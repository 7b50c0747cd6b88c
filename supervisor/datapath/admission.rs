//! How a request comes in, and how it leaves for a worker.
//!
//! Copies are made by the caller, without the lock: a request that must wait is told
//! so first, with how much of it is kept, and comes back with its bytes.

use super::queue::{Start, Started, State};
use crate::inflight::{Kind, Payload, Request, Stage};
use nix::errno::Errno;
use sheepfs::ipc::Tag;
use std::time::Instant;

/// Bytes of waiting writes that are kept, beyond which some are cut ([`Cut`]): to
/// their first [`SHORT_LEN`] bytes, and answered short when these are written, as
/// any `write(2)` may be, so that their writers go on with the rest later. There is
/// no other way: to leave requests in the kernel would leave those for the control
/// files there as well, since they come through the same queue.
pub const KEPT_LEN_MAX: usize = 96 << 20;
/// The same for writes with `O_DIRECT`. Asynchronous ones, for which a short answer
/// is an error, don't come to that: the kernel keeps fewer than
/// [`KEPT_LEN_MAX`] of their bytes outstanding. But so many threads may write
/// synchronously, which nothing tells apart.
pub const DIRECT_LEN_MAX: usize = 2 * KEPT_LEN_MAX;
/// What is kept of a write that finds no room.
pub const SHORT_LEN: u32 = 4096;

/// When a write may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Never: whoever waits for it, a part of the kernel, takes a short answer for an
    /// error or for none.
    Never,
    /// When more than [`DIRECT_LEN_MAX`] bytes would be kept.
    Late,
    /// When more than [`KEPT_LEN_MAX`] bytes would be kept.
    Early,
}

impl Cut {
    fn limit(self) -> usize {
        match self {
            Self::Never => usize::MAX,
            Self::Late => DIRECT_LEN_MAX,
            Self::Early => KEPT_LEN_MAX,
        }
    }
}

/// What becomes of a new request.
#[derive(Debug)]
pub enum Admission<R> {
    /// It can be told at once. A read counts as told from here on, so that its thread
    /// takes the lock once: whatever becomes of it meanwhile, it is sent, and if its
    /// worker is lost it waits for the next one, as others that were told.
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

impl<R> State<R> {
    /// Takes a new request.
    pub fn admit(&mut self, request: Request, cut: Cut, reply: R, now: Instant) -> Admission<R> {
        if self.is_refused(request) {
            return Admission::Refused(reply, Errno::EIO);
        }
        let free = self.queued.is_empty()
            && self.may_tell()
            && self.blocker(request, None, false).is_none();
        if free && let Some((link, slot)) = self.lease(request) {
            let generation = link.generation();
            // Nothing is copied for a read: it is told as soon as the lock is free.
            let stage = match request.kind {
                Kind::Read => Stage::Told(generation, slot),
                Kind::Write
                | Kind::Flush
                | Kind::Zero
                | Kind::Discard
                | Kind::Copy { .. }
                | Kind::Seek(_) => Stage::Filling(generation),
            };
            let tag = self.insert(request, reply, stage, now);
            let again = self.table.get(tag).is_some_and(|entry| entry.again);
            self.begin(tag, request);
            return Admission::Started(Start { link, tag, request, slot, again });
        }
        Admission::Wait(reply, self.reserve(request, cut))
    }

    pub(super) fn insert(&mut self, request: Request, reply: R, stage: Stage, now: Instant) -> Tag {
        let tag = self.table.insert(request, reply, stage, now);
        let again = self.is_unsure(now);
        if let Some(entry) = self.table.get_mut(tag) {
            entry.again = again;
        }
        tag
    }

    /// Whether a process before this one may have begun with what the kernel asks for then.
    pub(super) fn is_unsure(&self, now: Instant) -> bool {
        self.unsure_until.is_some_and(|until| now < until)
    }

    /// Room for a copy of a write's bytes: how many of them.
    fn reserve(&mut self, request: Request, cut: Cut) -> u32 {
        if !request.has_payload() {
            return request.len;
        }
        let fits = self.kept_len + request.len as usize <= cut.limit();
        let len = if fits { request.len } else { request.len.min(SHORT_LEN) };
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
        let tag = self.insert(request, reply, Stage::Queued, now);
        if let Some(entry) = self.table.get_mut(tag) {
            entry.payload = payload;
        }
        self.enqueue(tag);
        Ok(self.start_waiting())
    }

    /// Notes that the worker is told now, if that is so; and what can start instead,
    /// if not.
    pub fn mark_told(&mut self, start: &Start) -> (Told, Started) {
        let generation = start.link.generation();
        let present = self.worker.as_mut().filter(|worker| worker.generation() == generation);
        match (self.table.get_mut(start.tag), present) {
            (Some(entry), Some(_)) if entry.stage == Stage::Filling(generation) => {
                entry.stage = Stage::Told(generation, start.slot);
                if let Some(slot) = start.slot.filter(|_| start.request.is_write()) {
                    self.told.note(generation, start.request, slot);
                }
                (Told::Now, Vec::new())
            }
            (Some(_), _) => (Told::Later, Vec::new()),
            (None, present) => {
                if let (Some(worker), Some(slot)) = (present, start.slot) {
                    worker.slots.give_back(slot.raw);
                }
                (Told::Never, self.start_waiting())
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
}
