//! How a worker is replaced: one path for every way in which it or its sheep can
//! end. It is killed, its process is waited for, and the spare, or the next one,
//! tries the candidates, first the one that the cause of the loss speaks for.
//!
//! Only at the start of the mount, with all candidates tried, a failure is final.

use super::avoided::Avoided;
use super::cause::Cause;
use super::departed::Departed;
use super::heartbeat::{EVERY_ACTIVE, Heartbeat};
use super::life::{Life, Then};
use super::poison::{Death, Exit};
use super::{Caller, Control, Effect, Refusal};
use crate::exit::Failed;
use sheepfs::ipc::{CacheUsage, ClusterFacts, LostReason, QuietReason, Route, ToWorker};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a worker may take to say hello.
pub(super) const HELLO_TIME: Duration = Duration::from_secs(10);
/// How long it may take to connect; its own deadlines are shorter.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long volumes may take to come back before data flows without them.
const RESUME_TIME: Duration = Duration::from_secs(5);
/// A session that lasted so long was worth beginning.
const CALM_TIME: Duration = Duration::from_secs(1);
/// After so many that were not, there is a pause before the next.
const FUTILE_MAX: u32 = 3;
/// So often a worker that dies before it serves is replaced at the same sheep.
const RESTARTS_MAX: u32 = 3;

/// What is remembered from the loss of a session to the next.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The loss that is being recovered from.
    loss: Option<Loss>,
    /// Workers that ended since one served.
    restarts: u32,
    /// Sessions in a row that were over at once.
    futile: u32,
    /// The gateways of sessions that were lost.
    pub(super) departed: Departed,
    /// Nodes that have ended sessions.
    pub(super) avoided: Avoided,
    /// Whether the worker that died last was asked for something besides data.
    pub(super) with_control: bool,
    /// Whether the lost worker's words made no sense.
    pub(super) nonsense: bool,
    /// What the worker was told when it was sent to its sheep: bytes of object cache, and
    /// whom to ask for objects.
    told: (u64, Route),
    /// Whether the log says already that no candidate answers.
    is_said: bool,
}

#[derive(Clone, Copy, Debug)]
struct Loss {
    cause: Cause,
    sheep: SocketAddr,
    since: Instant,
}

impl Control {
    /// The worker of a predecessor of this process died with it.
    pub(super) fn inherit_loss(&mut self, departed: Departed, now: Instant) {
        let sheep = self.candidates.current();
        self.recovery.loss = Some(Loss { cause: Cause::WorkerDied, sheep, since: now });
        self.recovery.departed = departed;
        self.outage.begins(now);
    }

    /// What the time has come for.
    pub(super) fn tick_life(&mut self, now: Instant) {
        match self.life {
            Life::BackingOff { until, .. } if until <= now => self.attempt(now),
            Life::Greeting { deadline, .. } | Life::Connecting { deadline, .. }
                if deadline <= now =>
            {
                self.lose(Cause::WorkerSilent, now);
            }
            Life::Resuming { until, .. } if until <= now || !self.waits.any_resume() => {
                self.serve(now);
            }
            Life::Draining { until, .. } if until <= now => self.swap(false, now),
            Life::Serving { .. } if self.retry_at.is_some_and(|at| at <= now) => self.resume(now),
            _ => {}
        }
    }

    /// Tries the present candidate: with the worker that is there, the spare, or a
    /// new one.
    fn attempt(&mut self, now: Instant) {
        if let Life::BackingOff { worker: Some(generation), .. } = self.life {
            self.connect(generation, now);
        } else if !self.promote_spare(now) {
            let generation = self.next_generation();
            self.greeting(generation, now + HELLO_TIME);
            self.effects.push(Effect::StartWorker(generation));
        }
    }

    /// The worker to try the next candidate has not said hello yet.
    pub(super) fn greeting(&mut self, generation: u64, deadline: Instant) {
        self.life = Life::Greeting { generation, deadline };
        self.publish();
    }

    /// Sends a worker to the present candidate.
    pub(super) fn connect(&mut self, generation: u64, now: Instant) {
        let sheep = self.candidates.current();
        tracing::debug!(worker = generation, %sheep, "connecting");
        self.life = Life::Connecting { generation, deadline: now + CONNECT_TIME };
        self.beat = Heartbeat::new(EVERY_ACTIVE, now);
        let cache_bytes = self.cache_bytes();
        let left = self.recovery.departed.left_for(sheep, now);
        let route = self.route;
        self.recovery.told = (cache_bytes, route);
        let avoid = self.recovery.avoided.told(now);
        self.effects.push(Effect::Connect { generation, sheep, cache_bytes, left, route, avoid });
        self.shared.known().since = now;
        self.publish();
    }

