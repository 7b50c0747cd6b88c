//! A snapshot was made behind our back: find the new vid and go on (protocol 7.4).
//!
//! ```text
//!  Lookup ──> Header ──> (Ancestor)* ──> Lock ──> Page, OldEntries, OldGrefs ──> done
//!    ^          │                          │       for each page │        ^
//!    └── the name still means the old vid: later                 └ lost: OldHeader,
//!                                                                   each vid's Before,
//!                                                                   GrefBefore, Gref,
//!                                                                   (Barrier, GrefBehind),
//!                                                                   Entry
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
//! block allocated lately is looked up in both indexes; what the server lost of it is done
//! once more before anything goes on ([`repair`]). One that
//! is newer than what is remembered is no loss: it was written, and nobody lived to
//! hear or to tell. Written back, it would cost its object, a moment later, when a
//! replay may have made that anew (hazard 43). The repair
//! is done without asking whether its object is there: what was acknowledged must
//! be listed, so that a lost object is an error and never zeros.
//!
//! A VDI never shrinks: where the new one is smaller, ours grew after whoever made the
//! snapshot had looked at it, and the new inode is told the size at last.

mod loss;
mod name;
mod repair;

use super::index::{Index, PAGE_ENTRIES};
use super::recent::Allocation;
use super::{Io, Phase, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use crate::locks::OwnerSearch;
use crate::verdict::{Verdict, on_object};
use crate::volume::objects::ObjectQueue;
use loss::Repair;
use sheepfs::ipc::{Failure, FromWorker};
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
    step: Step,
    /// The question is to be asked then, not under way.
    delayed: Option<Instant>,
    lookups: u32,
    /// How often in a row a question was refused.
    refusals: u32,
    /// Who holds the lock that was refused.
    search: Option<OwnerSearch>,
    pub(super) found: Option<(VdiId, InodeHeader)>,
    /// From the new vid to ours, each with the one that it was made from behind it.
    line: Vec<VdiId>,
    /// The vid whose lock was taken on the way.
    locked: Option<VdiId>,
    /// What is still to be checked, by ascending block.
    unchecked: VecDeque<Allocation>,
    repair: Repair,
    /// What was found or repaired.
    checked: Vec<Allocation>,
    index: Index,
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
    OldEntries,
    OldGrefs,
    OldHeader,
    Before,
    GrefBefore,
    Barrier,
    GrefBehind,
    Gref,
    Entry,
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
            repair: Repair::default(),
            checked: Vec::new(),
            index: Index::default(),
        }));
        self.tick_reload(io);
    }

    /// Asks what was delayed, when it is time.
    pub(super) fn tick_reload(&mut self, io: &mut Io) {
        if let Phase::Reloading(reload) = &self.phase
            && reload.delayed.is_some_and(|until| until <= io.now)
        {
            self.ask(reload.step, io);
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
            self.ask_later(step, io);
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
            Step::OldEntries => self.found_old_entries(bytes, io),
            Step::OldGrefs => self.found_old_grefs(bytes, io),
            Step::OldHeader => self.found_old_header(bytes, io),
            Step::Before => self.found_before(bytes, io),
            Step::GrefBefore => self.found_gref_before(bytes, io),
            Step::Barrier => self.ask(Step::GrefBehind, io),
            Step::GrefBehind => self.found_gref_behind(bytes, io),
            Step::Gref => self.counted(io),
            Step::Entry => self.listed(io),
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
        if step == Step::Lock {
            io.out.push(FromWorker::LockSent { volume: self.id });
        }
        let request = match step {
            Step::Owner => reload.search.as_ref().map(OwnerSearch::question),
            Step::Lookup | Step::Barrier => Some(Request::get_vdi_info(&name)),
            Step::Header(vid) | Step::Ancestor(vid, _) => Some(Request::read_inode_header(vid)),
            Step::Lock => Some(Request::lock_vdi(&name)),
            Step::Release => Some(Request::release_vdi(own)),
            Step::Page(page) => Some(Request::read_index(new, page * PAGE_ENTRIES, PAGE_ENTRIES)),
            Step::OldEntries
            | Step::OldGrefs
            | Step::OldHeader
            | Step::Before
            | Step::GrefBefore
            | Step::GrefBehind
            | Step::Gref
            | Step::Entry => self.ask_for_repair(step),
            Step::Size => Some(Request::write_size(new, self.header.vdi_size)),
        };
        match request {
            Some(request) => self.send(request, None, Wait::Reload, io),
            None => self.fail(Failure::BadAnswer, io),
        }
    }

    fn ask_later(&mut self, step: Step, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.step = step;
        reload.delayed = Some(io.now + RETRY_DELAY);
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
