//! The worker's one owner of state: messages and replies go in, requests and
//! messages come out, and nothing in here waits.

mod copying;
mod counting;
mod managing;
mod opening;
mod queries;
mod ticking;

use crate::ahead::Ahead;
use crate::attach::Attach;
use crate::cache::Cache;
use crate::context::{Context, Wire};
use crate::copies::{Copies, Order};
use crate::deadlines::Deadlines;
use crate::frame::Reply;
use crate::index_pages::{Fate, IndexPages, PAGES_MAX};
use crate::query::{Part, QueryRun};
use crate::resume::{Resume, Wanted};
use crate::search::SearchRun;
use crate::turns::Turns;
use crate::volume::objects::Kind;
use crate::volume::{Transfer, Volume, Wait};
use managing::Managed;
use sheepfs::ipc::{
    self, Arena, CacheUsage, Failure, FromWorker, LostReason, RawSpan, Tag, ToWorker, VolumeId,
};
use sheepfs::wire::btree::Limits;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Who waits for a reply.
#[derive(Clone, Debug)]
pub enum Waiter {
    /// An attached volume.
    Volume(VolumeId, Wait),
    /// An attach.
    Attach(Tag),
    /// A resume.
    Resume(Tag),
    /// A query.
    Query(Tag, Part),
    /// An errand.
    Managed(Tag),
}

/// All state of a worker that has a sheep.
pub struct Engine {
    volumes: BTreeMap<VolumeId, Volume>,
    deadlines: Deadlines,
    attaches: HashMap<Tag, Attach>,
    resumes: HashMap<Tag, Resume>,
    /// What earlier workers allocated, of volumes still to be resumed.
    remembered: HashMap<VolumeId, Vec<ipc::Allocation>>,
    queries: HashMap<Tag, QueryRun>,
    managed: BTreeMap<Tag, Managed>,
    searches: HashMap<Tag, SearchRun>,
    copies: Copies,
    waiters: HashMap<u32, Waiter>,
    cache: Cache,
    ahead: Ahead,
    pages: IndexPages,
    /// How many entries the nodes of hyper volumes' trees have room for.
    tree_limits: Limits,
    /// Whose turn it is to count its objects.
    turns: Turns,
    /// Whether nothing of earlier workers can change the cluster any more.
    orphans_over: bool,
    flush_refused: bool,
    /// What the supervisor knows of the cache, and when it may hear more.
    told: (CacheUsage, Option<Instant>),
}

/// What one step acts through.
pub struct Surroundings<'a> {
    /// The sheep.
    pub wire: &'a mut dyn Wire,
    /// Messages to the supervisor.
    pub out: &'a mut Vec<FromWorker>,
    /// The shared memory.
    pub arena: &'a Arena,
    /// The time.
    pub now: Instant,
}

impl Engine {
    /// A worker without volumes.
    ///
    /// `shared` says that volumes may share what is cached, as vids are never used twice.
    pub fn new(cache_bytes: u64, shared: bool) -> Self {
        Self {
            volumes: BTreeMap::new(),
            deadlines: Deadlines::default(),
            attaches: HashMap::new(),
            resumes: HashMap::new(),
            remembered: HashMap::new(),
            queries: HashMap::new(),
            managed: BTreeMap::new(),
            searches: HashMap::new(),
            copies: Copies::default(),
            waiters: HashMap::new(),
            cache: Cache::new(cache_bytes, shared),
            ahead: Ahead::default(),
            pages: IndexPages::new(PAGES_MAX),
            tree_limits: Limits::REAL,
            turns: Turns::default(),
            orphans_over: false,
            flush_refused: false,
            told: (CacheUsage::default(), None),
        }
    }

    /// Leaves room for so many pages of indexes.
    #[cfg(test)]
    pub fn limit_index_pages(&mut self, limit: usize) {
        self.pages = IndexPages::new(limit);
    }

    /// Lets copies have short pieces.
    #[cfg(test)]
    pub fn shorten_copies(&mut self, piece_len: u32) {
        self.copies = Copies::with_pieces_of(piece_len);
    }

    /// Lets trees be split early.
    #[cfg(test)]
    pub fn limit_trees(&mut self, limits: Limits) {
        self.tree_limits = limits;
    }

