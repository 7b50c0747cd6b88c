//! A volume that holds still while its VDI becomes a snapshot by our own doing, and one that
//! grows.
//!
//! To hold still, nothing new begins, and what is on the wire is waited for, as after
//! anybody's snapshot ([`super::reload`]); only what was begun with is answered, so all that
//! was answered is in the snapshot, and nothing that is answered later. Afterwards the
//! header says whether there was one.

use super::{Io, Phase, Volume};
use sheepfs::ipc::FromWorker;
use sheepfs::wire::VdiId;
use sheepfs::wire::name::VdiName;

impl Volume {
    /// Whether it is the working VDI of that name.
    pub fn is_working(&self, name: &str) -> bool {
        self.name.as_str() == name && !self.header.is_snapshot()
    }

    /// The vid that writes go to.
    pub fn vid(&self) -> VdiId {
        self.own
    }

    /// Comes to rest.
    pub fn pause(&mut self, io: &mut Io) {
        self.pausing = true;
        self.settle(io);
    }

    /// Whether nothing of it is on the wire, nor will be. One that failed is always so.
    pub fn is_paused(&self) -> bool {
        match self.phase {
            Phase::Resting => self.is_quiet(),
            Phase::Failed(_) => true,
            Phase::Serving | Phase::Draining | Phase::Reloading(_) => false,
        }
    }

    /// Where it rests. One that failed is nowhere.
    pub fn rests_at(&self) -> Option<VdiId> {
        matches!(self.phase, Phase::Resting).then_some(self.own)
    }

    /// At rest, it goes after its name, which means a newer vid by now; then it rests again.
    pub fn catch_up(&mut self, io: &mut Io) {
        self.drain();
        self.settle(io);
    }

    /// Goes on under its vid. If that became a snapshot all the same, a write says so.
    pub fn unpause(&mut self, io: &mut Io) {
        self.pausing = false;
        self.pump_extents(io);
        if !matches!(self.phase, Phase::Resting) {
            return;
        }
        self.phase = Phase::Serving;
        self.pump_all(io);
        self.pump_extents(io);
        self.settle(io);
    }

    /// Goes on under the vid that follows the snapshot.
    pub fn follow(&mut self, io: &mut Io) {
        self.pausing = false;
        if matches!(self.phase, Phase::Resting | Phase::Serving) {
            self.phase = Phase::Draining;
        }
        self.settle(io);
    }

    /// Its VDI is that large now.
    pub fn grow(&mut self, name: &VdiName, size: u64, io: &mut Io) {
        if self.name == *name && !self.header.is_snapshot() && size > self.header.vdi_size {
            self.header.vdi_size = size;
            io.out.push(FromWorker::Grown { volume: self.id, size });
        }
    }

    /// Whether the new vid has the size from before the volume grew: whoever made the snapshot
    /// had looked at the header before that.
    pub(super) fn is_behind(&self) -> bool {
        let Phase::Reloading(reload) = &self.phase else { return false };
        reload.found.as_ref().is_some_and(|(_, new)| new.vdi_size < self.header.vdi_size)
    }

    /// The new vid has the volume's size now.
    pub(super) fn has_grown(&mut self, io: &mut Io) {
        if let Phase::Reloading(reload) = &mut self.phase
            && let Some((_, new)) = &mut reload.found
        {
            new.vdi_size = self.header.vdi_size;
        }
        self.finish_reload(io);
    }

    /// Starts whatever may start now.
    pub(super) fn pump_all(&mut self, io: &mut Io) {
        let objects: Vec<u32> = self.objects.keys().copied().collect();
        objects.iter().for_each(|object| self.pump(*object, io));
    }
}
