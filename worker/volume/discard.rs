//! Discards: whole objects go from the cluster, and their index entries with them.
//!
//! # Why not as the protocol has it
//!
//! Both of the protocol's own ways give the old reference up *later*, in a queue of the
//! gateway's that tells nobody when it is through. A block that is written again before
//! that loses its new object (hazard 43, protocol 10). And neither way looks whether a
//! snapshot has come to need the object meanwhile. So a discard goes like this instead:
//!
//! ```text
//!  Header ──> Former* ──> Clear ──> Lookup ──> Look ──> Release ──> done
//!    │                                │
//!    └─ a snapshot by now ────────────┴─ another vid: reload, and all over again
//! ```
//!
//! 1. **Header**: our vid is still that of a working VDI.
//! 2. **Clear**: the entry turns to 0 by a write of three bytes. A gateway counts the whole
//!    entries in a write to the index, and there is none in it: no reference is noted,
//!    none is given up, no count is forgotten. A vid has three bytes, so the entry changes
//!    at once. No other entry is written with it: nothing is reverted, neither now nor by a
//!    late copy (hazard 52 does not arise).
//! 3. **Lookup**: the name, which must still mean our vid. It waits behind a snapshot that
//!    is being made, since operations of the whole cluster follow each other (protocol 1.8).
//! 4. **Look**: the entry, which must be 0, and its reference count.
//! 5. **Release**: with a count of 0, an own object is removed, and an inherited one's
//!    reference is given up, explicitly and before the answer.
//!
//! # Why nothing is lost
//!
//! *A snapshot.* Whoever makes one reads the whole inode, raises the count of each entry
//! that is not 0, writes the whole inode back and makes the new one, all in one operation
//! of the cluster. Had it read the inode before our clear, it began before the lookup, which
//! then waits for its end and finds the name at another vid. So when the lookup finds our
//! vid, each snapshot, past or to come, is without the entry, and nobody but us can ever
//! name the object: it may go at any time, until we make it anew. The count is looked at
//! besides: it is raised by all that copy an index, also by what no tool does (a clone of a
//! working VDI), and our clear has not touched it.
//!
//! When the name has moved, nothing was removed yet. The old inode has one of three states:
//! cleared, with a count of 0: the snapshot was made after us, and does not have the block,
//! so its object goes as above; not cleared: the snapshot has written it back; or cleared, with a count of 1 and more:
//! our clear came after the snapshot's last write, and the entry is put back, again with
//! three bytes, so that what was made a snapshot stays what it was. That state is known by
//! looking, without anything remembered, so whoever repeats a discard looks at the vids
//! before ours too (**Former**). The new vid's entry is inherited then, and is cleared in
//! its turn. Between the look at the header and the clear, a snapshot may be made and read
//! that has the block for a moment as zeros; but only one that is made while the discard is
//! under way, and has not answered.
//!
//! *A death.* The entry is cleared first: a reader sees zeros, and never a missing object.
//! An own object that is left without its entry goes when the discard is repeated, which
//! `again` says: then also what has no entry is removed, if it has no count either. A
//! reference to an inherited object is given up at most once, since a second time would
//! count; if a worker dies just there, the object stays until the end of the cluster, as it
//! does when a gateway dies with its queue. Space is lost then, and never data.
//!
//! That the block is no recent allocation any more ([`super::recent`]) is noted where it
//! outlives the supervisor, before the clear leaves: it must never be repaired.
//!
//! *Late copies.* A discard is a change to each of its objects, fenced like a create: before
//! these are made anew, nothing of it runs on a gateway that was given up. A late clear of a
//! clear entry changes nothing, and a late removal finds nothing.
//!
//! *The block is written again.* That write waits in its object's queue until the discard
//! is done, so the create comes after the removal was answered.
//!
//! All parts of a discard are held at the head of their objects' queues before it begins.
//! Two discards never overlap, and no other request holds more than one object, so they
//! can't wait for each other in a circle.
//!
//! What is not whole here, the supervisor writes as zeros, where something is.

