//! A snapshot was made behind our back: find the new vid and go on (protocol 7.4).
//!
//! ```text
//!  Lookup ──> Header ──> (Ancestor)* ──> Lock ──> Repair: page by page ──> done
//!    ^          │                          │               │
//!    └── the name still means the old vid: later           └─ lost entry: Entry,
//!                                                             OldEntry,
//!                                                             OldGref, NewGref,
//!                                                             Gref
//! ```
//!
//! A lock that is refused may be our own, when an earlier worker asked for it and did
//! not live to hear the answer: then its owner is looked up ([`crate::locks`]).
//! A question that fails for another reason is asked again a few times, since a
//! volume would be lost for good by one bad answer of one disk.
//!
//! The name must now belong to a working VDI that descends from ours; another
//! one, or none, means that the VDI was deleted, rolled back or replaced, and
//! its data is not ours to show (hazard 10). The lock stays with the old vid, so
//! the new one is locked before the old is released (protocol 13.4). Then every
//! block allocated lately is looked up in the new index; an entry that the server
//! lost is written again, with its reference counts, before anything goes on. One that
//! is newer than what is remembered is no loss: it was written, and nobody lived to
//! hear or to tell. Written back, it would cost its object, a moment later, when a
//! replay may have made that anew (hazard 43). The repair
//! is done without asking whether its object is there: what was acknowledged must
//! be listed, so that a lost object is an error and never zeros.
//!
//! A VDI never shrinks: where the new one is smaller, ours grew after whoever made the
//! snapshot had looked at it, and the new inode is told the size at last.

use super::index::{Index, PAGE_ENTRIES};
use super::recent::Allocation;
use super::{Io, Phase, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use crate::locks::{Owner, OwnerSearch};
use crate::verdict::{Verdict, on_object};
use crate::volume::objects::ObjectQueue;
use sheepfs::ipc::{Failure, FromWorker, Gateways};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiRef};
use sheepfs::wire::{Request, Status, VdiId};
use std::collections::VecDeque;
use std::time::Instant;

/// Snapshots that may lie between the old vid and the new one.
const ANCESTORS_MAX: u32 = 1000;
/// How often the name may still mean the old vid before that is an error: the
/// server refuses writes a moment before it moves the name.
const LOOKUPS_MAX: u32 = 150;

/// What is known so far.
#[derive(Debug)]
pub struct Reload {
    pub(super) step: Step,
    /// The question is to be asked then, not under way.
    delayed: Option<Instant>,
    lookups: u32,
    /// How often in a row a question was refused.
    refusals: u32,
    /// Who holds the lock that was refused.
    search: Option<OwnerSearch>,
    pub(super) found: Option<(VdiId, InodeHeader)>,
    /// From the new vid to ours, each with the one that it was made from behind it.
    pub(super) line: Vec<VdiId>,
    /// The vid whose lock was taken on the way.
    locked: Option<VdiId>,
    /// What is still to be checked, by ascending block.
    pub(super) unchecked: VecDeque<Allocation>,
    /// What the server lost of it.
    pub(super) lost: VecDeque<Allocation>,
    /// What was found or repaired.
    pub(super) checked: Vec<Allocation>,
    pub(super) index: Index,
    /// The generation and the count of the first lost one's reference in the new inode.
    pub(super) gref: (i32, i32),
}

/// What was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Lookup,
    Header(VdiId),
    Ancestor(VdiId, u32),
    Lock,
    Owner,
    Release,
    Page(u32),
    Entry,
    NewEntry,
    OldEntry,
    OldGref,
    RaiseOldGref,
    NewGref,
    Gref,
    Size,
}

impl Reload {
    /// When the next question is due, if it is delayed.
    pub fn delayed_until(&self) -> Option<Instant> {
        self.delayed
    }
}

impl Volume {
    /// Lets no part start until the new vid is known.
    pub(super) fn drain(&mut self) {
        if matches!(self.phase, Phase::Serving | Phase::Resting) {
            self.phase = Phase::Draining;
        }
    }

    /// The wire is empty: begins to look for the new vid.
    pub(super) fn begin_reload(&mut self, io: &mut Io) {
        if self.is_hyper() {
            return self.fail(Failure::HyperFrozen, io);
        }
        tracing::info!(volume = %self.name, vid = %self.own, "the VDI became a snapshot; looking for its new vid");
        self.phase = Phase::Reloading(Box::new(Reload {
            step: Step::Lookup,
            delayed: Some(io.now),
            lookups: 0,
            refusals: 0,
            search: None,
            found: None,
            line: Vec::new(),
            locked: None,
            unchecked: self.recent.take().into(),
            lost: VecDeque::new(),
            checked: Vec::new(),
            index: Index::default(),
            gref: (1, 0),
        }));
        self.tick_reload(io);
    }

