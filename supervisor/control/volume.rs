//! Volumes come and go: attach and detach.
//!
//! Every control write may be delivered twice (hazard 20), so both are
//! idempotent: who wants what is there already succeeds, who wants what is under
//! way joins it. An attach whose callers have all given up goes on, and is undone
//! when its answer comes; until then somebody may join it again. A detach whose
//! callers have given up goes on too: the volume is out of the tree, and its lock
//! is released as soon as there is a worker that can.
//!
//! What the worker says of a VDI is checked before anything is built on it.

use super::attempt::Attempt;
use super::waits::{Caller, Gone, Wait, Work};
use super::{Answer, Control, Effect, Refusal};
use crate::volumes::Volume;
use sheepfs::ipc::{Failure, Tag, VolumeFacts, VolumeId};
use sheepfs::wire::name::{NAME_FIELD_LEN, VolumeName};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

impl Control {
    /// Somebody wants that volume.
    pub(super) fn attach(&mut self, name: VolumeName, callers: Vec<Caller>, now: Instant) {
        let what = Attempt::attach(&name);
        let connected = self.life.is_connected();
        if let Some(volume) = self.volumes.by_name(name.as_str()) {
            if self.replaced.contains(&volume.id) {
                return self.refuse(what, Failure::Replaced.into(), callers, now);
            }
            self.answer_all(callers);
        } else if let Some(wait) = self.waits.attach_of(&name) {
            wait.callers.extend(callers);
            wait.extend(connected, now);
        } else if let Some(wait) = self.waits.detach_of(&name) {
            wait.extend(connected, now);
            if let Work::Detach { then, .. } = &mut wait.work {
                then.extend(callers);
            }
        } else if !self.waits.has_room() {
            self.refuse(what, Refusal::TooMany, callers, now);
        } else if self.is_going(name.as_str()) {
            self.refuse(what, Refusal::Going, callers, now);
        } else {
            self.attach_new(name, callers, now);
        }
    }

    /// Asks the worker for a new volume.
    pub(super) fn attach_new(&mut self, name: VolumeName, callers: Vec<Caller>, now: Instant) {
        self.begun_before.remove(&name);
        self.last_volume += 1;
        let id = VolumeId(self.last_volume);
        self.effects.push(Effect::VolumeAttached(id, name.clone()));
        let work = Work::Attach { id, name };
        let tag = self.waits.add(work, callers, now);
        self.ask(tag, now);
    }

    /// Somebody wants that volume gone.
    pub(super) fn detach(&mut self, name: VolumeName, caller: Caller, now: Instant) {
        match self.removable(&name) {
            Err(Refusal::NotAttached) if self.waits.detach_of(&name).is_some() => {
                self.join_detach(&name, caller, now);
            }
            Err(Refusal::NotAttached) if self.begun_before.remove(&name) => {
                self.answer(caller, Answer::Done);
            }
            Err(Refusal::Open) => self.wait_for_close(name, caller, now),
            Err(why) => self.refuse(Attempt::detach(&name), why, vec![caller], now),
            Ok(volume) => self.detach_volume(&volume, vec![caller], now),
        }
    }

    fn join_detach(&mut self, name: &VolumeName, caller: Caller, now: Instant) {
        let connected = self.life.is_connected();
        if let Some(wait) = self.waits.detach_of(name) {
            wait.callers.push(caller);
            wait.extend(connected, now);
        }
    }

    /// Takes a volume out of the tree, unless it must stay there.
    pub(super) fn removable(&mut self, name: &VolumeName) -> Result<Arc<Volume>, Refusal> {
        if self.waits.attach_of(name).is_some_and(|wait| !wait.callers.is_empty()) {
            return Err(Refusal::Attaching);
        }
        let volume = self.volumes.by_name(name.as_str()).ok_or(Refusal::NotAttached)?;
        if volume.is_open() {
            return Err(Refusal::Open);
        }
        self.volumes.remove(volume.ino);
        // Somebody may have found it just before it was gone.
        if volume.is_open() && self.volumes.add(Arc::clone(&volume)) {
            return Err(Refusal::Open);
        }
        Ok(volume)
    }

