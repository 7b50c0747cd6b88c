//! What a volume does by itself: when time goes by, and when the wire has run empty.

use super::discard::Discard;
use super::objects::ObjectQueue;
use super::{Io, Phase, Volume};
use std::time::Instant;

impl Volume {
    /// Takes a time step: what was delayed may go on.
    pub fn tick(&mut self, io: &mut Io) {
        if self.updates_delayed.is_some_and(|until| until <= io.now) {
            self.updates_delayed = None;
            self.send_updates(io);
        }
        let ripe =
            |(object, queue): (&u32, &mut ObjectQueue)| queue.ripen(io.now).then_some(*object);
        let ripe: Vec<u32> = self.objects.iter_mut().filter_map(ripe).collect();
        ripe.iter().for_each(|object| self.pump(*object, io));
        self.tick_flushes(io);
        self.tick_discards(io);
        self.tick_reload(io);
        self.tick_extents(io);
        self.check_header(io);
        self.settle(io);
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let reload = match &self.phase {
            Phase::Reloading(reload) => reload.delayed_until(),
            Phase::Serving => self.recent.next_check(),
            Phase::Resting | Phase::Draining | Phase::Failed(_) => None,
        };
        let parts = self.objects.values().filter_map(ObjectQueue::delayed_until).min();
        let flushes = self.barriers.delayed_until();
        let discards = self.discards.values().filter_map(Discard::delayed_until).min();
        let extents = self.extents.deadline();
        let first = [self.updates_delayed, reload, parts, flushes, discards, extents];
        first.into_iter().flatten().min()
    }

    /// Whether nothing is on the wire, and nothing that was begun has more to send.
    pub(super) fn is_quiet(&self) -> bool {
        let discarding = self.discards.values().any(Discard::is_running);
        self.on_wire == 0 && self.is_entered() && !discarding
    }

    /// Starts what waits for the wire to be empty.
    pub(super) fn settle(&mut self, io: &mut Io) {
        if self.pausing && matches!(self.phase, Phase::Serving) {
            self.phase = Phase::Resting;
        }
        if self.is_quiet() && matches!(self.phase, Phase::Draining) {
            self.begin_reload(io);
        }
        let settled = matches!(self.phase, Phase::Serving | Phase::Failed(_));
        let waited_for = !self.ops.is_empty() || !self.extents.is_idle();
        if settled && !waited_for && self.on_wire == 0 && self.barriers.is_idle() {
            self.finish_detach(io);
        }
    }
}
