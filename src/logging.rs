//! The log of both programs.
//!
//! Where lines go is a [`Sink`]: the journal, with fields (the `journal` module); stderr with the
//! journal's priority prefix, where a manager reads that (the `prefixed` module); stderr for
//! somebody who watches. What is logged says a filter in the syntax of `tracing-subscriber` (the
//! `filter` module). Equal lines in great number are counted rather than logged (the `flood`
//! module). The supervisor tells a worker its sink, filter and number in environment variables,
//! and a change of the filter by [`crate::ipc::ToWorker::LogFilter`].
//!
//! Both programs log under one identifier, and name fields alike:
//!
//! | field | in the journal | what |
//! | --- | --- | --- |
//! | `volume` | `SHEEPFS_VOLUME` | an attached volume, by its name, without quotes |
//! | `volume_id` | `SHEEPFS_VOLUME_ID` | the number of a volume, where its name isn't known |
//! | `vid` | `SHEEPFS_VID` | a VDI, in hexadecimal |
//! | `sheep` | `SHEEPFS_SHEEP` | the sheep that is spoken of, by its address |
//! | `worker` | `SHEEPFS_WORKER` | the worker that is spoken of, by its generation |
//! | `errno` | `ERRNO` | an error of the system, or the one that a program got, as a number |
//!
//! All others have the prefix `SHEEPFS_` too.

mod filter;
mod flood;
mod journal;
mod prefixed;
mod sink;

pub use filter::{FILTER_LEN_MAX, Filter};
pub use prefixed::split_priority;
pub use sink::Sink;

use flood::Flood;
use journal::Journal;
use prefixed::Prefixed;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tracing_subscriber::layer::{Identity, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// The variable that tells a worker its sink.
pub const SINK_VARIABLE: &str = "SHEEPFS_LOG";
/// The variable that tells a worker its generation, which the journal shall have with each line.
pub const WORKER_VARIABLE: &str = "SHEEPFS_WORKER";
/// The variable that chooses what is logged, in the syntax of `tracing-subscriber`.
pub const FILTER_VARIABLE: &str = "RUST_LOG";

type Output = Box<dyn Layer<Registry> + Send + Sync>;
type UnderFilter = tracing_subscriber::layer::Layered<reload::Layer<Output, Registry>, Registry>;

/// The log, once it is started.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    sink: Sink,
    output: reload::Handle<Output, Registry>,
    level: reload::Handle<EnvFilter, UnderFilter>,
    state: Mutex<State>,
}

struct State {
    filter: Filter,
    /// What every line of this process has besides, in the journal.
    fields: Vec<(&'static str, String)>,
}

/// Starts logging: what `filter` lets through goes to `sink`. Called once, before other threads
/// run.
pub fn start(sink: Sink, mut filter: Filter) {
    let unread = filter.read().err();
    let worker = std::env::var(WORKER_VARIABLE).ok().map(|worker| ("SHEEPFS_WORKER", worker));
    let fields: Vec<_> = worker.into_iter().collect();
    let (output, goes_somewhere) = open(sink, &fields);
    let (output, output_handle) = reload::Layer::new(output);
    let (level, level_handle) = reload::Layer::new(filter.build());
    tracing_subscriber::registry().with(output).with(level).with(Flood::default()).init();
    let state = Mutex::new(State { filter, fields });
    let _ = LOG.set(Log { sink, output: output_handle, level: level_handle, state });
    if sink != Sink::Stderr && goes_somewhere {
        panic::set_hook(Box::new(log_panic));
    }
    if let Some(why) = unread {
        why.say();
    }
}

/// Where lines go; stderr before the start.
pub fn sink() -> Sink {
    LOG.get().map_or(Sink::Stderr, |log| log.sink)
}

/// What is logged now, for a worker.
pub fn present_filter() -> String {
    LOG.get().map_or_else(|| "info".to_owned(), |log| log.state().filter.text().to_owned())
}

/// Opens the log anew, so that a journal is found that was not there before, and reads the
/// filter's file again. Gives what is logged from now on, for the workers.
pub fn reload() -> String {
    let Some(log) = LOG.get() else { return present_filter() };
    log.reopen();
    let read = {
        let mut state = log.state();
        let read = state.filter.read();
        log.apply(&state.filter);
        read
    };
    let filter = present_filter();
    match read {
        Ok(()) => tracing::info!(%filter, "the log was opened anew"),
        Err(why) => why.say(),
    }
    filter
}

/// In a worker: logs what that filter lets through, from now on.
pub fn set_filter(text: &str) {
    let Some(log) = LOG.get() else { return };
    let set = {
        let mut state = log.state();
        let set = state.filter.set(text);
        log.apply(&state.filter);
        set
    };
    if let Err(why) = set {
        why.say();
    }
}

/// In a worker: every line has that sheep's address besides, in the journal.
pub fn set_sheep(sheep: SocketAddr) {
    let Some(log) = LOG.get() else { return };
    {
        let fields = &mut log.state().fields;
        fields.retain(|(name, _)| *name != "SHEEPFS_SHEEP");
        fields.push(("SHEEPFS_SHEEP", sheep.to_string()));
    }
    log.reopen();
}

impl Log {
    fn reopen(&self) {
        let (output, _) = open(self.sink, &self.state().fields);
        // It fails only when there is no subscriber any more, or a panic is under way.
        let _ = self.output.reload(output);
    }

    fn apply(&self, filter: &Filter) {
        // As above.
        let _ = self.level.reload(filter.build());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layer for a sink, and whether lines can be read there.
fn open(sink: Sink, fields: &[(&'static str, String)]) -> (Output, bool) {
    let prefixed = || -> Output {
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(io::stderr);
        Box::new(layer.event_format(Prefixed))
    };
    let journal = || Journal::connect(fields.to_vec()).ok();
    match sink {
        Sink::Stderr => {
            let colours = io::stderr().is_terminal();
            let layer = tracing_subscriber::fmt::layer().compact().with_ansi(colours);
            (Box::new(layer.with_writer(io::stderr)), true)
        }
        Sink::Prefixed => (prefixed(), true),
        Sink::Journal => match journal() {
            Some(layer) => (Box::new(layer), true),
            None => (prefixed(), true),
        },
        Sink::Background => match journal() {
            Some(layer) => (Box::new(layer), true),
            None => (Box::new(Identity::new()), false),
        },
    }
}

/// A panic's words have no priority and no fields on stderr, which may lead nowhere besides.
fn log_panic(info: &PanicHookInfo<'_>) {
    tracing::error!("{info}");
}
