//! Faults on request: what a test asks for on the control socket.
//!
//! Each fault has a name, `delay#3`, and counts how often it fired, so that a test can prove that
//! what it asked for has happened.

mod answers;
pub mod held;
pub mod parse;
mod snapshot;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tracing::info;

use self::answers::{NOT_HERE, bugs, lines, members, opcode_name};
use self::held::Places;
use self::parse::{Command, Filter, Kind};
use super::counters::Counters;
use super::hooks::{After, Before, Delay, Fate, Held, Hooks, Side};
use super::sheep::Sheep;
use crate::wire::{Opcode, RequestHeader};

/// A fault that was asked for.
#[derive(Debug)]
struct Fault {
    number: usize,
    kind: Kind,
    filter: Filter,
    seen: u64,
    fired: u64,
}

impl Fault {
    /// Counts a request that the fault may be for; whether it fires.
    fn fires(&mut self, request: &RequestHeader) -> bool {
        if !self.filter.takes(request) {
            return false;
        }
        self.seen += 1;
        let due = self.seen > self.filter.skip;
        let fires = due && self.filter.count.is_none_or(|count| self.fired < count);
        self.fired += u64::from(fires);
        fires
    }
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    asked: usize,
    paused: bool,
    /// How often delays were cut short.
    hurried: u64,
    places: Places,
    /// Blocks whose index entries were written last, with the inode's vid.
    recent: Vec<(u32, u32)>,
}

/// Whose faults they are.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What it has received.
    pub counters: &'a Counters,
    /// The sheep itself; a gateway has none.
    pub sheep: Option<&'a Sheep>,
}

/// The faults of a process.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
    active: AtomicBool,
}

impl Faults {
    /// Does what a line says and returns what to answer.
    pub fn command(&self, subject: Subject<'_>, line: &str) -> String {
        match parse::parse(line) {
            Ok(command) => self.obey(subject, command),
            Err(error) => format!("error: {error}\n"),
        }
    }

    fn obey(&self, subject: Subject<'_>, command: Command) -> String {
        let mut answer = "ok\n".to_owned();
        match command {
            Command::Add(kind, filter) => answer = self.add(subject, kind, filter),
            Command::Pause => self.change(|state| state.paused = true),
            Command::Resume => self.change(|state| state.paused = false),
            Command::Hurry => self.change(|state| state.hurried += 1),
            Command::Decide(fate) => self.decide(fate),
            Command::Held => answer = self.held(),
            Command::Clear => self.change(|state| {
                state.paused = false;
                state.faults.clear();
            }),
            Command::Linger | Command::Bury => answer = members(subject, &command),
            Command::Fired => answer = self.fired(),
            Command::Bugs | Command::ClearBugs => answer = bugs(subject, &command),
            Command::Stats => {
                let served = subject.counters.served();
                answer = lines(served.map(|(code, count)| (opcode_name(code), count)));
            }
        }
        answer
    }

    fn add(&self, subject: Subject<'_>, kind: Kind, mut filter: Filter) -> String {
        match (&kind, subject.sheep) {
            (Kind::Snapshot { .. } | Kind::LateReclaim(_), None) => return NOT_HERE.to_owned(),
            (Kind::Snapshot { name, .. }, Some(sheep)) => {
                if let Err(status) = snapshot::complete(&mut filter, sheep, name) {
                    return format!("error: {name}: {status:?}\n");
                }
            }
            _ => {}
        }
        let mut name = String::new();
        self.change(|state| {
            state.asked += 1;
            name = format!("{}#{}", kind.verb(), state.asked);
            info!("fault {name}: {kind:?} for {filter:?}");
            state.faults.push(Fault { number: state.asked, kind, filter, seen: 0, fired: 0 });
        });
        format!("ok {name}\n")
    }

    fn held(&self) -> String {
        let state = self.lock();
        let words = [("requests", Side::Request), ("replies", Side::Reply)];
        lines(words.into_iter().map(|(word, side)| (word.to_owned(), state.places.count(side))))
    }

    /// Not under the lock: what goes on may need it.
    fn decide(&self, fate: Fate) {
        let held = self.lock().places.decide(fate);
        if !held.is_empty() {
            info!("{} held back: {fate:?}", held.len());
        }
        held.into_iter().for_each(|held| held(fate));
    }

