//! The game: batches of requests that lie apart, and what must be there after each.

use crate::simulation::cluster::Shape;
use crate::simulation::deaths::Supervisor;
use crate::simulation::{Run, SHAPE, VOLUME};
use sheepfs::ipc::{Failure, FromWorker, RawSpan, Tag, ToWorker};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

#[derive(Clone, Copy)]
pub struct Plan {
    pub shape: Shape,
    pub cache_bytes: u64,
    /// Of a hundred steps, how many does the worker not survive.
    pub deaths: usize,
    /// Whether the supervisor dies with it.
    pub mortal: bool,
    /// Of a hundred requests, how many fail.
    pub failures: usize,
    /// Whether snapshots take their time.
    pub slow: bool,
    /// Of a hundred requests, how many are asked to be patient.
    pub patience: usize,
    /// Whether they lose what the index is told meanwhile.
    pub loses: bool,
    /// Whether ranges are copied as well.
    pub copies: bool,
}

/// Nothing goes wrong, and nothing is copied.
pub const PLAN: Plan = Plan {
    shape: SHAPE,
    cache_bytes: 0,
    deaths: 0,
    mortal: false,
    failures: 0,
    slow: false,
    patience: 5,
    loses: false,
    copies: false,
};

/// A byte of the model; `None` where nobody knows.
type Byte = Option<u8>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Read,
    Write(u8),
    Zero,
    Discard,
    /// From there on.
    Copy(usize),
}

#[derive(Clone, Debug)]
struct Asked {
    kind: Kind,
    range: Range<usize>,
    span: RawSpan,
}

/// A worker, its cluster, and what they must hold.
pub struct Game {
    pub run: Run,
    pub plan: Plan,
    model: Vec<Byte>,
    /// What each snapshot must hold, by age.
    snapshots: Vec<Vec<Byte>>,
    asked: HashMap<Tag, Asked>,
    /// Changes of the last batch, if the worker did not know the newest vid after it: what
    /// it allocated then, the next snapshot may not have (protocol 7.4).
    unsettled: Vec<Range<usize>>,
    tag: u64,
    pub supervisor: Supervisor,
    /// Copies that were done.
    pub copied: usize,
}

