//! Discards among reads and writes, with snapshots that are made meanwhile, deaths and late
//! requests, against a model of the disk and of each snapshot; and in the end everything is
//! deleted, and no object may be left.

mod game;

use super::SHAPE;
use super::VOLUME;
use super::cluster::{Discarded, Shape};
pub(super) use game::{Game, PLAN, Plan};
use sheepfs::ipc::{Failure, FromWorker, Tag, ToWorker};
use std::ops::Range;

/// Seeds from `first` on, as many times more as the environment says.
pub(super) fn seeds(first: u64, count: u64) -> Range<u64> {
    let times = std::env::var("SHEEPFS_SIMULATIONS").map_or(1, |times| times.parse().unwrap());
    first * 1_000_000..first * 1_000_000 + count * times
}

pub(super) fn play(seed: u64, plan: Plan) -> Game {
    let mut game = Game::new(seed, plan);
    for number in 0..50 {
        game.run.failures = if number < 5 { 0 } else { plan.failures };
        game.play_batch();
        if number % 10 == 9 {
            game.check_extents();
        }
    }
    game.check_all();
    game
}

fn total(games: impl Iterator<Item = Game>) -> Discarded {
    games.fold(Discarded::default(), |sum, game| {
        let one = game.run.cluster.discarded;
        Discarded {
            cleared: sum.cleared + one.cleared,
            restored: sum.restored + one.restored,
            removed: sum.removed + one.removed,
            dropped: sum.dropped + one.dropped,
            reverted: sum.reverted + one.reverted,
        }
    })
}

/// Nothing is lost, and nothing is left.
#[test]
fn space_comes_back() {
    let (mut left, mut behind) = (0, 0);
    let done = total(seeds(1000, 30).map(|seed| {
        let mut game = play(seed, Plan { cache_bytes: (seed % 2) << 17, ..PLAN });
        let space = game.check_space();
        (left, behind) = (left + space.0, behind + space.1);
        game
    }));
    println!("{left} left of {behind} that may be, {done:?}");
    assert!(done.removed > 500 && done.dropped > 300, "{done:?}");
}

/// A snapshot has read the inode when an entry is cleared, and writes it back; or it has
/// written it when the clear comes.
#[test]
fn a_snapshot_that_is_made_during_a_discard_keeps_what_it_has() {
    let done = total(seeds(1010, 60).map(|seed| play(seed, Plan { slow: true, ..PLAN })));
    println!("{done:?}");
    assert!(done.reverted > 10 && done.restored > 10, "{done:?}");
    assert!(done.removed > 200, "{done:?}");
}

#[test]
fn deaths_during_discards_lose_nothing() {
    let mut deaths = 0;
    let done = total(seeds(1020, 60).map(|seed| {
        let slow = seed % 2 == 0;
        let mortal = seed % 4 < 2;
        let copy_policy = if seed % 5 == 0 { 0x21 } else { 0 };
        let shape = Shape { copy_policy, ..SHAPE };
        let game = play(seed, Plan { shape, deaths: 4, mortal, slow, ..PLAN });
        deaths += game.supervisor.deaths;
        game
    }));
    println!("{deaths} deaths, {done:?}");
    assert!(deaths > 600 && done.removed > 200 && done.restored > 5, "{deaths} {done:?}");
}

#[test]
fn failures_during_discards_lose_nothing() {
    let done = total(seeds(1030, 30).map(|seed| {
        let slow = seed % 2 == 0;
        play(seed, Plan { failures: 6, slow, ..PLAN })
    }));
    assert!(done.cleared > 300, "{done:?}");
}

/// Cut for a volume that has grown since: what was its last object is not whole any more.
#[test]
fn a_discard_that_ends_within_an_object_does_nothing() {
    let mut game = Game::new(1040, PLAN);
    let len = u32::try_from(game.plan.shape.object_len() + 1).unwrap();
    let (tag, volume, offset, again) = (Tag(1), VOLUME, 0, false);
    game.run.tell(ToWorker::Discard { tag, volume, offset, len, again });
    let said = std::mem::take(&mut game.run.out);
    let refused = FromWorker::Done { tag, outcome: Err(Failure::Grown) };
    assert!(said.contains(&refused), "{said:?}");
    assert!(game.run.cluster.sent.is_empty());
}

/// Snapshots that lose what the index is told while they are made, beside creates and
/// discards: what was answered is there, also in the snapshot, and no object is left.
#[test]
fn snapshots_that_lose_entries_cost_neither_data_nor_space() {
    let (mut lost, mut miscounted) = (0, 0);
    let done = total(seeds(1050, 60).map(|seed| {
        let mut game = play(seed, Plan { slow: true, loses: true, patience: 0, ..PLAN });
        lost += game.run.cluster.lost_updates;
        miscounted += game.run.cluster.miscounted;
        game.check_space();
        game
    }));
    println!("{lost} lost, {miscounted} miscounted, {done:?}");
    assert!(lost > 50 && miscounted > 20, "{lost} {miscounted}");
}

/// The same with workers, and supervisors, that die at any instant.
#[test]
fn deaths_beside_snapshots_that_lose_entries_lose_nothing() {
    let (mut deaths, mut lost) = (0, 0);
    let done = total(seeds(1060, 40).map(|seed| {
        let plan = Plan { deaths: 4, mortal: seed % 4 < 2, slow: true, loses: true, ..PLAN };
        let game = play(seed, plan);
        deaths += game.supervisor.deaths;
        lost += game.run.cluster.lost_updates;
        game
    }));
    println!("{deaths} deaths, {lost} lost, {done:?}");
    assert!(deaths > 400 && lost > 20, "{deaths} {lost}");
}
