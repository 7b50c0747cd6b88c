//! What workers say, and what is done about it. Everything is an allegation: what
//! can't be is logged and dropped.

use super::cause::Cause;
use super::heartbeat::Beat;
use super::life::{Life, Spare};
use super::{Control, Effect};
use crate::exit::Failed;
use crate::spawn::SpawnError;
use sheepfs::ipc::message::BUILD;
use sheepfs::ipc::{FromWorker, ToWorker};
use std::time::{Duration, Instant};

impl Control {
    pub(super) fn worker_said(&mut self, generation: u64, message: FromWorker, now: Instant) {
        if self.spare.worker() == Some(generation) {
            return self.spare_said(generation, message, now);
        }
        if self.life.worker() != Some(generation) {
            return;
        }
        self.beat.heard(now);
        match (message, self.life) {
            (FromWorker::Hello { build }, Life::Greeting { .. }) => {
                self.greeted(generation, build, now);
            }
            (FromWorker::Connected { cluster }, Life::Connecting { .. }) => {
                self.connected(generation, cluster, now);
            }
            (FromWorker::Unreached { reason }, Life::Connecting { .. }) => {
                self.unreached(generation, reason, now);
            }
            (FromWorker::Lost { reason, node }, _) => self.gateway_lost(node, reason, now),
            (FromWorker::Quiet { gateway, how }, _) => {
                self.errands_quiet(gateway);
                self.effects.push(Effect::Quiet { generation, gateway, how });
            }
            (FromWorker::Pong { .. }, _) => {}
            // A lost worker's last words may come after its end is known.
            (
                message,
                Life::Resuming { .. }
                | Life::Serving { .. }
                | Life::Draining { .. }
                | Life::Lost { gateway: Some(_), .. },
            ) => self.session_said(message, now),
            // It was told an address in vain.
            (_, Life::Lost { gateway: None, .. }) => {}
            (message, life) => {
                tracing::error!(
                    worker = generation,
                    ?message,
                    ?life,
                    "the worker said something out of turn"
                );
            }
        }
    }

    /// What only a worker with a session says. Its sheep is not the session's only gateway:
    /// what it says of other nodes is for [`super::routing`]. Locks go through its sheep.
    fn session_said(&mut self, message: FromWorker, now: Instant) {
        match message {
            FromWorker::Done { tag, outcome } => self.done(tag, outcome, now),
            FromWorker::Attached { tag, facts } => self.attached(tag, facts, now),
            FromWorker::Moved { volume, facts } => self.moved(volume, facts),
            FromWorker::ReportChunk { tag, last, bytes } => {
                self.report_chunk(tag, last, &bytes, now);
            }
            FromWorker::Members { epoch, nodes } => {
                tracing::info!(epoch, nodes = nodes.len(), "the cluster's members are known");
                self.recovery.avoided.members(&nodes);
                self.candidates.learn(nodes);
                self.shared.known().epoch = epoch;
                self.publish();
            }
            FromWorker::HeaderSeen { volume, age_ms } => {
                let age = Duration::from_millis(u64::from(age_ms));
                if let Some(seen) = now.checked_sub(age) {
                    self.allocations.header_seen(volume, seen);
                }
            }
            FromWorker::LockSent { volume } => {
                let sheep = self.session_sheep();
                for known in [&mut self.lock_sent, &mut self.locked_through] {
                    let gateways = known.entry(volume).or_default();
                    *gateways = gateways.with(sheep);
                }
                self.send(ToWorker::Noted);
            }
            // The link passes them to the data path.
            FromWorker::Creating { .. }
            | FromWorker::Allocated { .. }
            | FromWorker::Discarding { .. }
            | FromWorker::Growing { .. }
            | FromWorker::Sought { .. } => {}
            FromWorker::Stored { volume, number, usage } => {
                if let Some(volume) = self.volumes.by_id(volume) {
                    let worker = self.life.worker().unwrap_or_default();
                    volume.note_stored(worker, number, usage);
                }
            }
            FromWorker::Repairing { volume, block } => {
                self.repairing.insert(volume, block);
                self.send(ToWorker::Noted);
            }
            FromWorker::CacheUse { usage } => self.shared.known().cache = usage,
            FromWorker::Opened { node, opening } => self.opened(node, opening),
            FromWorker::Closed { node } => drop(self.direct.remove(&node)),
            FromWorker::Routed { routed } => self.shared.known().routed = routed,
            FromWorker::Begun { tag, mark } => self.begun(tag, mark),
            FromWorker::Grown { volume, size } => self.grown(volume, size),
            message @ (FromWorker::Hello { .. }
            | FromWorker::Checked { .. }
            | FromWorker::Connected { .. }
            | FromWorker::Unreached { .. }
            | FromWorker::Lost { .. }
            | FromWorker::Quiet { .. }
            | FromWorker::Pong { .. }) => {
                tracing::error!(
                    worker = self.life.worker(),
                    ?message,
                    "the worker said something out of turn"
                );
            }
        }
    }

    fn greeted(&mut self, generation: u64, build: String, now: Instant) {
        if build == BUILD {
            return self.connect(generation, now);
        }
        let failed = Failed::OtherBuild(build);
        if self.is_starting() {
            return self.end_start(failed, now);
        }
        self.note("start a worker", &failed);
        self.lose(Cause::WorkerDied, now);
    }

    /// The sheep of the session that is, or was last.
    fn session_sheep(&self) -> std::net::SocketAddr {
        match self.life {
            Life::Lost { gateway: Some(gateway), .. } => gateway,
            _ => self.candidates.current(),
        }
    }

    /// A worker could not be started.
    pub(super) fn not_started(&mut self, generation: u64, cause: SpawnError, now: Instant) {
        if self.spare.worker() == Some(generation) {
            tracing::warn!(worker = generation, errno = cause.errno(), "no spare worker: {cause}");
            return self.spare_is_none(now);
        }
        if self.life.worker() != Some(generation) {
            return;
        }
        if self.is_starting() {
            self.end(Err(Failed::Worker(cause)), now);
            return self.over();
        }
        self.note_errno("start a worker", &cause, cause.errno());
        self.back_off(None, now);
    }

    /// The channel to a worker ended, or it said nonsense.
    pub(super) fn worker_broken(&mut self, generation: u64, nonsense: bool, now: Instant) {
        if self.spare.worker() == Some(generation) {
            if !matches!(self.spare, Spare::Ending { .. }) {
                self.end_spare(generation, "its channel broke");
            }
        } else if self.life.worker() == Some(generation) {
            self.recovery.nonsense |= nonsense;
            self.lose(Cause::WorkerDied, now);
        }
    }

    /// Asks the worker in use whether it lives, when it is time.
    pub(super) fn tick_beat(&mut self, now: Instant) {
        let Some(generation) = self.life.worker().filter(|_| self.life.must_answer()) else {
            return;
        };
        match self.beat.tick(now) {
            Beat::Rest => {}
            Beat::Ask(number) => {
                self.effects.push(Effect::Send(generation, ToWorker::Ping { number }));
            }
            Beat::Silent => self.lose(Cause::WorkerSilent, now),
        }
    }

    /// When the worker in use is asked, or is silent.
    pub(super) fn beat_deadline(&self) -> Option<Instant> {
        self.life.must_answer().then(|| self.beat.deadline())
    }
}
