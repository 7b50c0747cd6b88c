//! Volumes and requests outlive their worker: the next one takes the volumes up
//! again, under the same ids, with what was allocated lately and the locks that
//! are ours, and is asked again for all that the last one did not answer. What
//! comes back under a volume's name must be the same VDI, or it is never shown
//! (hazard 10).
//!
//! Asking again is safe: an attach that the last worker had half done finds its
//! own lock (`lock_sent`), a volume that is taken up twice is the same volume, a
//! lock that is released twice is released, and a report is only read.

use super::attempt::Attempt;
use super::poison::Death;
use super::volume::are_plausible;
use super::waits::{Gone, Work};
use super::{Caller, Control, Effect, Refusal};
use crate::volumes::Volume;
use sheepfs::ipc::{Failure, Locking, Tag, ToWorker, VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::time::{Duration, Instant};

/// The pause before a volume is tried again that a new worker could not take up.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// So often in a row a VDI must be missing to count as deleted: a cluster that is
/// just starting knows of none.
const MISSING_MAX: u8 = 2;

impl Control {
    /// A new session: it has none of the volumes, and nobody has asked it anything.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let all = self.volumes.all();
        let kept = |id: &VolumeId| !self.replaced.contains(id);
        self.absent = all.iter().map(|volume| volume.id).filter(kept).map(|id| (id, 0)).collect();
        self.resume(now);
        for tag in self.waits.tags() {
            let is_asked = |work: &Work| matches!(work, Work::Resume { .. });
            if self.waits.get(tag).is_some_and(|wait| !is_asked(&wait.work)) {
                self.ask(tag, now);
            }
        }
    }

    /// Asks the worker for the volumes that it does not have.
    pub(super) fn resume(&mut self, now: Instant) {
        self.retry_at = None;
        let under_way = self.waits.resumes();
        for volume in self.volumes.all() {
            if self.absent.contains_key(&volume.id) && !under_way.contains(&volume.id) {
                let work = Work::Resume { id: volume.id, name: volume.name.clone() };
                let tag = self.waits.add(work, Vec::new(), now);
                self.ask(tag, now);
            }
        }
    }

    /// Tells the worker of something that waits; without a session it goes on
    /// waiting.
    pub(super) fn ask(&mut self, tag: Tag, now: Instant) {
        if !self.life.is_connected() {
            return;
        }
        let Some(wait) = self.waits.get(tag) else { return };
        wait.asked(now);
        let by_successor = wait.callers.contains(&Caller::TakeOver);
        match wait.work.clone() {
            Work::Attach { id, name } => {
                let left = self.locks_left.get(&name);
                let lock_sent = self.lock_sent.get(&id).or(left).copied().unwrap_or_default();
                let locking = match self.locking {
                    // A successor can't say that whoever has the lock is dead.
                    Locking::Steal if by_successor => Locking::Take,
                    wished => wished,
                };
                self.send(ToWorker::Attach { tag, volume: id, name, lock_sent, locking });
            }
            Work::Resume { id, name } => {
                if let Some(volume) = self.volumes.by_id(id) {
                    self.send_resume(tag, Gone { id, name, facts: volume.facts() });
                }
            }
            Work::Detach { gone, is_there: false, .. } => self.send_resume(tag, gone),
            Work::Detach { gone, is_there: true, .. } => {
                self.send(ToWorker::Detach { tag, volume: gone.id });
            }
            Work::Query { query, .. } => self.send(ToWorker::Query { tag, query }),
            // They have their turn.
            Work::Manage(_) => {}
            Work::Search { seeking, .. } => {
                self.send(ToWorker::Search { tag, search: seeking.search });
            }
        }
    }

    fn send_resume(&mut self, tag: Tag, volume: Gone) {
        let Gone { id, name, facts } = volume;
        for allocations in self.allocations.told(id) {
            self.send(ToWorker::Remember { volume: id, allocations });
        }
        let lock_sent = self.lock_sent.get(&id).copied().unwrap_or_default();
        let repairing = self.repairing.get(&id).copied();
        self.send(ToWorker::Resume { tag, volume: id, name, facts, lock_sent, repairing });
    }

    /// The worker is gone: what it did not answer waits for the next one.
    pub(super) fn interrupt(&mut self, death: Death, now: Instant) {
        self.retry_at = None;
        let broke_down = death == Death::OwnMaking;
        for tag in self.waits.tags() {
            let Some(wait) = self.waits.get(tag) else { continue };
            let goes_on = wait.interrupted(broke_down, now);
            let is_wanted = match &wait.work {
                // The next session asks for them anew.
                Work::Resume { .. } => false,
                // Nobody waits, and no lock can have been taken: nothing to undo.
                Work::Attach { id, .. } => {
                    !wait.callers.is_empty() || self.lock_sent.contains_key(id)
                }
                Work::Detach { .. } | Work::Query { .. } | Work::Search { .. } => true,
                Work::Manage(managed) => managed.begun.is_some() || !wait.callers.is_empty(),
            };
            if !is_wanted {
                self.waits.finish(tag);
            } else if !goes_on {
                self.give_up_for_good(tag, now);
            }
        }
    }

    fn give_up_for_good(&mut self, tag: Tag, now: Instant) {
        let Some(wait) = self.waits.finish(tag) else { return };
        let what = Attempt::from(&wait.work);
        match wait.work {
            Work::Query { query, .. } => {
                self.fail_query(query, Refusal::Interrupted, wait.callers, now);
            }
            Work::Detach { gone, then, .. } => {
                self.allocations.forget(gone.id);
                self.lock_sent.remove(&gone.id);
                self.leave_lock(&gone, &Refusal::Interrupted);
                self.refuse(what, Refusal::Interrupted, wait.callers, now);
                self.refuse(Attempt::attach(&gone.name), Refusal::Interrupted, then, now);
            }
            Work::Attach { id, .. } => {
                self.lock_sent.remove(&id);
                self.refuse(what, Refusal::Interrupted, wait.callers, now);
            }
            Work::Manage(managed) => self.managed_broken(&managed, wait.callers, now),
            Work::Search { .. } => self.refuse(what, Refusal::Interrupted, wait.callers, now),
            Work::Resume { .. } => {}
        }
    }

    /// A new worker has the volume; whether it is the same VDI still must be seen
    /// (hazard 10).
    pub(super) fn came_back(
        &mut self,
        id: VolumeId,
        name: VolumeName,
        facts: VolumeFacts,
        now: Instant,
    ) {
        let Some(volume) = self.volumes.by_id(id) else { return };
        // A lock request of an earlier worker still counts: this one may only now
        // come to the vid whose lock that was ([`Control::moved`]).
        self.absent.remove(&id);
        if are_plausible(&facts) && is_same_vdi(&volume.facts(), &facts) {
            // The size that was announced stays, as on a block device.
            volume.set_facts(VolumeFacts { size: volume.size(), ..facts });
            tracing::info!(volume = %name, "attached again");
            self.effects.push(Effect::VolumeAbsent(id, false));
        } else {
            self.is_replaced(&volume);
            self.detach_now(Gone { id, name, facts }, Vec::new(), now);
        }
    }

    /// The VDI under a volume is another one, or gone: its requests fail until it
    /// is detached.
    fn is_replaced(&mut self, volume: &Volume) {
        self.absent.remove(&volume.id);
        self.replaced.insert(volume.id);
        self.allocations.forget(volume.id);
        let errno = Some(Failure::Replaced.errno() as i32);
        self.note_errno(Attempt::attach_again(&volume.name), &Failure::Replaced, errno);
        self.effects.push(Effect::VolumeReplaced(volume.id));
    }

    pub(super) fn still_absent(
        &mut self,
        id: VolumeId,
        outcome: Result<(), Failure>,
        now: Instant,
    ) {
        let Some(volume) = self.volumes.by_id(id) else { return };
        let why = outcome.err().unwrap_or(Failure::BadAnswer);
        let is_missing = matches!(why, Failure::NoSuchVdi | Failure::NoSuchSnapshot);
        let missing = self.absent.entry(id).or_default();
        *missing = if is_missing { missing.saturating_add(1) } else { 0 };
        if why == Failure::Replaced || *missing >= MISSING_MAX {
            return self.is_replaced(&volume);
        }
        let what = Attempt::attach_again(&volume.name);
        let words = format!("{}: {why}", what.what);
        if self.shared.known().last_error.as_deref() != Some(&words) {
            self.note_errno(what, &why, Some(why.errno() as i32));
        }
        self.retry_at = Some(now + RETRY_PAUSE);
    }

    /// Before data flows: requests of volumes that the worker does not have must
    /// wait, since it would fail them.
    pub(super) fn tell_absent(&mut self) {
        for volume in self.volumes.all() {
            let absent = self.absent.contains_key(&volume.id);
            self.effects.push(Effect::VolumeAbsent(volume.id, absent));
        }
    }

    /// Somebody made a snapshot of a volume's VDI, and the worker followed.
    pub(super) fn moved(&mut self, id: VolumeId, facts: VolumeFacts) {
        let Some(volume) = self.volumes.by_id(id) else { return };
        let before = volume.facts();
        if are_plausible(&facts) && facts.size == before.size && facts.snapshot == before.snapshot {
            tracing::info!(volume = %volume.name, vid = format_args!("{:x}", facts.vid), from = format_args!("{:x}", before.vid), "followed the VDI to its new vid");
            self.lock_sent.remove(&id);
            self.repairing.remove(&id);
            volume.set_facts(facts);
            self.shared.catalog().forget();
        } else {
            self.note(Attempt::follow(&volume.name), &Refusal::BadFacts);
        }
    }
}

/// Whether a VDI that came back under its name is the one that it was. A vid that
/// stays has one time of creation; each snapshot moves the name to a new vid and
/// counts one up, and the worker has made sure that it descends from the old one.
/// It may have grown meanwhile.
fn is_same_vdi(before: &VolumeFacts, after: &VolumeFacts) -> bool {
    let same_shape = before.size <= after.size && before.snapshot == after.snapshot;
    let same_vid = before.vid == after.vid && before.create_time == after.create_time;
    let next_vid = before.vid != after.vid && !after.snapshot && after.snap_id > before.snap_id;
    same_shape && (same_vid || next_vid)
}
