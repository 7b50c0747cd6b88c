//! Errands under way ([`crate::life`]), and what they have to do with the volumes here: one
//! that is a volume is not deleted, holds still for a snapshot, and grows.

use super::{Engine, Surroundings, Waiter};
use crate::context::Context;
use crate::frame::Reply;
use crate::life::{Answer, Event, Life, Next};
use crate::volume::Volume;
use sheepfs::ipc::{Errand, Failure, FromWorker, Mark, Tag, VolumeId};
use sheepfs::wire::name::VdiName;
use sheepfs::wire::{Request, VdiId};
use std::time::{Duration, Instant};

/// How long to wait before a question that the cluster can't answer now is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// One of them.
#[derive(Debug)]
pub struct Managed {
    life: Life,
    /// The volume that holds still for it, or is about to.
    paused: Option<VolumeId>,
    /// Whether the machine waits for that.
    waits: bool,
    /// To be asked again then.
    delayed: Option<(Instant, Request)>,
}

impl Engine {
    /// Begins an errand.
    pub(super) fn manage(
        &mut self,
        tag: Tag,
        errand: Errand,
        begun: Option<Mark>,
        around: &mut Surroundings,
    ) {
        let mut life = Life::new(errand, begun);
        let next = life.step(Event::Begin);
        let managed = Managed { life, paused: None, waits: false, delayed: None };
        self.managed.insert(tag, managed);
        self.next(tag, next, around);
    }

    /// Its mark is written down.
    pub(super) fn go_on(&mut self, tag: Tag, around: &mut Surroundings) {
        self.tell(tag, Event::Marked, around);
    }

    /// Takes an answer. `true`: the sheep says that it is going.
    pub(super) fn managed_replied(
        &mut self,
        tag: Tag,
        reply: &Reply,
        around: &mut Surroundings,
    ) -> bool {
        let Some(managed) = self.managed.get_mut(&tag) else { return false };
        let vid = reply.header.vdi().vdi_id;
        let answer = Answer { status: reply.status, bytes: &reply.bytes, vid };
        let next = managed.life.answered(&answer);
        self.next(tag, next, around)
    }

    fn tell(&mut self, tag: Tag, event: Event, around: &mut Surroundings) {
        if let Some(managed) = self.managed.get_mut(&tag) {
            let next = managed.life.step(event);
            self.next(tag, next, around);
        }
    }

    fn next(&mut self, tag: Tag, next: Next, around: &mut Surroundings) -> bool {
        match next {
            Next::Ask(request) => {
                self.context(around).0.send(request, None, Waiter::Managed(tag));
            }
            Next::AskLater(request) => {
                if let Some(managed) = self.managed.get_mut(&tag) {
                    managed.delayed = Some((around.now + RETRY_DELAY, request));
                }
            }
            Next::Mark(mark) => match self.refusal(tag, mark) {
                Some(failure) => self.end(tag, Err(failure), around),
                None => around.out.push(FromWorker::Begun { tag, mark }),
            },
            Next::Pause => self.hold_still(tag, Volume::pause, around),
            Next::Follow => self.hold_still(tag, Volume::catch_up, around),
            Next::End(outcome) => self.end(tag, outcome, around),
            Next::SheepGone => return true,
        }
        false
    }

    /// What is a volume here stays.
    fn refusal(&self, tag: Tag, mark: Mark) -> Option<Failure> {
        let ends = matches!(
            self.managed.get(&tag)?.life.errand(),
            Errand::Delete { .. } | Errand::Rollback { .. }
        );
        let vid = VdiId::new(mark.vid).filter(|_| ends)?;
        let attached = self.volumes.values().any(|volume| volume.vid() == vid);
        (attached || self.resumes.values().any(|resume| resume.vid() == vid))
            .then_some(Failure::Attached)
    }

    /// The volume of that name, if there is one, comes to rest.
    fn hold_still(
        &mut self,
        tag: Tag,
        how: impl FnOnce(&mut Volume, &mut Context<Waiter>),
        around: &mut Surroundings,
    ) {
        let Some(managed) = self.managed.get_mut(&tag) else { return };
        managed.waits = true;
        let target = managed.life.errand().target();
        let volume = self.volumes.iter().find(|(_, volume)| volume.is_working(target));
        let id = volume.map(|(id, _)| *id);
        let before = std::mem::replace(&mut managed.paused, id);
        if before != id
            && let Some(before) = before
        {
            self.step_volume(before, Volume::unpause, around);
        }
        if let Some(id) = id {
            self.step_volume(id, how, around);
        }
        self.tell_paused(around);
    }

    /// Lets errands go on whose volume holds still by now, or is none any more.
    pub(super) fn tell_paused(&mut self, around: &mut Surroundings) {
        let rests = |managed: &Managed| match managed.paused.and_then(|id| self.volumes.get(&id)) {
            _ if !managed.waits => None,
            Some(volume) if volume.is_paused() => Some(volume.rests_at()),
            Some(_) => None,
            None => Some(None),
        };
        let ripe: Vec<(Tag, Option<VdiId>)> =
            self.managed.iter().filter_map(|(tag, one)| Some((*tag, rests(one)?))).collect();
        for (tag, rests_at) in ripe {
            if let Some(managed) = self.managed.get_mut(&tag) {
                managed.waits = false;
            }
            self.tell(tag, Event::Paused(rests_at), around);
        }
    }

    fn end(&mut self, tag: Tag, outcome: Result<(), Failure>, around: &mut Surroundings) {
        let Some(managed) = self.managed.remove(&tag) else { return };
        if let (Ok(()), Errand::Resize { name, size }) = (outcome, managed.life.errand()) {
            self.grow(name, *size, around);
        }
        let has_snapshot =
            outcome.is_ok() && matches!(managed.life.errand(), Errand::Snapshot { .. });
        match managed.paused {
            Some(id) if has_snapshot => self.step_volume(id, Volume::follow, around),
            Some(id) => self.step_volume(id, Volume::unpause, around),
            None => {}
        }
        around.out.push(FromWorker::Done { tag, outcome });
    }

    fn grow(&mut self, name: &VdiName, size: u64, around: &mut Surroundings) {
        let (mut io, volumes) = self.context(around);
        for volume in volumes.values_mut() {
            volume.grow(name, size, &mut io);
        }
    }

    /// A volume takes a step.
    fn step_volume(
        &mut self,
        id: VolumeId,
        step: impl FnOnce(&mut Volume, &mut Context<Waiter>),
        around: &mut Surroundings,
    ) {
        self.deadlines.touch(id);
        let (mut io, volumes) = self.context(around);
        if let Some(volume) = volumes.get_mut(&id) {
            step(volume, &mut io);
        }
        self.forget_gone(id);
    }

    /// Asks again what was delayed, when it is time.
    pub(super) fn tick_managed(&mut self, around: &mut Surroundings) {
        let now = around.now;
        let due = |managed: &mut Managed| managed.delayed.take_if(|(until, _)| *until <= now);
        let due: Vec<(Tag, Request)> = self
            .managed
            .iter_mut()
            .filter_map(|(tag, managed)| Some((*tag, due(managed)?.1)))
            .collect();
        for (tag, request) in due {
            self.next(tag, Next::Ask(request), around);
        }
    }

    /// When [`Self::tick_managed`] has something to do.
    pub(super) fn managed_deadline(&self) -> Option<Instant> {
        self.managed.values().filter_map(|one| one.delayed.as_ref()).map(|(until, _)| *until).min()
    }
}
