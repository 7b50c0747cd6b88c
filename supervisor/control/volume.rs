//! Volumes come and go: attach and detach.
//!
//! Every control write may be delivered twice (hazard 20), so both are
//! idempotent: who wants what is there already succeeds, who wants what is under
//! way joins it. An attach whose callers have all given up goes on, and is undone
//! when its answer comes; until then somebody may join it again.
//!
//! What the worker says of a VDI is checked before anything is built on it.

use super::waits::{Caller, Wait, Work};
use super::{Answer, Control, Refusal};
use crate::volumes::Volume;
use sheepfs::ipc::{Failure, Tag, ToWorker, VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an attach or detach may take: lookups wait behind any deletion in
/// the cluster (hazard 50).
pub(super) const VOLUME_TIME: Duration = Duration::from_secs(30);

impl Control {
    /// Somebody wants that volume.
    pub(super) fn attach(&mut self, name: VolumeName, callers: Vec<Caller>, now: Instant) {
        let what = format!("attach {name}");
        if let Some(volume) = self.volumes.by_name(name.as_str()) {
            if self.replaced.contains(&volume.id) {
                return self.refuse(&what, Failure::Replaced.into(), callers, now);
            }
            self.answer_all(callers);
        } else if let Some(wait) = self.waits.attach_of(&name) {
            wait.callers.extend(callers);
            wait.deadline = Some(now + VOLUME_TIME);
        } else if let Some(Wait { work: Work::Detach { then, .. }, deadline, .. }) =
            self.waits.detach_of(&name)
        {
            then.extend(callers);
            *deadline = Some(now + VOLUME_TIME);
        } else if !self.session.is_connected() {
            self.refuse(&what, Refusal::NotConnected, callers, now);
        } else if !self.waits.has_room() {
            self.refuse(&what, Refusal::TooMany, callers, now);
        } else {
            self.attach_now(name, callers, now);
        }
    }

    /// Asks the worker for a new volume.
    pub(super) fn attach_now(&mut self, name: VolumeName, callers: Vec<Caller>, now: Instant) {
        self.last_volume += 1;
        let id = VolumeId(self.last_volume);
        let held_lock = self.locks_left.get(&name).copied().unwrap_or(0);
        let work = Work::Attach { id, name: name.clone() };
        let tag = self.waits.add(work, callers, now + VOLUME_TIME);
        self.send(ToWorker::Attach { tag, volume: id, name, held_lock, continues: false });
    }

    /// Somebody wants that volume gone.
    pub(super) fn detach(&mut self, name: VolumeName, caller: Caller, now: Instant) {
        match self.removable(&name) {
            Err(Refusal::NotAttached) if self.waits.detach_of(&name).is_some() => {
                self.join_detach(&name, caller, now);
            }
            Err(Refusal::Open) => self.wait_for_close(name, caller, now),
            Err(why) => self.refuse(&format!("detach {name}"), why, vec![caller], now),
            Ok(volume) => self.detach_volume(&volume, vec![caller], now),
        }
    }

    fn join_detach(&mut self, name: &VolumeName, caller: Caller, now: Instant) {
        if let Some(wait) = self.waits.detach_of(name) {
            wait.callers.push(caller);
            wait.deadline = Some(now + VOLUME_TIME);
        }
    }

    /// Takes a volume out of the tree, unless it must stay there.
    pub(super) fn removable(&mut self, name: &VolumeName) -> Result<Arc<Volume>, Refusal> {
        if self.waits.attach_of(name).is_some_and(|wait| !wait.callers.is_empty()) {
            return Err(Refusal::Attaching);
        }
        let volume = self.volumes.by_name(name.as_str()).ok_or(Refusal::NotAttached)?;
        if self.waits.reattaches(volume.id) {
            return Err(Refusal::Attaching);
        }
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
        let absent = self.absent.remove(&volume.id);
        // The lock of a VDI that is gone went with it.
        let replaced = self.replaced.remove(&volume.id);
        if self.session.is_connected() && !absent {
            return self.detach_now(volume.id, volume.name.clone(), callers, now);
        }
        if !replaced {
            self.leave_lock(volume);
        }
        self.answer_all(callers);
    }

    pub(super) fn detach_now(
        &mut self,
        id: VolumeId,
        name: VolumeName,
        callers: Vec<Caller>,
        now: Instant,
    ) {
        let work = Work::Detach { name, then: Vec::new() };
        let tag = self.waits.add(work, callers, now + VOLUME_TIME);
        self.send(ToWorker::Detach { tag, volume: id });
    }

    /// The worker does not have the volume, so nobody can release its lock now.
    /// It is ours still, and the next attach takes it over.
    fn leave_lock(&mut self, volume: &Volume) {
        let facts = volume.facts();
        if !facts.snapshot {
            self.locks_left.insert(volume.name.clone(), facts.vid);
            let why = "done, but its lock could not be released; it is taken over when the volume is attached again";
            self.note(&format!("detach {}", volume.name), &why);
        }
    }

    /// The worker describes a volume.
    pub(super) fn attached(&mut self, tag: Tag, facts: VolumeFacts, now: Instant) {
        let Some(Wait { work, callers, .. }) = self.waits.finish(tag) else {
            return tracing::error!(tag = tag.0, "the worker attached what nobody asked for");
        };
        match work {
            Work::Attach { id, name } => self.new_volume(id, name, facts, callers, now),
            Work::Reattach { id, name } => self.came_back(id, name, facts, now),
            work => self.refuse(&work.to_string(), Refusal::BadFacts, callers, now),
        }
    }

    fn new_volume(
        &mut self,
        id: VolumeId,
        name: VolumeName,
        facts: VolumeFacts,
        callers: Vec<Caller>,
        now: Instant,
    ) {
        let what = format!("attach {name}");
        self.locks_left.remove(&name);
        let plausible = are_plausible(&facts);
        let vid = facts.vid;
        let volume = Arc::new(Volume::new(id, name.clone(), facts));
        if callers.is_empty() || !plausible || !self.volumes.add(volume) {
            let why = if plausible { Refusal::OtherName } else { Refusal::BadFacts };
            self.detach_now(id, name, Vec::new(), now);
            return self.refuse(&what, why, callers, now);
        }
        tracing::info!(%name, vid = format_args!("{vid:x}"), "attached");
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
            (Work::Reattach { name, .. }, outcome) => self.still_absent(&name, outcome, now),
            (Work::Detach { name, then }, outcome) => {
                self.detached(name, outcome, callers, then, now);
            }
            (Work::Query { query, .. }, outcome) => {
                let why = outcome.map_or_else(Refusal::Failed, |()| Refusal::BadReport);
                self.fail_query(query, why, callers, now);
            }
            (work @ Work::Attach { .. }, outcome) => {
                let why = outcome.map_or_else(Refusal::Failed, |()| Refusal::BadFacts);
                self.refuse(&work.to_string(), why, callers, now);
            }
        }
    }

    fn detached(
        &mut self,
        name: VolumeName,
        outcome: Result<(), Failure>,
        callers: Vec<Caller>,
        then: Vec<Caller>,
        now: Instant,
    ) {
        match outcome {
            Ok(()) => tracing::info!(%name, "detached"),
            Err(failure) => {
                let why = format!("done, but its lock may be left: {failure}");
                self.note(&format!("detach {name}"), &why);
            }
        }
        self.answer_all(callers);
        if !then.is_empty() {
            self.attach(name, then, now);
        }
    }

    /// The time of a request is up.
    pub(super) fn give_up(&mut self, tag: Tag, now: Instant) {
        let Some(wait) = self.waits.get(tag) else { return };
        wait.deadline = None;
        let what = wait.work.to_string();
        let mut callers = std::mem::take(&mut wait.callers);
        match &mut wait.work {
            Work::Query { query, .. } => {
                let query = *query;
                self.waits.finish(tag);
                return self.fail_query(query, Refusal::TimedOut, callers, now);
            }
            Work::Detach { then, .. } => callers.append(then),
            Work::Attach { .. } | Work::Reattach { .. } => {}
        }
        self.refuse(&what, Refusal::TimedOut, callers, now);
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
}