    /// Makes an end of a volume that is in the tree no more.
    pub(super) fn detach_volume(&mut self, volume: &Volume, callers: Vec<Caller>, now: Instant) {
        let id = volume.id;
        let is_absent = self.absent.remove(&id).is_some();
        if self.replaced.remove(&id) {
            // The lock of a VDI that is gone went with it.
            return self.answer_all(callers);
        }
        if is_absent {
            self.effects.push(Effect::VolumeAbsent(id, false));
        }
        let gone = Gone { id, name: volume.name.clone(), facts: volume.facts() };
        let is_there = self.life.is_connected() && !is_absent;
        let work = Work::Detach { gone, is_there, then: Vec::new() };
        // One that is just being taken up is released when that is done.
        if let Some(wait) = self.waits.resume_of(id) {
            wait.work = work;
            wait.callers = callers;
            return wait.extend(true, now);
        }
        let tag = self.waits.add(work, callers, now);
        self.ask(tag, now);
    }

    /// Makes an end of a volume that the worker has.
    pub(super) fn detach_now(&mut self, gone: Gone, callers: Vec<Caller>, now: Instant) {
        let work = Work::Detach { gone, is_there: true, then: Vec::new() };
        let tag = self.waits.add(work, callers, now);
        self.ask(tag, now);
    }

    /// Nobody could release the lock of a volume. It is ours still, and the next
    /// attach takes it over.
    pub(super) fn leave_lock(&mut self, gone: &Gone, why: &dyn Display) {
        if gone.facts.locked {
            let through = self.locked_through.remove(&gone.id);
            let through = through.unwrap_or_default();
            self.locks_left.insert(gone.name.clone(), through);
            let why = format!(
                "done, but its lock may be left: {why}; it is taken over when the volume is attached again"
            );
            self.note(Attempt::detach(&gone.name), &why);
        }
    }

    /// The worker describes a volume.
    pub(super) fn attached(&mut self, tag: Tag, facts: VolumeFacts, now: Instant) {
        let Some(mut wait) = self.waits.finish(tag) else {
            return tracing::debug!(tag = tag.0, "the worker attached what nobody waits for");
        };
        match wait.work {
            Work::Attach { id, name } => {
                self.new_volume(Gone { id, name, facts }, wait.callers, now)
            }
            Work::Resume { id, name } => self.came_back(id, name, facts, now),
            Work::Detach { gone, is_there: false, then } => {
                wait.work = Work::Detach { gone, is_there: true, then };
                let tag = self.waits.put_back(wait);
                self.ask(tag, now);
            }
            work => self.refuse(&work, Refusal::BadFacts, wait.callers, now),
        }
    }

    fn new_volume(&mut self, new: Gone, callers: Vec<Caller>, now: Instant) {
        let Gone { id, name, facts } = &new;
        let what = Attempt::attach(name);
        if facts.locked {
            self.locks_left.remove(name);
        }
        self.lock_sent.remove(id);
        let plausible = are_plausible(facts);
        let volume = Arc::new(Volume::new(*id, name.clone(), facts.clone()));
        if callers.is_empty() || !plausible || !self.volumes.add(volume) {
            let why = if plausible { Refusal::OtherName } else { Refusal::BadFacts };
            self.detach_now(new, Vec::new(), now);
            return self.refuse(what, why, callers, now);
        }
        tracing::info!(volume = %name, vid = format_args!("{:x}", facts.vid), "attached");
        let at_start = callers.contains(&Caller::Start);
        self.answer_all(callers);
        self.start_goes_on(usize::from(at_start));
    }