    /// The worker has a session.
    pub(super) fn connected(&mut self, generation: u64, cluster: ClusterFacts, now: Instant) {
        let sheep = self.candidates.current();
        if !self.is_our_cluster(sheep, cluster.ctime) {
            tracing::warn!(worker = generation, %sheep, "it belongs to another cluster, and is not used");
            self.shared.known().last_error = Some(format!("no sheep: {sheep}: of another cluster"));
            self.wish_failed(sheep, Refusal::OtherCluster, now);
            return self.lose(Cause::SheepLost(LostReason::NotASheep), now);
        }
        if self.cluster.is_some_and(|ours| ours != cluster.ctime) {
            self.candidates.adopt(true);
        }
        if cluster.running && !cluster.has_locks && self.cluster != Some(cluster.ctime) {
            tracing::warn!(%sheep, "the cluster keeps no locks: nothing hinders another client from writing to the same VDI, which destroys it; `dog cluster format -l` makes a cluster with locks");
        }
        self.cluster = Some(cluster.ctime).filter(|ctime| *ctime != 0);
        self.shared.known().epoch = cluster.epoch;
        tracing::info!(worker = generation, %sheep, epoch = cluster.epoch, "connected");
        self.life = Life::Resuming { generation, until: now + RESUME_TIME };
        self.publish();
        self.tell_changed_settings();
        self.ask_again(now);
        for name in std::mem::take(&mut self.attach_at_start) {
            if self.is_starting() {
                self.attach_new(name, vec![Caller::Start], now);
            } else {
                self.attach(name, vec![Caller::TakeOver], now);
            }
        }
        self.start_goes_on(0);
    }

    /// What was changed while there was nobody to tell.
    fn tell_changed_settings(&mut self) {
        let (told, now) = (self.recovery.told, (self.cache_bytes(), self.route));
        if told.0 != now.0 {
            self.send(ToWorker::SetCache { cache_bytes: now.0 });
        }
        if told.1 != now.1 {
            self.send(ToWorker::SetRoute { route: now.1 });
        }
    }

    /// The candidate does not answer; the worker can try the next one.
    pub(super) fn unreached(&mut self, generation: u64, reason: LostReason, now: Instant) {
        let sheep = self.candidates.current();
        let words = reason.words();
        tracing::debug!(worker = generation, %sheep, "no session: {words}");
        self.shared.known().last_error = Some(format!("no sheep: {sheep}: {words}"));
        if reason == LostReason::Refused {
            // Whatever process had requests of ours there is dead.
            let how = QuietReason::Gone;
            self.errands_quiet(sheep);
            self.effects.push(Effect::Quiet { generation, gateway: sheep, how });
        }
        let took = now.saturating_duration_since(self.shared.known().since);
        self.wish_failed(sheep, Refusal::of_sheep(reason, took), now);
        if self.candidates.advance() {
            self.connect(generation, now);
        } else if self.is_starting() {
            self.end_start(Failed::NoSheep { sheep, reason }, now);
        } else {
            self.back_off(Some(generation), now);
        }
    }

    /// All volumes are there, or had their time: data may flow.
    fn serve(&mut self, now: Instant) {
        let Some(generation) = self.life.session() else { return };
        self.life = Life::Serving { generation, since: now };
        self.candidates.served();
        self.recovery.restarts = 0;
        self.recovery.is_said = false;
        self.tell_absent();
        let pace = self.guard.pace(now);
        if !self.awaits_leave() {
            self.effects.push(Effect::ConnectData { generation, pace });
        }
        self.say_recovered(generation, now);
        if self.outage.ends() {
            self.effects.push(Effect::RefuseNew(false));
        }
        self.wish_served();
        self.publish();
    }

    fn say_recovered(&mut self, generation: u64, now: Instant) {
        let sheep = self.candidates.current();
        let Some(Loss { cause, sheep: from, since }) = self.recovery.loss.take() else {
            return tracing::debug!(worker = generation, %sheep, "serving");
        };
        let took_ms = now.saturating_duration_since(since).as_millis();
        let absent = self.absent.len();
        tracing::info!(worker = generation, %sheep, %from, why = cause.words(), took_ms, absent, "serving again");
    }

    /// The worker in use, or its sheep, is gone, or of no use any more.
    pub(super) fn lose(&mut self, cause: Cause, now: Instant) {
        let Some(generation) = self.life.worker() else { return };
        if matches!(self.life, Life::Lost { .. }) {
            // What came first counts.
            return;
        }
        if self.is_starting() {
            return self.end_start(self.start_failure(cause), now);
        }
        self.effects.push(Effect::KillWorker(generation));
        if let Life::BackingOff { until, .. } = self.life {
            self.life = Life::BackingOff { until, worker: None };
            return;
        }
        self.say_lost(cause, generation, now);
        let gateway = self.life.session().map(|_| self.candidates.current());
        let then = self.plan(cause, now);
        self.life = Life::Lost { generation, gateway, then };
        self.publish();
        // Last, so that nobody who sees it takes the lost one for the next one that serves.
        self.shared.known().count(cause.swap());
    }

