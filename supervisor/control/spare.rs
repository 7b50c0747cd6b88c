//! The hot spare: a worker that is started, has its own arena mapped and gave up
//! its privileges, and only waits for an address. So a swap costs no process
//! start. It also looks at a sheep before anything is given up for it.

use super::heartbeat::{Beat, EVERY_SPARE, Heartbeat};
use super::life::{Life, Spare};
use super::poison::Exit;
use super::recover::HELLO_TIME;
use super::{Control, Effect};
use crate::exit::Failed;
use sheepfs::ipc::message::BUILD;
use sheepfs::ipc::{FromWorker, ToWorker};
use std::time::{Duration, Instant};

/// The pause before the next spare when one was of no use.
const PAUSE: Duration = Duration::from_secs(1);

impl Control {
    /// Whether there shall be one.
    pub(super) fn wants_spare(&self) -> bool {
        let serves = matches!(self.life, Life::Serving { .. } | Life::Draining { .. });
        !self.is_ending() && (serves && !self.is_starting() || self.wish_wants_spare())
    }

    pub(super) fn tick_spare(&mut self, now: Instant) {
        match self.spare {
            Spare::None { not_before } if not_before <= now && self.wants_spare() => {
                let generation = self.next_generation();
                self.spare = Spare::Starting { generation, deadline: now + HELLO_TIME };
                self.effects.push(Effect::StartWorker(generation));
                self.publish();
            }
            Spare::Starting { generation, deadline } if deadline <= now => {
                self.end_spare(generation, "it did not say hello");
            }
            Spare::Ready { generation, mut beat } => match beat.tick(now) {
                Beat::Rest => {}
                Beat::Ask(number) => {
                    self.spare = Spare::Ready { generation, beat };
                    self.effects.push(Effect::Send(generation, ToWorker::Ping { number }));
                }
                Beat::Silent => self.end_spare(generation, "it does not answer"),
            },
            Spare::None { .. } | Spare::Starting { .. } | Spare::Ending { .. } => {}
        }
    }

    /// Makes the spare the worker in use. `false`: there is none.
    pub(super) fn promote_spare(&mut self, now: Instant) -> bool {
        match self.spare {
            Spare::Ready { generation, .. } => {
                self.spare = Spare::None { not_before: now };
                self.check_interrupted();
                self.connect(generation, now);
            }
            Spare::Starting { generation, deadline } => {
                self.spare = Spare::None { not_before: now };
                self.greeting(generation, deadline);
            }
            Spare::None { .. } | Spare::Ending { .. } => return false,
        }
        true
    }

    pub(super) fn spare_said(&mut self, generation: u64, message: FromWorker, now: Instant) {
        match (message, &mut self.spare) {
            (FromWorker::Hello { build }, Spare::Starting { .. }) if build == BUILD => {
                tracing::debug!(worker = generation, "a spare worker is ready");
                let beat = Heartbeat::new(EVERY_SPARE, now);
                self.spare = Spare::Ready { generation, beat };
                self.publish();
            }
            (FromWorker::Hello { build }, Spare::Starting { .. }) => {
                self.end_spare(generation, &Failed::OtherBuild(build).to_string());
            }
            (FromWorker::Pong { .. }, Spare::Ready { beat, .. }) => beat.heard(now),
            (FromWorker::Checked { tag, outcome }, Spare::Ready { beat, .. }) => {
                beat.heard(now);
                self.checked(tag, outcome, now);
            }
            (_, Spare::Ending { .. }) => {}
            (message, spare) => {
                tracing::error!(
                    worker = generation,
                    ?message,
                    ?spare,
                    "the spare worker said something out of turn"
                );
            }
        }
    }

    pub(super) fn end_spare(&mut self, generation: u64, why: &str) {
        tracing::warn!(worker = generation, "the spare worker is of no use: {why}");
        self.effects.push(Effect::KillWorker(generation));
        self.spare = Spare::Ending { generation };
        self.check_interrupted();
        self.publish();
    }

    pub(super) fn spare_gone(&mut self, generation: u64, exit: Exit, now: Instant) {
        tracing::debug!(worker = generation, ?exit, "the spare worker's process is gone");
        self.spare_is_none(now);
    }

    /// There is no spare, and it is no use to start one at once.
    pub(super) fn spare_is_none(&mut self, now: Instant) {
        self.spare = Spare::None { not_before: now + PAUSE };
        self.check_interrupted();
        self.publish();
    }
}