    /// Asks what was delayed, when it is time.
    pub(super) fn tick_reload(&mut self, io: &mut Io) {
        if let Phase::Reloading(reload) = &self.phase
            && reload.delayed.is_some_and(|until| until <= io.now)
        {
            // What was to be written there follows from what is read there.
            let step = if reload.step == Step::RaiseOldGref { Step::OldGref } else { reload.step };
            self.ask(step, io);
        }
    }

    /// Takes the answer to the last question.
    pub(super) fn reload_replied(&mut self, status: Status, bytes: &[u8], vid: u32, io: &mut Io) {
        let Phase::Reloading(reload) = &self.phase else { return };
        let step = reload.step;
        if step == Step::Owner {
            return self.owner_replied(status, bytes, io);
        }
        match on_object(status) {
            Verdict::Done => self.advance(step, bytes, vid, io),
            Verdict::Retry => self.ask_later(step, io),
            Verdict::Fail(Failure::Locked) if step == Step::Lock => self.search_owner(io),
            Verdict::Fail(Failure::NoSuchVdi) => self.fail(Failure::Replaced, io),
            Verdict::Fail(failure) => self.ask_again(step, failure, io),
            Verdict::Recheck => self.ask_again(step, Failure::Replaced, io),
            Verdict::Reload | Verdict::SheepGone => self.fail(Failure::Replaced, io),
        }
    }

    /// A question was refused for a reason that may go away: a few times more.
    fn ask_again(&mut self, step: Step, failure: Failure, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.refusals += 1;
        if reload.refusals > REFUSALS_MAX {
            self.fail(failure, io);
        } else {
            // It may have been written all the same, and an inherited entry that is
            // written over itself costs the snapshot its object (hazard 41).
            let next = if step == Step::Entry { Step::NewEntry } else { step };
            self.ask_later(next, io);
        }
    }

    /// The new vid's lock is somebody's: an earlier worker's, and so ours?
    fn search_owner(&mut self, io: &mut Io) {
        let gateways = self.lock_sent;
        let Phase::Reloading(reload) = &mut self.phase else { return };
        match &reload.found {
            Some((vid, _)) if !gateways.is_empty() => {
                reload.search = Some(OwnerSearch::new(gateways, *vid));
                self.ask(Step::Owner, io);
            }
            Some(_) | None => self.fail(Failure::LockLost, io),
        }
    }