    fn fired(&self) -> String {
        let state = self.lock();
        let faults = state.faults.iter();
        lines(faults.map(|fault| (format!("{}#{}", fault.kind.verb(), fault.number), fault.fired)))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.active.store(state.paused || !state.faults.is_empty(), Ordering::Relaxed);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the server is paused, then says what else happens to a request.
    fn strike(&self, request: &RequestHeader) -> (Before, Option<Kind>, Vec<(u32, u32)>) {
        let mut state = self.lock();
        while state.paused {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let recent = state.recent.clone();
        let since = state.hurried;
        let mut snapshot = None;
        let State { faults, places, .. } = &mut *state;
        for fault in faults {
            let before = match &fault.kind {
                // Its place is taken when it fires.
                Kind::Hold => Before::Hold(0),
                Kind::DelayBefore(time) => Before::Delay(Delay { time: *time, since }),
                Kind::Status(status) => Before::Answer(*status),
                Kind::DropBefore => Before::Drop,
                Kind::Snapshot { .. } if !is_change(request) => continue,
                Kind::Snapshot { .. } => Before::Go,
                Kind::DelayAfter(_) | Kind::DropAfter | Kind::HoldReply => continue,
                Kind::Reorder(_) | Kind::LateReclaim(_) => continue,
            };
            if fault.fires(request) {
                match before {
                    Before::Go => snapshot = Some(fault.kind.clone()),
                    Before::Hold(_) => {
                        return (Before::Hold(places.take(Side::Request)), snapshot, recent);
                    }
                    other => return (other, snapshot, recent),
                }
            }
        }
        (Before::Go, snapshot, recent)
    }
}

impl Hooks for Faults {
    fn are_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    fn before(&self, sheep: Option<&Sheep>, request: &RequestHeader) -> Before {
        if !self.are_active() {
            return Before::Go;
        }
        let (before, snapshot, recent) = self.strike(request);
        if let (Some(sheep), Some(Kind::Snapshot { name, tag, lose })) = (sheep, snapshot) {
            snapshot::take(sheep, &name, &tag, &recent[recent.len().saturating_sub(lose)..]);
        }
        before
    }

    fn after(&self, request: &RequestHeader) -> After {
        if !self.are_active() {
            return After::Send;
        }
        let mut state = self.lock();
        snapshot::remember(&mut state.recent, request);
        let since = state.hurried;
        let State { faults, places, .. } = &mut *state;
        for fault in faults {
            let after = match fault.kind {
                Kind::HoldReply => After::Hold(0),
                Kind::DelayAfter(time) => After::Delay(Delay { time, since }),
                Kind::DropAfter => After::Drop,
                Kind::Reorder(limit) => After::Swap(limit),
                _ => continue,
            };
            if fault.fires(request) {
                return match after {
                    After::Hold(_) => After::Hold(places.take(Side::Reply)),
                    other => other,
                };
            }
        }
        After::Send
    }

    fn pass(&self, delay: Delay) {
        let waits = |state: &mut State| state.hurried == delay.since;
        let wait = self.changed.wait_timeout_while(self.lock(), delay.time, waits);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    fn hold(&self, place: u64, held: Held) {
        let decided = self.lock().places.fill(place, held);
        if let Some((held, fate)) = decided {
            held(fate);
        }
    }

    fn let_go(&self) {
        self.change(|state| {
            state.paused = false;
            state.hurried += 1;
        });
        self.decide(Fate::Forgotten);
    }

    fn put_off_reclaim(&self, references: usize) -> Option<Delay> {
        if !self.are_active() {
            return None;
        }
        let mut state = self.lock();
        let since = state.hurried;
        state.faults.iter_mut().find_map(|fault| match fault.kind {
            Kind::LateReclaim(time) => {
                fault.fired += references as u64;
                Some(Delay { time, since })
            }
            _ => None,
        })
    }
}

fn is_change(request: &RequestHeader) -> bool {
    let changes = [Opcode::WriteObj, Opcode::CreateAndWriteObj];
    changes.iter().any(|opcode| opcode.code() == request.opcode)
}
