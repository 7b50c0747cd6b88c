//! What becomes of VDIs besides their data: made, copied, taken back, resized, deleted.
//!
//! Each errand is a small machine of its own, one request at a time: an answer goes in, an
//! [`Action`] comes out. They follow what `dog` does (protocol 7 and 12), so that `dog` sees
//! the same. This module has what they share, and repeats what the cluster could not do yet.
//!
//! **Once, whoever dies.** Before an errand changes anything it says what ([`Mark`]), and
//! goes on when that is written down. A machine that begins with a mark looks first how far
//! an earlier one came:
//!
//! | errand | by what it is seen to be done |
//! | --- | --- |
//! | create, clone | a VDI of that name and shape is there, of that parent |
//! | snapshot | the marked vid is a snapshot, and has the tag |
//! | delete | the marked vid has no name any more, or another's |
//! | rollback | the marked vid is gone, and the name's VDI is the snapshot's child |
//! | resize | the VDI has the size |
//!
//! While a request of an earlier worker may still be under way nobody begins: the supervisor
//! waits until it is known to be over (its `control::manage` module).

mod clear;
mod create;
mod delete;
mod find;
mod make;
mod resize;
mod rollback;
mod snapshot;
#[cfg(test)]
mod tests;

use crate::verdict::{Verdict, on_lookup};
use sheepfs::ipc::{Errand, Failure, Mark};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::{Opcode, Request, Status, VdiId};

/// So often an errand may begin anew, since somebody else changed the VDI in the middle.
const RESTARTS_MAX: u32 = 20;
/// So often in a row the cluster may not find something that is there: while nodes come and go,
/// an inode has to be recovered first. With the pause between them, some ten seconds.
const MISSING_MAX: u32 = 50;

/// What a machine wants.
#[derive(Debug)]
pub enum Action {
    /// Ask the cluster that.
    Ask(Request),
    /// Write down that this is about to be changed.
    Mark(Mark),
    /// Let no write be under way, if the VDI is a volume here.
    Pause,
    /// A volume that holds still goes after its name, to the vid that this has now.
    Follow,
    /// Somebody else changed the VDI: look at everything anew.
    Restart,
    /// It is over.
    End(Result<(), Failure>),
}

/// What a machine is told.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Begin.
    Begin,
    /// The answer to what it asked.
    Answer(&'a Answer<'a>),
    /// The mark is written down.
    Marked,
    /// Nothing is under way. If the VDI is a volume here, it is at that vid.
    Paused(Option<VdiId>),
}

/// An answer of the cluster's.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// How it went.
    pub status: Status,
    /// The payload.
    pub bytes: &'a [u8],
    /// The vid that was found or made.
    pub vid: u32,
}

impl Answer<'_> {
    /// Whether it was done.
    fn is_done(&self) -> bool {
        self.status.is_success()
    }

    /// Whether there is no such name, or no such snapshot of it.
    fn is_missing(&self) -> bool {
        matches!(self.status, Status::NoVdi | Status::NoTag)
    }

    /// Why it was not done.
    fn failure(&self) -> Failure {
        Failure::from_status(self.status)
    }

    /// The vid that was found.
    fn found(&self) -> Result<VdiId, Failure> {
        match VdiId::new(self.vid) {
            _ if !self.is_done() => Err(self.failure()),
            Some(vid) => Ok(vid),
            None => Err(Failure::BadAnswer),
        }
    }

    /// The header of that vid's inode. `None`: there is no such VDI any more.
    fn header(&self, vid: VdiId) -> Result<Option<InodeHeader>, Failure> {
        if self.status == Status::NoObj {
            return Ok(None);
        }
        if !self.is_done() {
            return Err(self.failure());
        }
        let header = InodeHeader::decode(self.bytes).map_err(Failure::Unusable)?;
        let is_there = !header.name.is_empty() && header.vdi_id == vid.get();
        Ok(is_there.then_some(header))
    }
}

/// An errand's machine.
#[derive(Debug)]
enum Machine {
    Create(create::Create),
    Clone(create::CloneOf),
    Delete(delete::Delete),
    Snapshot(snapshot::Snapshot),
    Rollback(rollback::Rollback),
    Resize(resize::Resize),
}

