//! Pages of the index that are dropped, and read again.

use super::cluster::Shape;
use super::{Run, is_answer};

/// A VDI with an index of three pages.
const WIDE: Shape = Shape { shift: 12, len: 3 * PAGE_LEN, copy_policy: 0 };
/// What a page of the index covers.
const PAGE_LEN: usize = 1024 * 4096;

/// Reads a block that nobody wrote under each page, the first page last too; gives how
/// many requests that took: a page costs two, with the header that confirms it.
fn look_at_all(run: &mut Run) -> usize {
    let before = run.cluster.asked;
    for page in [0, 1, 2, 0] {
        run.read(9, (page * PAGE_LEN + PAGE_LEN / 2) as u64, 512);
        run.settle();
        assert_eq!(run.outcome(9), Ok(()));
        assert_eq!(run.bytes(9, 512), [0; 512]);
        run.out.retain(|message| !is_answer(message));
    }
    run.cluster.asked - before
}

fn wide(limit: Option<usize>) -> Run {
    let mut run = Run::of_shape(WIDE, 1, 0);
    run.patience = 0;
    if let Some(limit) = limit {
        run.engine.limit_index_pages(limit);
    }
    run
}

#[test]
fn pages_are_read_once_while_there_is_room() {
    assert_eq!(look_at_all(&mut wide(None)), 2 * 3);
}

#[test]
fn without_room_a_page_is_read_again() {
    assert_eq!(look_at_all(&mut wide(Some(0))), 2 * 4);
}

/// A snapshot may have lost its entry from the index in the cluster.
#[test]
fn one_with_a_young_allocation_stays() {
    let mut run = wide(Some(0));
    run.write(1, 0, 512, 1);
    run.settle();
    assert_eq!(run.outcome(1), Ok(()));
    assert_eq!(look_at_all(&mut run), 2 * 2);
}
