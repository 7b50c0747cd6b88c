//! How volumes come to be: attaches ([`crate::attach`]) and resumes ([`crate::resume`]) under
//! way, until each has a volume or has failed.

use super::{Engine, Surroundings};
use crate::attach::Progress;
use crate::frame::Reply;
use crate::resume::{Resume, Wanted};
use crate::volume::Volume;
use crate::volume::recent::Allocation;
use sheepfs::ipc::{self, FromWorker, Tag, VolumeId};
use sheepfs::wire::VdiId;
use std::time::Instant;

impl Engine {
    /// Begins a resume.
    pub(super) fn resume(&mut self, tag: Tag, wanted: Wanted, around: &mut Surroundings) {
        let (mut io, _) = self.context(around);
        match Resume::begin(tag, wanted, &mut io) {
            Ok(resume) => drop(self.resumes.insert(tag, resume)),
            Err(failure) => io.done(tag, Err(failure)),
        }
    }

    /// What is remembered of a volume; how old it is nobody knows, so it is new.
    pub(super) fn take_remembered(&mut self, volume: VolumeId, now: Instant) -> Vec<Allocation> {
        let remembered = self.remembered.remove(&volume).unwrap_or_default().into_iter();
        let checked = |one: ipc::Allocation| {
            let owner = VdiId::new(one.owner)?;
            Some(Allocation::new(one.block, owner, now))
        };
        remembered.filter_map(checked).collect()
    }

    /// The sheep has answered for an attach. Gives whether it is going.
    pub(super) fn attach_replied(
        &mut self,
        tag: Tag,
        reply: &Reply,
        around: &mut Surroundings,
    ) -> bool {
        let Some(mut attach) = self.attaches.remove(&tag) else { return false };
        let (mut io, _) = self.context(around);
        let vid = reply.header.vdi().vdi_id;
        match attach.reply(reply.status, &reply.bytes, vid, &mut io) {
            Progress::Going => {
                self.attaches.insert(tag, attach);
            }
            Progress::Attached(volume) => {
                self.attached(tag, attach.volume(), *volume, around);
            }
            Progress::Failed(failure) => io.done(attach.tag(), Err(failure)),
            Progress::SheepGone => return true,
        }
        false
    }

    /// The same for a resume.
    pub(super) fn resume_replied(
        &mut self,
        tag: Tag,
        reply: &Reply,
        around: &mut Surroundings,
    ) -> bool {
        let Some(mut resume) = self.resumes.remove(&tag) else { return false };
        match resume.reply(reply.status, &reply.bytes, around.now) {
            Progress::Going => {
                self.resumes.insert(tag, resume);
            }
            Progress::Attached(volume) => {
                self.attached(tag, resume.volume(), *volume, around);
            }
            Progress::Failed(failure) => self.context(around).0.done(tag, Err(failure)),
            Progress::SheepGone => return true,
        }
        false
    }

    /// A volume can take requests; one that moved while no worker lived goes after it.
    fn attached(&mut self, tag: Tag, id: VolumeId, volume: Volume, around: &mut Surroundings) {
        self.deadlines.touch(id);
        let volume = volume.with_tree_limits(self.tree_limits);
        let (mut io, volumes) = self.context(around);
        io.out.push(FromWorker::Attached { tag, facts: volume.facts() });
        volumes.insert(id, volume);
        if let Some(volume) = volumes.get_mut(&id) {
            volume.begin(&mut io);
        }
        self.turns.wish(id);
    }
}