impl Machine {
    fn new(errand: &Errand, mark: Option<Mark>) -> Self {
        match errand.clone() {
            Errand::Create { name, shape } => Self::Create(create::Create::new(name, shape, mark)),
            Errand::Clone { from, new } => Self::Clone(create::CloneOf::new(from, new, mark)),
            Errand::Delete { name } => Self::Delete(delete::Delete::new(&name, mark)),
            Errand::Snapshot { name, tag } => {
                Self::Snapshot(snapshot::Snapshot::new(name, tag, mark))
            }
            Errand::Rollback { to } => Self::Rollback(rollback::Rollback::new(to, mark)),
            Errand::Resize { name, size } => Self::Resize(resize::Resize::new(name, size)),
        }
    }

    fn step(&mut self, event: Event) -> Action {
        let next = match self {
            Self::Create(machine) => machine.step(event),
            Self::Clone(machine) => machine.step(event),
            Self::Delete(machine) => machine.step(event),
            Self::Snapshot(machine) => machine.step(event),
            Self::Rollback(machine) => machine.step(event),
            Self::Resize(machine) => machine.step(event),
        };
        next.unwrap_or_else(|failure| Action::End(Err(failure)))
    }
}

/// What follows from a step.
#[derive(Debug)]
pub enum Next {
    /// Ask that.
    Ask(Request),
    /// Ask that in a moment.
    AskLater(Request),
    /// As [`Action::Mark`].
    Mark(Mark),
    /// As [`Action::Pause`].
    Pause,
    /// As [`Action::Follow`].
    Follow,
    /// It is over.
    End(Result<(), Failure>),
    /// The sheep is going.
    SheepGone,
}

/// An errand under way.
#[derive(Debug)]
pub struct Life {
    errand: Errand,
    machine: Machine,
    mark: Option<Mark>,
    restarts: u32,
    /// How often in a row what was asked for was not found.
    missing: u32,
    /// What was asked last.
    asked: Option<Request>,
}

impl Life {
    /// An errand, of which an earlier worker may have done some.
    pub fn new(errand: Errand, begun: Option<Mark>) -> Self {
        let machine = Machine::new(&errand, begun);
        Self { errand, machine, mark: begun, restarts: 0, missing: 0, asked: None }
    }

    /// What it is.
    pub fn errand(&self) -> &Errand {
        &self.errand
    }

    /// Takes the answer to what was asked.
    pub fn answered(&mut self, answer: &Answer) -> Next {
        let missing = if answer.status == Status::NoObj { self.missing + 1 } else { 0 };
        self.missing = missing;
        match on_lookup(answer.status) {
            Verdict::SheepGone => Next::SheepGone,
            Verdict::Fail(_) if (1..=MISSING_MAX).contains(&missing) => self.ask_again(),
            // Whether it was carried out nobody knows, so look.
            Verdict::Fail(_) if answer.status == Status::ClusterError => self.look_again(),
            Verdict::Retry if answer.status == Status::NetworkError && self.asked_for_change() => {
                self.look_again()
            }
            Verdict::Retry => self.ask_again(),
            Verdict::Done | Verdict::Fail(_) | Verdict::Reload | Verdict::Recheck => {
                self.step(Event::Answer(answer))
            }
        }
    }

    /// Tells the machine.
    pub fn step(&mut self, event: Event) -> Next {
        match self.machine.step(event) {
            Action::Ask(request) => {
                self.asked = Some(request.clone());
                Next::Ask(request)
            }
            Action::Mark(mark) => {
                self.mark = Some(mark);
                Next::Mark(mark)
            }
            Action::Pause => Next::Pause,
            Action::Follow => Next::Follow,
            Action::Restart => self.restart(),
            Action::End(outcome) => Next::End(outcome),
        }
    }

    fn ask_again(&self) -> Next {
        match self.asked.clone() {
            Some(request) => Next::AskLater(request),
            None => Next::End(Err(Failure::BadAnswer)),
        }
    }

    /// Whether what was asked last changes something. Asked for a second time, a snapshot
    /// that was made is undone (protocol 12.2).
    fn asked_for_change(&self) -> bool {
        let opcode = self.asked.as_ref().and_then(Request::opcode);
        matches!(opcode, Some(Opcode::WriteObj | Opcode::NewVdi | Opcode::DelVdi))
    }

    /// Begins anew in a moment, with whatever there is then.
    fn look_again(&mut self) -> Next {
        match self.restart() {
            Next::Ask(request) => Next::AskLater(request),
            next => next,
        }
    }

    fn restart(&mut self) -> Next {
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            return Next::End(Err(Failure::TimedOut));
        }
        self.machine = Machine::new(&self.errand, self.mark);
        self.step(Event::Begin)
    }
}

/// What a machine says when it is told something out of turn.
fn out_of_turn() -> Result<Action, Failure> {
    Err(Failure::BadAnswer)
}
