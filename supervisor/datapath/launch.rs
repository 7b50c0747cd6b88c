//! How requests leave for the worker: the copying and the telling, for which `admission` and
//! `queue` have decided under the lock what comes next.
//!
//! The lock is not held here but for single steps. So the worker may be another one after
//! each copy, and a request whose worker is gone comes back to the queue with its bytes.

use super::admission::{Admission, Cut, Told};
use super::queue::{Start, Started};
use super::{DataPath, Parked};
use crate::inflight::{Kind, Payload, Request, Slot};
use sheepfs::ipc::Tag;
use std::time::Instant;

impl<R: Parked> DataPath<R> {
    /// Takes a new request. It is told at once, or it waits with a copy of its bytes, or it
    /// is refused.
    pub(super) fn submit(&self, mut request: Request, bytes: &[u8], cut: Cut, reply: R) {
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

    /// Tells the worker of requests that have their slots now.
    pub(super) fn launch_all(&self, started: Started) {
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