mod former;
mod look;

use super::objects::{Kind, Part, PartId, State};
use super::{Io, Op, Phase, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use crate::verdict::Verdict;
use former::Former;
use look::Found;
use sheepfs::ipc::{Failure, FromWorker, RawSpan, Tag};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiRef};
use sheepfs::wire::request::Extent;
use sheepfs::wire::{Request, VdiId};
use std::collections::BTreeMap;
use std::time::Instant;

/// How often the inode before ours may be absent, until it is taken to be gone.
const FORMER_REFUSALS_MAX: u32 = 10;

/// What a reply to a discard's request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The header of our vid.
    Header,
    /// The header of a vid before ours.
    FormerHeader,
    /// Entries of the vid that is looked at.
    Entries,
    /// Reference counts of that vid.
    Grefs,
    /// The entry that is put back in a snapshot, or what is let go after it.
    Former(u32),
    /// The entry that is cleared.
    Clear(u32),
    /// Whose the name is.
    Lookup,
    /// The object, or the reference to it, that goes.
    Release(u32),
}

/// How far a discard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its parts wait for their turn.
    Gathering,
    Header,
    Former,
    Restore,
    Clear,
    Lookup,
    Look,
    Release,
}

/// A block of a discard.
#[derive(Clone, Copy, Debug)]
struct Block {
    part: PartId,
    /// What its entry was before it was cleared.
    was: u32,
    /// Whether the stage has something to do for it yet.
    due: bool,
}

/// A discard under way.
#[derive(Debug)]
pub struct Discard {
    blocks: BTreeMap<u32, Block>,
    /// Whether an earlier worker, or an earlier vid, may have seen a part of it, or the
    /// entries are not known for certain. All of them are cleared then, since nodes may
    /// differ in what a gateway that died has written.
    again: bool,
    stage: Stage,
    /// Requests on the wire.
    outstanding: usize,
    /// Whether some of them are to be asked once more.
    once_more: bool,
    delayed: Option<Instant>,
    /// How often something was refused.
    refusals: u32,
    failure: Option<Failure>,
    /// What was read of an inode.
    found: Found,
    former: Option<Former>,
    /// The vid in which the blocks were cleared, before the name had another.
    cleared_in: Option<VdiId>,
}

impl Discard {
    /// Whether it must come to an end, or back to its beginning, before its volume may
    /// look for another vid.
    pub fn is_running(&self) -> bool {
        self.stage != Stage::Gathering
    }

    /// When what was delayed is due.
    pub fn delayed_until(&self) -> Option<Instant> {
        self.delayed
    }

    fn range(&self) -> (u32, u32) {
        let first = self.blocks.first_key_value().map_or(0, |(block, _)| *block);
        let last = self.blocks.last_key_value().map_or(0, |(block, _)| *block);
        (first, (last - first).saturating_add(1))
    }

    fn due(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let due = self.blocks.iter().filter(|(_, block)| block.due);
        due.map(|(number, block)| (*number, block.was))
    }

    fn settle_block(&mut self, number: u32) {
        if let Some(block) = self.blocks.get_mut(&number) {
            block.due = false;
        }
    }
}

impl Volume {
    /// Takes a discard: of the objects that lie wholly in the range. The volume's last one
    /// does when the range ends with the volume.
    pub fn discard(&mut self, tag: Tag, range: (u64, u32), again: bool, io: &mut Io) {
        let (offset, len) = range;
        let size = self.header.vdi_size;
        let Some(end) = offset.checked_add(u64::from(len)).filter(|end| *end <= size) else {
            return io.done(tag, Err(Failure::OutOfBounds));
        };
        let refusal = self.is_hyper().then_some(Failure::NoDiscard);
        if let Some(failure) = refusal.or(self.refusal(Kind::Discard)) {
            return io.done(tag, Err(failure));
        }
        let shift = self.header.block_size_shift;
        let object_len = 1u64 << shift;
        // It was cut for a volume that ended there, which has grown since.
        if end < size && end % object_len != 0 {
            return io.done(tag, Err(Failure::Grown));
        }
        let last = if end == size { end.div_ceil(object_len) } else { end >> shift };
        let (Ok(first), Ok(last)) = (offset.div_ceil(object_len).try_into(), last.try_into())
        else {
            return io.done(tag, Err(Failure::OutOfBounds));
        };
        self.recent.note_use();
        self.gather(tag, first..last, again, io);
    }

