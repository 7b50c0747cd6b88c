//! Workers that die at any instant, and those that follow them: what a supervisor
//! would remember is remembered, and nothing else.
//!
//! A request that was on the wire is carried out at once, later, or never. Later
//! means at the latest before the next change to the same block, which is what the
//! supervisor's fences see to. Changes to inodes are at the sheep or lost when the
//! next worker begins, unless a test wants allocations to be late as well.

use super::cluster::{GATEWAY, Sent};
use super::{PIECE_LEN, Run, VOLUME};
use crate::engine::Engine;
use sheepfs::ipc::{self, FromWorker, Gateways, Tag, ToWorker, VolumeFacts};
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::inode::{GREF_OFFSET, INODE_HEADER_LEN};
use sheepfs::wire::name::VolumeName;
use sheepfs::wire::oid::ObjectKind;
use sheepfs::wire::request::Payload;
use sheepfs::wire::{ObjectId, Opcode};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// What outlives a worker.
#[derive(Default)]
pub struct Supervisor {
    /// Messages that were looked at.
    read: usize,
    facts: Option<VolumeFacts>,
    allocations: BTreeMap<u32, u32>,
    lock_sent: bool,
    repairing: Option<u32>,
    unanswered: BTreeMap<Tag, ToWorker>,
    /// Whether it dies with each worker, so that words stay unheard.
    pub mortal: bool,
    /// Messages that nobody heard.
    pub unheard: usize,
    /// Workers that died.
    pub deaths: usize,
    /// Requests that were told to a second worker.
    pub replays: usize,
}

impl Supervisor {
    /// The vid of the volume, as far as it was told.
    pub fn vid(&self) -> Option<u32> {
        self.facts.as_ref().map(|facts| facts.vid)
    }

    /// A request is under way.
    pub fn note(&mut self, tag: Tag, message: ToWorker) {
        self.unanswered.insert(tag, message);
    }

    /// A request is answered with an error, whatever the worker does: no other is told of it.
    pub fn give_up(&mut self, tag: Tag) {
        assert!(self.unanswered.remove(&tag).is_some(), "nobody waits for {tag:?}");
    }

    /// Takes what the worker said since the last time.
    pub fn listen(&mut self, run: &Run) {
        self.hear(&run.said[self.read..]);
        self.read = run.said.len();
    }

    /// It dies as well: it took some of what the worker said, and the rest is lost with
    /// the socket. What the worker had to wait for until it was noted was heard, else
    /// there were no request on the wire that followed it.
    pub fn die(&mut self, run: &mut Run) {
        let said = &run.said[self.read..];
        let noted = |m: &FromWorker| {
            matches!(
                m,
                FromWorker::LockSent { .. }
                    | FromWorker::Repairing { .. }
                    | FromWorker::Discarding { .. }
            )
        };
        let heard_min = said.iter().rposition(noted).map_or(0, |at| at + 1);
        let heard = heard_min + run.random.below(said.len() - heard_min + 1);
        self.hear(&said[..heard]);
        self.read += heard;
        self.lose(run);
    }

    /// What it has not heard yet it never hears.
    pub fn lose(&mut self, run: &mut Run) {
        let lost = &run.said[self.read..];
        self.unheard += lost.len();
        run.out.retain(|message| !lost.contains(message));
        self.read = run.said.len();
    }

    fn hear(&mut self, said: &[FromWorker]) {
        for message in said {
            match message {
                FromWorker::Attached { facts, .. } => {
                    // The end of an attach, and only the beginning of a resume: the
                    // worker before may hold a newer lock already.
                    self.lock_sent &= self.facts.is_some();
                    self.facts = Some(facts.clone());
                }
                FromWorker::Moved { facts, .. } => {
                    self.facts = Some(facts.clone());
                    self.lock_sent = false;
                    self.repairing = None;
                }
                FromWorker::Repairing { block, .. } => self.repairing = Some(*block),
                FromWorker::Allocated { allocation, .. } if allocation.owner == 0 => {
                    self.allocations.remove(&allocation.block);
                }
                FromWorker::Allocated { allocation, .. } => {
                    self.allocations.insert(allocation.block, allocation.owner);
                }
                FromWorker::LockSent { .. } => self.lock_sent = true,
                FromWorker::Done { tag, .. } => drop(self.unanswered.remove(tag)),
                _ => {}
            }
        }
    }

    /// Kills the worker and starts the next.
    pub fn replace(&mut self, run: &mut Run, cache_bytes: u64) {
        if self.mortal {
            self.die(run);
        } else {
            self.listen(run);
        }
        self.deaths += 1;
        run.abandon();
        run.engine = Engine::new(cache_bytes, true);
        run.engine.limit_index_pages(0);
        run.engine.limit_trees(run.tree_limits);
        run.engine.shorten_copies(PIECE_LEN);
        if !run.cluster.hyper && run.random.below(3) == 0 {
            run.cluster.end_snapshot();
            run.cluster.snapshot();
        }
        self.resume(run);
        self.replay(run);
    }

