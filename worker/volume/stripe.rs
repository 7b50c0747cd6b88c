//! Writes that end inside the erasure-coded stripe at whose border they begin.
//!
//! A gateway completes a stripe that is written in part by reading it first, but
//! it forgets to when the write begins at the stripe's border and does not reach
//! the next one: the rest of the stripe turns to zeros (seen on a real cluster).
//! So the rest is read here, and the stripe is written as a whole. Nothing else
//! touches the stripe meanwhile ([`super::objects`] widens ranges to stripes).

use super::objects::{Part, PartId, STRIPE_LEN, State};
use super::{Io, Phase, Volume, Wait};
use crate::verdict::Verdict;
use sheepfs::ipc::Failure;
use sheepfs::wire::Request;
use sheepfs::wire::request::Extent;

impl Volume {
    /// What must be read before an own object can be written: the bytes behind
    /// the write, up to the end of its stripe. `None` for nearly all writes.
    pub(super) fn stripe_rest(&self, part: &Part) -> Option<Extent> {
        let (start, len) = (part.extent.offset(), part.extent.len());
        let in_front = start % STRIPE_LEN == 0 && len > 0 && len < STRIPE_LEN;
        let rest = start.checked_add(len)?;
        (self.header.is_erasure_coded() && in_front)
            .then(|| Extent::new(rest, STRIPE_LEN - len, self.header.block_size_shift))?
    }

    /// Reads the rest of a stripe.
    pub(super) fn read_rest(&mut self, object: u32, id: PartId, rest: Extent, io: &mut Io) {
        let request = Request::read(self.own, object, rest);
        self.send(request, None, Wait::StripeRest(object, id), io);
    }

    /// The rest is there: the stripe is written. Otherwise the verdict is as for
    /// the write itself.
    pub(super) fn rest_replied(
        &mut self,
        object: u32,
        id: PartId,
        verdict: Verdict,
        rest: &[u8],
        io: &mut Io,
    ) {
        if verdict != Verdict::Done {
            return self.part_replied(object, id, verdict, io);
        }
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(id)) else {
            return;
        };
        if !matches!(self.phase, Phase::Serving) {
            // A snapshot came between: the object may be another one afterwards.
            part.state = State::Waiting;
            return;
        }
        let (start, span) = (part.extent.offset(), part.span);
        let stripe = [io.arena.bytes(span), rest].concat();
        let request = Extent::new(start, STRIPE_LEN, self.header.block_size_shift)
            .and_then(|extent| Request::write_bytes(self.own, object, extent, stripe));
        match request {
            Some(request) => self.send(request, None, Wait::Part(object, id), io),
            None => self.part_replied(object, id, Verdict::Fail(Failure::BadAnswer), io),
        }
    }
}