    fn gather(&mut self, tag: Tag, objects: std::ops::Range<u32>, again: bool, io: &mut Io) {
        let nothing = (Extent::new(0, 0, 0), io.arena.check(RawSpan { offset: 0, len: 0 }));
        let (Some(extent), Some(span)) = nothing else {
            return io.done(tag, Err(Failure::OutOfBounds));
        };
        let mut blocks = BTreeMap::new();
        for object in objects {
            let id = self.take_part_id();
            self.queue_part(object, Part::new(id, tag, Kind::Discard, extent, span));
            blocks.insert(object, Block { part: id, was: 0, due: false });
        }
        let write = Some(self.barriers.begin_write());
        let parts_left = blocks.len();
        self.ops.insert(tag, Op { parts_left, failure: None, write, again, sparse: false });
        if blocks.is_empty() {
            return self.finish_op(tag, io);
        }
        let objects: Vec<u32> = blocks.keys().copied().collect();
        let discard = Discard {
            blocks,
            again,
            stage: Stage::Gathering,
            outstanding: 0,
            once_more: false,
            delayed: None,
            refusals: 0,
            failure: None,
            found: Found::default(),
            former: None,
            cleared_in: None,
        };
        self.discards.insert(tag, discard);
        objects.into_iter().for_each(|object| self.pump(object, io));
    }

    /// A part's turn has come. Once that is so of all, and all entries are known, the
    /// discard begins.
    pub(super) fn hold(&mut self, object: u32, part: &Part, io: &mut Io) {
        self.set_state(object, part.id, State::Holding);
        let Some(discard) = self.discards.get(&part.tag) else { return };
        let parts: Vec<_> = discard.blocks.iter().map(|(at, block)| (*at, block.part)).collect();
        let held = |(at, part): &(u32, PartId)| self.state_of(*at, *part) == Some(State::Holding);
        if !parts.iter().all(held) {
            return;
        }
        // A reload may have come since the first was held.
        let unknown = |(at, _): &&(u32, PartId)| self.index.get(*at).is_none();
        let unknown: Vec<_> = parts.iter().filter(unknown).copied().collect();
        for (at, part) in &unknown {
            self.set_state(*at, *part, State::Waiting);
        }
        if unknown.is_empty() {
            return self.begin_discard(part.tag, io);
        }
        unknown.into_iter().for_each(|(at, _)| self.pump(at, io));
    }

    fn begin_discard(&mut self, tag: Tag, io: &mut Io) {
        let Some(discard) = self.discards.get(&tag) else { return };
        let parts: Vec<_> = discard.blocks.iter().map(|(at, block)| (*at, block.part)).collect();
        let empty = parts.iter().all(|(at, _)| self.index.get(*at) == Some(0));
        let unsure = parts.iter().any(|(at, _)| self.unsure.remove(at));
        if empty && !discard.again && !unsure {
            return self.end_discard(tag, None, io);
        }
        if let Some(discard) = self.discards.get_mut(&tag) {
            discard.again |= unsure;
        }
        for (at, part) in parts {
            self.set_state(at, part, State::Running);
        }
        self.enter(tag, Stage::Header, io);
    }

