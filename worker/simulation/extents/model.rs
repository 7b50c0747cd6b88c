//! Seeks and the count against a model of which blocks were written.

use super::super::deaths::{Supervisor, is_update};
use super::super::{Run, VOLUME, slot};
use super::{BLOCK_LEN, BLOCKS, WIDE, seek_of, wide};
use sheepfs::ipc::{FromWorker, SeekTarget, Tag, ToWorker};
use std::collections::{BTreeMap, BTreeSet};

/// Which blocks were written, as those see it who wait for the answers.
#[derive(Default)]
struct Model {
    /// Their writes are answered.
    present: BTreeSet<u64>,
    /// Their writes may be.
    under_way: BTreeMap<u64, u64>,
    /// Their writes were answered with an error, and may be done nevertheless.
    failed: BTreeSet<u64>,
    /// Seeks, with what was there when they began.
    seeks: BTreeMap<u64, (u64, SeekTarget, BTreeSet<u64>)>,
}

impl Model {
    /// Takes what the worker has answered.
    fn hear(&mut self, run: &mut Run) {
        for message in std::mem::take(&mut run.out) {
            let FromWorker::Done { tag: Tag(tag), outcome } = message else { continue };
            assert_eq!(outcome, Ok(()), "{tag}");
            if let Some(block) = self.under_way.remove(&tag) {
                self.present.insert(block);
            }
            if let Some((offset, target, there)) = self.seeks.remove(&tag) {
                let said = run.said.iter().rev().find_map(|message| match message {
                    FromWorker::Sought { tag: said, offset } if said.0 == tag => Some(*offset),
                    _ => None,
                });
                self.check(offset, target, &there, said.unwrap());
            }
        }
    }

    fn is_under_way(&self, block: u64) -> bool {
        self.under_way.values().any(|b| *b == block)
    }

    /// Nothing that somebody was answered for, be it with an error, is stored and not counted.
    fn check_count(&self, run: &Run) {
        let Some(usage) = run.usage() else { return };
        let settled = places().filter(|block| !self.is_under_way(*block));
        let stored = settled.filter(|block| is_stored(run, *block)).count() as u64;
        let counted = usage.own + usage.shared;
        assert!(counted >= stored, "{counted} are counted, and {stored} stored");
    }

    /// All is quiet, and counted.
    fn check_total(&self, run: &Run) {
        let usage = run.usage().expect("all is counted");
        let there = |block: &u64| is_stored(run, *block) || self.present.contains(block);
        let (counted, there) = (usage.own + usage.shared, places().filter(there).count() as u64);
        // A snapshot may lose an entry that was counted and whose write has failed.
        let is_exact = !run.cluster.lose_entry || self.failed.is_empty();
        assert!(counted == there || !is_exact && counted > there, "{counted}, not {there}");
    }

    fn check(&self, offset: u64, target: SeekTarget, there: &BTreeSet<u64>, end: Option<u64>) {
        let len = WIDE.len as u64;
        let end_offset = end.unwrap_or(len);
        assert!((offset..=len).contains(&end_offset), "{offset} to {end_offset}");
        let [first, last] = [offset / BLOCK_LEN, end_offset / BLOCK_LEN];
        let may_be = |block: &u64| {
            let written = self.present.contains(block) || self.failed.contains(block);
            written || self.is_under_way(*block)
        };
        match target {
            SeekTarget::Data => {
                let behind = if end.is_some() { last } else { BLOCKS };
                assert_eq!(there.range(first..behind).next(), None, "data was passed");
                assert!(end.is_none() || may_be(&last), "no data at {end_offset}");
            }
            SeekTarget::Hole => {
                assert!((first..last).all(|block| may_be(&block)), "a hole was passed");
                assert!(end_offset == len || !there.contains(&last), "no hole at {end_offset}");
            }
        }
    }
}

/// The blocks that the test is about: around the borders of pieces.
fn places() -> impl Iterator<Item = u64> {
    [0, 65_500, 131_040, BLOCKS - 60].into_iter().flat_map(|base| base..base + 60)
}

fn any_block(run: &mut Run) -> u64 {
    places().nth(run.random.below(240)).unwrap()
}

fn is_stored(run: &Run, block: u64) -> bool {
    run.cluster.entry(run.cluster.working, u32::try_from(block).unwrap()) != 0
}

/// What a game came to.
#[derive(Default)]
struct Totals {
    deaths: usize,
    snapshots: usize,
    seeks: usize,
    failed: usize,
    late: usize,
}

struct Game {
    run: Run,
    model: Model,
    supervisor: Supervisor,
    tag: u64,
    seeks: usize,
}

