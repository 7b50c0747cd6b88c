//! The worker's life, as the control loop sees it.
//!
//! ```text
//!            ┌────────────── pause over: start the next one ──────────────┐
//!            v                                                            │
//!        Greeting ── hello ──> Connecting ── connected ──> Attaching      │
//!            │                     │                  volumes │ again     │
//!            │                     │                          v           │
//!            │                     │                       Serving        │
//!            └── lost, gone, late ─┴──────────────────────────┴──────> Resting
//! ```
//!
//! One path for every way in which a worker or its sheep can end: data is cut
//! off, the process killed, and the next worker started after a pause, which
//! doubles while nothing answers. Only at the start of the mount, with all
//! candidates tried, a failure is final.

use super::waits::Work;
use super::{Control, Effect, Refusal};
use crate::exit::Failed;
use crate::settings::WorkerState;
use crate::spawn::SpawnError;
use sheepfs::ipc::message::{BUILD, LostReason};
use sheepfs::ipc::{FromWorker, ToWorker};
use std::time::{Duration, Instant};

/// How long a worker may take to say hello.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// How long it may take to connect; its own deadlines are shorter.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// The pause before the next worker, at first and at most.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause when the last worker was killed and is not buried yet.
const BURIAL_PAUSE: Duration = Duration::from_millis(20);

/// Where the newest worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// There is none; the next one is started then.
    Resting { until: Instant, pause: Duration },
    /// Started, silent so far.
    Greeting { deadline: Instant, pause: Duration },
    /// It was told a sheep's address.
    Connecting { deadline: Instant, pause: Duration },
    /// Connected, and told of the volumes.
    Attaching,
    /// Data flows.
    Serving,
    /// There is none and will be none.
    Over,
}

impl Session {
    /// Before the first worker.
    pub fn first(now: Instant) -> Self {
        Self::Resting { until: now, pause: PAUSE_MIN }
    }

    /// When something must happen.
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Resting { until, .. } => Some(until),
            Self::Greeting { deadline, .. } | Self::Connecting { deadline, .. } => Some(deadline),
            Self::Attaching | Self::Serving | Self::Over => None,
        }
    }

    /// Whether the sheep answers.
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Attaching | Self::Serving)
    }

    /// Whether there is a process.
    pub fn is_alive(self) -> bool {
        !matches!(self, Self::Resting { .. } | Self::Over)
    }

    /// How long to pause if it ends now, and how long the time after.
    fn pause(self) -> Duration {
        match self {
            Self::Resting { pause, .. }
            | Self::Greeting { pause, .. }
            | Self::Connecting { pause, .. } => pause,
            Self::Attaching | Self::Serving | Self::Over => PAUSE_MIN,
        }
    }
}

impl Control {
    pub(super) fn tick_worker(&mut self, now: Instant) {
        match self.session {
            Session::Resting { until, pause } if until <= now && !self.is_ending() => {
                self.start_worker(pause, now);
            }
            Session::Greeting { deadline, .. } | Session::Connecting { deadline, .. }
                if deadline <= now =>
            {
                self.lost(LostReason::Unreachable, now);
            }
            Session::Attaching | Session::Serving if self.retry_at.is_some_and(|at| at <= now) => {
                self.reattach(now);
            }
            Session::Attaching if !self.waits.any_reattach() => self.serve(),
            _ => {}
        }
    }

    fn start_worker(&mut self, pause: Duration, now: Instant) {
        self.generation += 1;
        self.session = Session::Greeting { deadline: now + HELLO_TIME, pause };
        self.publish(WorkerState::Starting);
        self.effects.push(Effect::StartWorker(self.generation));
    }

    pub(super) fn worker_not_started(&mut self, cause: SpawnError, now: Instant) {
        if matches!(cause, SpawnError::Alive) {
            // It was killed a moment ago; the kernel needs a little to bury it.
            let pause = self.session.pause();
            self.session = Session::Resting { until: now + BURIAL_PAUSE, pause };
            self.publish(WorkerState::Waiting);
        } else if self.is_starting() {
            // There is no process; the end makes it over.
            self.rest(now);
            self.end(Err(Failed::Worker(cause)), now);
        } else {
            self.note("start a worker", &cause);
            self.rest(now);
        }
    }

