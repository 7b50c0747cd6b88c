//! Leaving a mount as it is, for a successor: what the worker was told comes to its
//! end, nothing new goes to it, and everything that waits is left to the kernel, which
//! delivers it again. What does not come to its end in time is fenced by the
//! successor, like after any other death of ours.

use super::{Control, Effect, Leave, Phase};
use std::time::{Duration, Instant};

/// How long requests that are on the wire may take.
const LEAVE_TIME: Duration = Duration::from_secs(10);

/// A mount that is being left.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    how: Leave,
    until: Instant,
}

impl Control {
    /// Somebody asks for it. Before there is a mount it is as being asked to stop.
    pub(super) fn leave(&mut self, how: Leave, now: Instant) {
        match self.phase {
            Phase::Running => {
                self.phase = Phase::Leaving(Leaving { how, until: now + LEAVE_TIME });
                self.effects.push(Effect::HoldData);
            }
            Phase::Starting { .. } | Phase::Mounting => self.stop(now),
            Phase::Leaving(_) | Phase::Ending(_) => {}
        }
    }

    /// Whether [`super::Input::Quiesced`] is waited for.
    pub fn awaits_leave(&self) -> bool {
        matches!(self.phase, Phase::Leaving(_))
    }

    /// Nothing is on the wire any more.
    pub(super) fn quiesced(&mut self) {
        if let Phase::Leaving(Leaving { how, .. }) = self.phase {
            self.effects.push(Effect::Leave(how));
        }
    }

    pub(super) fn leaving_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Leaving(Leaving { until, .. }) => Some(until),
            Phase::Starting { .. } | Phase::Mounting | Phase::Running | Phase::Ending(_) => None,
        }
    }

    pub(super) fn tick_leaving(&mut self, now: Instant) {
        if self.leaving_deadline().is_some_and(|until| until <= now) {
            tracing::warn!("data is in flight still; the successor repeats it");
            self.quiesced();
        }
    }
}
