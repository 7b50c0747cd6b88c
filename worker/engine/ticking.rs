//! What happens by itself as time goes by, and when the next of it is due.

use super::{Engine, Surroundings};
use crate::attach::Attach;
use crate::resume::Resume;
use crate::volume::Volume;
use sheepfs::ipc::{FromWorker, VolumeId};
use std::time::{Duration, Instant};

/// How often the supervisor may hear of the cache.
const USAGE_INTERVAL: Duration = Duration::from_secs(1);

impl Engine {
    /// Takes a time step.
    pub fn tick(&mut self, around: &mut Surroundings) {
        let mut attaches = std::mem::take(&mut self.attaches);
        let mut resumes = std::mem::take(&mut self.resumes);
        let (mut io, _) = self.context(around);
        attaches.values_mut().for_each(|attach| attach.tick(&mut io));
        resumes.values_mut().for_each(|resume| resume.tick(&mut io));
        (self.attaches, self.resumes) = (attaches, resumes);
        self.settle_deadlines();
        for id in self.deadlines.due(around.now) {
            let (mut io, volumes) = self.context(around);
            if let Some(volume) = volumes.get_mut(&id) {
                volume.tick(&mut io);
            }
        }
        self.tell_paused(around);
        self.tick_managed(around);
        self.give_turns(around);
        self.settle_deadlines();
        self.settle_copies(around);
        self.ahead.expire(around.now);
        self.tell_usage(around);
    }

    fn settle_deadlines(&mut self) {
        let volumes = &self.volumes;
        self.deadlines.settle(|id| volumes.get(&id).and_then(Volume::next_deadline));
    }

    /// Lets the supervisor know how the cache fares, now and then.
    fn tell_usage(&mut self, around: &mut Surroundings) {
        let (usage, (told, next)) = (self.cache.usage(), self.told);
        if usage != told && next.is_none_or(|at| at <= around.now) {
            self.told = (usage, Some(around.now + USAGE_INTERVAL));
            around.out.push(FromWorker::CacheUse { usage });
        }
    }

    fn usage_deadline(&self) -> Option<Instant> {
        self.told.1.filter(|_| self.told.0 != self.cache.usage())
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let wish = |id: VolumeId| self.volumes.get(&id).and_then(Volume::next_deadline);
        let volumes = self.deadlines.next(wish).into_iter();
        let attaches = self.attaches.values().filter_map(Attach::next_deadline);
        let resumes = self.resumes.values().filter_map(Resume::next_deadline);
        volumes
            .chain(attaches)
            .chain(resumes)
            .chain(self.usage_deadline())
            .chain(self.managed_deadline())
            .chain(self.ahead.deadline())
            .min()
    }
}
