//! Faults on request: what a test asks for on the control socket.
//!
//! Each fault has a name, `delay#3`, and counts how often it fired, so that a test can prove that
//! what it asked for has happened.

pub mod parse;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tracing::{error, info};

use self::parse::{Command, Filter, Kind};
use super::hooks::{After, Before, Delay, Hooks};
use super::sheep::Sheep;
use super::vdis;
use crate::wire::inode::{GREF_OFFSET, INDEX_OFFSET, gref_offset, index_offset};
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, Opcode, RequestHeader, VdiId};

/// Index updates remembered for a snapshot that loses some.
const RECENT_MAX: usize = 64;

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
    /// Blocks whose index entries were written last, with the inode's vid.
    recent: Vec<(u32, u32)>,
}

/// The faults of a server.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
    active: AtomicBool,
}

impl Faults {
    /// Does what a line says and returns what to answer.
    pub fn command(&self, sheep: &Sheep, line: &str) -> String {
        match parse::parse(line) {
            Ok(command) => self.obey(sheep, command),
            Err(error) => format!("error: {error}\n"),
        }
    }

    fn obey(&self, sheep: &Sheep, command: Command) -> String {
        let mut answer = "ok\n".to_owned();
        match command {
            Command::Add(kind, filter) => answer = self.add(sheep, kind, filter),
            Command::Pause => self.change(|state| state.paused = true),
            Command::Resume => self.change(|state| state.paused = false),
            Command::Hurry => self.change(|state| state.hurried += 1),
            Command::Clear => self.change(|state| {
                state.paused = false;
                state.faults.clear();
            }),
            Command::Fired => answer = self.fired(),
            Command::Bugs => {
                answer = lines(sheep.rules.counts().map(|(r, n)| (r.name().into(), n)))
            }
            Command::ClearBugs => sheep.rules.clear(),
            Command::Stats => {
                answer = lines(sheep.served().map(|(code, count)| (opcode_name(code), count)));
            }
        }
        answer
    }

    fn add(&self, sheep: &Sheep, kind: Kind, mut filter: Filter) -> String {
        if let Kind::Snapshot { name, .. } = &kind {
            filter.count = filter.count.or(Some(1));
            let wanted = super::table::Wanted::Working;
            match sheep.table.find(name.as_bytes(), wanted) {
                Ok(vdi) => filter.vid = filter.vid.or(Some(vdi.vid().get())),
                Err(status) => return format!("error: {name}: {status:?}\n"),
            }
            if filter.opcode.is_none() && filter.kind.is_none() {
                filter.kind = Some(ObjectKind::Data);
            }
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
        for fault in &mut state.faults {
            let before = match &fault.kind {
                Kind::DelayBefore(time) => Before::Delay(Delay { time: *time, since }),
                Kind::Status(status) => Before::Answer(*status),
                Kind::DropBefore => Before::Drop,
                Kind::Snapshot { .. } if !is_change(request) => continue,
                Kind::Snapshot { .. } => Before::Go,
                Kind::DelayAfter(_) | Kind::DropAfter => continue,
                Kind::Reorder(_) | Kind::LateReclaim(_) => continue,
            };
            if fault.fires(request) {
                match before {
                    Before::Go => snapshot = Some(fault.kind.clone()),
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

    fn before(&self, sheep: &Sheep, request: &RequestHeader) -> Before {
        if !self.are_active() {
            return Before::Go;
        }
        let (before, snapshot, recent) = self.strike(request);
        if let Some(Kind::Snapshot { name, tag, lose }) = snapshot {
            take_snapshot(sheep, &name, &tag, &recent[recent.len().saturating_sub(lose)..]);
        }
        before
    }

    fn after(&self, request: &RequestHeader) -> After {
        if !self.are_active() {
            return After::Send;
        }
        let mut state = self.lock();
        remember(&mut state.recent, request);
        let since = state.hurried;
        for fault in &mut state.faults {
            let after = match fault.kind {
                Kind::DelayAfter(time) => After::Delay(Delay { time, since }),
                Kind::DropAfter => After::Drop,
                Kind::Reorder(limit) => After::Swap(limit),
                _ => continue,
            };
            if fault.fires(request) {
                return after;
            }
        }
        After::Send
    }

    fn pass(&self, delay: Delay) {
        let waits = |state: &mut State| state.hurried == delay.since;
        let wait = self.changed.wait_timeout_while(self.lock(), delay.time, waits);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
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

/// Remembers the block of an index update.
fn remember(recent: &mut Vec<(u32, u32)>, request: &RequestHeader) {
    let fields = request.obj();
    let oid = ObjectId::from_raw(fields.oid);
    let in_index = (INDEX_OFFSET..GREF_OFFSET).contains(&fields.offset);
    if request.opcode == Opcode::WriteObj.code() && oid.kind() == ObjectKind::Inode && in_index {
        recent.push((oid.vid_raw(), (fields.offset - INDEX_OFFSET) / 4));
        if recent.len() > RECENT_MAX {
            recent.remove(0);
        }
    }
}

/// Takes a snapshot; the `lost` entries are overwritten by it, as the original's race does.
fn take_snapshot(sheep: &Sheep, name: &str, tag: &str, lost: &[(u32, u32)]) {
    let old = sheep.table.find(name.as_bytes(), super::table::Wanted::Working);
    let taken = vdis::take_snapshot(sheep, name.as_bytes(), tag.as_bytes());
    let new = sheep.table.find(name.as_bytes(), super::table::Wanted::Working);
    match (old, taken, new) {
        (Ok(old), Ok(()), Ok(new)) => {
            info!(old = %old.vid(), new = %new.vid(), lost = lost.len(), "took a snapshot");
            for (_, block) in lost.iter().filter(|(vid, _)| *vid == old.vid().get()) {
                forget(sheep, old.vid(), *block);
                forget(sheep, new.vid(), *block);
            }
        }
        (old, taken, _) => {
            error!("no snapshot of {name}: {:?} {taken:?}", old.map(|vdi| vdi.vid()))
        }
    }
}

fn forget(sheep: &Sheep, vid: VdiId, block: u32) {
    let inode = ObjectId::inode(vid);
    let entry = sheep.store.write(inode, index_offset(block).into(), &[0; 4]);
    let gref = sheep.store.write(inode, gref_offset(block).into(), &[0; 8]);
    if let Err(error) = entry.and(gref) {
        error!("could not lose an entry: {error}");
    }
}

fn opcode_name(code: u8) -> String {
    Opcode::from_code(code).map_or_else(|| format!("{code:#04x}"), |opcode| format!("{opcode:?}"))
}

fn lines(words: impl Iterator<Item = (String, u64)>) -> String {
    words.fold(String::new(), |mut text, (word, number)| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{word} {number}");
        text
    })
}
