//! Copies without volumes: what is begun, in which order, and in how much memory.

use super::*;
use std::collections::BTreeSet;

const LEN: u32 = 100;

fn order(tag: u64, at: u64, len: u32) -> Order {
    let (from, volume) = (VolumeId(1), VolumeId(2));
    Order { tag: Tag(tag), from, at, volume, offset: 1000 + at, len, again: false }
}

fn copies() -> (Copies, Arena) {
    (Copies::with_pieces_of(LEN), Arena::create(4096).unwrap())
}

fn data(_: Place) -> bool {
    false
}

fn begun(copies: &mut Copies, is_hole: impl Fn(Place) -> bool + Copy) -> Vec<Step> {
    std::iter::from_fn(|| copies.next(is_hole)).collect()
}

#[test]
fn pieces_are_read_and_then_written_and_have_their_borders_in_the_source() {
    let (mut copies, arena) = copies();
    copies.begin(order(7, 250, 200), &arena).unwrap();
    let steps = begun(&mut copies, data);
    let places: Vec<_> = steps.iter().map(|step| (step.place.offset, step.place.len)).collect();
    assert_eq!(places, [(250, 50), (300, 100), (400, 50)]);
    assert!(steps.iter().all(|step| step.what == What::Read && step.span.len() == step.place.len));
    let mut out = Vec::new();
    for (step, left) in steps.into_iter().zip([2, 1, 0]) {
        let write = copies.ended(step.tag, Ok(()), data, &mut out).unwrap();
        let target = Place { volume: VolumeId(2), offset: 1000 + step.place.offset, ..step.place };
        assert_eq!((write.tag, write.place, write.span), (step.tag, target, step.span));
        assert_eq!(write.what, What::Write { again: false, sparse: false });
        assert!(out.is_empty());
        assert!(copies.ended(step.tag, Ok(()), data, &mut out).is_none());
        assert_eq!(out.is_empty(), left > 0);
    }
    assert_eq!(out, [FromWorker::Done { tag: Tag(7), outcome: Ok(()) }]);
    assert!(copies.is_idle());
}

/// A hole takes no memory, also one that is only known after it was read.
#[test]
fn holes_are_only_written() {
    let (mut copies, arena) = copies();
    copies.begin(order(7, 0, 200), &arena).unwrap();
    let steps = begun(&mut copies, |place| place.offset == 0);
    let hole = What::Write { again: false, sparse: true };
    assert_eq!((steps[0].what, steps[0].place.offset), (hole, 1000));
    assert_eq!(copies.buffers.len(), 7);
    let found = copies.ended(steps[1].tag, Ok(()), |_| true, &mut Vec::new()).unwrap();
    assert_eq!((found.what, found.place.offset), (hole, 1100));
    assert_eq!((found.span, copies.buffers.len()), (steps[0].span, 8));
    copies.begin(Order { again: true, ..order(8, 0, 100) }, &arena).unwrap();
    let repeated = copies.next(|_| true).unwrap();
    assert_eq!(repeated.what, What::Write { again: true, sparse: false });
}

#[test]
fn memory_is_bounded_and_shared() {
    let (mut copies, arena) = copies();
    for tag in 1..=3 {
        copies.begin(order(tag, 0, 1000), &arena).unwrap();
    }
    let mut steps: VecDeque<_> = begun(&mut copies, data).into();
    assert_eq!(steps.len(), 8);
    let spans: BTreeSet<_> = steps.iter().map(|step| format!("{:?}", step.span)).collect();
    assert_eq!(spans.len(), 8, "each has its own memory");
    let of = |copies: &Copies, tag| copies.copies.get(&Tag(tag)).map_or(0, |copy| copy.under_way);
    assert_eq!((1..=3).map(|tag| of(&copies, tag)).collect::<Vec<_>>(), [3, 3, 2]);
    let mut out = Vec::new();
    while let Some(step) = steps.pop_front() {
        steps.extend(copies.ended(step.tag, Ok(()), data, &mut out));
        steps.extend(begun(&mut copies, data));
        assert!(steps.len() <= 8 && (1..=3).all(|tag| of(&copies, tag) <= 4));
    }
    assert_eq!((out.len(), copies.buffers.len()), (3, 8));
    assert!(copies.is_idle() && copies.pieces.is_empty());
}

/// No more pieces of it begin, and what is under way is waited for.
#[test]
fn a_copy_fails_once_and_with_the_first_cause() {
    let (mut copies, arena) = copies();
    copies.begin(order(7, 0, 1000), &arena).unwrap();
    let steps = begun(&mut copies, data);
    let mut out = Vec::new();
    let causes = [Failure::NoSpace, Failure::ObjectLost, Failure::NoSpace];
    for (step, cause) in steps.iter().zip(causes) {
        assert!(copies.ended(step.tag, Err(cause), data, &mut out).is_none());
        assert!(begun(&mut copies, data).is_empty() && out.is_empty());
    }
    assert!(copies.ended(steps[3].tag, Ok(()), data, &mut out).is_none());
    assert_eq!(out, [FromWorker::Done { tag: Tag(7), outcome: Err(Failure::NoSpace) }]);
    assert_eq!(copies.buffers.len(), 8);
}

#[test]
fn what_is_said_of_a_piece_is_said_of_its_copy() {
    let (mut copies, arena) = copies();
    copies.begin(order(7, 0, 100), &arena).unwrap();
    let piece = copies.next(data).unwrap().tag;
    let (other, outcome) = (Tag(3), Ok(()));
    let mut out = vec![
        FromWorker::Creating { tag: other, block: 4 },
        FromWorker::Creating { tag: piece, block: 5 },
        FromWorker::Done { tag: piece, outcome },
        FromWorker::Growing { tag: piece },
        FromWorker::Done { tag: other, outcome },
    ];
    assert_eq!(copies.hear(&mut out), [(piece, outcome)]);
    let said = [
        FromWorker::Creating { tag: other, block: 4 },
        FromWorker::Creating { tag: Tag(7), block: 5 },
        FromWorker::Growing { tag: Tag(7) },
        FromWorker::Done { tag: other, outcome },
    ];
    assert_eq!(out, said);
}
