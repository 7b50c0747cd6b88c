//! The control loop's decisions: the one owner of what the mount is made of.
//!
//! Everything that is not a volume's data comes here as an [`Input`]; what must
//! be done comes out as [`Effect`]s. There is no socket, process, thread or clock
//! in it: time is an argument, and [`run`] is the thin shell that turns events
//! into inputs and effects into deeds. What other threads look at ([`Volumes`],
//! [`Shared`]) is changed here and nowhere else.
//!
//! The life of a mount:
//!
//! ```text
//! Starting ── connected, --attach done ──> Mounting ── mounted ──> Running
//!    │ no sheep, no VDI                       │ not mounted           │ signal, unmount
//!    └────────────────────────────────────────┴───────────────────────┴──> Ending ──> over
//! ```
//!
//! That of a worker is in [`worker`], that of the end in [`ending`].

mod again;
mod closing;
mod ending;
mod parked;
mod query;
mod refusal;
pub mod run;
mod volume;
mod waits;
mod worker;
mod write;

use crate::candidates::Candidates;
use crate::events::{ReportFile, WritableFile};
use crate::exit::Failed;
use crate::settings::Shared;
use crate::spawn::SpawnError;
use crate::volumes::Volumes;
use nix::errno::Errno;
use sheepfs::ipc::{FromWorker, ToWorker, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

pub use refusal::Refusal;
pub use waits::Caller;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Nothing; the time may have come for something.
    Tick,
    /// The worker could not be started.
    NotStarted(SpawnError),
    /// The worker of that generation said something.
    Worker(u64, FromWorker),
    /// The channel to the worker of that generation ended.
    WorkerGone(u64),
    /// A report is wanted.
    Open(Caller, ReportFile),
    /// Somebody wrote that to a control file.
    Write(Caller, WritableFile, Vec<u8>),
    /// The space of the cluster is wanted.
    Space(Caller),
    /// [`Effect::Mount`] went well.
    Mounted,
    /// [`Effect::Mount`] did not.
    NotMounted(Failed),
    /// Nothing is in flight, and an unmounting that was begun is over.
    Drained,
    /// A program closed a volume.
    Closed,
    /// The kernel ended the session.
    Unmounted,
    /// A signal came.
    Stop,
}

/// What must be done.
#[derive(Debug)]
pub enum Effect {
    /// Start a worker, of that generation.
    StartWorker(u64),
    /// Tell the worker.
    Send(ToWorker),
    /// Let data through to the worker.
    ConnectData,
    /// Let no more data through, and make an end of the worker.
    KillWorker,
    /// Complete what a program waits for.
    Answer(u64, Answer),
    /// Mount, and say that everything is ready.
    Mount,
    /// Begin to unmount.
    Unmount,
    /// Let the worker end by itself, leave the loop with that result.
    End(Result<(), Failed>),
}

/// What a program gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write to the control file is done.
    Done,
    /// The text of the file it opened.
    Text(Vec<u8>),
    /// The cluster's space.
    Space(Totals),
    /// An error.
    Refused(Errno),
}

/// The space of the cluster, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All.
    pub size: u64,
    /// What is free.
    pub free: u64,
}

/// Where in its life the mount is.
#[derive(Debug)]
enum Phase {
    Starting { to_attach: usize },
    Mounting,
    Running,
    Ending(ending::Ending),
}

/// The state.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    volumes: Arc<Volumes>,
    candidates: Candidates,
    attach_at_start: Vec<VolumeName>,
    /// Bytes of object cache when it is on.
    cache_len: u64,
    cache_on: bool,
    phase: Phase,
    session: worker::Session,
    generation: u64,
    waits: waits::Waits,
    last_volume: u32,
    /// Volumes that the present worker does not have.
    absent: BTreeSet<VolumeId>,
    /// When to try those again.
    retry_at: Option<Instant>,
    /// Volumes whose VDI was replaced: they stay broken until they are detached.
    replaced: BTreeSet<VolumeId>,
    /// Locks of ours whose volumes were detached while no worker lived.
    locks_left: BTreeMap<VolumeName, u32>,
    /// Who waits for a volume to be closed, to detach it.
    closing: Vec<closing::Closing>,
    totals: Totals,
    effects: Vec<Effect>,
}

