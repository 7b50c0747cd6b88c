//! Ranges that are cleared, step by step: the kernel waits for the last one.

use super::queue::{Started, State};
use super::{DataPath, Parked};
use crate::inflight::{Entry, Kind, Payload, Request, Stage};
use crate::steps::Rest;
use crate::volumes::Volume;
use nix::errno::Errno;
use sheepfs::ipc::Failure;
use std::ops::Range;
use std::time::Instant;

impl<R: Parked> DataPath<R> {
    /// Turns a range into a hole: whole objects go from the cluster, and the edges become
    /// zeros. What lies behind the volume's end is left out.
    pub fn clear(&self, volume: &Volume, range: Range<u64>, reply: R) {
        let size = volume.size();
        let rest = Rest::new(range.start, range.end.min(size), size);
        let first = Request {
            kind: Kind::Discard,
            volume: volume.id,
            offset: range.start,
            len: 0,
            shift: volume.shift(),
        };
        if rest.is_over() {
            return reply.done(&[]);
        }
        let begun = self.lock().begin_clear(rest, first, reply, Instant::now());
        match begun {
            Ok(started) => self.launch_all(started),
            Err((reply, errno)) => reply.fail(errno),
        }
    }
}

impl<R> State<R> {
    /// Takes a range to be cleared. Gives what can start now. `Err`: it can't be served.
    fn begin_clear(
        &mut self,
        rest: Rest,
        of: Request,
        reply: R,
        now: Instant,
    ) -> Result<Started, (R, Errno)> {
        if self.is_refused(of) {
            return Err((reply, Errno::EIO));
        }
        self.clear_step(rest, of, reply, now);
        Ok(self.start_waiting())
    }

    /// What is left to be cleared after a step that has ended so, if there is anything.
    pub(super) fn rest_of(done: &Entry<R>, outcome: Result<(), Failure>) -> Option<Rest> {
        let request = done.request;
        match (request.kind, outcome) {
            // Its last object is not whole any more.
            (Kind::Discard, Err(Failure::Grown)) => Some(Rest::of_grown(request, done.again)),
            // It only saves time: without an answer, nothing is left out.
            (Kind::Seek(_), _) => done.rest.map(|mut rest| {
                rest.leave_out(request.shift, done.sought);
                rest
            }),
            (_, Ok(())) => done.rest,
            (_, Err(_)) => None,
        }
    }

    /// A step is done: the next one waits in its place, for the same reply.
    pub(super) fn clear_rest(&mut self, rest: Rest, done: Entry<R>, now: Instant) {
        // The time of the whole counts.
        let since = done.since.min(now);
        self.clear_step(rest, done.request, done.reply, since);
    }

    fn clear_step(&mut self, mut rest: Rest, of: Request, reply: R, since: Instant) {
        // One that the kernel has delivered again may have come to any of its steps.
        rest.again |= self.is_unsure(since);
        let Some((kind, offset, len)) = rest.next(of.shift) else { return };
        let request = Request { kind, offset, len, ..of };
        let tag = self.insert(request, reply, Stage::Queued, since);
        if let Some(entry) = self.table.get_mut(tag) {
            entry.again = rest.again;
            entry.rest = Some(rest).filter(|rest| !rest.is_over());
            if kind == Kind::Zero {
                entry.payload = Payload::Kept(vec![0; len as usize]);
                self.kept_len += len as usize;
            }
        }
        self.enqueue(tag);
    }
}