impl Game {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let mut run = Run::of_shape(plan.shape, seed, plan.cache_bytes);
        if seed.is_multiple_of(2) {
            run.engine.limit_index_pages(0);
        }
        run.cluster.lies = plan.failures > 0 || plan.deaths > 0;
        run.late_updates = (plan.deaths > 0).then_some(0);
        run.cluster.counts = true;
        run.cluster.loses = plan.loses;
        run.patience = plan.patience;
        if plan.deaths > 0 {
            run.cluster.locks = Some(BTreeSet::from([7]));
        }
        let mut supervisor = Supervisor::default();
        supervisor.mortal = plan.mortal;
        supervisor.listen(&run);
        let model = vec![Some(0); plan.shape.len];
        let (snapshots, asked, unsettled) = (Vec::new(), HashMap::new(), Vec::new());
        Self { run, plan, model, snapshots, asked, unsettled, tag: 0, supervisor, copied: 0 }
    }

    /// The whole objects of a range.
    fn whole(&self, range: &Range<usize>) -> Range<usize> {
        let len = self.plan.shape.object_len();
        let end = if range.end == self.plan.shape.len { range.end } else { range.end / len * len };
        let start = range.start.next_multiple_of(len).min(end);
        start..end
    }

    fn ranges(&mut self) -> Vec<Range<usize>> {
        let (random, shape) = (&mut self.run.random, self.plan.shape);
        let object = shape.object_len();
        let mut at = random.below(3 * object);
        let mut ranges = Vec::new();
        while at < shape.len && ranges.len() < 10 {
            let len_max = [600, 2 * object, 5 * object][random.below(3)];
            let len = 1 + random.below(len_max);
            let mut end = (at + len).min(shape.len);
            if random.below(2) == 0 {
                end = end.next_multiple_of(object).min(shape.len);
            }
            ranges.push(at..end);
            let gap_max = [1, 3 * object][random.below(2)];
            at = end + random.below(gap_max);
            if random.below(2) == 0 {
                at = at.next_multiple_of(object);
            }
        }
        ranges
    }

    fn submit(&mut self, range: Range<usize>, room: u32) -> u32 {
        self.tag += 1;
        let tag = Tag(self.tag);
        let room_len = u32::try_from(range.len()).unwrap();
        let span = RawSpan { offset: room, len: room_len };
        let copy = self.copy_to(&range);
        let kind = match self.run.random.below(8) {
            _ if copy.is_some() => copy.as_ref().map_or(Kind::Read, |(kind, _)| *kind),
            0 | 1 => Kind::Read,
            2..5 => Kind::Write(u8::try_from(1 + self.run.random.below(255)).unwrap()),
            5 => Kind::Zero,
            _ if self.whole(&range).is_empty() => Kind::Zero,
            _ => Kind::Discard,
        };
        let range = match copy {
            Some((_, range)) => range,
            None if kind == Kind::Discard => self.whole(&range),
            None => range,
        };
        let len = u32::try_from(range.len()).unwrap();
        let (volume, offset, again) = (VOLUME, range.start as u64, false);
        let fill = match kind {
            Kind::Read => 0xee,
            Kind::Write(value) => value,
            Kind::Zero | Kind::Discard => 0,
            Kind::Copy(_) => 0xcc,
        };
        self.run.arena.fill(self.run.arena.check(span).unwrap(), &vec![fill; range.len()]);
        let message = match kind {
            Kind::Read => ToWorker::Read { tag, volume, offset, span },
            Kind::Write(_) => ToWorker::Write { tag, volume, offset, span, again },
            Kind::Zero => ToWorker::Zero { tag, volume, offset, span, again },
            Kind::Discard => ToWorker::Discard { tag, volume, offset, len, again },
            Kind::Copy(at) => {
                ToWorker::Copy { tag, from: volume, at: at as u64, volume, offset, len, again }
            }
        };
        self.asked.insert(tag, Asked { kind, range, span });
        self.supervisor.note(tag, message.clone());
        self.run.tell(message);
        room_len
    }

    /// A copy to a part of a range, from where this batch only reads.
    fn copy_to(&mut self, range: &Range<usize>) -> Option<(Kind, Range<usize>)> {
        if !self.plan.copies || self.run.random.below(2) == 0 {
            return None;
        }
        let mut read: Vec<_> =
            self.asked.iter().filter(|(_, asked)| asked.kind == Kind::Read).collect();
        read.sort_by_key(|(tag, _)| **tag);
        let source = read.get(self.run.random.below(read.len()))?.1.range.clone();
        let len = source.len().min(range.len());
        Some((Kind::Copy(source.start), range.start..range.start + len))
    }

    pub fn play_batch(&mut self) {
        let mut room = 0;
        for range in self.ranges() {
            room += self.submit(range, room);
            self.shake();
        }
        while self.run.random.below(if self.plan.deaths > 0 { 40 } else { 4 }) > 0 {
            self.shake();
        }
        self.settle();
        self.supervisor.listen(&self.run);
        let changes = self.asked.values().filter(|asked| asked.kind != Kind::Read);
        let changes: Vec<_> = changes.map(|asked| asked.range.clone()).collect();
        let settled = self.supervisor.vid() == Some(self.run.cluster.working);
        if settled {
            self.unsettled.clear();
        } else {
            self.unsettled.extend(changes);
        }
        for message in std::mem::take(&mut self.run.out) {
            let FromWorker::Done { tag, outcome } = message else { continue };
            let asked = self.asked.remove(&tag).unwrap();
            self.check(&asked, outcome);
        }
        assert!(self.asked.is_empty(), "{} requests have no answer", self.asked.len());
    }

    /// What is not zeros is in no hole, and counts. After failures it need not be counted.
    pub fn check_extents(&mut self) {
        let (len, object) = (self.plan.shape.len, self.plan.shape.object_len());
        let (data, usage) = self.run.data_blocks(len as u64, object as u64);
        self.settle();
        self.supervisor.listen(&self.run);
        let (mut blocks, is_full) = (0_u64.., |byte: &Byte| byte.is_some_and(|byte| byte != 0));
        let full = self.model.chunks(object).filter(|bytes| {
            let block = blocks.next().unwrap();
            bytes.iter().any(is_full) && !data.contains(&block)
        });
        assert_eq!(full.count(), 0, "data is in a hole");
        match usage {
            Some(usage) => assert_eq!(usage.own + usage.shared, data.len() as u64),
            None => assert!(self.plan.failures > 0, "nobody counts"),
        }
    }

    /// Something happens, or nothing.
    fn shake(&mut self) {
        if !self.run.cluster.sent.is_empty() && self.run.random.below(2) == 0 {
            self.run.answer_one();
            self.note_snapshots();
        }
        match self.run.random.below(40) {
            0 if self.plan.slow => self.run.cluster.begin_snapshot(),
            1 if self.plan.slow => self.run.cluster.end_snapshot(),
            2 if !self.plan.slow => self.run.cluster.snapshot(),
            _ => {}
        }
        self.note_snapshots();
        if self.run.random.below(100) < self.plan.deaths {
            self.run.cluster.end_snapshot();
            self.note_snapshots();
            self.supervisor.replace(&mut self.run, self.plan.cache_bytes);
            self.note_snapshots();
        }
    }

    fn settle(&mut self) {
        for _ in 0..100_000 {
            let soon = self.run.now + std::time::Duration::from_secs(5);
            if !self.run.cluster.sent.is_empty() {
                self.run.answer_one();
                if self.run.random.below(30) == 0 {
                    self.run.cluster.end_snapshot();
                }
            } else if self.run.engine.next_deadline().is_some_and(|at| at < soon) {
                self.run.tick();
            } else {
                self.run.cluster.end_snapshot();
                self.note_snapshots();
                return self.run.settle_orphans(|_| true);
            }
            self.note_snapshots();
        }
        panic!("the worker does not come to rest");
    }

    /// A snapshot that is there by now holds the disk; what is under way it may have or not.
    fn note_snapshots(&mut self) {
        while self.snapshots.len() < self.run.cluster.snapshots {
            let mut model = self.model.clone();
            for asked in self.asked.values().filter(|asked| asked.kind != Kind::Read) {
                model[asked.range.clone()].fill(None);
            }
            self.unsettled.iter().for_each(|range| model[range.clone()].fill(None));
            self.snapshots.push(model);
        }
    }

    fn check(&mut self, asked: &Asked, outcome: Result<(), Failure>) {
        let done = outcome.is_ok();
        assert!(done || self.plan.failures > 0, "{asked:?} failed: {outcome:?}");
        match asked.kind {
            Kind::Read if done => {
                let span = self.run.arena.check(asked.span).unwrap();
                let read = self.run.arena.bytes(span);
                agree(read, &self.model[asked.range.clone()], &format!("{asked:?}"));
            }
            Kind::Read => {}
            Kind::Write(value) => self.model[asked.range.clone()].fill(done.then_some(value)),
            Kind::Zero => self.model[asked.range.clone()].fill(done.then_some(0)),
            Kind::Discard => {
                let whole = self.whole(&asked.range);
                self.model[whole].fill(done.then_some(0));
            }
            Kind::Copy(_) if !done => self.model[asked.range.clone()].fill(None),
            Kind::Copy(at) => {
                self.copied += 1;
                self.model.copy_within(at..at + asked.range.len(), asked.range.start);
            }
        }
    }

    /// Deletes all: no object is left but what may have been counted for a vid that a repair
    /// took it from. Gives how many there are of these, and how many might be.
    pub fn check_space(&mut self) -> (usize, usize) {
        let cluster = &mut self.run.cluster;
        let left = cluster.delete_all();
        let other = left.iter().filter(|oid| !cluster.behind.contains(oid)).count();
        assert_eq!(other, 0, "objects are left: {left:x?}");
        (left.len(), cluster.behind.len())
    }

    /// Each snapshot is what it was, and the disk what it must be.
    pub fn check_all(&mut self) {
        for (age, model) in self.snapshots.iter().enumerate() {
            let vid = 7 + u32::try_from(age).unwrap();
            agree(&self.run.cluster.content(vid), model, &format!("snapshot {vid}"));
        }
        self.run.failures = 0;
        let len = u32::try_from(self.plan.shape.len).unwrap();
        let span = RawSpan { offset: 0, len };
        // A write finds the newest vid, so that what a snapshot has lost is repaired.
        self.run.arena.fill(self.run.arena.check(span).unwrap(), &vec![9; len as usize]);
        let one = RawSpan { offset: 0, len: 1 };
        self.tag += 2;
        let (volume, offset, again) = (VOLUME, 0, false);
        let (written, read) = (Tag(self.tag), Tag(self.tag + 1));
        self.run.tell(ToWorker::Write { tag: written, volume, offset, span: one, again });
        self.settle();
        self.model[0] = Some(9);
        self.run.tell(ToWorker::Read { tag: read, volume, offset, span });
        self.settle();
        let bytes = self.run.arena.bytes(self.run.arena.check(span).unwrap());
        agree(bytes, &self.model, "the disk");
    }
}

fn agree(read: &[u8], model: &[Byte], what: &str) {
    let same = |(read, byte): (&u8, &Byte)| byte.is_none_or(|byte| byte == *read);
    let wrong = read.iter().zip(model).position(|pair| !same(pair));
    assert_eq!(wrong, None, "{what} is wrong from there on");
    assert_eq!(read.len(), model.len());
}
