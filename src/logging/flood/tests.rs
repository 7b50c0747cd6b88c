//! The bound on equal lines, with a clock of the test's own.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::layer::SubscriberExt;

fn warning() -> (Level, String) {
    (Level::WARN, "a request failed".to_owned())
}

/// How many of `count` lines of one kind are logged at `now`.
fn logged(table: &mut Table, kind: u64, count: u32, now: Instant) -> u32 {
    let judge = |_: &u32| table.judge(kind, EQUAL_MAX, now, warning) != Verdict::Mute;
    (0..count).filter(judge).count().try_into().unwrap()
}

#[test]
fn the_first_ones_are_logged_and_the_others_counted_until_the_time_is_over() {
    let mut table = Table::new();
    let now = Instant::now();
    assert_eq!(logged(&mut table, 1, EQUAL_MAX, now), EQUAL_MAX);
    assert_eq!(table.deadline(), None);
    assert_eq!(logged(&mut table, 1, 37, now), 0);
    assert_eq!(table.deadline(), Some(now + WINDOW));

    assert_eq!(table.over(now + WINDOW - Duration::from_millis(1)), []);
    let muted = Muted { level: Level::WARN, text: "a request failed".to_owned(), count: 37 };
    assert_eq!(table.over(now + WINDOW), [muted]);
    assert_eq!(table.over(now + WINDOW), [], "said once");
    assert_eq!(table.deadline(), None);
}

#[test]
fn the_count_is_said_with_the_next_line_when_nobody_said_it_before() {
    let mut table = Table::new();
    let now = Instant::now();
    logged(&mut table, 1, EQUAL_MAX + 3, now);
    let Verdict::Log(Some(muted)) = table.judge(1, EQUAL_MAX, now + WINDOW, warning) else {
        panic!("three were muted");
    };
    assert_eq!(muted.count, 3);
    // A new time has begun, of which that was the first.
    assert_eq!(logged(&mut table, 1, EQUAL_MAX, now + WINDOW), EQUAL_MAX - 1);
}

#[test]
fn kinds_do_not_count_for_each_other() {
    let mut table = Table::new();
    let now = Instant::now();
    assert_eq!(logged(&mut table, 1, 1000, now), EQUAL_MAX);
    assert_eq!(logged(&mut table, 2, 1, now), 1);
}

#[test]
fn the_table_is_bounded_and_what_finds_no_room_is_logged() {
    let mut table = Table::new();
    let now = Instant::now();
    let room = table.kinds.capacity();
    for kind in 0..10 * KINDS_MAX as u64 {
        assert_eq!(logged(&mut table, kind, 1, now), 1);
    }
    assert_eq!(table.kinds.len(), KINDS_MAX);
    assert_eq!(logged(&mut table, u64::MAX, 1000, now), 1000);
    // When their time is over there is room again.
    assert_eq!(logged(&mut table, u64::MAX, 1000, now + WINDOW), EQUAL_MAX);
    assert_eq!(table.kinds.len(), 1);
    assert!(table.kinds.capacity() <= room, "it grew to {}", table.kinds.capacity());
}

#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn take(&self) -> u64 {
        self.0.swap(0, Ordering::SeqCst)
    }
}

#[test]
fn lines_are_equal_when_their_place_and_their_message_are() {
    let count = Count::default();
    let subscriber = tracing_subscriber::registry().with(count.clone()).with(Flood::default());
    tracing::subscriber::with_default(subscriber, || {
        for offset in 0..1000 {
            tracing::warn!(offset, "a request failed");
        }
        assert_eq!(count.take(), u64::from(EQUAL_MAX), "whatever their fields say");
        tracing::warn!("a request failed");
        assert_eq!(count.take(), 1, "this is another place");
        for line in 0..1000 {
            tracing::info!("line {line} of a child");
        }
        assert_eq!(count.take(), u64::from(PLACE_MAX), "the bound of a place");
    });
}

#[test]
fn a_message_is_repeated_as_far_as_there_is_room() {
    for len in [0, 1, TEXT_LEN_MAX, TEXT_LEN_MAX + 1, 10_000] {
        let mut start = Start(String::new());
        let whole = "x".repeat(len);
        let written = write!(start, "{whole}");
        assert_eq!(start.0, whole[..len.min(TEXT_LEN_MAX)]);
        assert_eq!(written.is_ok(), len <= TEXT_LEN_MAX);
    }
    let mut start = Start("x".repeat(TEXT_LEN_MAX - 1));
    assert!(write!(start, "äöü").is_err());
    assert!(start.0.len() <= TEXT_LEN_MAX + 3);
}
