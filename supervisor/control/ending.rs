//! The end of a mount, by a signal, by `umount`, or because it could not begin.
//!
//! ```text
//! Draining: unmount, wait for data in flight ──> Detaching: release all locks ──> over
//! ```
//!
//! Each stage has a deadline; a further signal cuts the present one short. A worker
//! that is lost meanwhile is replaced as ever, so that what is drained reaches the
//! cluster, and fences are waited for; but what no sheep serves when the time is up fails, so that whoever
//! waits for it can end (hazard 25). What could not be released is said in the log.

use super::attempt::Attempt;
use super::waits::Caller;
use super::{Answer, Control, Effect, Phase, Refusal};
use crate::control::life::Life;
use crate::exit::Failed;
use std::time::{Duration, Instant};

/// How long unmounting, and data in flight, may take.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// How long releasing the locks may take.
const DETACH_TIME: Duration = Duration::from_secs(10);
/// How long what waited for a fence may take when the fence is gone.
const FENCE_MARGIN: Duration = Duration::from_secs(2);

/// The end, on its way.
#[derive(Debug)]
pub struct Ending {
    stage: Stage,
    outcome: Result<(), Failed>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Draining { deadline: Instant },
    Detaching { deadline: Instant },
}

impl Control {
    /// Whether [`super::Input::Drained`] is waited for.
    pub fn awaits_drained(&self) -> bool {
        matches!(self.stage(), Some(Stage::Draining { .. }))
    }

    /// Begins the end. Nothing new is taken on from now on.
    pub(super) fn end(&mut self, outcome: Result<(), Failed>, now: Instant) {
        if self.is_ending() {
            return;
        }
        self.end_wishes(now);
        if self.awaits_leave() {
            self.effects.push(Effect::ReleaseData);
        }
        let was_mounted = matches!(self.phase, Phase::Running | Phase::Leaving(_));
        let stage = Stage::Draining { deadline: now + DRAIN_TIME };
        self.phase = Phase::Ending(Ending { stage, outcome });
        for (what, caller) in self.waits.take_callers() {
            self.turn_away(what, caller);
        }
        if was_mounted {
            self.effects.push(Effect::Unmount);
        } else {
            self.detach_all(now);
        }
    }

    fn turn_away(&mut self, what: Attempt, caller: Caller) {
        let Attempt { what, volume } = what;
        let (why, volume) = (Refusal::Stopping, volume.map(tracing::field::display));
        tracing::debug!(volume, errno = why.errno() as i32, "{what}: {why}");
        self.answer(caller, Answer::Refused(why.errno()));
    }

    /// A signal: begin, or go on faster.
    pub(super) fn stop(&mut self, now: Instant) {
        match self.stage() {
            None if self.is_starting() => self.end(Err(Failed::Interrupted), now),
            None => self.end(Ok(()), now),
            Some(Stage::Draining { .. }) => {
                tracing::warn!("not waiting any longer for data in flight");
                self.fail_rest(now);
            }
            Some(Stage::Detaching { .. }) => {
                tracing::warn!("not waiting any longer for locks to be released");
                self.over();
            }
        }
    }

    /// Somebody unmounted. If that was us, [`Control::drained`] follows.
    pub(super) fn unmounted(&mut self, now: Instant) {
        self.end(Ok(()), now);
    }

    pub(super) fn drained(&mut self, now: Instant) {
        if self.awaits_drained() {
            self.detach_all(now);
        }
    }

    /// What a sheep serves, or will when a fence ends, is waited for until then.
    pub(super) fn ending_deadline(&self) -> Option<Instant> {
        let (Stage::Draining { deadline } | Stage::Detaching { deadline }) = self.stage()?;
        let fenced_until = self.fenced_until.filter(|_| self.life.is_connected());
        Some(fenced_until.map_or(deadline, |fenced| deadline.max(fenced + FENCE_MARGIN)))
    }

    pub(super) fn tick_ending(&mut self, now: Instant) {
        let is_late = self.ending_deadline().is_some_and(|deadline| deadline <= now);
        match self.stage() {
            Some(Stage::Draining { .. }) if is_late => {
                tracing::warn!("the mount is in use, or data is in flight, still; going on");
                self.fail_rest(now);
            }
            Some(Stage::Detaching { .. }) if is_late || !self.waits.any_volume() => self.over(),
            _ => {}
        }
    }

    /// The data path says until when something may wait for a fence.
    pub fn set_fenced_until(&mut self, fenced_until: Option<Instant>) {
        self.fenced_until = fenced_until;
    }

    fn stage(&self) -> Option<Stage> {
        match &self.phase {
            Phase::Ending(ending) => Some(ending.stage),
            Phase::Starting { .. } | Phase::Mounting | Phase::Running | Phase::Leaving(_) => None,
        }
    }

    /// What is in flight still has had its time.
    fn fail_rest(&mut self, now: Instant) {
        self.effects.push(Effect::FailData);
        self.detach_all(now);
    }

    /// Whether only the locks are left to be released.
    pub(super) fn is_detaching(&self) -> bool {
        matches!(self.stage(), Some(Stage::Detaching { .. }))
    }

    fn detach_all(&mut self, now: Instant) {
        if let Phase::Ending(ending) = &mut self.phase {
            ending.stage = Stage::Detaching { deadline: now + DETACH_TIME };
        }
        for volume in self.volumes.all() {
            self.volumes.remove(volume.ino);
            self.detach_volume(&volume, Vec::new(), now);
        }
        // No sheep answers, so nobody can release anything.
        let in_vain = matches!(self.life, Life::BackingOff { .. });
        if in_vain || !self.waits.any_volume() {
            self.over();
        }
    }

    /// There is nothing more to wait for.
    pub(super) fn over(&mut self) {
        let Phase::Ending(ending) = &mut self.phase else { return };
        if self.life == Life::Stopped {
            return;
        }
        let outcome = std::mem::replace(&mut ending.outcome, Ok(()));
        self.life = Life::Stopped;
        self.publish();
        self.leave_errands();
        let locked = self.waits.detaches().filter(|gone| gone.facts.locked);
        for name in locked.map(|gone| &gone.name).chain(self.locks_left.keys()) {
            tracing::warn!(volume = %name, "its lock is left; `dog vdi lock unlock` releases it");
        }
        self.effects.push(Effect::End(outcome));
    }
}
