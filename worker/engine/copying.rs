//! Copies under way ([`crate::copies`]): their pieces are read from one volume and written to
//! the other.

use super::{Engine, Surroundings};
use crate::copies::{Order, Place, Step, What};
use crate::volume::objects::Kind;
use crate::volume::{Transfer, Volume};
use sheepfs::ipc::{Failure, FromWorker, VolumeId};
use std::collections::BTreeMap;

impl Engine {
    /// Begins a copy.
    pub(super) fn copy(&mut self, order: Order, around: &mut Surroundings) {
        let Order { tag, from, at, volume, offset, len, .. } = order;
        let overlap = at.abs_diff(offset) < u64::from(len);
        let outcome = if len == 0 {
            Some(Ok(()))
        } else if at.checked_add(len.into()).and(offset.checked_add(len.into())).is_none()
            || (from == volume && overlap)
        {
            Some(Err(Failure::OutOfBounds))
        } else {
            self.copies.begin(order, around.arena).err().map(Err)
        };
        around.out.extend(outcome.map(|outcome| FromWorker::Done { tag, outcome }));
    }

    /// Goes on with what has ended, and begins what can begin. Some of that ends at once.
    pub(super) fn settle_copies(&mut self, around: &mut Surroundings) {
        while !self.copies.is_idle() {
            let ended = self.copies.hear(around.out);
            let is_over = ended.is_empty();
            for (tag, outcome) in ended {
                let is_hole = hole_in(&self.volumes);
                let next = self.copies.ended(tag, outcome, is_hole, around.out);
                self.take_step(next, around);
            }
            let begun = self.copies.next(hole_in(&self.volumes));
            if is_over && begun.is_none() {
                return;
            }
            self.take_step(begun, around);
        }
    }

    fn take_step(&mut self, step: Option<Step>, around: &mut Surroundings) {
        let Some(Step { tag, place, span, what }) = step else { return };
        let (kind, again, sparse) = match what {
            What::Read => (Kind::Read, false, false),
            What::Write { again, sparse } => (Kind::Write, again, sparse),
        };
        let transfer = Transfer { tag, kind, offset: place.offset, again, sparse };
        self.with_volume(tag, place.volume, around, |volume, io| {
            volume.submit(transfer, span, io);
        });
    }
}

fn hole_in(volumes: &BTreeMap<VolumeId, Volume>) -> impl Fn(Place) -> bool + '_ {
    |place| volumes.get(&place.volume).is_some_and(|volume| volume.is_hole(place.offset, place.len))
}
