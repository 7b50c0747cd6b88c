//! The worker's decisions against a cluster in memory, which answers in any
//! order, makes snapshots at any moment, asks for patience, and checks the rules
//! that the real one leaves to its clients (protocol 8.5, 8.7).

mod ahead;
mod behind;
mod beside;
mod cached;
mod cases;
mod cluster;
mod copies;
mod deaths;
mod discards;
mod extents;
mod hyper;
mod pages;
mod random;
mod resumed;
mod stolen;
mod tree;
mod unheard;

use crate::engine::{Engine, Surroundings};
use crate::frame::Reply;
use cluster::{Cluster, Sent, Shape};
use rand_core::Rand;
use sheepfs::ipc::{
    Arena, Failure, FromWorker, Gateways, Locking, RawSpan, Tag, ToWorker, VolumeId,
};
use sheepfs::wire::Status;
use sheepfs::wire::btree::Limits;
use sheepfs::wire::header::{ReplyHeader, RequestHeader};
use sheepfs::wire::name::VolumeName;
use std::time::{Duration, Instant};

/// The VDI of most tests; its last object is short, and its size no multiple of
/// anything.
const SHAPE: Shape = Shape { shift: 12, len: 40 * 4096 + 100, copy_policy: 0 };
const VOLUME: VolumeId = VolumeId(1);
/// Bytes of the pieces of copies; one may lie in two objects, or in three.
const PIECE_LEN: u32 = 6000;

/// A small random source, so that a failure can be repeated by its seed.
mod rand_core {
    /// A linear congruential generator.
    pub struct Rand(pub u64);

    impl Rand {
        /// A number below `n`.
        pub fn below(&mut self, n: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % n.max(1)
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is carried out, and the answer says how that went.
    Served,
    /// It is refused, and nothing is done.
    Refused(Status),
    /// It is carried out, and the answer says something else.
    Lied(Status),
}

/// A worker on that cluster.
struct Run {
    engine: Engine,
    cluster: Cluster,
    arena: Arena,
    /// The answers to requests, and volumes that moved.
    out: Vec<FromWorker>,
    /// Everything, in order.
    said: Vec<FromWorker>,
    now: Instant,
    random: Rand,
    /// Of a hundred requests, how many are asked to be patient.
    patience: usize,
    /// Of a hundred requests, how many fail for another reason.
    failures: usize,
    /// Requests of dead workers that may still be carried out.
    orphans: Vec<Sent>,
    /// How many were, after the next worker had begun.
    late: usize,
    /// How many were allocations in an index, if these may be late too.
    late_updates: Option<usize>,
    /// How many entries the nodes of trees have room for.
    tree_limits: Limits,
}

impl Run {
    fn new(seed: u64, cache_bytes: u64) -> Self {
        Self::of_shape(SHAPE, seed, cache_bytes)
    }

    fn of_shape(shape: Shape, seed: u64, cache_bytes: u64) -> Self {
        Self::of_cluster(Cluster::new(shape), Limits::REAL, seed, cache_bytes)
    }

    fn of_cluster(cluster: Cluster, tree_limits: Limits, seed: u64, cache_bytes: u64) -> Self {
        let mut run = Self {
            engine: Engine::new(cache_bytes, true),
            cluster,
            arena: Arena::create(1 << 20).unwrap(),
            out: Vec::new(),
            said: Vec::new(),
            now: Instant::now(),
            random: Rand(seed),
            patience: 0,
            failures: 0,
            orphans: Vec::new(),
            late: 0,
            late_updates: None,
            tree_limits,
        };
        run.engine.limit_trees(tree_limits);
        run.engine.shorten_copies(PIECE_LEN);
        run.attach(VOLUME, "disk");
        run.patience = 5;
        run
    }

    fn attach(&mut self, volume: VolumeId, name: &str) {
        let name = VolumeName::parse(name.as_bytes()).unwrap();
        // An attach does not wait for a cluster that asks for patience: it says so.
        let patience = std::mem::take(&mut self.patience);
        self.tell(attach_of(Tag(0), volume, name));
        self.settle();
        self.patience = patience;
        assert!(matches!(self.out.pop(), Some(FromWorker::Attached { .. })));
    }

    /// Lets the worker do something, and takes what it says.
    fn step(&mut self, step: impl FnOnce(&mut Engine, &mut Surroundings)) {
        let (arena, now, mut out) = (&self.arena, self.now, Vec::new());
        let wire = &mut self.cluster;
        let around = &mut Surroundings { wire, out: &mut out, arena, now };
        if self.orphans.is_empty() {
            self.engine.orphans_are_over(around);
        }
        step(&mut self.engine, around);
        self.out.extend(out.iter().filter(|message| is_answer(message)).cloned());
        self.said.extend(out);
    }

    fn tell(&mut self, message: ToWorker) {
        self.step(|engine, around| engine.message(message, around));
    }

    /// Writes `len` bytes of `value` at `offset`, out of a slot of its own.
    fn write(&mut self, tag: u64, offset: u64, len: u32, value: u8) {
        let span = slot(tag, len);
        self.arena.fill(self.arena.check(span).unwrap(), &vec![value; len as usize]);
        self.tell(ToWorker::Write { tag: Tag(tag), volume: VOLUME, offset, span, again: false });
    }

