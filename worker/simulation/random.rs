//! Random batches of reads and writes, in any order, against a model of the disk.

use super::cluster::{Cluster, Shape};
use super::deaths::Supervisor;
use super::{Rand, Run, SHAPE, VOLUME};
use sheepfs::ipc::{Failure, FromWorker, RawSpan, Tag, ToWorker, VolumeId};
use std::collections::{BTreeSet, HashMap};

/// One run.
#[derive(Clone, Copy)]
struct Plan {
    shape: Shape,
    cache_bytes: u64,
    lose_entry: bool,
    /// Of a hundred requests, how many fail.
    failures: usize,
    /// Whether there is a snapshot, attached beside the VDI.
    second: bool,
    /// Of a hundred steps, how many does the worker not survive.
    deaths: usize,
    /// Whether the supervisor dies with it.
    mortal: bool,
    /// Whether ranges follow each other, so that reading ahead has something to do.
    sequential: bool,
}

const PLAN: Plan = Plan {
    shape: SHAPE,
    cache_bytes: 0,
    lose_entry: false,
    failures: 0,
    second: false,
    deaths: 0,
    mortal: false,
    sequential: false,
};

/// A byte of the model; `None` after a write there failed, since nobody knows.
type Byte = Option<u8>;

/// Ranges of a batch lie apart, so that the model knows what each must see.
fn batch(random: &mut Rand, shape: Shape, sequential: bool) -> Vec<(u64, u32)> {
    if sequential {
        let len = 1 + random.below(shape.object_len());
        let first = random.below(shape.len);
        let starts = (first..shape.len).step_by(len).take(12);
        let range = |at: usize| (at as u64, u32::try_from(len.min(shape.len - at)).unwrap());
        return starts.map(range).collect();
    }
    let mut at = random.below(3 * shape.object_len());
    let mut ranges = Vec::new();
    while at < shape.len && ranges.len() < 12 {
        let len_max = [600, 2 * shape.object_len()][random.below(2)];
        let len = (1 + random.below(len_max)).min(shape.len - at);
        ranges.push((at as u64, u32::try_from(len).unwrap()));
        at += len + random.below(5 * shape.object_len());
        if random.below(2) == 0 {
            at = at.next_multiple_of(512);
        }
    }
    ranges
}

/// What a request of a batch must bring.
struct Expected {
    span: RawSpan,
    volume: VolumeId,
    start: usize,
    written: Option<u8>,
}

struct Game {
    run: Run,
    plan: Plan,
    /// What the disk holds, and what its snapshot does.
    models: [Vec<Byte>; 2],
    tag: u64,
    batches: usize,
    supervisor: Supervisor,
}

const SNAPSHOT: VolumeId = VolumeId(2);

