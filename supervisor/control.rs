//! The control loop's decisions: the one owner of what the mount is made of.
//!
//! Everything that is not a volume's data comes here as an [`Input`]; what must
//! be done comes out as [`Effect`]s. There is no socket, process, thread or clock
//! in it: time is an argument, and [`run`] is the thin shell that turns events
//! into inputs and effects into deeds. What other threads look at ([`Volumes`],
//! [`Shared`]) is changed here and nowhere else.
//!
//! The life of a mount:
//!
//! ```text
//! Starting ── connected, --attach done ──> Mounting ── mounted ──> Running
//!    │ no sheep, no VDI                       │ not mounted           │ signal, unmount
//!    └────────────────────────────────────────┴───────────────────────┴──> Ending ──> over
//! ```
//!
//! What it begins with is in [`wishes`]. The life of a worker is in [`life`], how one
//! follows the other in [`recover`], planned failover in [`failover`], the end in [`ending`].

mod again;
mod attempt;
mod avoided;
mod cause;
mod closing;
mod departed;
mod ending;
mod failover;
mod heartbeat;
mod inout;
mod leaving;
mod life;
mod line;
mod manage;
pub mod outage;
mod parked;
mod phase;
pub mod poison;
mod query;
mod recover;
mod refusal;
mod routing;
pub mod run;
mod search;
mod spare;
mod succession;
mod volume;
mod waits;
mod wishes;
mod worker;
mod write;

use crate::allocations::Allocations;
use crate::candidates::Candidates;
use crate::exit::Failed;
use crate::settings::Shared;
use crate::volumes::Volumes;
use attempt::Attempt;
use heartbeat::Heartbeat;
use life::{Life, Spare};
use phase::Phase;
use poison::Death;
use sheepfs::ipc::{Gateways, Locking, Route, Tag, ToWorker, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use inout::{Answer, Effect, Input, Leave, Totals};
pub use refusal::Refusal;
pub use succession::volumes_of;
pub use waits::Caller;
pub use wishes::Wishes;

/// A turn that comes so much later than was asked for means that this process, or
/// the machine, did not run.
const LATE: Duration = Duration::from_secs(1);

/// The state.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    volumes: Arc<Volumes>,
    candidates: Candidates,
    attach_at_start: Vec<VolumeName>,
    /// All that was ever to be attached at a start.
    attach_wished: Vec<VolumeName>,
    /// Bytes of object cache when it is on.
    cache_len: u64,
    cache_on: bool,
    io_timeout: Duration,
    /// Whom objects are asked of.
    route: Route,
    /// The nodes, besides its sheep, that the session may have sent changes to.
    direct: BTreeSet<SocketAddr>,
    /// What an attach does about the cluster's lock.
    locking: Locking,
    phase: Phase,
    life: Life,
    /// Of the worker in use.
    beat: Heartbeat,
    spare: Spare,
    /// The newest process's.
    generation: u64,
    recovery: recover::Recovery,
    guard: poison::Guard,
    outage: outage::Outage,
    wishes: failover::Queue,
    /// When the cluster that is used was formatted; `None` when that is not known.
    cluster: Option<u64>,
    /// When the next turn was to be at the latest.
    due: Option<Instant>,
    waits: waits::Waits,
    last_volume: u32,
    /// Volumes that the present worker does not have, and how often in a row their
    /// VDI was missing.
    absent: BTreeMap<VolumeId, u8>,
    /// When to try those again.
    retry_at: Option<Instant>,
    /// Volumes whose VDI was replaced: they stay broken until they are detached.
    replaced: BTreeSet<VolumeId>,
    allocations: Arc<Allocations>,
    /// Gateways through which a lock was asked for, of which no answer is known.
    lock_sent: BTreeMap<VolumeId, Gateways>,
    /// Locks of ours that no worker could release.
    locks_left: BTreeMap<VolumeName, Gateways>,
    /// The nodes through which the lock of a volume was asked for.
    locked_through: BTreeMap<VolumeId, Gateways>,
    /// The block of a volume whose index entry is being repaired.
    repairing: BTreeMap<VolumeId, u32>,
    /// Until when data may wait for fences, as the data path says.
    fenced_until: Option<Instant>,
    /// Volumes whose detach a predecessor of this process began: whoever asked for one
    /// may ask again when it is done.
    begun_before: BTreeSet<VolumeName>,
    /// Who waits for a volume to be closed, to detach it.
    closing: Vec<closing::Closing>,
    /// Where requests of errands may still be under way.
    held: manage::Held,
    totals: Totals,
    effects: Vec<Effect>,
}