    fn say_lost(&mut self, cause: Cause, generation: u64, now: Instant) {
        let sheep = cause.node().unwrap_or(self.candidates.current());
        let words = cause.words();
        match (cause, self.life.is_connected()) {
            (Cause::Failover, _) => tracing::info!(worker = generation, %sheep, "left: {words}"),
            (_, true) => tracing::warn!(worker = generation, %sheep, "lost: {words}"),
            (_, false) => {
                tracing::debug!(worker = generation, %sheep, "lost while connecting: {words}")
            }
        }
        if cause != Cause::Failover {
            self.shared.known().last_error = Some(format!("lost: {sheep}: {words}"));
        }
        self.recovery.loss.get_or_insert(Loss { cause, sheep, since: now });
        self.outage.begins(now);
    }

    /// Which candidate comes next, and whether at once.
    fn plan(&mut self, cause: Cause, now: Instant) -> Then {
        let next = cause.next();
        let lasted = self.life.serving_since().map(|since| now.saturating_duration_since(since));
        match lasted {
            Some(time) if time >= CALM_TIME => {
                self.recovery.futile = 0;
                self.candidates.calm();
            }
            _ if next.counts && self.life.is_connected() => self.recovery.futile += 1,
            _ => {}
        }
        if self.swap_begins(now) {
            return Then::Try;
        }
        match (lasted, next.order) {
            (Some(_), Some(order)) => self.candidates.begin(order),
            (_, None) => {}
            (None, Some(_)) if !next.counts && self.recovery.restarts < RESTARTS_MAX => {
                self.recovery.restarts += 1;
            }
            (None, Some(_)) if !self.candidates.advance() => return Then::Pause,
            (None, Some(_)) => {}
        }
        Then::Try
    }

    /// A process is gone, and all that it said was heard.
    pub(super) fn worker_gone(&mut self, generation: u64, exit: Exit, now: Instant) {
        if self.spare.worker() == Some(generation) {
            return self.spare_gone(generation, exit, now);
        }
        if self.life.worker() != Some(generation) {
            return;
        }
        tracing::debug!(worker = generation, ?exit, "the worker's process is gone");
        if !matches!(self.life, Life::Lost { .. }) {
            self.lose(Cause::WorkerDied, now);
        }
        let Life::Lost { gateway, then, .. } = self.life else { return };
        let death = Death::of(exit, std::mem::take(&mut self.recovery.nonsense));
        if death == Death::OwnMaking {
            tracing::error!(worker = generation, ?exit, "the worker broke down by itself");
            self.recovery.futile += 1;
        }
        self.recovery.with_control = !self.waits.is_empty();
        let gateways = self.take_gateways(gateway);
        self.recovery.departed.session_lost(&gateways, now);
        self.hold_errands(&gateways, now);
        self.effects.push(Effect::DataLost { generation, gateways, death });
        self.interrupt(death, now);
        self.life = Life::BackingOff { until: now, worker: None };
        if then == Then::Pause || self.recovery.futile >= FUTILE_MAX {
            self.back_off(None, now);
        } else {
            self.attempt(now);
        }
    }

    /// Nobody can be tried at once.
    pub(super) fn back_off(&mut self, worker: Option<u64>, now: Instant) {
        if self.is_detaching() {
            return self.over();
        }
        if self.candidates.rounds_in_vain() > 0
            && !std::mem::replace(&mut self.recovery.is_said, true)
        {
            let candidates = self.candidates.count();
            tracing::warn!(candidates, "no sheep answers; they are tried again and again");
        }
        let pause = self.candidates.pause();
        self.life = Life::BackingOff { until: now + pause, worker };
        self.publish();
    }

    /// There is nothing to wait for any more before the next candidate.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Life::BackingOff { .. } = self.life {
            self.attempt(now);
        }
    }

    fn start_failure(&self, cause: Cause) -> Failed {
        let sheep = self.candidates.current();
        let reason = match cause {
            Cause::WorkerDied => return Failed::WorkerEnded,
            Cause::SheepLost(reason) | Cause::NodeLost(_, reason) => reason,
            Cause::SheepSilent => LostReason::Silent,
            Cause::WorkerSilent | Cause::Failover => LostReason::Unreachable,
        };
        Failed::NoSheep { sheep, reason }
    }

    /// A start whose worker is of no use is over.
    pub(super) fn end_start(&mut self, failed: Failed, now: Instant) {
        if let Some(generation) = self.life.worker() {
            self.effects.push(Effect::KillWorker(generation));
        }
        self.end(Err(failed), now);
        self.over();
    }

    pub(super) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Shows the present state to everybody.
    pub(super) fn publish(&self) {
        let mut known = self.shared.known();
        known.worker = self.life.shown();
        known.spare = self.spare.shown();
        known.sheep = self.candidates.current();
        known.candidates = self.candidates.count();
        let generation = self.life.worker().unwrap_or(known.generation);
        if generation != known.generation {
            // The next worker begins with an empty cache, and counts afresh.
            (known.generation, known.cache) = (generation, CacheUsage::default());
        }
    }
}