    /// Takes a message of the supervisor's.
    pub fn message(&mut self, message: ToWorker, around: &mut Surroundings) {
        match message {
            // The session sees to these, and connecting is over before there is an engine.
            ToWorker::Connect { .. }
            | ToWorker::SetRoute { .. }
            | ToWorker::MayUse { .. }
            | ToWorker::Check { .. }
            | ToWorker::Noted
            | ToWorker::Ping { .. }
            | ToWorker::LogFilter { .. } => {}
            ToWorker::Attach { tag, volume, name, lock_sent, locking } => {
                let (mut io, _) = self.context(around);
                let attach = Attach::begin(tag, volume, &name, lock_sent, locking, &mut io);
                self.attaches.insert(tag, attach);
            }
            ToWorker::Remember { volume, allocations } => {
                self.remembered.entry(volume).or_default().extend(allocations);
            }
            ToWorker::Resume { tag, volume, name, facts, lock_sent, repairing } => {
                let remembered = self.take_remembered(volume, around.now);
                let wanted = Wanted { volume, name, facts, lock_sent, repairing, remembered };
                self.resume(tag, wanted, around);
            }
            ToWorker::Query { tag, query } => self.query(tag, query, around),
            ToWorker::Read { tag, volume, offset, span } => {
                let transfer =
                    Transfer { tag, kind: Kind::Read, offset, again: false, sparse: false };
                self.transfer(volume, transfer, span, around);
            }
            ToWorker::Write { tag, volume, offset, span, again } => {
                let transfer = Transfer { tag, kind: Kind::Write, offset, again, sparse: false };
                self.transfer(volume, transfer, span, around);
            }
            ToWorker::Zero { tag, volume, offset, span, again } => {
                let transfer = Transfer { tag, kind: Kind::Write, offset, again, sparse: true };
                self.transfer(volume, transfer, span, around);
            }
            ToWorker::Discard { tag, volume, offset, len, again } => {
                self.with_volume(tag, volume, around, |volume, io| {
                    volume.discard(tag, (offset, len), again, io);
                });
            }
            ToWorker::Flush { tag, volume } => {
                self.with_volume(tag, volume, around, |volume, io| volume.flush(tag, io));
            }
            ToWorker::Detach { tag, volume } => {
                self.with_volume(tag, volume, around, |volume, io| volume.detach(tag, io));
                self.forget_gone(volume);
            }
            ToWorker::SetCache { cache_bytes } => self.cache.resize(cache_bytes),
            ToWorker::Manage { tag, errand, begun } => self.manage(tag, errand, begun, around),
            ToWorker::GoOn { tag } => self.go_on(tag, around),
            ToWorker::Search { tag, search } => self.search(tag, search, around),
            ToWorker::Copy { tag, from, at, volume, offset, len, again } => {
                self.copy(Order { tag, from, at, volume, offset, len, again }, around);
            }
            ToWorker::Seek { tag, volume, offset, target } => {
                self.with_volume(tag, volume, around, |volume, io| {
                    volume.seek(tag, offset, target, io);
                });
            }
        }
        self.settle_copies(around);
    }

    fn transfer(
        &mut self,
        id: VolumeId,
        transfer: Transfer,
        raw: RawSpan,
        around: &mut Surroundings,
    ) {
        let tag = transfer.tag;
        let Some(span) = around.arena.check(raw) else {
            return around.out.push(FromWorker::Done { tag, outcome: Err(Failure::OutOfBounds) });
        };
        self.with_volume(tag, id, around, |volume, io| volume.submit(transfer, span, io));
    }

    fn with_volume(
        &mut self,
        tag: Tag,
        id: VolumeId,
        around: &mut Surroundings,
        step: impl FnOnce(&mut Volume, &mut Context<Waiter>),
    ) {
        self.deadlines.touch(id);
        let (mut io, volumes) = self.context(around);
        match volumes.get_mut(&id) {
            Some(volume) => step(volume, &mut io),
            None => io.done(tag, Err(Failure::NotAttached)),
        }
    }

    fn context<'a>(
        &'a mut self,
        around: &'a mut Surroundings,
    ) -> (Context<'a, Waiter>, &'a mut BTreeMap<VolumeId, Volume>) {
        let io = Context {
            wire: &mut *around.wire,
            out: &mut *around.out,
            arena: around.arena,
            cache: &mut self.cache,
            ahead: &mut self.ahead,
            pages: &mut self.pages,
            now: around.now,
            flush_refused: &mut self.flush_refused,
            waiters: &mut self.waiters,
        };
        (io, &mut self.volumes)
    }

    fn forget_gone(&mut self, id: VolumeId) {
        if self.volumes.get(&id).is_some_and(Volume::is_gone) {
            self.volumes.remove(&id);
        }
    }

    /// Takes a reply.
    ///
    /// # Errors
    /// When the sheep says that it is going.
    pub fn reply(&mut self, reply: &Reply, around: &mut Surroundings) -> Result<(), LostReason> {
        let going = match self.waiters.remove(&reply.id) {
            Some(Waiter::Volume(id, wait)) => {
                self.deadlines.touch(id);
                let (mut io, volumes) = self.context(around);
                let vid = reply.header.vdi().vdi_id;
                let going = match (volumes.get_mut(&id), wait) {
                    (Some(volume), wait) => {
                        volume.reply(wait, reply.status, &reply.bytes, vid, &mut io)
                    }
                    // A detach does not wait for it; its place is another's from now on.
                    (None, Wait::Ahead(object, offset)) => {
                        io.ahead.finish(id, object, offset, None);
                        false
                    }
                    (None, _) => false,
                };
                self.forget_gone(id);
                self.sweep_pages();
                self.tell_paused(around);
                going
            }
            Some(Waiter::Attach(tag)) => self.attach_replied(tag, reply, around),
            Some(Waiter::Resume(tag)) => self.resume_replied(tag, reply, around),
            Some(Waiter::Query(tag, part)) => self.query_replied(tag, part, reply, around),
            Some(Waiter::Managed(tag)) => self.managed_replied(tag, reply, around),
            None => false,
        };
        self.give_turns(around);
        self.settle_copies(around);
        if going { Err(LostReason::ShuttingDown) } else { Ok(()) }
    }

    fn sweep_pages(&mut self) {
        let volumes = &mut self.volumes;
        self.pages.sweep(|id, page| volumes.get_mut(&id).map_or(Fate::Gone, |v| v.drop_page(page)));
    }
}