    /// Tells the worker of everything that has no answer.
    pub fn replay(&mut self, run: &mut Run) {
        for message in self.unanswered.values() {
            self.replays += 1;
            let mut message = message.clone();
            if let ToWorker::Write { again, .. }
            | ToWorker::Zero { again, .. }
            | ToWorker::Discard { again, .. }
            | ToWorker::Copy { again, .. } = &mut message
            {
                *again = true;
            }
            run.tell(message);
        }
    }

    pub fn resume(&mut self, run: &mut Run) {
        let allocations = self.allocations.iter();
        let allocations =
            allocations.map(|(block, owner)| ipc::Allocation { block: *block, owner: *owner });
        run.tell(ToWorker::Remember { volume: VOLUME, allocations: allocations.collect() });
        let name = VolumeName::parse(b"disk").unwrap();
        let lock_sent =
            if self.lock_sent { Gateways::default().with(GATEWAY) } else { Gateways::default() };
        let facts = self.facts.clone().unwrap();
        run.tell(ToWorker::Resume {
            tag: Tag(0),
            volume: VOLUME,
            name,
            facts,
            lock_sent,
            repairing: self.repairing,
        });
        let heard = run.said.len();
        while !run.said[heard..].iter().any(|m| matches!(m, FromWorker::Attached { .. })) {
            if run.cluster.sent.is_empty() {
                run.tick();
            } else {
                run.answer_one();
            }
        }
    }
}

impl Run {
    /// The worker is dead: what becomes of its requests?
    fn abandon(&mut self) {
        for sent in std::mem::take(&mut self.cluster.sent) {
            let header = sent.request.header(0);
            let object = header.opcode <= 3 && header.has_payload();
            let data = ObjectId::from_raw(header.obj().oid).kind() == ObjectKind::Data;
            let removal =
                [Opcode::RemoveObj.code(), Opcode::DecrefObj.code()].contains(&header.opcode);
            let update = self.late_updates.is_some() && allocates(&sent);
            let lock = [Opcode::LockVdi.code(), Opcode::ReleaseVdi.code()].contains(&header.opcode);
            match self.random.below(3) {
                0 | 1 if update => self.orphans.push(sent),
                0 if object && data || removal => {
                    let left = sent.span.map(|span| self.arena.bytes(span).to_vec());
                    self.orphans.push(Sent { left, ..sent });
                }
                1 if object || lock || removal => drop(self.cluster.execute(&sent, &self.arena)),
                _ => {}
            }
        }
    }

    /// What dead workers left for that object happens now or never.
    pub(super) fn settle_orphans(&mut self, which: impl Fn(&Sent) -> bool) {
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.orphans).into_iter().partition(which);
        self.orphans = later;
        for orphan in now {
            if self.random.below(2) == 0 {
                self.late += 1;
                if let Some(late) = &mut self.late_updates {
                    *late += usize::from(is_update(&orphan.request.header(0)));
                }
                self.cluster.execute(&orphan, &self.arena);
            }
        }
    }
}

/// Whether it writes entries of an array.
pub fn is_update(header: &RequestHeader) -> bool {
    let inode = ObjectId::from_raw(header.obj().oid).kind() == ObjectKind::Inode;
    inode && header.opcode <= 3 && header.has_payload() && blocks_of(header).is_some()
}

/// Whether it writes entries that say that their vid owns the objects.
fn allocates(sent: &Sent) -> bool {
    let header = sent.request.header(0);
    let own = ObjectId::from_raw(header.obj().oid).vid_raw().to_le_bytes();
    match sent.request.payload() {
        Payload::Bytes(bytes) if is_update(&header) => bytes.chunks(4).all(|entry| entry == own),
        _ => false,
    }
}

/// The blocks whose objects, or whose entries in an array, a change concerns.
fn blocks_of(header: &RequestHeader) -> Option<RangeInclusive<u32>> {
    let (at, oid) = (header.obj().offset, ObjectId::from_raw(header.obj().oid));
    match oid.kind() {
        ObjectKind::Data => Some(oid.index()..=oid.index()),
        ObjectKind::Inode if at < GREF_OFFSET => {
            let first = at.checked_sub(u32::try_from(INODE_HEADER_LEN).unwrap())? / 4;
            Some(first..=first + header.data_length.div_ceil(4) - 1)
        }
        _ => None,
    }
}

/// Whether an orphan is over before that change, which is to a block that both concern.
pub fn is_fenced(orphan: &RequestHeader, change: &RequestHeader) -> bool {
    match (blocks_of(orphan), blocks_of(change)) {
        (Some(orphan), Some(change)) => {
            orphan.start() <= change.end() && change.start() <= orphan.end()
        }
        _ => orphan.obj().oid == change.obj().oid,
    }
}
