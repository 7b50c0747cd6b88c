//! Copies among reads, writes and discards, with snapshots that are made meanwhile, deaths
//! and late requests; and what a copy costs.

use super::cluster::Shape;
use super::discards::{PLAN, Plan, play, seeds};
use super::{Fate, Run, SHAPE, VOLUME};
use sheepfs::ipc::{Failure, FromWorker, Tag, ToWorker, VolumeId};
use sheepfs::wire::Status;

const COPIES: Plan = Plan { copies: true, ..PLAN };
const SNAPSHOT: VolumeId = VolumeId(2);

#[test]
fn copies_are_what_their_sources_were() {
    let copied = seeds(1100, 15).map(|seed| {
        let mut game = play(seed, Plan { cache_bytes: (seed % 2) << 17, ..COPIES });
        game.check_space();
        game.copied
    });
    let copied = copied.sum::<usize>();
    println!("{copied} copies");
    assert!(copied > 500, "{copied}");
}

#[test]
fn copies_between_erasure_coded_objects_share_no_stripe_with_others() {
    let shape = Shape { copy_policy: 0x21, ..SHAPE };
    let copied: usize =
        seeds(1110, 10).map(|seed| play(seed, Plan { shape, slow: true, ..COPIES }).copied).sum();
    assert!(copied > 300, "{copied}");
}

#[test]
fn deaths_during_copies_lose_nothing() {
    let (mut deaths, mut copied, mut late) = (0, 0, 0);
    for seed in seeds(1120, 24) {
        let (slow, mortal) = (seed % 2 == 0, seed % 4 < 2);
        let copy_policy = if seed % 5 == 0 { 0x21 } else { 0 };
        let cache_bytes = (seed % 3) << 16;
        let shape = Shape { copy_policy, ..SHAPE };
        let game = play(seed, Plan { shape, deaths: 4, mortal, slow, cache_bytes, ..COPIES });
        deaths += game.supervisor.deaths;
        copied += game.copied;
        late += game.run.late;
    }
    println!("{deaths} deaths, {copied} copies, {late} late requests");
    assert!(deaths > 200 && copied > 500 && late > 30, "{deaths} {copied} {late}");
}

#[test]
fn failures_during_copies_lose_nothing() {
    let copied: usize = seeds(1130, 15)
        .map(|seed| play(seed, Plan { failures: 6, slow: seed % 2 == 0, ..COPIES }).copied)
        .sum();
    assert!(copied > 150, "{copied}");
}

fn copy(tag: u64, from: VolumeId, at: u64, offset: u64, len: u32) -> ToWorker {
    ToWorker::Copy { tag: Tag(tag), from, at, volume: VOLUME, offset, len, again: false }
}

/// A disk without patience, whose whole index is known.
fn run() -> Run {
    let mut run = Run::new(1, 0);
    run.patience = 0;
    run.read(1, 0, 512);
    run.settle();
    run.out.clear();
    run
}

#[test]
fn what_is_a_hole_in_both_places_costs_nothing() {
    let mut run = run();
    let asked = run.cluster.asked;
    run.tell(copy(2, VOLUME, 0, 81_920, 20 * 4096));
    assert_eq!((run.outcome(2), run.cluster.asked), (Ok(()), asked));
    // Only where something is are zeros written: in two objects, of which each has a part of
    // two pieces.
    run.write(3, 100_000, 8000, 7);
    run.settle();
    let (asked, updates) = (run.cluster.asked, run.cluster.updates);
    run.tell(copy(4, VOLUME, 0, 81_920, 20 * 4096));
    run.settle();
    assert_eq!(run.outcome(4), Ok(()));
    assert!((3..=5).contains(&(run.cluster.asked - asked)), "{}", run.cluster.asked - asked);
    assert_eq!(run.cluster.updates, updates, "no object is made");
    run.read(5, 100_000, 8000);
    run.settle();
    assert_eq!(run.bytes(5, 8000), vec![0; 8000]);
}