impl Game {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut run = Run::of_shape(plan.shape, seed, plan.cache_bytes);
        run.cluster.lose_entry = plan.lose_entry;
        // Half of them keep no page of an index that they can do without.
        if seed.is_multiple_of(2) {
            run.engine.limit_index_pages(0);
        }
        // A dead worker's index update may be repeated by the next.
        run.cluster.lies = plan.failures > 0 || plan.deaths > 0;
        run.late_updates = (plan.deaths > 0).then_some(0);
        if plan.deaths > 0 {
            run.cluster.locks = Some(BTreeSet::from([7]));
        }
        let mut supervisor = Supervisor::default();
        supervisor.mortal = plan.mortal;
        supervisor.listen(&run);
        let models = [vec![Some(0); plan.shape.len], vec![Some(0); plan.shape.len]];
        Self { run, plan, models, tag: 0, batches: 0, supervisor }
    }

    /// Makes a snapshot of what there is, and attaches it.
    fn attach_snapshot(&mut self) {
        self.run.cluster.snapshot();
        let name = format!("disk:{}", self.run.cluster.snapshots);
        self.run.attach(SNAPSHOT, &name);
        self.models[1] = self.models[0].clone();
    }

    fn play_batch(&mut self) {
        let mut expected = HashMap::new();
        let mut room = 0;
        for (offset, len) in batch(&mut self.run.random, self.plan.shape, self.plan.sequential) {
            self.tag += 1;
            let span = RawSpan { offset: room, len };
            room += len;
            expected.insert(Tag(self.tag), self.submit(Tag(self.tag), offset, span));
            if !self.run.cluster.sent.is_empty() && self.run.random.below(2) == 0 {
                self.run.answer_one();
            }
            if self.run.random.below(60) == 0 {
                self.run.cluster.snapshot();
            }
            self.maybe_die();
        }
        while self.plan.deaths > 0 && self.run.random.below(30) > 0 {
            if !self.run.cluster.sent.is_empty() {
                self.run.answer_one();
            }
            self.maybe_die();
        }
        self.run.settle();
        self.run.settle_orphans(|_| true);
        // What is answered was heard.
        self.supervisor.listen(&self.run);
        for message in std::mem::take(&mut self.run.out) {
            let FromWorker::Done { tag, outcome } = message else { continue };
            self.check(&expected.remove(&tag).unwrap(), outcome);
        }
        assert!(expected.is_empty(), "{} requests have no answer", expected.len());
    }

    fn maybe_die(&mut self) {
        if self.run.random.below(100) < self.plan.deaths {
            self.supervisor.replace(&mut self.run, self.plan.cache_bytes);
        }
    }

    fn submit(&mut self, tag: Tag, offset: u64, span: RawSpan) -> Expected {
        let run = &mut self.run;
        let start = usize::try_from(offset).unwrap();
        let second = self.plan.second && self.batches >= 5;
        let volume = if second && run.random.below(3) == 0 { SNAPSHOT } else { VOLUME };
        let writes = if self.plan.sequential { 8 } else { 2 };
        let written = (volume == VOLUME && run.random.below(writes) == 0)
            .then(|| u8::try_from(1 + run.random.below(255)).unwrap());
        if let Some(value) = written {
            run.arena.fill(run.arena.check(span).unwrap(), &vec![value; span.len as usize]);
            self.ask(tag, ToWorker::Write { tag, volume, offset, span, again: false });
        } else {
            run.arena.fill(run.arena.check(span).unwrap(), &vec![0xee; span.len as usize]);
            self.ask(tag, ToWorker::Read { tag, volume, offset, span });
        }
        Expected { span, volume, start, written }
    }

    fn ask(&mut self, tag: Tag, message: ToWorker) {
        self.supervisor.note(tag, message.clone());
        self.run.tell(message);
    }

    fn check(&mut self, expected: &Expected, outcome: Result<(), Failure>) {
        let done = outcome.is_ok();
        assert!(done || self.plan.failures > 0, "a request failed: {outcome:?}");
        let model = &mut self.models[usize::from(expected.volume == SNAPSHOT)];
        let model = &mut model[expected.start..expected.start + expected.span.len as usize];
        match expected.written {
            Some(value) => model.fill(done.then_some(value)),
            None if done => {
                let read = self.run.arena.bytes(self.run.arena.check(expected.span).unwrap());
                let same = |(read, byte): (&u8, &Byte)| byte.is_none_or(|byte| byte == *read);
                assert!(read.iter().zip(model.iter()).all(same), "a read is wrong");
            }
            None => {}
        }
    }
}

/// Seeds from `first` on: `count`, or as many times more as the environment says,
/// for a long run by hand.
fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let times = std::env::var("SHEEPFS_SIMULATIONS").map_or(1, |times| times.parse().unwrap());
    first * 1_000_000..first * 1_000_000 + count * times
}

fn play(seed: u64, plan: Plan) -> Cluster {
    play_all(seed, plan).run.cluster
}

fn play_all(seed: u64, plan: Plan) -> Game {
    let mut game = Game::new(seed, plan);
    for number in 0..60 {
        // The first batches fail nowhere, so that the model is known.
        game.run.failures = if number < 5 { 0 } else { plan.failures };
        if number == 5 && plan.second {
            game.attach_snapshot();
        }
        game.batches = number;
        game.play_batch();
    }
    game
}

#[test]
fn the_disk_equals_its_model_whatever_the_order_of_replies() {
    let clusters: Vec<_> = seeds(0, 30).map(|seed| play(seed, PLAN)).collect();
    assert!(clusters.iter().map(|cluster| cluster.snapshots).sum::<usize>() > 30);
}

#[test]
fn the_cache_changes_nothing() {
    let plan = Plan { cache_bytes: 1 << 17, ..PLAN };
    seeds(100, 20).for_each(|seed| drop(play(seed, plan)));
}

