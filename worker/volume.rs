//! An attached volume: its requests, cut into parts by object, and everything
//! that must be true when one of them is answered.
//!
//! A part runs when its index entry is known and nothing before it stands in the
//! way ([`objects`]). What it then sends follows from the entry (protocol 8.3):
//!
//! ```text
//!            entry 0            entry = own         entry = another vid
//!  read      zeros, at once     READ own            READ that vid's object
//!  write     CREATE, then       WRITE own           CREATE from that object,
//!            index update                           then index update
//! ```
//!
//! The index entry is set only after the create was answered, and the write is
//! answered only after the index entry was (protocol 8.4). A READONLY answer
//! means that somebody made a snapshot: the volume drains what is on the wire,
//! finds its new vid and goes on ([`reload`]); nobody above notices.

pub mod flush;
pub mod index;
pub mod objects;
pub mod recent;
pub mod reload;

use crate::context::Context;
use crate::engine::Waiter;
use crate::verdict::{Verdict, on_object};
use flush::Barriers;
use index::{Index, PAGE_ENTRIES, Update, Updates};
use objects::{Kind, ObjectQueue, Part, PartId, State};
use recent::{Allocation, Recent};
use reload::Reload;
use sheepfs::ipc::{Failure, Span, Tag, VolumeFacts, VolumeId};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::VdiName;
use sheepfs::wire::request::{Extent, TRANSFER_LEN_MAX};
use sheepfs::wire::{Request, Status, VdiId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a part waits when the cluster asks for patience (HALT, recovery).
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// What the worker's engine passes to a volume with each step.
pub type Io<'a> = Context<'a, Waiter>;

/// What a reply is for.
#[derive(Clone, Debug)]
pub enum Wait {
    /// A part's read, write or create.
    Part(u32, PartId),
    /// A part's index entry, read again.
    Recheck(u32, PartId),
    /// A page of the index.
    Page(u32),
    /// An index update.
    Update(Update),
    /// A flush.
    Flush(Tag),
    /// The header, to see whether the VDI is still what it was.
    Header(Instant),
    /// A step of a reload.
    Reload,
    /// The release of the lock at the end.
    Release(Tag),
}

/// A request of the supervisor's, in parts.
#[derive(Debug)]
struct Op {
    parts_left: usize,
    failure: Option<Failure>,
    /// Its place among the writes, for flushes.
    write: Option<u64>,
}

/// Whether parts may run.
#[derive(Debug)]
enum Phase {
    Serving,
    /// The vid became a snapshot; what is on the wire is waited for.
    Draining,
    /// The new vid is being found.
    Reloading(Box<Reload>),
    /// The VDI is gone or lost to another client.
    Failed(Failure),
}

/// An attached volume.
#[derive(Debug)]
pub struct Volume {
    id: VolumeId,
    name: VdiName,
    header: InodeHeader,
    own: VdiId,
    locked: Option<VdiId>,
    index: Index,
    updates: Updates,
    updates_delayed: Option<Instant>,
    objects: BTreeMap<u32, ObjectQueue>,
    ops: BTreeMap<Tag, Op>,
    barriers: Barriers,
    recent: Recent,
    phase: Phase,
    detaching: Option<Tag>,
    next_part: u64,
    on_wire: usize,
}

impl Volume {
    /// A volume that was found, locked if `locked` says so, and checked.
    pub fn new(
        id: VolumeId,
        name: VdiName,
        own: VdiId,
        header: InodeHeader,
        locked: Option<VdiId>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            name,
            header,
            own,
            locked,
            index: Index::default(),
            updates: Updates::default(),
            updates_delayed: None,
            objects: BTreeMap::new(),
            ops: BTreeMap::new(),
            barriers: Barriers::default(),
            recent: Recent::new(now),
            phase: Phase::Serving,
            detaching: None,
            next_part: 0,
            on_wire: 0,
        }
    }

    /// What the supervisor is told of it.
    pub fn facts(&self) -> VolumeFacts {
        VolumeFacts {
            vid: self.own.get(),
            size: self.header.vdi_size,
            create_time: self.header.create_time,
            copies: self.header.nr_copies,
            copy_policy: self.header.copy_policy,
            block_size_shift: self.header.block_size_shift,
            snap_id: self.header.snap_id,
            snapshot: self.header.is_snapshot(),
        }
    }

    /// Takes a read or a write.
    pub fn submit(&mut self, tag: Tag, kind: Kind, offset: u64, span: Span, io: &mut Io) {
        let end = offset.checked_add(u64::from(span.len()));
        if end.is_none_or(|end| end > self.header.vdi_size) {
            return io.done(tag, Err(Failure::OutOfBounds));
        }
        if let Some(failure) = self.refusal(kind) {
            return io.done(tag, Err(failure));
        }
        if kind == Kind::Read
            && !self.overlaps_write(offset, span.len())
            && io.cache.read(self.id, offset, span, io.arena)
        {
            return io.done(tag, Ok(()));
        }
        let objects = self.split(tag, kind, offset, span);
        let write = (kind == Kind::Write).then(|| self.barriers.begin_write());
        self.ops.insert(tag, Op { parts_left: objects.len(), failure: None, write });
        if objects.is_empty() {
            return self.finish_op(tag, io);
        }
        for object in objects.iter().map(|(object, _)| *object).collect::<BTreeSet<_>>() {
            self.pump(object, io);
        }
    }

    fn refusal(&self, kind: Kind) -> Option<Failure> {
        match self.phase {
            Phase::Failed(failure) => Some(failure),
            _ if kind == Kind::Write && self.header.is_snapshot() => Some(Failure::ReadOnly),
            Phase::Serving | Phase::Draining | Phase::Reloading(_) => None,
        }
    }

    /// Cuts a range at object borders and queues the parts.
    fn split(&mut self, tag: Tag, kind: Kind, offset: u64, span: Span) -> Vec<(u32, PartId)> {
        let shift = self.header.block_size_shift;
        let mut done = 0;
        let mut parts = Vec::with_capacity(1);
        while done < span.len() {
            let at = offset + u64::from(done);
            let inside = at & ((1 << shift) - 1);
            let left = ((1u64 << shift) - inside)
                .min(u64::from((span.len() - done).min(TRANSFER_LEN_MAX)));
            let (Ok(object), Ok(inside), Ok(len)) =
                (u32::try_from(at >> shift), u32::try_from(inside), u32::try_from(left))
            else {
                break;
            };
            let Some(extent) = Extent::new(inside, len, shift) else { break };
            let id = PartId(self.next_part);
            self.next_part += 1;
            let span = span.part(done, len);
            let state = State::Waiting;
            let part = Part { id, tag, kind, extent, span, state, rechecked: false };
            self.objects.entry(object).or_default().push(part);
            parts.push((object, id));
            done += len;
        }
        parts
    }

    /// Whether a range is being written, so that the cache must not answer. The
    /// write has removed its blocks by then, unless it still waits its turn.
    fn overlaps_write(&self, offset: u64, len: u32) -> bool {
        let shift = self.header.block_size_shift;
        let last = (offset + u64::from(len)).saturating_sub(1) >> shift;
        let first = offset >> shift;
        let (Ok(first), Ok(last)) = (u32::try_from(first), u32::try_from(last)) else {
            return true;
        };
        self.objects.range(first..=last).any(|(_, queue)| queue.has_writes())
    }

    /// Starts what may start on an object.
    fn pump(&mut self, object: u32, io: &mut Io) {
        loop {
            if !matches!(self.phase, Phase::Serving) {
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
            if part.kind == Kind::Read && index::owner(entry).is_none() {
                io.arena.zero(part.span);
                self.finish_part(object, part.id, None, io);
            } else {
                self.start(object, &part, entry, io);
            }
        }
    }

    fn load_page(&mut self, page: u32, io: &mut Io) {
        if self.index.begin_load(page) {
            let request = Request::read_index(self.own, page * PAGE_ENTRIES, PAGE_ENTRIES);
            self.send(request, None, Wait::Page(page), io);
        }
    }

    /// Sends the request for a part.
    fn start(&mut self, object: u32, part: &Part, entry: u32, io: &mut Io) {
        let own = self.own;
        let (request, state) = match (part.kind, index::owner(entry)) {
            (Kind::Read, Some(owner)) => {
                (Request::read(owner, object, part.extent), State::Running)
            }
            (Kind::Read, None) => return,
            (Kind::Write, Some(owner)) if owner == own => {
                (Request::write(own, object, part.extent), State::Running)
            }
            (Kind::Write, Some(base)) => {
                (Request::create_from(own, object, base, part.extent), State::Creating)
            }
            (Kind::Write, None) => (Request::create(own, object, part.extent), State::Creating),
        };
        if part.kind == Kind::Write {
            io.cache.forget(self.id, self.position(object, part), part.span.len());
        }
        self.set_state(object, part.id, state);
        self.send(request, Some(part.span), Wait::Part(object, part.id), io);
    }

    /// Where a part lies in the volume.
    fn position(&self, object: u32, part: &Part) -> u64 {
        (u64::from(object) << self.header.block_size_shift) + u64::from(part.extent.offset())
    }

    fn set_state(&mut self, object: u32, part: PartId, state: State) {
        if let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(part)) {
            part.state = state;
        }
    }

    fn send(&mut self, request: Request, span: Option<Span>, wait: Wait, io: &mut Io) {
        self.on_wire += 1;
        io.send(request, span, Waiter::Volume(self.id, wait));
    }

    /// A reply came. `true`: the sheep says that it is going.
    #[must_use]
    pub fn reply(
        &mut self,
        wait: Wait,
        status: Status,
        bytes: &[u8],
        vid: u32,
        io: &mut Io,
    ) -> bool {
        self.on_wire -= 1;
        let verdict = on_object(status);
        if verdict == Verdict::SheepGone {
            return true;
        }
        match wait {
            Wait::Part(object, part) => self.part_replied(object, part, verdict, io),
            Wait::Recheck(object, part) => self.rechecked(object, part, verdict, bytes, io),
            Wait::Page(page) => self.page_replied(page, verdict, bytes, io),
            Wait::Update(update) => self.update_replied(&update, verdict, io),
            Wait::Flush(tag) => self.flush_replied(tag, status, io),
            Wait::Header(asked) => self.header_replied(asked, verdict, bytes, io),
            Wait::Reload => self.reload_replied(status, bytes, vid, io),
            Wait::Release(tag) => io.done(tag, Ok(())),
        }
        self.settle(io);
        false
    }

    fn part_replied(&mut self, object: u32, id: PartId, verdict: Verdict, io: &mut Io) {
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(id)) else {
            return;
        };
        let part = *part;
        match verdict {
            Verdict::Done if part.state == State::Creating => {
                self.updates.push(object, id);
                self.send_updates(io);
            }
            Verdict::Done => {
                if part.kind == Kind::Read {
                    io.cache.learn(self.id, self.position(object, &part), part.span, io.arena);
                }
                self.finish_part(object, id, None, io);
            }
            Verdict::Recheck if !part.rechecked => self.recheck(object, id, io),
            Verdict::Recheck => self.finish_part(object, id, Some(Failure::ObjectLost), io),
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
    fn recheck(&mut self, object: u32, id: PartId, io: &mut Io) {
        let seen = self.index.get(object).unwrap_or(0);
        self.set_state(object, id, State::Rechecking(seen));
        let request = Request::read_index(self.own, object, 1);
        self.send(request, None, Wait::Recheck(object, id), io);
    }

    fn rechecked(&mut self, object: u32, id: PartId, verdict: Verdict, bytes: &[u8], io: &mut Io) {
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(id)) else {
            return;
        };
        let State::Rechecking(seen) = part.state else { return };
        part.state = State::Waiting;
        match verdict {
            Verdict::Done => {
                part.rechecked = true;
                let entry = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                if self.index.get(object) == Some(seen) {
                    self.index.set(object, entry);
                }
            }
            Verdict::Retry => part.state = State::Delayed(io.now + RETRY_DELAY),
            Verdict::Fail(failure) => self.finish_part(object, id, Some(failure), io),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                self.finish_part(object, id, Some(Failure::ObjectLost), io);
            }
        }
        self.pump(object, io);
    }

    fn page_replied(&mut self, page: u32, verdict: Verdict, bytes: &[u8], io: &mut Io) {
        let failure = match verdict {
            Verdict::Done => {
                self.index.load(page, bytes);
                None
            }
            Verdict::Retry => {
                self.index.cancel_load(page);
                return self.delay_page(page, io.now + RETRY_DELAY);
            }
            Verdict::Fail(failure) => Some(failure),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => Some(Failure::ObjectLost),
        };
        let objects = self.objects_of(page);
        if let Some(failure) = failure {
            self.index.cancel_load(page);
            objects.iter().for_each(|object| self.fail_object(*object, failure, io));
        }
        objects.iter().for_each(|object| self.pump(*object, io));
    }

    fn objects_of(&self, page: u32) -> Vec<u32> {
        let first = page * PAGE_ENTRIES;
        self.objects.range(first..first + PAGE_ENTRIES).map(|(object, _)| *object).collect()
    }

    fn delay_page(&mut self, page: u32, until: Instant) {
        for object in self.objects_of(page) {
            if let Some(queue) = self.objects.get_mut(&object) {
                queue.delay_waiting(until);
            }
        }
    }

    fn fail_object(&mut self, object: u32, failure: Failure, io: &mut Io) {
        let waiting =
            self.objects.get_mut(&object).map(ObjectQueue::remove_waiting).unwrap_or_default();
        for part in waiting {
            self.finish_part_of(part.tag, Some(failure), io);
        }
        self.forget_if_empty(object);
    }

    fn send_updates(&mut self, io: &mut Io) {
        if self.updates_delayed.is_some() {
            return;
        }
        while let Some(update) = self.updates.next() {
            match Request::write_index(self.own, update.first, update.count(), self.own) {
                Some(request) => self.send(request, None, Wait::Update(update), io),
                None => self.finish_update(&update, Some(Failure::OutOfBounds), io),
            }
        }
    }

    fn update_replied(&mut self, update: &Update, verdict: Verdict, io: &mut Io) {
        match verdict {
            Verdict::Done => {
                for (block, _) in update.blocks() {
                    self.index.set(block, self.own.get());
                    let owner = self.own;
                    self.recent.push(Allocation { block, owner, at: io.now });
                }
                self.finish_update(update, None, io);
            }
            Verdict::Retry => {
                self.updates.finish();
                update.blocks().for_each(|(block, part)| self.updates.push(block, part));
                self.updates_delayed = Some(io.now + RETRY_DELAY);
            }
            Verdict::Fail(failure) => self.finish_update(update, Some(failure), io),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                self.finish_update(update, Some(Failure::ObjectLost), io);
            }
        }
        self.send_updates(io);
    }

    fn finish_update(&mut self, update: &Update, failure: Option<Failure>, io: &mut Io) {
        self.updates.finish();
        for (block, part) in update.blocks() {
            self.finish_part(block, part, failure, io);
            self.pump(block, io);
        }
    }

    fn finish_part(&mut self, object: u32, id: PartId, failure: Option<Failure>, io: &mut Io) {
        let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.remove(id)) else {
            return;
        };
        self.forget_if_empty(object);
        self.finish_part_of(part.tag, failure, io);
    }

    fn forget_if_empty(&mut self, object: u32) {
        if self.objects.get(&object).is_some_and(ObjectQueue::is_empty) {
            self.objects.remove(&object);
        }
    }

    fn finish_part_of(&mut self, tag: Tag, failure: Option<Failure>, io: &mut Io) {
        let Some(op) = self.ops.get_mut(&tag) else { return };
        op.parts_left -= 1;
        op.failure = op.failure.or(failure);
        if op.parts_left == 0 {
            self.finish_op(tag, io);
        }
    }

    fn finish_op(&mut self, tag: Tag, io: &mut Io) {
        let Some(op) = self.ops.remove(&tag) else { return };
        io.done(tag, op.failure.map_or(Ok(()), Err));
        if let Some(write) = op.write {
            self.barriers.end_write(write);
            self.send_flushes(io);
        }
    }

    /// Takes a time step: what was delayed may go on.
    pub fn tick(&mut self, io: &mut Io) {
        if self.updates_delayed.is_some_and(|until| until <= io.now) {
            self.updates_delayed = None;
            self.send_updates(io);
        }
        let delayed: Vec<u32> = self
            .delayed()
            .filter(|(until, _)| *until <= io.now)
            .map(|(_, object)| object)
            .collect();
        delayed.iter().for_each(|object| self.pump(*object, io));
        self.tick_reload(io);
        self.check_header(io);
        self.settle(io);
    }

    fn delayed(&self) -> impl Iterator<Item = (Instant, u32)> + '_ {
        self.objects
            .iter()
            .filter_map(|(object, queue)| queue.delayed_until().map(|until| (until, *object)))
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let reload = match &self.phase {
            Phase::Reloading(reload) => reload.delayed_until(),
            Phase::Serving => self.recent.next_check(),
            Phase::Draining | Phase::Failed(_) => None,
        };
        let parts = self.delayed().map(|(until, _)| until).min();
        [self.updates_delayed, reload, parts].into_iter().flatten().min()
    }

    /// Starts what waits for the wire to be empty.
    fn settle(&mut self, io: &mut Io) {
        let idle = self.on_wire == 0 && self.updates.is_idle();
        if idle && matches!(self.phase, Phase::Draining) {
            self.begin_reload(io);
        }
        if self.ops.is_empty()
            && self.on_wire == 0
            && self.barriers.is_idle()
            && let Some(tag) = self.detaching.take()
        {
            self.release(tag, io);
        }
    }

    /// Finishes what is under way, then gives the lock back and answers.
    pub fn detach(&mut self, tag: Tag, io: &mut Io) {
        self.detaching = Some(tag);
        self.settle(io);
    }

    fn release(&mut self, tag: Tag, io: &mut Io) {
        io.cache.drop_volume(self.id);
        self.phase = Phase::Failed(Failure::NotAttached);
        match self.locked.take() {
            Some(vid) => self.send(Request::release_vdi(vid), None, Wait::Release(tag), io),
            None => io.done(tag, Ok(())),
        }
    }

    /// Whether it was detached, and all is answered.
    pub fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Failed(Failure::NotAttached)) && self.on_wire == 0
    }
}