/// The supervisor is told of the copy, and never of its pieces.
#[test]
fn objects_that_a_copy_makes_are_said_to_be_its() {
    let mut run = run();
    run.write(2, 0, 12_000, 7);
    run.settle();
    run.said.clear();
    run.tell(copy(3, VOLUME, 100, 40_960, 9000));
    run.settle();
    let said = |block| FromWorker::Creating { tag: Tag(3), block };
    assert!((10..=12).all(|block| run.said.contains(&said(block))), "{:?}", run.said);
    let done = FromWorker::Done { tag: Tag(3), outcome: Ok(()) };
    let tags = run.said.iter().filter_map(|message| match message {
        FromWorker::Creating { tag, .. } | FromWorker::Done { tag, .. } => Some(*tag),
        _ => None,
    });
    assert!(tags.clone().all(|tag| tag == Tag(3)) && run.said.contains(&done));
    run.read(4, 40_960, 9000);
    run.settle();
    assert_eq!(run.bytes(4, 9000), vec![7; 9000]);
}

#[test]
fn a_snapshot_is_a_source() {
    let mut run = run();
    run.write(2, 5000, 9000, 7);
    run.settle();
    run.cluster.snapshot();
    run.attach(SNAPSHOT, "disk:1");
    run.write(3, 5000, 9000, 8);
    run.settle();
    run.tell(copy(4, SNAPSHOT, 5000, 50_001, 9000));
    run.tell(copy(5, VOLUME, 5000, 70_001, 9000));
    run.settle();
    assert_eq!((run.outcome(4), run.outcome(5)), (Ok(()), Ok(())));
    for (tag, at, value) in [(6, 50_001, 7), (7, 70_001, 8)] {
        run.read(tag, at, 9000);
        run.settle();
        assert_eq!(run.bytes(tag, 9000), vec![value; 9000]);
    }
    let (tag, volume) = (Tag(8), SNAPSHOT);
    run.tell(ToWorker::Copy { tag, from: VOLUME, at: 0, volume, offset: 0, len: 9, again: false });
    run.settle();
    assert_eq!(run.outcome(8), Err(Failure::ReadOnly));
}

/// What overlaps a piece waits for it, and it for what came before.
#[test]
fn a_copy_sees_writes_before_it_and_is_seen_by_reads_after_it() {
    let mut run = run();
    run.write(2, 0, 4096, 7);
    run.tell(copy(3, VOLUME, 0, 8192, 4096));
    run.settle();
    run.tell(copy(4, VOLUME, 8192, 20_480, 4096));
    while !run.cluster.sent.is_empty() && run.cluster.entry(7, 5) == 0 {
        run.answer(0, Fate::Served);
    }
    run.read(5, 20_480, 4096);
    run.settle();
    assert_eq!(run.bytes(5, 4096), vec![7; 4096]);
}

#[test]
fn nonsense_is_refused_and_a_failure_has_its_cause() {
    let mut run = run();
    let end = 40 * 4096 + 100;
    let bad = [(0, 4095, 4096), (4095, 0, 4096), (0, 8192, u32::MAX), (end - 1, 0, 2)];
    for (tag, (at, offset, len)) in (10..).zip(bad) {
        run.tell(copy(tag, VOLUME, at, offset, len));
        run.settle();
        assert_eq!(run.outcome(tag), Err(Failure::OutOfBounds), "{at} {offset} {len}");
    }
    run.tell(copy(20, VolumeId(9), 0, 0, 1));
    assert_eq!(run.outcome(20), Err(Failure::NotAttached));
    run.tell(copy(21, VOLUME, 0, 4096, 0));
    assert_eq!(run.outcome(21), Ok(()));
    run.write(2, 0, 512, 7);
    run.settle();
    run.tell(copy(22, VOLUME, 0, 81_920, 512));
    run.answer(0, Fate::Served);
    run.answer(0, Fate::Refused(Status::NoSpace));
    run.settle();
    assert_eq!(run.outcome(22), Err(Failure::NoSpace));
}