#[test]
fn reading_ahead_changes_nothing() {
    let shape = Shape { shift: 14, len: 8 << 14, copy_policy: 0 };
    for seed in seeds(900, 16) {
        let cache_bytes = (seed % 2) << 17;
        let deaths = usize::try_from(seed / 2 % 2).unwrap() * 4;
        let (second, failures) = (seed / 4 % 2 == 1, usize::try_from(seed / 8 % 2).unwrap() * 6);
        let plan = Plan {
            shape,
            cache_bytes,
            deaths,
            failures,
            second: second && deaths == 0,
            sequential: true,
            ..PLAN
        };
        drop(play(seed, plan));
    }
}

/// Protocol 7.4: the server loses index entries while it makes a snapshot.
#[test]
fn entries_that_a_snapshot_loses_are_repaired() {
    let plan = Plan { lose_entry: true, ..PLAN };
    let repaired: usize = seeds(200, 20).map(|seed| play(seed, plan).repaired).sum();
    assert!(repaired > 10, "only {repaired} entries were lost and repaired");
}

/// Protocol 6.1: writes that share a stripe of an erasure-coded VDI wait.
#[test]
fn erasure_coded_and_tiny_objects_are_a_disk_too() {
    let coded = Plan { shape: Shape { copy_policy: 0x21, ..SHAPE }, ..PLAN };
    seeds(300, 10).for_each(|seed| drop(play(seed, coded)));
    let tiny = Shape { shift: 9, len: 100 * 512 + 1, copy_policy: 0 };
    seeds(310, 10).for_each(|seed| drop(play(seed, Plan { shape: tiny, ..PLAN })));
}

/// What was answered with success stays, whatever else fails.
#[test]
fn failures_lose_nothing_that_was_acknowledged() {
    for seed in seeds(400, 30) {
        let cache_bytes = (seed % 2) << 17;
        drop(play(seed, Plan { failures: 6, cache_bytes, ..PLAN }));
    }
}

#[test]
fn a_snapshot_beside_its_disk_stays_what_it_was() {
    let plan = Plan { second: true, cache_bytes: 1 << 18, ..PLAN };
    seeds(500, 10).for_each(|seed| drop(play(seed, plan)));
}

/// Workers die at any instant, with snapshots before, during and after: whatever was
/// answered is there, and whatever was not is done by the next.
#[test]
fn a_death_loses_nothing_and_leaves_nothing_undone() {
    let (mut deaths, mut replays, mut late, mut repaired, mut snapshots) = (0, 0, 0, 0, 0);
    for seed in seeds(600, 40) {
        let cache_bytes = (seed % 2) << 17;
        let plan = Plan { deaths: 4, lose_entry: seed % 3 > 0, cache_bytes, ..PLAN };
        let game = play_all(seed, plan);
        deaths += game.supervisor.deaths;
        replays += game.supervisor.replays;
        late += game.run.late;
        repaired += game.run.cluster.repaired;
        snapshots += game.run.cluster.snapshots;
    }
    let counts = (deaths, replays, late, repaired, snapshots);
    assert!(deaths > 400 && replays > 400 && late > 20 && repaired > 20, "{counts:?}");
    println!("deaths, replays, late orphans, repairs, snapshots: {counts:?}");
}

#[test]
fn a_death_loses_nothing_of_an_erasure_coded_disk() {
    let shape = Shape { copy_policy: 0x21, ..SHAPE };
    for seed in seeds(700, 10) {
        drop(play_all(seed, Plan { shape, deaths: 4, lose_entry: true, ..PLAN }));
    }
}

/// The same when the supervisor dies too: what the worker said last nobody heard.
#[test]
fn a_death_whose_last_words_are_unheard_loses_nothing() {
    let (mut unheard, mut repaired) = (0, 0);
    for seed in seeds(800, 40) {
        let shape = Shape { copy_policy: if seed % 4 == 0 { 0x21 } else { 0 }, ..SHAPE };
        let plan = Plan { shape, deaths: 4, mortal: true, lose_entry: seed % 3 > 0, ..PLAN };
        let game = play_all(seed, plan);
        unheard += game.supervisor.unheard;
        repaired += game.run.cluster.repaired;
    }
    assert!(unheard > 400 && repaired > 20, "{unheard} words unheard, {repaired} repairs");
}