    pub(super) fn worker_said(&mut self, generation: u64, message: FromWorker, now: Instant) {
        if generation != self.generation || !self.session.is_alive() {
            return;
        }
        match (message, self.session) {
            (FromWorker::Hello { build }, Session::Greeting { pause, .. }) => {
                self.greeted(&build, pause, now);
            }
            (FromWorker::Connected, Session::Connecting { .. }) => self.connected(now),
            (FromWorker::Lost { reason }, _) => self.lost(reason, now),
            (FromWorker::Done { tag, outcome }, _) => self.done(tag, outcome, now),
            (FromWorker::Attached { tag, facts }, _) => self.attached(tag, facts, now),
            (FromWorker::Moved { volume, facts }, _) => self.moved(volume, facts),
            (FromWorker::ReportChunk { tag, last, bytes }, _) => {
                self.report_chunk(tag, last, &bytes, now);
            }
            (message, session) => {
                tracing::error!(?message, ?session, "the worker said something out of turn");
            }
        }
    }

    fn greeted(&mut self, build: &str, pause: Duration, now: Instant) {
        if build != BUILD {
            let failed = Failed::OtherBuild(build.to_owned());
            return self.worker_is_useless(failed, now);
        }
        self.session = Session::Connecting { deadline: now + CONNECT_TIME, pause };
        self.send(ToWorker::Connect {
            build: BUILD.to_owned(),
            sheep: self.candidates.current(),
            cache_bytes: self.cache_bytes(),
        });
    }

    fn connected(&mut self, now: Instant) {
        tracing::info!(sheep = %self.candidates.current(), "connected");
        self.session = Session::Attaching;
        self.publish(WorkerState::Attaching);
        self.absent = self.volumes.all().iter().map(|volume| volume.id).collect();
        self.reattach(now);
        for name in std::mem::take(&mut self.attach_at_start) {
            self.attach_now(name, vec![super::Caller::Start], now);
        }
        self.start_goes_on(0);
    }

    /// All volumes are there, or had their time: data may flow.
    fn serve(&mut self) {
        self.session = Session::Serving;
        self.publish(WorkerState::Serving);
        self.effects.push(Effect::ConnectData);
    }

    /// The sheep of the present worker is gone, or never was there.
    fn lost(&mut self, reason: LostReason, now: Instant) {
        let sheep = self.candidates.current();
        let tried_all = !self.candidates.advance() || self.session.is_connected();
        if self.is_starting() && tried_all {
            return self.worker_is_useless(Failed::NoSheep { sheep, reason }, now);
        }
        let words = reason.words();
        self.say_lost(&format!("{sheep}: {words}"));
        let first_round = self.is_starting();
        self.drop_worker(now);
        if first_round {
            self.session = Session::first(now);
        }
    }

    pub(super) fn worker_gone(&mut self, generation: u64, now: Instant) {
        if generation != self.generation || !self.session.is_alive() {
            return;
        }
        if self.is_starting() {
            return self.worker_is_useless(Failed::WorkerEnded, now);
        }
        self.say_lost("the worker ended without a word");
        self.drop_worker(now);
    }

    /// At the start that is the end; later the next worker may do better.
    fn worker_is_useless(&mut self, failed: Failed, now: Instant) {
        if self.is_starting() {
            self.end(Err(failed), now);
        } else {
            self.say_lost(&failed.to_string());
        }
        self.drop_worker(now);
    }

    /// The sheep is gone: an operator should know, but not each second.
    fn say_lost(&self, what: &str) {
        if self.session.is_connected() {
            tracing::error!("lost the sheep: {what}");
        } else {
            tracing::warn!("still no sheep: {what}");
        }
        self.shared.known().last_error = Some(format!("no sheep: {what}"));
    }

    /// Cuts the data off, kills the process, tells everybody who waits.
    fn drop_worker(&mut self, now: Instant) {
        if !self.session.is_alive() {
            return;
        }
        self.effects.push(Effect::KillWorker);
        self.rest(now);
        self.retry_at = None;
        for wait in self.waits.take_all() {
            self.interrupted(wait, now);
        }
        // While the mount is being undone, its end is waited for.
        if self.is_ending() && !self.awaits_drained() {
            self.over();
        }
    }

    fn interrupted(&mut self, wait: super::waits::Wait, now: Instant) {
        match wait.work {
            Work::Reattach { .. } => {}
            Work::Detach { name, then } => {
                let what = format!("detach {name}");
                self.note(&what, &"done, but the connection ended, so its lock may be left");
                self.answer_all(wait.callers);
                self.refuse(&format!("attach {name}"), Refusal::Interrupted, then, now);
            }
            work => self.refuse(&work.to_string(), Refusal::Interrupted, wait.callers, now),
        }
    }

    fn rest(&mut self, now: Instant) {
        let pause = self.session.pause();
        self.session = Session::Resting { until: now + pause, pause: (pause * 2).min(PAUSE_MAX) };
        self.publish(WorkerState::Waiting);
    }

    pub(super) fn publish(&self, worker: WorkerState) {
        let mut known = self.shared.known();
        known.worker = worker;
        known.sheep = self.candidates.current();
        known.generation = self.generation;
    }
}