    /// The worker could not do something, or has done it.
    pub(super) fn done(&mut self, tag: Tag, outcome: Result<(), Failure>, now: Instant) {
        let Some(Wait { work, callers, .. }) = self.waits.finish(tag) else {
            return tracing::debug!(tag = tag.0, "an answer that nobody waits for any more");
        };
        match (work, outcome) {
            (Work::Resume { id, .. }, outcome) => self.still_absent(id, outcome, now),
            (Work::Detach { gone, then, is_there }, outcome) => {
                self.detached(&gone, is_there, outcome);
                self.answer_all(callers);
                if !then.is_empty() {
                    self.attach(gone.name, then, now);
                }
            }
            (Work::Query { query, .. }, outcome) => {
                let why = outcome.map_or_else(Refusal::Failed, |()| Refusal::BadReport);
                self.fail_query(query, why, callers, now);
            }
            (Work::Manage(managed), outcome) => {
                self.managed_done(&managed, outcome.map_err(Refusal::Failed), callers, now);
            }
            (work @ Work::Search { .. }, outcome) => {
                let why = outcome.map_or_else(Refusal::Failed, |()| Refusal::BadReport);
                self.refuse(&work, why, callers, now);
            }
            (Work::Attach { id, name }, outcome) => {
                self.lock_sent.remove(&id);
                let why = outcome.map_or_else(Refusal::Failed, |()| Refusal::BadFacts);
                self.refuse(Attempt::attach(&name), why, callers, now);
            }
        }
    }

    fn detached(&mut self, gone: &Gone, is_there: bool, outcome: Result<(), Failure>) {
        self.allocations.forget(gone.id);
        self.lock_sent.remove(&gone.id);
        if outcome.is_ok() && is_there {
            self.locked_through.remove(&gone.id);
        }
        match outcome {
            Ok(()) if is_there => tracing::info!(volume = %gone.name, "detached"),
            // The lock of a VDI that is gone went with it.
            Err(Failure::NoSuchVdi | Failure::NoSuchSnapshot | Failure::Replaced) => {
                tracing::info!(volume = %gone.name, "detached; its VDI is gone");
            }
            Ok(()) => self.leave_lock(gone, &Failure::BadAnswer),
            Err(failure) => self.leave_lock(gone, &failure),
        }
    }

    /// The time of a request is up.
    pub(super) fn give_up(&mut self, tag: Tag, now: Instant) {
        let connected = self.life.is_connected();
        let mut why = if connected { Refusal::TimedOut } else { Refusal::NotConnected };
        let Some(wait) = self.waits.get(tag) else { return };
        wait.deadline = None;
        let what = Attempt::from(&wait.work);
        let mut callers = std::mem::take(&mut wait.callers);
        match &mut wait.work {
            Work::Query { query, .. } => {
                let query = *query;
                self.waits.finish(tag);
                return self.fail_query(query, why, callers, now);
            }
            Work::Search { .. } => drop(self.waits.finish(tag)),
            Work::Detach { then, .. } => callers.append(then),
            Work::Attach { id, .. } => {
                // No worker was told of it, so there is nothing to undo.
                let undo = connected || self.lock_sent.contains_key(id);
                if !undo {
                    self.waits.finish(tag);
                }
            }
            Work::Manage(managed) if managed.begun.is_some() => why = Refusal::GoesOn,
            Work::Manage(_) => drop(self.waits.finish(tag)),
            Work::Resume { .. } => {}
        }
        self.refuse(what, why, callers, now);
    }

    pub(super) fn answer_all(&mut self, callers: Vec<Caller>) {
        for caller in callers {
            self.answer(caller, Answer::Done);
        }
    }
}

/// Whether such a VDI can be (protocol 3, 4.4): what lies outside would break
/// the kernel's arithmetic or ours.
pub(super) fn are_plausible(facts: &VolumeFacts) -> bool {
    let vid = 1..1 << 24;
    let shift = 9..=31;
    vid.contains(&facts.vid)
        && shift.contains(&facts.block_size_shift)
        && i64::try_from(facts.size).is_ok()
        && [&facts.labels.name, &facts.labels.tag].iter().all(|label| label.len() <= NAME_FIELD_LEN)
}