    fn owner_replied(&mut self, status: Status, bytes: &[u8], io: &mut Io) {
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
            Owner::Node(_) | Owner::Other => self.fail(Failure::LockLost, io),
            Owner::SheepGone => {}
        }
    }

    fn advance(&mut self, step: Step, bytes: &[u8], vid: u32, io: &mut Io) {
        if let Phase::Reloading(reload) = &mut self.phase {
            reload.refusals = 0;
        }
        match step {
            Step::Owner => {}
            Step::Lookup => self.found_vid(vid, io),
            Step::Header(vid) => self.found_header(vid, bytes, io),
            Step::Ancestor(_, depth) => match InodeHeader::decode(bytes) {
                Ok(header) => self.ask_ancestor(&header, depth + 1, io),
                Err(_) => self.fail(Failure::BadAnswer, io),
            },
            Step::Lock => self.locked(vid, io),
            Step::Release => self.next_page(io),
            Step::Page(page) => self.compare_page(page, bytes, io),
            Step::Entry => self.ask(Step::OldEntry, io),
            Step::NewEntry => {
                let next = if self.is_first_lost(bytes) { Step::OldEntry } else { Step::Entry };
                self.ask(next, io);
            }
            Step::OldEntry => self.found_old_entry(bytes, io),
            Step::OldGref => self.raise_old_gref(bytes, io),
            Step::RaiseOldGref => self.ask(Step::NewGref, io),
            Step::NewGref => self.found_new_gref(bytes, io),
            Step::Gref => self.repaired(io),
            Step::Size => self.has_grown(io),
        }
    }

    /// Asks the question of `step`, on the new vid or the first lost block.
    pub(super) fn ask(&mut self, step: Step, io: &mut Io) {
        let own = self.own;
        let name = VdiRef { name: self.name.clone(), generation: Generation::Working };
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.step = step;
        reload.delayed = None;
        let new = reload.found.as_ref().map_or(own, |(vid, _)| *vid);
        let lost = reload.lost.front().copied();
        let (block, owner) = lost.map_or((0, own), |lost| (lost.block, lost.owner));
        if step == Step::Lock {
            io.out.push(FromWorker::LockSent { volume: self.id });
        }
        let request = match step {
            Step::RaiseOldGref => return,
            Step::Owner => reload.search.as_ref().map(OwnerSearch::question),
            Step::Lookup => Some(Request::get_vdi_info(&name)),
            Step::Header(vid) | Step::Ancestor(vid, _) => Some(Request::read_inode_header(vid)),
            Step::Lock => Some(Request::lock_vdi(&name)),
            Step::Release => Some(Request::release_vdi(own)),
            Step::Page(page) => Some(Request::read_index(new, page * PAGE_ENTRIES, PAGE_ENTRIES)),
            Step::Entry => Request::write_index(new, block, 1, owner),
            Step::NewEntry => Some(Request::read_index(new, block, 1)),
            Step::OldEntry => Some(Request::read_index(own, block, 1)),
            Step::OldGref => Some(Request::read_gref(own, block)),
            Step::NewGref => Some(Request::read_gref(new, block)),
            Step::Gref => Some(Request::write_gref(new, block, reload.gref.0, reload.gref.1)),
            Step::Size => Some(Request::write_size(new, self.header.vdi_size)),
        };
        match request {
            Some(request) => self.send(request, None, Wait::Reload, io),
            None => self.fail(Failure::BadAnswer, io),
        }
    }

    fn look_up_later(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.lookups += 1;
        if reload.lookups > LOOKUPS_MAX {
            self.fail(Failure::TimedOut, io);
        } else {
            self.ask_later(Step::Lookup, io);
        }
    }

    fn ask_later(&mut self, step: Step, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.step = step;
        reload.delayed = Some(io.now + RETRY_DELAY);
    }

    fn found_vid(&mut self, vid: u32, io: &mut Io) {
        match VdiId::new(vid) {
            Some(vid) if vid == self.own => self.look_up_later(io),
            Some(vid) => self.ask(Step::Header(vid), io),
            None => self.fail(Failure::BadAnswer, io),
        }
    }

    fn found_header(&mut self, vid: VdiId, bytes: &[u8], io: &mut Io) {
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
    fn ask_ancestor(&mut self, header: &InodeHeader, depth: u32, io: &mut Io) {
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

    fn locked(&mut self, vid: u32, io: &mut Io) {
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

    pub(super) fn finish_reload(&mut self, io: &mut Io) {
        if self.is_behind() {
            return self.ask(Step::Size, io);
        }
        let Phase::Reloading(reload) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            return;
        };
        let Some((vid, header)) = reload.found else { return self.fail(Failure::BadAnswer, io) };
        tracing::info!(volume = %self.name, old = %self.own, new = %vid, "going on under the new vid");
        self.repairing = None;
        self.rewritten.clear();
        io.cache.release_claim(self.id, self.own);
        self.own = vid;
        // The size that was announced at attach stays, as on a block device.
        self.header = InodeHeader { vdi_size: self.header.vdi_size, ..header };
        self.index = reload.index;
        self.index.loaded().for_each(|page| io.pages.note(self.id, page));
        self.claim(io);
        io.ahead.drop_volume(self.id);
        reload.checked.into_iter().for_each(|allocation| self.recent.push(allocation));
        io.out.push(FromWorker::Moved { volume: self.id, facts: self.facts() });
        self.move_extents(io);
        let objects: Vec<u32> = self.objects.keys().copied().collect();
        objects.iter().for_each(|object| self.pump(*object, io));
    }

    /// The VDI can't be used any more: everything fails, now and later.
    pub(super) fn fail(&mut self, failure: Failure, io: &mut Io) {
        tracing::error!(volume = %self.name, vid = %self.own, "the volume cannot be used any more: {failure}");
        self.phase = Phase::Failed(failure);
        io.cache.drop_volume(self.id);
        io.ahead.drop_volume(self.id);
        let objects: Vec<u32> = self.objects.keys().copied().collect();
        for object in objects {
            let waiting = self.objects.get_mut(&object).map(ObjectQueue::remove_waiting);
            for part in waiting.unwrap_or_default() {
                self.finish_part_of(part.tag, Some(failure), io);
            }
            self.forget_if_empty(object);
        }
        self.give_up_extents(failure, io);
        self.updates_delayed = None;
        self.send_updates(io);
    }
}
