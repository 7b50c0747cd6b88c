//! A bound on equal lines: the first ones of each five seconds are logged, the others counted,
//! and the count is logged when the time is over.
//!
//! Lines are equal when one place in the code makes them and their message is the same, whatever
//! their fields say. A place whose messages differ, such as that which passes on what a child
//! says, has a bound too, ten times as wide. The table that knows this is a [`Table`] of bounded
//! size; what finds no room there is logged.
//!
//! A lock guards it, and is held for a few instructions: whatever passes it
//! is formatted and sent by a system call. A line that passes allocates nothing here.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Write};
use std::hash::Hasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(5);
/// So many equal lines are logged in that time.
const EQUAL_MAX: u32 = 20;
/// So many lines of one place in the code.
const PLACE_MAX: u32 = 200;
/// So many kinds of lines are known at once.
const KINDS_MAX: usize = 1024;
/// So much of a message is repeated with the count.
const TEXT_LEN_MAX: usize = 200;
/// Lines of this module are never counted.
const TARGET: &str = "sheepfs::log";

/// Lines that were not logged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Muted {
    level: Level,
    text: String,
    count: u64,
}

/// What is known of one kind of lines.
#[derive(Debug)]
struct Kind {
    until: Instant,
    logged: u32,
    muted: Option<Box<Muted>>,
}

/// All kinds, by a hash.
#[derive(Debug)]
struct Table {
    kinds: HashMap<u64, Kind>,
    /// Whether a thread waits for the end of a time.
    watched: bool,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is logged; after those that were not.
    Log(Option<Muted>),
    /// It is counted.
    Mute,
}

impl Table {
    fn new() -> Self {
        Self { kinds: HashMap::with_capacity(KINDS_MAX), watched: false }
    }

    /// Judges a line of that kind, of which `max` are logged. `describe` is asked for the first
    /// one that is not.
    fn judge(
        &mut self,
        kind: u64,
        max: u32,
        now: Instant,
        describe: impl FnOnce() -> (Level, String),
    ) -> Verdict {
        if let Some(known) = self.kinds.get_mut(&kind) {
            if known.until <= now {
                known.until = now + WINDOW;
                known.logged = 1;
                return Verdict::Log(known.muted.take().map(|muted| *muted));
            }
            if known.logged < max {
                known.logged += 1;
                return Verdict::Log(None);
            }
            let muted = known.muted.get_or_insert_with(|| {
                let (level, text) = describe();
                Box::new(Muted { level, text, count: 0 })
            });
            muted.count += 1;
            return Verdict::Mute;
        }
        if self.kinds.len() >= KINDS_MAX {
            // Kinds that have muted something have a line to come.
            self.kinds.retain(|_, kind| kind.until > now || kind.muted.is_some());
        }
        if self.kinds.len() < KINDS_MAX {
            self.kinds.insert(kind, Kind { until: now + WINDOW, logged: 1, muted: None });
        }
        Verdict::Log(None)
    }

    /// What was not logged, of kinds whose time is over.
    fn over(&mut self, now: Instant) -> Vec<Muted> {
        let over = self.kinds.values_mut().filter(|kind| kind.until <= now);
        over.filter_map(|kind| kind.muted.take().map(|muted| *muted)).collect()
    }

    /// When the next such time is over.
    fn deadline(&self) -> Option<Instant> {
        let muted = self.kinds.values().filter(|kind| kind.muted.is_some());
        muted.map(|kind| kind.until).min()
    }
}

/// The layer that keeps lines back.
#[derive(Clone, Debug)]
pub struct Flood(Arc<Mutex<Table>>);

impl Default for Flood {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Table::new())))
    }
}

impl<S: Subscriber> Layer<S> for Flood {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if event.metadata().target() == TARGET {
            return true;
        }
        let (logged, muted) = self.judge(event, Instant::now());
        muted.iter().flatten().for_each(Muted::say);
        if !logged {
            self.watch();
        }
        logged
    }
}

impl Flood {
    /// Whether an event is logged, and what was muted before it.
    fn judge(&self, event: &Event<'_>, now: Instant) -> (bool, [Option<Muted>; 2]) {
        let (place, text) = kinds_of(event);
        let describe = || (*event.metadata().level(), start_of_message(event));
        let mut table = self.table();
        let Verdict::Log(equal) = table.judge(text, EQUAL_MAX, now, describe) else {
            return (false, [None, None]);
        };
        match table.judge(place, PLACE_MAX, now, describe) {
            Verdict::Log(before) => (true, [equal, before]),
            Verdict::Mute => (false, [equal, None]),
        }
    }

    /// Makes sure that the count is logged when the time is over, also when no such line comes.
    /// Without a thread it is logged with the next one.
    fn watch(&self) {
        if std::mem::replace(&mut self.table().watched, true) {
            return;
        }
        let watching = self.clone();
        let started = thread::Builder::new().name("log".to_owned()).spawn(move || watching.run());
        if started.is_err() {
            self.table().watched = false;
        }
    }

    fn run(&self) {
        loop {
            let (over, deadline) = {
                let mut table = self.table();
                let over = table.over(Instant::now());
                let deadline = table.deadline();
                table.watched = deadline.is_some();
                (over, deadline)
            };
            over.iter().for_each(Muted::say);
            let Some(deadline) = deadline else { return };
            thread::sleep(deadline.saturating_duration_since(Instant::now()));
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Muted {
    fn say(&self) {
        let Self { level, text, count } = self;
        match *level {
            Level::ERROR => {
                tracing::error!(target: TARGET, count, "{count} more like this were not logged: {text}")
            }
            Level::WARN => {
                tracing::warn!(target: TARGET, count, "{count} more like this were not logged: {text}")
            }
            Level::INFO => {
                tracing::info!(target: TARGET, count, "{count} more like this were not logged: {text}")
            }
            Level::DEBUG => {
                tracing::debug!(target: TARGET, count, "{count} more like this were not logged: {text}")
            }
            Level::TRACE => {
                tracing::trace!(target: TARGET, count, "{count} more like this were not logged: {text}")
            }
        }
    }
}

/// The kinds that an event is of: that of its place in the code, and that of its message there.
fn kinds_of(event: &Event<'_>) -> (u64, u64) {
    let mut hasher = DefaultHasher::new();
    // Metadata is a static of the place that makes the event.
    hasher.write_usize(std::ptr::from_ref(event.metadata()).addr());
    let place = hasher.finish();
    hasher.write_u8(0);
    let mut text = Message(Hashed(hasher));
    event.record(&mut text);
    (place, text.0.0.finish())
}

fn start_of_message(event: &Event<'_>) -> String {
    let mut text = Message(Start(String::new()));
    event.record(&mut text);
    text.0.0
}

/// Writes an event's message somewhere.
struct Message<W>(W);

impl<W: Write> Visit for Message<W> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Only a full buffer fails.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

struct Hashed(DefaultHasher);

impl Write for Hashed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

struct Start(String);

impl Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT_LEN_MAX.saturating_sub(self.0.len());
        self.0.extend(text.char_indices().take_while(|(at, _)| *at < room).map(|(_, one)| one));
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
