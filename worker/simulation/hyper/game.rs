//! Random reads and changes over the largest range there is, against a model.

use super::{BLOCK_LEN, SIZE, SMALL};
use crate::simulation::cluster::Cluster;
use crate::simulation::deaths::Supervisor;
use crate::simulation::{Run, VOLUME, slot};
use sheepfs::ipc::{Failure, FromWorker, Tag, ToWorker};
use sheepfs::wire::btree::{Limits, Root};
use std::collections::{BTreeMap, BTreeSet};

/// A byte of the model; `None` after a change there failed, since nobody knows.
type Byte = Option<u8>;

/// What happens, of a hundred times.
#[derive(Clone, Copy)]
pub struct Plan {
    pub limits: Limits,
    /// Steps that the worker does not survive.
    pub deaths: usize,
    /// Requests that fail.
    pub failures: usize,
    /// Requests that clear something.
    pub clears: usize,
}

pub const PLAN: Plan = Plan { limits: SMALL, deaths: 0, failures: 0, clears: 0 };

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Read,
    Write(u8),
    Zero,
    Discard,
}

/// What a request of a batch must bring.
struct Expected {
    offset: u64,
    len: u32,
    kind: Kind,
}

impl Expected {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }
}

pub struct Game {
    pub run: Run,
    pub supervisor: Supervisor,
    model: BTreeMap<u64, Vec<Byte>>,
    tag: u64,
    plan: Plan,
}

impl Game {
    fn new(seed: u64, plan: Plan) -> Self {
        let cache_bytes = (seed % 2) << 17;
        let mut run = Run::of_cluster(Cluster::of_hyper(SIZE), plan.limits, seed, cache_bytes);
        if seed.is_multiple_of(3) {
            run.engine.limit_index_pages(0);
        }
        run.cluster.locks = Some(BTreeSet::from([7]));
        let mut supervisor = Supervisor::default();
        supervisor.mortal = seed % 4 == 3;
        supervisor.listen(&run);
        Self { run, supervisor, model: BTreeMap::new(), tag: 0, plan }
    }

    pub fn leaves(&self) -> usize {
        let cluster = &self.run.cluster;
        if cluster.is_split() { Root::decode(cluster.top()).unwrap().entries().len() } else { 0 }
    }

    /// A place: among few blocks near each other, anywhere, or at the end.
    fn place(&mut self) -> u64 {
        let random = &mut self.run.random;
        let block = match random.below(4) {
            0 => random.below(40) as u64,
            1 => 3_000_000_000 + random.below(3000) as u64,
            2 => (random.below(1 << 16) as u64) << 16 | random.below(3) as u64,
            _ => (1 << 32) - 1 - random.below(30) as u64,
        };
        block * BLOCK_LEN + random.below(4096) as u64
    }

    fn choose(&mut self) -> Expected {
        let at = self.place();
        let random = &mut self.run.random;
        if random.below(100) < self.plan.clears && random.below(4) > 0 {
            let offset = at / BLOCK_LEN * BLOCK_LEN;
            let most = [2, 10, 70][random.below(3)];
            let blocks = 1 + random.below(most) as u64;
            let len = u32::try_from((blocks * BLOCK_LEN).min(SIZE - offset)).unwrap();
            return Expected { offset, len, kind: Kind::Discard };
        }
        let len = u32::try_from((1 + random.below(6000) as u64).min(SIZE - at)).unwrap();
        let kind = match random.below(3) {
            0 => Kind::Read,
            _ if random.below(100) < self.plan.clears / 2 => Kind::Zero,
            _ => Kind::Write(u8::try_from(1 + random.below(255)).unwrap()),
        };
        Expected { offset: at, len, kind }
    }