impl Control {
    /// Takes note of what happened, and says what must be done, in order.
    pub fn apply(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        if self.due.is_some_and(|due| now > due + LATE) {
            self.slept(now);
        }
        match input {
            Input::Tick => {}
            Input::NotStarted(generation, cause) => self.not_started(generation, cause, now),
            Input::Worker(generation, message) => self.worker_said(generation, message, now),
            Input::WorkerBroken { generation, nonsense } => {
                self.worker_broken(generation, nonsense, now);
            }
            Input::WorkerGone(generation, exit) => self.worker_gone(generation, exit, now),
            Input::Unanswered(death, tags) => self.unanswered(death, &tags, now),
            Input::DataDrained => self.swap(true, now),
            Input::Resolved(number, found) => self.resolved(number, found, now),
            Input::Open(caller, file) => self.open_report(caller, file, now),
            Input::Write(caller, file, bytes) => self.control_write(caller, file, &bytes, now),
            Input::Grow(caller, (name, size), number) => {
                self.grow(caller, (name.as_str(), size), number, now);
            }
            Input::Space(caller) => self.ask_space(caller, now),
            Input::Search(caller, search, is_afresh) => {
                self.search(caller, search, is_afresh, now);
            }
            Input::Mounted => self.mounted(),
            Input::NotMounted(failed) => self.end(Err(failed), now),
            Input::Drained => self.drained(now),
            Input::Closed => self.closed(now),
            Input::Unmounted => self.unmounted(now),
            Input::Stop => self.stop(now),
            Input::Leave(how) => self.leave(how, now),
            Input::Quiesced => self.quiesced(),
        }
        self.tick(now);
        self.due = self.deadline();
        std::mem::take(&mut self.effects)
    }

    /// When the next [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let own = [
            self.life.deadline(),
            self.beat_deadline(),
            self.spare.deadline(self.wants_spare()),
            self.retry_at.filter(|_| matches!(self.life, Life::Serving { .. })),
            self.wish_deadline(),
            self.outage.deadline(),
            self.ending_deadline(),
            self.leaving_deadline(),
            self.closing_deadline(),
            self.managed_deadline(),
            self.shared.catalog().deadline(),
        ];
        own.into_iter().flatten().chain(self.waits.next_deadline()).min()
    }

    fn tick(&mut self, now: Instant) {
        for tag in self.waits.overdue(now) {
            self.give_up(tag, now);
        }
        self.shared.catalog().expire(now);
        self.tick_beat(now);
        self.tick_life(now);
        self.tick_wishes(now);
        self.tick_spare(now);
        if self.outage.has_lasted(now) {
            tracing::error!("no sheep has served for too long; requests fail until one does");
            self.effects.push(Effect::FailData);
        }
        self.tick_managed(now);
        self.tick_closing(now);
        self.tick_leaving(now);
        self.tick_ending(now);
    }

    /// This process did not run for some time, and so heard nobody.
    fn slept(&mut self, now: Instant) {
        tracing::info!("this process did not run for some time");
        self.beat.slept(now);
        if let Spare::Ready { beat, .. } = &mut self.spare {
            beat.slept(now);
        }
    }

    /// What the dead worker had not answered.
    fn unanswered(&mut self, death: Death, tags: &[Tag], now: Instant) {
        let with_control = self.recovery.with_control;
        for tag in self.guard.died(death, tags, with_control, now) {
            tracing::error!(tag = tag.0, "a request has killed worker after worker by itself");
            self.effects.push(Effect::Poison(tag));
        }
    }

    /// Tells the worker that has a session; without one nothing is said.
    fn send(&mut self, message: ToWorker) {
        if let Some(generation) = self.life.session() {
            self.effects.push(Effect::Send(generation, message));
        }
    }

    /// Notes a failure in words: for the log once, and for `config/status`.
    fn note(&self, what: impl Into<Attempt>, why: &dyn std::fmt::Display) {
        self.note_errno(what, why, None);
    }

    /// As [`Self::note`], with the error of the system or the one that a program gets.
    fn note_errno(
        &self,
        what: impl Into<Attempt>,
        why: &dyn std::fmt::Display,
        errno: Option<i32>,
    ) {
        let Attempt { what, volume } = what.into();
        let volume = volume.map(tracing::field::display);
        tracing::warn!(volume, errno, "{what}: {why}");
        self.shared.known().last_error = Some(format!("{what}: {why}"));
    }

    fn answer(&mut self, caller: Caller, answer: Answer) {
        if let Caller::Program(id) = caller {
            self.effects.push(Effect::Answer(id, answer));
        }
    }

    /// Refuses what a caller wants, and says why, once for all who want it.
    fn refuse(
        &mut self,
        what: impl Into<Attempt>,
        why: Refusal,
        callers: Vec<Caller>,
        now: Instant,
    ) {
        let what = what.into();
        if callers.contains(&Caller::Start) && !self.is_ending() {
            self.end(Err(Failed::AtStart { what: what.what, why }), now);
        } else if !callers.is_empty() {
            self.note_errno(what, &why, Some(why.errno() as i32));
        }
        for caller in callers {
            self.answer(caller, Answer::Refused(why.errno()));
        }
    }
}

#[cfg(test)]
mod tests;