    /// Begins a stage, and those after it while there is nothing to ask.
    fn enter(&mut self, tag: Tag, stage: Stage, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.stage = stage;
        let own = self.own.get();
        let (index, again) = (&self.index, discard.again);
        for (number, block) in &mut discard.blocks {
            block.due = match stage {
                Stage::Clear => {
                    block.was = index.get(*number).unwrap_or(0);
                    block.was != 0 || again
                }
                Stage::Restore => discard.former.as_ref().is_some_and(|f| f.concerns(*number)),
                Stage::Release => discard.found.is_unneeded(*number) && (block.was != 0 || again),
                Stage::Gathering | Stage::Header | Stage::Former | Stage::Lookup | Stage::Look => {
                    false
                }
            };
            // Whose object it was that has no entry any more is known of our own only.
            if stage == Stage::Release && block.was == 0 {
                block.was = own;
            }
        }
        self.ask_discard(tag, io);
    }

    /// Asks what the stage has to ask.
    fn ask_discard(&mut self, tag: Tag, io: &mut Io) {
        if let Some(failure) = self.failure() {
            return self.end_discard(tag, Some(failure), io);
        }
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        (discard.once_more, discard.delayed) = (false, None);
        let (first, count) = discard.range();
        let own = self.own;
        let due: Vec<_> = discard.due().collect();
        let asks: Vec<(Question, Option<Request>)> = match discard.stage {
            Stage::Gathering => Vec::new(),
            Stage::Header => vec![(Question::Header, Some(Request::read_inode_header(own)))],
            Stage::Former => discard.former.as_ref().map_or(Vec::new(), |f| f.ask(first, count)),
            Stage::Restore => discard.former.as_ref().map_or(Vec::new(), |f| f.settle(&due)),
            Stage::Clear => {
                let clear = |(block, _): &(u32, u32)| {
                    (Question::Clear(*block), Request::write_bare_entry(own, *block, None))
                };
                due.iter().map(clear).collect()
            }
            Stage::Lookup => {
                let name = VdiRef { name: self.name.clone(), generation: Generation::Working };
                vec![(Question::Lookup, Some(Request::get_vdi_info(&name)))]
            }
            Stage::Look => look::ask(own, first, count),
            Stage::Release => due.iter().map(|(at, was)| self.release_of(tag, *at, *was)).collect(),
        };
        if self.discards.get(&tag).is_some_and(|discard| discard.stage == Stage::Clear) {
            due.iter().for_each(|(block, _)| self.forget_block(*block, io));
            if !due.is_empty() {
                io.out.push(FromWorker::Discarding { volume: self.id });
            }
        }
        self.send_all(tag, asks, io);
    }

    fn send_all(&mut self, tag: Tag, asks: Vec<(Question, Option<Request>)>, io: &mut Io) {
        let mut sent = 0;
        for (question, request) in asks {
            match request {
                Some(request) => {
                    self.send(request, None, Wait::Discard(tag, question), io);
                    sent += 1;
                }
                None => self.settle_question(tag, question),
            }
        }
        if let Some(discard) = self.discards.get_mut(&tag) {
            discard.outstanding = sent;
        }
        if sent == 0 {
            self.advance_discard(tag, io);
        }
    }

    /// The entry is about to be cleared. Whatever becomes of that, the block is taken for
    /// a hole from now on: a write to it makes its object anew, and its entry.
    fn forget_block(&mut self, block: u32, io: &mut Io) {
        self.recent.learn(block, None, io.now);
        self.tell_allocation(block, 0, io);
        self.rewritten.remove(&block);
        self.index.set(block, 0);
        io.cache.forget_object(self.own, block, self.header.block_size_shift);
        io.ahead.void_object(self.id, block);
    }

    /// What lets go of a block's object.
    fn release_of(&self, tag: Tag, block: u32, was: u32) -> (Question, Option<Request>) {
        let found = self.discards.get(&tag).and_then(|discard| discard.found.gref(block));
        let generation = found.map_or(0, |gref| gref.0);
        let request = match (VdiId::new(was), u32::try_from(generation)) {
            (Some(owner), Ok(0)) if owner == self.own => Some(Request::remove(owner, block)),
            (Some(owner), Ok(generation)) if owner != self.own && generation > 0 => {
                Some(Request::drop_reference(owner, block, generation))
            }
            // Counts that don't fit are not acted upon: the object stays.
            _ => None,
        };
        (Question::Release(block), request)
    }