    fn play_batch(&mut self) {
        let mut expected: BTreeMap<Tag, Expected> = BTreeMap::new();
        for _ in 0..14 {
            let new = self.choose();
            let apart = |other: &Expected| new.end() <= other.offset || other.end() <= new.offset;
            if !expected.values().all(apart) {
                continue;
            }
            self.tag += 1;
            self.submit(&new);
            expected.insert(Tag(self.tag), new);
            if !self.run.cluster.sent.is_empty() && self.run.random.below(2) == 0 {
                self.run.answer_one();
            }
            self.maybe_die();
        }
        while self.plan.deaths > 0 && self.run.random.below(40) > 0 {
            if !self.run.cluster.sent.is_empty() {
                self.run.answer_one();
            }
            self.maybe_die();
        }
        self.run.settle();
        self.run.settle_orphans(|_| true);
        self.supervisor.listen(&self.run);
        for message in std::mem::take(&mut self.run.out) {
            let FromWorker::Done { tag, outcome } = message else { continue };
            self.check(tag, &expected.remove(&tag).unwrap(), outcome);
        }
        assert!(expected.is_empty(), "{} requests have no answer", expected.len());
    }

    /// What is not zeros is in no hole, and counts. After failures it need not be counted.
    fn check_extents(&mut self) {
        let (data, usage) = self.run.data_blocks(SIZE, BLOCK_LEN);
        let is_full = |byte: &Byte| byte.is_some_and(|byte| byte != 0);
        let full = self.model.iter().filter(|(_, bytes)| bytes.iter().any(is_full));
        let lost: Vec<_> = full.map(|(block, _)| *block).filter(|b| !data.contains(b)).collect();
        assert_eq!(lost, [], "data is in a hole");
        match usage {
            Some(usage) => assert_eq!(usage.own + usage.shared, data.len() as u64),
            None => assert!(self.plan.failures > 0, "nobody counts"),
        }
        self.supervisor.listen(&self.run);
    }

    fn maybe_die(&mut self) {
        if self.run.random.below(100) < self.plan.deaths {
            self.supervisor.replace(&mut self.run, 0);
        }
    }

    fn submit(&mut self, new: &Expected) {
        let Expected { offset, len, kind } = *new;
        let (tag, volume, again) = (Tag(self.tag), VOLUME, false);
        let span = slot(self.tag, if kind == Kind::Discard { 0 } else { len });
        let fill = match kind {
            Kind::Read => 0xee,
            Kind::Write(value) => value,
            Kind::Zero | Kind::Discard => 0,
        };
        self.run.arena.fill(self.run.arena.check(span).unwrap(), &vec![fill; span.len as usize]);
        let message = match kind {
            Kind::Read => ToWorker::Read { tag, volume, offset, span },
            Kind::Write(_) => ToWorker::Write { tag, volume, offset, span, again },
            Kind::Zero => ToWorker::Zero { tag, volume, offset, span, again },
            Kind::Discard => ToWorker::Discard { tag, volume, offset, len, again },
        };
        self.supervisor.note(tag, message.clone());
        self.run.tell(message);
    }

    fn check(&mut self, tag: Tag, expected: &Expected, outcome: Result<(), Failure>) {
        let done = outcome.is_ok();
        assert!(done || self.plan.failures > 0, "a request failed: {outcome:?}");
        match expected.kind {
            Kind::Read if done => {
                let read = self.run.bytes(tag.0, expected.len);
                for (at, byte) in (expected.offset..).zip(read) {
                    let block = self.model.get(&(at / BLOCK_LEN));
                    let known = block.map_or(Some(0), |block| block[place_of(at)]);
                    assert!(known.is_none_or(|known| known == byte), "a read at {at} is wrong");
                }
            }
            Kind::Read => {}
            Kind::Write(value) => self.note(expected, done.then_some(value)),
            Kind::Zero => self.note(expected, done.then_some(0)),
            Kind::Discard => {
                let blocks = expected.offset / BLOCK_LEN..expected.end() / BLOCK_LEN;
                for (_, block) in self.model.range_mut(blocks) {
                    block.fill(done.then_some(0));
                }
            }
        }
    }

    fn note(&mut self, expected: &Expected, byte: Byte) {
        for at in expected.offset..expected.end() {
            let block = self.model.entry(at / BLOCK_LEN).or_insert_with(|| vec![Some(0); 4096]);
            block[place_of(at)] = byte;
        }
    }
}

fn place_of(at: u64) -> usize {
    usize::try_from(at % BLOCK_LEN).unwrap()
}

pub fn play(seed: u64, plan: Plan) -> Game {
    let mut game = Game::new(seed, plan);
    for number in 0..40 {
        game.run.failures = if number < 3 { 0 } else { plan.failures };
        game.play_batch();
        if number % 20 == 19 {
            game.check_extents();
        }
    }
    game
}
