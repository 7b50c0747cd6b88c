//! Running the parts of requests: which request each becomes, and what its
//! reply means.

use super::index::{self, Index};
use super::objects::{Doubt, Kind, ObjectQueue, Part, PartId, State};
use super::tree::Wanted;
use super::{Io, Phase, RETRY_DELAY, Volume, Wait};
use crate::ahead::Cover;
use crate::verdict::Verdict;
use sheepfs::ipc::{Failure, FromWorker, Tag};
use sheepfs::wire::cluster::in_recovery;
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::{Request, VdiId};

/// How often an entry must be seen cleared before its block is taken for discarded.
/// Who deletes a VDI clears its index first and its name last (protocol 12.3), and a
/// deleted VDI is an error and never zeros (hazard 10); so it is looked at for two
/// seconds.
const CLEARED_TIMES: u8 = 10;

impl Volume {
    /// Starts what may start on an object.
    pub(super) fn pump(&mut self, object: u32, io: &mut Io) {
        loop {
            if !matches!(self.phase, Phase::Serving) || self.pausing {
                return;
            }
            let Some(queue) = self.objects.get(&object) else { return };
            let Some(entry) = self.index.get(object) else {
                return self.load_page(Index::page_of(object), io);
            };
            let creates = entry != self.own.get();
            let Some(part) = queue.next(creates, self.header.is_erasure_coded(), io.now) else {
                return;
            };
            if part.kind == Kind::Discard {
                return self.hold(object, &part, io);
            }
            let known = match (part.kind, index::owner(entry)) {
                (Kind::Write, None) if self.is_spared(object, part.tag) => Cover::Filled,
                (Kind::Write | Kind::Discard, _) => Cover::None,
                (Kind::Read, Some(owner)) => {
                    self.known((owner, object), part.extent, part.span, io)
                }
                (Kind::Read, None) => {
                    io.arena.zero(part.span);
                    Cover::Filled
                }
            };
            match known {
                Cover::Filled => self.finish_part(object, part.id, None, io),
                Cover::UnderWay => self.set_state(object, part.id, State::Awaiting),
                Cover::None => self.start(object, &part, entry, io),
            }
        }
    }

    /// Sends the request for a part.
    pub(super) fn start(&mut self, object: u32, part: &Part, entry: u32, io: &mut Io) {
        let own = self.own;
        let (request, state) = match (part.kind, index::owner(entry)) {
            (Kind::Read, Some(owner)) => {
                (Request::read(owner, object, part.extent), State::Running)
            }
            (Kind::Read, None) | (Kind::Discard, _) => return,
            (Kind::Write, Some(owner)) if owner == own => {
                (Request::write(own, object, part.extent), self.state_of_write(object, part.tag))
            }
            (Kind::Write, Some(base)) => {
                (Request::create_from(own, object, base, part.extent), State::Creating)
            }
            (Kind::Write, None) => (Request::create(own, object, part.extent), State::Creating),
        };
        let creates = part.kind == Kind::Write && index::owner(entry) != Some(own);
        let owner = index::owner(entry).filter(|_| part.kind == Kind::Read).unwrap_or(own);
        self.note_sending(object, part, (owner, state), io);
        if part.kind == Kind::Write {
            if !creates && self.recent.suspect(object, own, io.now) {
                self.tell_allocation(object, own.get(), io);
            }
            if !creates && let Some(rest) = self.stripe_rest(part) {
                self.set_state(object, part.id, state);
                return self.read_rest(object, part.id, rest, io);
            }
        }
        if creates {
            io.out.push(FromWorker::Creating { tag: part.tag, block: object });
        }
        if state == State::Creating {
            self.tell_growing(part.tag, io);
        }
        self.set_state(object, part.id, state);
        self.send(request, Some(part.span), Wait::Part(object, part.id), io);
    }

    /// An earlier worker may have died with its gateway while that wrote the entry. Then
    /// the entry is ours on the node that was asked, and others know nothing of it. So it
    /// is written once more, as after a create, before such a write is answered.
    fn state_of_write(&mut self, object: u32, tag: Tag) -> State {
        let again = self.ops.get(&tag).is_some_and(|op| op.again);
        if again && self.rewritten.insert(object) { State::Creating } else { State::Running }
    }

    /// Whether a write that makes no object leaves a hole alone, which is one for certain.
    fn is_spared(&self, object: u32, tag: Tag) -> bool {
        !self.unsure.contains(&object) && self.ops.get(&tag).is_some_and(|op| op.sparse)
    }

