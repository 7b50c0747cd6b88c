//! The life of nodes that are asked directly: how they are tried, used, and given up.

use super::known::{Known, PAUSE, Stage};
use super::{Act, CONNECTIONS_EACH, Router, Trial, Unfit};
use sheepfs::ipc::FromWorker;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// How long a node may take to connect and answer.
pub(super) const TRIAL_MAX: Duration = Duration::from_secs(2);
/// How many are tried at once.
pub(super) const TRIALS_MAX: usize = 8;
/// Before a node is tried again that only had an older epoch.
pub(super) const PAUSE_BEHIND: Duration = Duration::from_secs(1);
/// After so long without a request its connections are closed.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(45);
/// When there is no room, one that was idle for so long makes room for another.
pub(super) const IDLE_FULL: Duration = Duration::from_secs(5);
/// How often it is looked for idle ones.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(5);

impl Router {
    /// The supervisor has noted what was said under that number.
    pub fn may_use(&mut self, opening: u64, now: Instant) {
        let announced = |known: &&mut Known| known.stage == Stage::Announced(opening);
        if let Some(known) = self.known.values_mut().find(announced) {
            known.stage = Stage::Ready;
            (known.since, known.used, known.rest) = (now, now, None);
        }
    }

    /// What is to be done now.
    pub fn acts(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        self.leave_odd(now);
        if std::mem::take(&mut self.is_urgent) || self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep(now, &mut acts);
            self.start_trials(now, &mut acts);
        }
        acts
    }

    /// Closes what is idle or empty, and gives up on trials that take too long.
    fn sweep(&mut self, now: Instant, acts: &mut Vec<Act>) {
        let mut closed = Vec::new();
        let mut next = now + SWEEP_EVERY;
        for (node, known) in &mut self.known {
            match known.stage {
                Stage::Trying { until, .. } if until <= now => acts.push(Act::GiveUp(*node)),
                Stage::Trying { until, .. } => next = next.min(until),
                Stage::Ready if known.load == 0 && known.used + IDLE_MAX <= now => {
                    closed.push(*node);
                }
                Stage::Retiring if known.load == 0 => closed.push(*node),
                Stage::Ready | Stage::Retiring | Stage::Announced(_) | Stage::Resting(_) => {}
            }
        }
        for node in closed {
            self.close(node, now, acts);
        }
        self.sweep_at = self.known.values().any(Known::is_open).then_some(next);
    }

    fn close(&mut self, node: SocketAddr, now: Instant, acts: &mut Vec<Act>) {
        let Some(known) = self.known.get_mut(&node) else { return };
        let was_retiring = known.stage == Stage::Retiring;
        acts.push(Act::Close(node));
        self.words.push(FromWorker::Closed { node });
        if was_retiring {
            known.stage = Stage::Resting(now + known.rest.take().unwrap_or(PAUSE_BEHIND));
        } else if known.is_proven() || known.pause == PAUSE[0] {
            self.known.remove(&node);
        } else {
            // It may be tried at once, but how it failed before is not forgotten.
            known.stage = Stage::Resting(now);
        }
    }

    fn start_trials(&mut self, now: Instant, acts: &mut Vec<Act>) {
        while let Some(node) = self.wanted.pop_front() {
            if self.trials() >= TRIALS_MAX {
                self.wanted.push_front(node);
                return;
            }
            if self.open() >= self.nodes_max {
                match self.least_needed(now) {
                    Some(idle) => self.close(idle, now, acts),
                    None => return self.wanted.clear(),
                }
            }
            let stage = Stage::Trying { until: now + TRIAL_MAX, unanswered: CONNECTIONS_EACH };
            let pause = PAUSE[0];
            let new =
                Known { stage, load: 0, used: now, since: now, pause, rest: None, said: false };
            self.known.entry(node).and_modify(|known| known.stage = stage).or_insert(new);
            let until = now + TRIAL_MAX;
            self.sweep_at = Some(self.sweep_at.map_or(until, |at| at.min(until)));
            acts.push(Act::Try(node));
        }
    }

    fn trials(&self) -> usize {
        let tried = |known: &&Known| matches!(known.stage, Stage::Trying { .. });
        self.known.values().filter(tried).count()
    }

    fn open(&self) -> usize {
        self.known.values().filter(|known| known.is_open()).count()
    }

    /// The node that was idle for longest, if that was long.
    fn least_needed(&self, now: Instant) -> Option<SocketAddr> {
        let idle = self.known.iter().filter(|(_, known)| {
            known.stage == Stage::Ready && known.load == 0 && known.used + IDLE_FULL <= now
        });
        idle.min_by_key(|(_, known)| known.used).map(|(node, _)| *node)
    }

    /// One connection of a trial has its answer.
    pub fn tried(&mut self, node: SocketAddr, trial: &Trial, now: Instant) -> Result<(), Unfit> {
        let (ctime, home) = (self.ctime, self.epochs.of_home());
        let Some(known) = self.known.get_mut(&node) else { return Ok(()) };
        let Stage::Trying { unanswered, .. } = &mut known.stage else { return Ok(()) };
        let verdict = trial.verdict(ctime, home);
        if matches!(verdict, Ok(()) | Err(Unfit::Ahead)) {
            self.epochs.node_says(node, trial.epoch, now);
        }
        verdict?;
        *unanswered -= 1;
        if *unanswered == 0 {
            self.is_urgent |= !self.wanted.is_empty();
            self.last_opening += 1;
            known.stage = Stage::Announced(self.last_opening);
            self.words.push(FromWorker::Opened { node, opening: self.last_opening });
        }
        Ok(())
    }

    /// Its connections are closed: it is lost, or can't be used. No change is outstanding
    /// there.
    pub fn failed(&mut self, node: SocketAddr, why: Unfit, now: Instant) {
        let Some(known) = self.known.get_mut(&node) else { return };
        let pause = match why {
            Unfit::Behind | Unfit::Ahead => PAUSE_BEHIND,
            Unfit::Lost(_) | Unfit::OtherCluster | Unfit::NotServing => known.next_pause(),
        };
        match (known.stage, why) {
            (Stage::Ready | Stage::Retiring, _) => {
                info!(sheep = %node, "a node that was asked directly is lost: {why}");
            }
            (_, Unfit::Behind | Unfit::Ahead) => debug!(sheep = %node, "not asked directly: {why}"),
            _ if !std::mem::replace(&mut known.said, true) => {
                warn!(
                    sheep = %node,
                    "a node can't be asked directly, its objects are asked of the sheep in use: {why}"
                );
            }
            _ => debug!(sheep = %node, "still not asked directly: {why}"),
        }
        if matches!(known.stage, Stage::Announced(_) | Stage::Ready | Stage::Retiring) {
            self.words.push(FromWorker::Closed { node });
        }
        known.stage = Stage::Resting(now + pause);
        (known.load, known.rest) = (0, None);
        self.is_urgent |= !self.wanted.is_empty();
    }

    /// Nodes that were alone with a newer epoch for too long are not asked for a while.
    fn leave_odd(&mut self, now: Instant) {
        for node in self.epochs.overdue(now) {
            let Some(known) = self.known.get_mut(&node) else { continue };
            warn!(
                sheep = %node,
                "a node mentions an epoch that the sheep in use does not hear of: it is not \
                 asked directly"
            );
            if let Stage::Resting(until) = &mut known.stage {
                *until = now + PAUSE[1];
            } else {
                known.rest = Some(PAUSE[1]);
            }
            self.retire(|other| other == node);
        }
    }

    /// That node refuses what home may not: it rests, longer each time.
    pub fn is_sick(&mut self, node: SocketAddr) {
        self.retire(|other| other == node);
        if let Some(known) = self.known.get_mut(&node)
            && known.stage == Stage::Retiring
            && known.rest.is_none()
        {
            known.rest = Some(known.next_pause());
        }
    }

    pub(super) fn retire(&mut self, which: impl Fn(SocketAddr) -> bool) {
        for (node, known) in &mut self.known {
            if known.stage == Stage::Ready && which(*node) {
                known.stage = Stage::Retiring;
                self.is_urgent = true;
            }
        }
    }
}