/// What the user asked for.
#[derive(Debug)]
pub struct Wishes {
    /// The sheep.
    pub candidates: Candidates,
    /// Volumes to attach before the mount is ready.
    pub attach: Vec<VolumeName>,
    /// Bytes of object cache when it is on.
    pub cache_len: u64,
    /// Whether it is on at first.
    pub cache_on: bool,
}

impl Control {
    /// At the very start; the first effect comes with the first [`Input::Tick`].
    pub fn new(shared: Arc<Shared>, wishes: Wishes, now: Instant) -> Self {
        let attach: BTreeSet<VolumeName> = wishes.attach.into_iter().collect();
        Self {
            volumes: Arc::clone(shared.volumes()),
            shared,
            candidates: wishes.candidates,
            phase: Phase::Starting { to_attach: attach.len() },
            attach_at_start: attach.into_iter().collect(),
            cache_len: wishes.cache_len,
            cache_on: wishes.cache_on,
            session: worker::Session::first(now),
            generation: 0,
            waits: waits::Waits::default(),
            last_volume: 0,
            absent: BTreeSet::new(),
            retry_at: None,
            replaced: BTreeSet::new(),
            locks_left: BTreeMap::new(),
            closing: Vec::new(),
            totals: Totals::default(),
            effects: Vec::new(),
        }
    }

    /// Takes note of what happened, and says what must be done, in order.
    pub fn apply(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        match input {
            Input::Tick => {}
            Input::NotStarted(cause) => self.worker_not_started(cause, now),
            Input::Worker(generation, message) => self.worker_said(generation, message, now),
            Input::WorkerGone(generation) => self.worker_gone(generation, now),
            Input::Open(caller, file) => self.open_report(caller, file, now),
            Input::Write(caller, file, bytes) => self.control_write(caller, file, &bytes, now),
            Input::Space(caller) => self.ask_space(caller, now),
            Input::Mounted => self.mounted(),
            Input::NotMounted(failed) => self.end(Err(failed), now),
            Input::Drained => self.drained(now),
            Input::Closed => self.closed(now),
            Input::Unmounted => self.unmounted(now),
            Input::Stop => self.stop(now),
        }
        self.tick(now);
        std::mem::take(&mut self.effects)
    }

    /// When the next [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let own = [
            // At the end no other worker is started.
            self.session.deadline().filter(|_| self.session.is_alive() || !self.is_ending()),
            self.retry_at,
            self.ending_deadline(),
            self.closing_deadline(),
        ];
        own.into_iter().flatten().chain(self.waits.next_deadline()).min()
    }

    fn tick(&mut self, now: Instant) {
        for tag in self.waits.overdue(now) {
            self.give_up(tag, now);
        }
        self.tick_worker(now);
        self.tick_closing(now);
        self.tick_ending(now);
    }

    fn mounted(&mut self) {
        if matches!(self.phase, Phase::Mounting) {
            self.phase = Phase::Running;
        }
    }

    /// At the start: connected, and one more volume, or none, is there.
    fn start_goes_on(&mut self, attached: usize) {
        if let Phase::Starting { to_attach } = &mut self.phase {
            *to_attach = to_attach.saturating_sub(attached);
            if *to_attach == 0 {
                self.phase = Phase::Mounting;
                self.effects.push(Effect::Mount);
            }
        }
    }

    fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }

    fn send(&mut self, message: ToWorker) {
        self.effects.push(Effect::Send(message));
    }

    /// Notes a failure in words: for the log once, and for `config/status`.
    fn note(&self, what: &str, why: &dyn std::fmt::Display) {
        tracing::warn!("{what}: {why}");
        self.shared.known().last_error = Some(format!("{what}: {why}"));
    }

    fn answer(&mut self, caller: Caller, answer: Answer) {
        if let Caller::Program(id) = caller {
            self.effects.push(Effect::Answer(id, answer));
        }
    }

    /// Refuses what a caller wants, and says why, once for all who want it.
    fn refuse(&mut self, what: &str, why: Refusal, callers: Vec<Caller>, now: Instant) {
        if callers.contains(&Caller::Start) && !self.is_ending() {
            self.end(Err(Failed::AtStart { what: what.to_owned(), why }), now);
        } else if !callers.is_empty() {
            self.note(what, &why);
        }
        for caller in callers {
            self.answer(caller, Answer::Refused(why.errno()));
        }
    }
}

#[cfg(test)]
mod tests;