    pub(super) fn set_state(&mut self, object: u32, part: PartId, state: State) {
        if let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(part)) {
            part.state = state;
        }
    }

    pub(super) fn part_replied(&mut self, object: u32, id: PartId, verdict: Verdict, io: &mut Io) {
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(id)) else {
            return;
        };
        let part = *part;
        match verdict {
            Verdict::Done if part.state == State::Creating => {
                self.updates.push(object, id);
                self.send_updates(io);
            }
            Verdict::Done => self.finish_part(object, id, None, io),
            Verdict::Recheck => match part.doubt {
                Doubt::None => self.recheck(object, id, io),
                Doubt::Cleared(_) => self.recheck(object, id, io),
                Doubt::Rechecked => self.ask_for_recovery(object, id, io),
                Doubt::Last => self.finish_part(object, id, Some(Failure::ObjectLost), io),
            },
            Verdict::Reload if part.kind == Kind::Write => {
                self.set_state(object, id, State::Waiting);
                self.drain();
            }
            Verdict::Reload | Verdict::SheepGone => {
                self.finish_part(object, id, Some(Failure::BadAnswer), io);
            }
            Verdict::Retry => self.set_state(object, id, State::Delayed(io.now + RETRY_DELAY)),
            Verdict::Fail(failure) => self.finish_part(object, id, Some(failure), io),
        }
        self.pump(object, io);
    }

    /// An object is absent though the index names it: somebody may have
    /// discarded it. The entry decides, read once more.
    pub(super) fn recheck(&mut self, object: u32, id: PartId, io: &mut Io) {
        let seen = self.index.get(object).unwrap_or(0);
        self.set_state(object, id, State::Rechecking(seen));
        if self.is_hyper() {
            return self.look_up(Wanted::Entry(object, id), io);
        }
        let request = Request::read_index(self.own, object, 1);
        self.send(request, None, Wait::Recheck(object, id), io);
    }

    pub(super) fn rechecked(
        &mut self,
        object: u32,
        id: PartId,
        verdict: Verdict,
        bytes: &[u8],
        io: &mut Io,
    ) {
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(id)) else {
            return;
        };
        let State::Rechecking(seen) = part.state else { return };
        let entry = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if verdict == Verdict::Done && entry != seen {
            let request = Request::read_inode_header(self.own);
            return self.send(request, None, Wait::Confirm(object, id, entry), io);
        }
        part.state = State::Waiting;
        match verdict {
            Verdict::Done => part.doubt = Doubt::Rechecked,
            Verdict::Retry => part.state = State::Delayed(io.now + RETRY_DELAY),
            Verdict::Fail(failure) => self.finish_part(object, id, Some(failure), io),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                self.finish_part(object, id, Some(Failure::ObjectLost), io);
            }
        }
        self.pump(object, io);
    }

    /// The entry names the object, and it is absent: while the cluster recovers, it
    /// may only not be found yet.
    fn ask_for_recovery(&mut self, object: u32, id: PartId, io: &mut Io) {
        let seen = self.index.get(object).unwrap_or(0);
        self.set_state(object, id, State::Rechecking(seen));
        self.send(Request::stat_recovery(), None, Wait::Recovery(object, id), io);
    }

    pub(super) fn recovery_replied(
        &mut self,
        object: u32,
        id: PartId,
        (verdict, bytes): (Verdict, &[u8]),
        io: &mut Io,
    ) {
        if let Some(failure) = self.failure() {
            return self.finish_part(object, id, Some(failure), io);
        }
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(id)) else {
            return;
        };
        part.state = State::Delayed(io.now + RETRY_DELAY);
        match verdict {
            Verdict::Done if in_recovery(bytes).unwrap_or(false) => {}
            Verdict::Retry => {}
            Verdict::Done
            | Verdict::Fail(_)
            | Verdict::Reload
            | Verdict::Recheck
            | Verdict::SheepGone => part.doubt = Doubt::Last,
        }
        self.pump(object, io);
    }

    /// The header has come: the VDI was deleted, or only the block discarded.
    pub(super) fn confirmed(
        &mut self,
        object: u32,
        id: PartId,
        entry: u32,
        (verdict, bytes): (Verdict, &[u8]),
        io: &mut Io,
    ) {
        let header = InodeHeader::decode(bytes);
        if verdict != Verdict::Done {
            // Nothing was learnt: as if the entry could not be read.
            return self.rechecked(object, id, verdict, &[], io);
        }
        if !header.is_ok_and(|header| self.is_still_ours(&header)) {
            self.finish_part(object, id, Some(Failure::Replaced), io);
            return self.fail(Failure::Replaced, io);
        }
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(id)) else {
            return;
        };
        let State::Rechecking(seen) = part.state else { return };
        let times = if let Doubt::Cleared(times) = part.doubt { times } else { 0 };
        if entry == 0 && times < CLEARED_TIMES {
            part.state = State::Delayed(io.now + RETRY_DELAY);
            part.doubt = Doubt::Cleared(times + 1);
            return;
        }
        (part.state, part.doubt) = (State::Waiting, Doubt::Rechecked);
        if self.index.get(object) == Some(seen) {
            self.set_entry(object, entry);
            self.tell_stored(io);
            io.ahead.void_object(self.id, object);
            self.recent.learn(object, index::owner(entry), io.now);
            self.tell_allocation(object, index::owner(entry).map_or(0, VdiId::get), io);
        }
        self.pump(object, io);
    }

    pub(super) fn fail_object(&mut self, object: u32, failure: Failure, io: &mut Io) {
        let waiting =
            self.objects.get_mut(&object).map(ObjectQueue::remove_waiting).unwrap_or_default();
        self.forget_if_empty(object);
        for part in waiting {
            self.finish_part_of(part.tag, Some(failure), io);
            if part.kind == Kind::Discard {
                self.abandon_discard(part.tag, failure, io);
            }
        }
    }

    pub(super) fn finish_part(
        &mut self,
        object: u32,
        id: PartId,
        failure: Option<Failure>,
        io: &mut Io,
    ) {
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.remove(id)) else {
            return;
        };
        self.forget_if_empty(object);
        if failure.is_none() {
            self.learn(object, &part, io);
        }
        self.finish_part_of(part.tag, failure, io);
    }

    pub(super) fn forget_if_empty(&mut self, object: u32) {
        if self.objects.get(&object).is_some_and(ObjectQueue::is_empty) {
            self.objects.remove(&object);
        }
    }

    pub(super) fn finish_part_of(&mut self, tag: Tag, failure: Option<Failure>, io: &mut Io) {
        let Some(op) = self.ops.get_mut(&tag) else { return };
        op.parts_left -= 1;
        op.failure = op.failure.or(failure);
        if op.parts_left == 0 {
            self.finish_op(tag, io);
        }
    }
}