    /// A block needs nothing more in this stage.
    fn settle_question(&mut self, tag: Tag, question: Question) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        match question {
            Question::Former(block) | Question::Clear(block) | Question::Release(block) => {
                discard.settle_block(block);
            }
            Question::Header
            | Question::FormerHeader
            | Question::Entries
            | Question::Grefs
            | Question::Lookup => {}
        }
    }

    /// Takes a reply to one of a discard's requests. `vid` is a lookup's.
    pub(super) fn discard_replied(
        &mut self,
        tag: Tag,
        question: Question,
        verdict: Verdict,
        (bytes, vid): (&[u8], u32),
        io: &mut Io,
    ) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.outstanding -= 1;
        if once(self.own, discard, question) || gone_already(question, verdict) {
            discard.settle_block(block_of(question));
        } else {
            match verdict {
                Verdict::Done => self.take_answer(tag, question, bytes, vid),
                Verdict::Retry => discard.once_more = true,
                Verdict::Fail(Failure::NoSuchVdi) if question == Question::Lookup => {
                    discard.found.vid = 0;
                }
                // It may only not be found yet; where vids are used again, it may be gone.
                Verdict::Recheck
                    if discard.stage == Stage::Former && discard.refusals > FORMER_REFUSALS_MAX => {
                }
                Verdict::Recheck | Verdict::Fail(_) if discard.refusals < REFUSALS_MAX => {
                    discard.refusals += 1;
                    discard.once_more = true;
                }
                Verdict::Fail(failure) => discard.failure = Some(failure),
                Verdict::Recheck | Verdict::Reload | Verdict::SheepGone => {
                    discard.failure = Some(Failure::ObjectLost);
                }
            }
        }
        let gone = self.failure();
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        if discard.outstanding > 0 {
            return;
        }
        match discard.failure.or(gone) {
            Some(failure) => self.end_discard(tag, Some(failure), io),
            None if discard.once_more => discard.delayed = Some(io.now + RETRY_DELAY),
            None => self.advance_discard(tag, io),
        }
    }

    fn take_answer(&mut self, tag: Tag, question: Question, bytes: &[u8], vid: u32) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        match question {
            Question::Header | Question::FormerHeader => {
                discard.found.header = InodeHeader::decode(bytes).ok();
            }
            Question::Entries => discard.found.take_entries(bytes),
            Question::Grefs => discard.found.take_grefs(bytes),
            Question::Lookup => discard.found.vid = vid,
            Question::Former(_) | Question::Clear(_) | Question::Release(_) => {
                self.settle_question(tag, question);
            }
        }
    }

    /// All of a stage is answered.
    fn advance_discard(&mut self, tag: Tag, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        if discard.stage != Stage::Release {
            discard.found.first = discard.range().0;
        }
        match discard.stage {
            Stage::Gathering => {}
            Stage::Header => self.judge_header(tag, io),
            Stage::Former => self.judge_former(tag, io),
            Stage::Restore => self.next_former(tag, io),
            Stage::Clear => {
                let cleared = discard.blocks.values().any(|block| block.was != 0);
                if cleared || discard.again {
                    return self.enter(tag, Stage::Lookup, io);
                }
                self.end_discard(tag, None, io);
            }
            Stage::Lookup if discard.found.vid == self.own.get() => {
                self.enter(tag, Stage::Look, io);
            }
            Stage::Lookup => {
                discard.again = true;
                discard.cleared_in = Some(self.own);
                self.regather(tag, None);
                self.drain();
            }
            Stage::Look => self.judge_look(tag, io),
            Stage::Release => self.end_discard(tag, None, io),
        }
    }

    /// Whether the vid is still a working VDI's, and ours.
    fn judge_header(&mut self, tag: Tag, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let Some(header) = discard.found.header.take() else {
            return self.end_discard(tag, Some(Failure::BadAnswer), io);
        };
        let again = discard.again;
        if !self.is_still_ours(&header) {
            self.end_discard(tag, Some(Failure::Replaced), io);
            return self.fail(Failure::Replaced, io);
        }
        if header.is_snapshot() {
            self.regather(tag, None);
            return self.drain();
        }
        if !matches!(self.phase, Phase::Serving) {
            return self.regather(tag, None);
        }
        if again {
            self.look_at_former(tag, header.parent_vdi_id, io);
        } else {
            self.enter(tag, Stage::Clear, io);
        }
    }

    /// Whether the entries are clear. If not, somebody has written the inode back.
    fn judge_look(&mut self, tag: Tag, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let back: Vec<(u32, u32)> = discard.found.listed().collect();
        if back.is_empty() {
            return self.enter(tag, Stage::Release, io);
        }
        discard.refusals += 1;
        discard.again = true;
        if discard.refusals > REFUSALS_MAX {
            return self.end_discard(tag, Some(Failure::BadAnswer), io);
        }
        for (block, entry) in back {
            self.index.set(block, entry);
        }
        self.regather(tag, Some(io.now + RETRY_DELAY));
    }

    /// Back to where all parts wait for their turn.
    fn regather(&mut self, tag: Tag, until: Option<Instant>) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.stage = Stage::Gathering;
        let parts: Vec<_> = discard.blocks.iter().map(|(at, block)| (*at, block.part)).collect();
        for (at, part) in parts {
            self.set_state(at, part, until.map_or(State::Waiting, State::Delayed));
        }
    }

    fn end_discard(&mut self, tag: Tag, failure: Option<Failure>, io: &mut Io) {
        let Some(discard) = self.discards.remove(&tag) else { return };
        for (object, block) in &discard.blocks {
            self.finish_part(*object, block.part, failure, io);
        }
        discard.blocks.keys().for_each(|object| self.pump(*object, io));
    }

    /// A part of one that has not begun can't be done: neither can the others.
    pub(super) fn abandon_discard(&mut self, tag: Tag, failure: Failure, io: &mut Io) {
        self.end_discard(tag, Some(failure), io);
    }

    /// Asks again what was delayed.
    pub(super) fn tick_discards(&mut self, io: &mut Io) {
        let ripe = |discard: &Discard| discard.delayed.is_some_and(|until| until <= io.now);
        let ripe: Vec<Tag> =
            self.discards.iter().filter(|(_, one)| ripe(one)).map(|(tag, _)| *tag).collect();
        ripe.into_iter().for_each(|tag| self.ask_discard(tag, io));
    }
}

/// Whether that is the reply to a reference that was given up: whatever it says, it is not
/// given up again.
fn once(own: VdiId, discard: &Discard, question: Question) -> bool {
    match question {
        Question::Release(block) => {
            discard.blocks.get(&block).is_some_and(|block| block.was != own.get())
        }
        Question::Former(block) => discard.former.as_ref().is_some_and(|f| f.counts(block)),
        Question::Header
        | Question::FormerHeader
        | Question::Entries
        | Question::Grefs
        | Question::Clear(_)
        | Question::Lookup => false,
    }
}

/// An object that is not there need not go.
fn gone_already(question: Question, verdict: Verdict) -> bool {
    let releases = matches!(question, Question::Release(_) | Question::Former(_));
    releases && verdict == Verdict::Recheck
}

fn block_of(question: Question) -> u32 {
    match question {
        Question::Former(block) | Question::Clear(block) | Question::Release(block) => block,
        Question::Header
        | Question::FormerHeader
        | Question::Entries
        | Question::Grefs
        | Question::Lookup => 0,
    }
}