    fn read(&mut self, tag: u64, offset: u64, len: u32) {
        let span = slot(tag, len);
        self.tell(ToWorker::Read { tag: Tag(tag), volume: VOLUME, offset, span });
    }

    fn bytes(&self, tag: u64, len: u32) -> Vec<u8> {
        self.arena.bytes(self.arena.check(slot(tag, len)).unwrap()).to_vec()
    }

    /// How a request ended; it must have been answered exactly once.
    fn outcome(&self, wanted: u64) -> Result<(), Failure> {
        let outcome = |message: &FromWorker| match message {
            FromWorker::Done { tag, outcome } if tag.0 == wanted => Some(*outcome),
            _ => None,
        };
        let outcomes: Vec<_> = self.out.iter().filter_map(outcome).collect();
        assert_eq!(outcomes.len(), 1, "answers to {wanted}");
        outcomes[0]
    }

    /// The oldest request on the wire of which that is true.
    fn sent(&self, which: impl Fn(&RequestHeader) -> bool) -> usize {
        let found = self.cluster.sent.iter().position(|sent| which(&sent.request.header(0)));
        found.expect("such a request is on the wire")
    }

    /// Answers one request on the wire.
    fn answer(&mut self, which: usize, fate: Fate) {
        let sent = self.cluster.sent.remove(which);
        let header = sent.request.header(0);
        if header.has_payload() && header.opcode <= 3 {
            self.settle_orphans(|orphan| deaths::is_fenced(&orphan.request.header(0), &header));
        }
        let refusal =
            |status| (ReplyHeader::new(&sent.request.header(sent.id), 1, status, 0), Vec::new());
        let (header, bytes) = match fate {
            Fate::Served => self.cluster.execute(&sent, &self.arena),
            Fate::Refused(status) => refusal(status),
            Fate::Lied(status) => {
                self.cluster.execute(&sent, &self.arena);
                refusal(status)
            }
        };
        let reply = Reply::new(header, bytes);
        self.step(|engine, around| engine.reply(&reply, around).unwrap());
    }

    /// Answers any request on the wire, in some way.
    fn answer_one(&mut self) {
        let which = self.random.below(self.cluster.sent.len());
        let fate = self.fate(&self.cluster.sent[which].request.header(0));
        self.answer(which, fate);
    }

    fn fate(&mut self, request: &RequestHeader) -> Fate {
        let dice = self.random.below(100);
        let object = request.opcode <= 3;
        // A failure in the middle of a reload is the end of a volume.
        let object_or_entry = object && (request.obj().oid >> 63 == 0 || request.has_payload());
        if object && dice < self.patience {
            let patience = [Status::Halt, Status::WaitForJoin, Status::NoMem, Status::Again];
            return Fate::Refused(patience[self.random.below(4)]);
        }
        if object_or_entry && dice < self.patience + self.failures {
            let failures = [Status::Eio, Status::NoSpace, Status::SystemError, Status::NoObj];
            let failure = failures[self.random.below(4)];
            let lies = self.random.below(2) == 0 && failure != Status::NoObj;
            return if lies { Fate::Lied(failure) } else { Fate::Refused(failure) };
        }
        Fate::Served
    }

    /// A time step, after which nothing may be overdue: the event loop would spin.
    fn tick(&mut self) {
        self.now += Duration::from_millis(250);
        self.step(Engine::tick);
        let now = self.now;
        assert!(self.engine.next_deadline().is_none_or(|at| at > now), "still overdue");
    }

    /// Answers everything.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            let soon = self.now + Duration::from_secs(5);
            if !self.cluster.sent.is_empty() {
                self.answer_one();
            } else if self.engine.next_deadline().is_some_and(|at| at < soon) {
                self.tick();
            } else {
                return;
            }
        }
        panic!("the worker does not come to rest");
    }
}

/// What attaches a volume, when no earlier worker asked for its lock.
fn attach_of(tag: Tag, volume: VolumeId, name: VolumeName) -> ToWorker {
    ToWorker::Attach { tag, volume, name, lock_sent: Gateways::default(), locking: Locking::Take }
}

/// Whether a message is more than what the supervisor must know in case the worker dies.
fn is_answer(message: &FromWorker) -> bool {
    !matches!(
        message,
        FromWorker::Creating { .. }
            | FromWorker::Growing { .. }
            | FromWorker::Repairing { .. }
            | FromWorker::Discarding { .. }
            | FromWorker::Allocated { .. }
            | FromWorker::HeaderSeen { .. }
            | FromWorker::LockSent { .. }
            | FromWorker::CacheUse { .. }
            | FromWorker::Sought { .. }
            | FromWorker::Stored { .. }
    )
}

/// A slot of 16 KiB for each of 64 requests.
fn slot(tag: u64, len: u32) -> RawSpan {
    RawSpan { offset: u32::try_from(tag % 64).unwrap() << 14, len }
}