impl Game {
    fn new(seed: u64, deaths: usize) -> Self {
        let mut run = wide(seed);
        run.patience = 5;
        run.cluster.lose_entry = seed.is_multiple_of(3);
        run.cluster.lies = deaths > 0;
        run.late_updates = Some(0);
        let (model, mut supervisor) = (Model::default(), Supervisor::default());
        supervisor.listen(&run);
        Self { run, model, supervisor, tag: 0, seeks: 0 }
    }

    /// A write or a seek.
    fn ask(&mut self) {
        self.tag += 1;
        let (tag, block) = (self.tag, any_block(&mut self.run));
        if self.run.random.below(2) == 0 {
            let span = slot(tag, 40);
            self.model.under_way.insert(tag, block);
            let offset = block * BLOCK_LEN + (tag % 64) * 40;
            let write =
                ToWorker::Write { tag: Tag(tag), volume: VOLUME, offset, span, again: false };
            self.supervisor.note(Tag(tag), write);
            self.run.write(tag, offset, 40, 1);
        } else {
            self.seeks += 1;
            let offset = block * BLOCK_LEN + self.run.random.below(3000) as u64;
            let offset = offset.min(WIDE.len as u64 - 1);
            let target = [SeekTarget::Data, SeekTarget::Hole][self.run.random.below(2)];
            self.model.seeks.insert(tag, (offset, target, self.model.present.clone()));
            self.supervisor.note(Tag(tag), seek_of(tag, offset, target));
            self.run.seek(tag, offset, target);
        }
    }

    /// The worker dies, and of what it was at some writes fail.
    fn die(&mut self) {
        let under_way: Vec<u64> = self.model.under_way.keys().copied().collect();
        for tag in under_way {
            if self.run.random.below(3) == 0 {
                self.supervisor.give_up(Tag(tag));
                self.model.failed.extend(self.model.under_way.remove(&tag));
            }
        }
        self.supervisor.replace(&mut self.run, 0);
        if self.run.random.below(2) == 0 {
            self.run.engine.limit_index_pages(10);
        }
    }

    fn step(&mut self, deaths: usize) {
        if !self.run.cluster.sent.is_empty() {
            self.run.answer_one();
        }
        match self.run.random.below(120) {
            0 => self.run.cluster.snapshot(),
            1..5 => self.run.settle_orphans(|_| true),
            _ => {}
        }
        self.model.hear(&mut self.run);
        self.model.check_count(&self.run);
        // An update that is on its way may be late.
        let updates = self.run.cluster.sent.iter().any(|sent| is_update(&sent.request.header(0)));
        if self.run.random.below(100) < if updates { 10 * deaths } else { deaths } {
            self.die();
            self.model.hear(&mut self.run);
            self.model.check_count(&self.run);
        }
    }

    fn rest(&mut self) {
        self.run.settle();
        self.run.settle_orphans(|_| true);
        self.run.tick();
        self.run.settle();
        self.model.hear(&mut self.run);
        self.supervisor.listen(&self.run);
        let Model { under_way, seeks, .. } = &self.model;
        assert!(under_way.is_empty() && seeks.is_empty(), "some have no answer");
        self.model.check_count(&self.run);
        self.model.check_total(&self.run);
    }
}

fn play(seed: u64, deaths: usize) -> Totals {
    let mut game = Game::new(seed, deaths);
    for _ in 0..100 {
        (0..game.run.random.below(4)).for_each(|_| game.ask());
        (0..game.run.random.below(20)).for_each(|_| game.step(deaths));
        game.run.tick();
        if game.run.random.below(5) == 0 {
            game.rest();
        }
    }
    let Game { run, model, supervisor, seeks, .. } = game;
    Totals {
        deaths: supervisor.deaths,
        snapshots: run.cluster.snapshots,
        seeks,
        failed: model.failed.len(),
        late: run.late_updates.unwrap(),
    }
}

/// Whatever the order of replies, with snapshots that lose entries in between, no
/// answered write is in a hole, and the count is right when all is quiet.
#[test]
fn seeks_agree_with_what_was_written() {
    let (snapshots, seeks) = (0..12)
        .map(|seed| play(seed, 0))
        .fold((0, 0), |sum, total| (sum.0 + total.snapshots, sum.1 + total.seeks));
    assert!(snapshots > 10 && seeks > 500, "{snapshots} snapshots, {seeks} seeks");
}

/// The same over workers that die at any instant. What they were at may fail, and be done all
/// the same at any later time: even then no less is counted than what is stored.
#[test]
fn seeks_agree_with_what_was_written_over_deaths() {
    let mut sum = Totals::default();
    for total in (100..112).map(|seed| play(seed, 1)) {
        sum.deaths += total.deaths;
        sum.failed += total.failed;
        sum.late += total.late;
    }
    let Totals { deaths, failed, late, .. } = sum;
    assert!(deaths > 50 && failed > 50, "{deaths} deaths, {failed} writes failed");
    assert!(late > 20, "{late} updates were late");
}
