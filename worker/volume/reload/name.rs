//! The first half of a reload: whose the name is now, whether that descends from ours, and its
//! lock.

use super::{ANCESTORS_MAX, LOOKUPS_MAX, Step};
use crate::locks::{Owner, OwnerSearch};
use crate::volume::{Io, Phase, Volume};
use sheepfs::ipc::{Failure, Gateways};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::{Status, VdiId};

impl Volume {
    pub(super) fn found_vid(&mut self, vid: u32, io: &mut Io) {
        match VdiId::new(vid) {
            Some(vid) if vid == self.own => self.look_up_later(io),
            Some(vid) => self.ask(Step::Header(vid), io),
            None => self.fail(Failure::BadAnswer, io),
        }
    }

    pub(super) fn found_header(&mut self, vid: VdiId, bytes: &[u8], io: &mut Io) {
        let header = match InodeHeader::decode(bytes) {
            Ok(header) => header,
            Err(cause) => return self.fail(Failure::Unusable(cause), io),
        };
        let same_shape = header.block_size_shift == self.header.block_size_shift
            && header.copy_policy == self.header.copy_policy
            && header.store_policy == self.header.store_policy
            && header.name == self.header.name;
        if header.is_snapshot() {
            return self.look_up_later(io);
        }
        if !same_shape || header.check_usable(vid).is_err() {
            return self.fail(Failure::Replaced, io);
        }
        if let Phase::Reloading(reload) = &mut self.phase {
            reload.found = Some((vid, header.clone()));
            reload.line = vec![vid];
        }
        self.ask_ancestor(&header, 0, io);
    }

    /// Walks from the new inode towards the one it was made from, to ours.
    pub(super) fn ask_ancestor(&mut self, header: &InodeHeader, depth: u32, io: &mut Io) {
        let parent = VdiId::new(header.parent_vdi_id);
        if let Phase::Reloading(reload) = &mut self.phase {
            reload.line.extend(parent);
        }
        match parent {
            Some(parent) if parent == self.own => self.lock(io),
            Some(parent) if depth < ANCESTORS_MAX => self.ask(Step::Ancestor(parent, depth), io),
            Some(_) | None => self.fail(Failure::Replaced, io),
        }
    }

    /// Locks the new vid, unless that was done on the way, or locks are left alone.
    fn lock(&mut self, io: &mut Io) {
        if self.locked.is_none() {
            return self.next_page(io);
        }
        let Phase::Reloading(reload) = &self.phase else { return };
        let found = reload.found.as_ref().map(|(vid, _)| *vid);
        let step = if reload.locked.is_some() && reload.locked == found {
            Step::Release
        } else {
            Step::Lock
        };
        self.ask(step, io);
    }

    pub(super) fn locked(&mut self, vid: u32, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        let Some(vid) = VdiId::new(vid) else { return self.fail(Failure::BadAnswer, io) };
        reload.locked = Some(vid);
        self.locked = Some(vid);
        // From here on a refusal can only be somebody else's lock.
        self.lock_sent = Gateways::default();
        match &reload.found {
            Some((found, _)) if *found == vid => self.ask(Step::Release, io),
            // Another snapshot came between: the lock is on a yet newer vid.
            Some(_) | None => self.ask(Step::Header(vid), io),
        }
    }

    pub(super) fn look_up_later(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.lookups += 1;
        if reload.lookups > LOOKUPS_MAX {
            self.fail(Failure::TimedOut, io);
        } else {
            self.ask_later(Step::Lookup, io);
        }
    }

    /// The new vid's lock is somebody's: an earlier worker's, and so ours, or whose?
    pub(super) fn search_owner(&mut self, io: &mut Io) {
        let gateways = self.lock_sent;
        let Phase::Reloading(reload) = &mut self.phase else { return };
        let Some((vid, _)) = &reload.found else { return self.fail(Failure::LockLost, io) };
        reload.search = Some(OwnerSearch::new(gateways, *vid));
        self.ask(Step::Owner, io);
    }

    pub(super) fn owner_replied(&mut self, status: Status, bytes: &[u8], io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        let Some(search) = &mut reload.search else { return };
        match search.hear(status, bytes) {
            Owner::MoreRoom => self.ask(Step::Owner, io),
            Owner::Later => self.ask_later(Step::Owner, io),
            Owner::Ours => {
                let vid = search.vid();
                tracing::warn!(volume = %self.name, %vid, "the lock is taken to be ours: an earlier worker asked for it through the node that holds it");
                self.locked(vid.get(), io);
            }
            // It is on a yet newer vid, or was given back.
            Owner::Nobody => self.look_up_later(io),
            Owner::Node(node) => {
                tracing::error!(volume = %self.name, vid = %search.vid(), %node, "the lock of the new vid is held through another node: who took it there has the VDI now");
                self.fail(Failure::LockLost, io);
            }
            Owner::Other => self.fail(Failure::LockLost, io),
            Owner::SheepGone => {}
        }
    }
}
