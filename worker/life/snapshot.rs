//! A snapshot: the working VDI gets the tag, then the cluster freezes it and goes on under a
//! new vid (protocol 7.3).
//!
//! A volume of ours holds its writes meanwhile, so the snapshot has all that was answered
//! before and nothing that is answered later; afterwards it follows to the new vid as it
//! follows anybody's snapshot. One that does not know yet of somebody else's snapshot goes
//! after that first: it repairs what the server lost of its index, which this snapshot must
//! have too.
//!
//! Asked with a vid that is not the name's any more, the server would throw the VDI back to
//! that vid's state (protocol 12.2). So that the name means the vid is seen just before; and
//! just after, that the snapshot has our tag and not another client's.

use super::{Action, Event, out_of_turn};
use sheepfs::ipc::{Failure, Mark};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiName, VdiRef, VdiTag};
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{Request, VdiId};

/// The making of a snapshot.
#[derive(Debug)]
pub struct Snapshot {
    name: VdiName,
    tag: VdiTag,
    mark: Option<Mark>,
    step: Step,
    found: Option<(VdiId, InodeHeader)>,
    /// Where the volume holds still, if there is one.
    rests: Option<VdiId>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    /// Whether the tag is used already.
    Tag,
    LookUp,
    Header(VdiId),
    /// As it, of the vid that an earlier worker was about to make a snapshot of.
    Marked(VdiId),
    Mark,
    Pause,
    /// Whether the name still means it.
    Verify,
    WriteTag,
    Make,
    /// Whether it has the tag.
    Check(VdiId),
    /// It did not become one.
    TakeBack(Failure),
}

impl Snapshot {
    /// Will make that snapshot.
    pub fn new(name: VdiName, tag: VdiTag, mark: Option<Mark>) -> Self {
        Self { name, tag, mark, step: Step::Begin, found: None, rests: None }
    }

    /// Takes what it is told.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (self.step, event) {
            (Step::Begin, _) => Ok(self.begin()),
            (Step::Tag, Event::Answer(answer)) => match answer.found() {
                Ok(_) => Err(Failure::Exists),
                Err(Failure::NoSuchSnapshot) => Ok(self.look_up(Step::LookUp)),
                Err(failure) => Err(failure),
            },
            (Step::LookUp, Event::Answer(answer)) => {
                let vid = answer.found()?;
                Ok(self.ask(Step::Header(vid), Request::read_inode_header(vid)))
            }
            (Step::Header(vid), Event::Answer(answer)) => self.found(vid, answer.header(vid)?),
            (Step::Marked(vid), Event::Answer(answer)) => Ok(self.seen(vid, answer.header(vid)?)),
            (Step::Mark, Event::Marked) => Ok(self.pause()),
            (Step::Pause, Event::Paused(rests)) => {
                self.rests = rests;
                Ok(self.look_up(Step::Verify))
            }
            (Step::Verify, Event::Answer(answer)) => Ok(self.verified(answer.found()?)),
            (Step::WriteTag, Event::Answer(answer)) if answer.is_done() => self.make(),
            (Step::WriteTag, Event::Answer(answer)) => Err(answer.failure()),
            (Step::Make, Event::Answer(answer)) if answer.is_done() => Ok(self.check()),
            (Step::Check(vid), Event::Answer(answer)) => {
                let header = answer.header(vid)?.filter(InodeHeader::is_snapshot);
                let is_ours = header.is_some_and(|header| self.is_tagged(&header));
                Ok(if is_ours { Action::End(Ok(())) } else { Action::Restart })
            }
            (Step::Make, Event::Answer(answer)) => self.take_back(answer.failure()),
            (Step::TakeBack(failure), Event::Answer(_)) => Err(failure),
            (_, _) => out_of_turn(),
        }
    }

    fn ask(&mut self, step: Step, request: Request) -> Action {
        self.step = step;
        Action::Ask(request)
    }

    fn begin(&mut self) -> Action {
        if let Some(vid) = self.mark.and_then(|mark| VdiId::new(mark.vid)) {
            return self.ask(Step::Marked(vid), Request::read_inode_header(vid));
        }
        self.begin_anew()
    }

    fn begin_anew(&mut self) -> Action {
        let generation = Generation::Tag(self.tag.clone());
        let snapshot = VdiRef { name: self.name.clone(), generation };
        self.ask(Step::Tag, Request::get_vdi_info(&snapshot))
    }

    fn look_up(&mut self, step: Step) -> Action {
        let vdi = VdiRef { name: self.name.clone(), generation: Generation::Working };
        self.ask(step, Request::get_vdi_info(&vdi))
    }

    fn found(&mut self, vid: VdiId, header: Option<InodeHeader>) -> Result<Action, Failure> {
        let Some(header) = header.filter(|header| !header.is_snapshot()) else {
            return Ok(Action::Restart);
        };
        if header.store_policy != 0 {
            return Err(Failure::NoSnapshots);
        }
        let mark = Mark { vid: vid.get(), create_time: header.create_time, base: 0 };
        self.found = Some((vid, header));
        self.step = Step::Mark;
        Ok(Action::Mark(mark))
    }

    /// How far an earlier worker came.
    fn seen(&mut self, vid: VdiId, header: Option<InodeHeader>) -> Action {
        let same = |header: &InodeHeader| {
            self.mark.is_some_and(|mark| mark.create_time == header.create_time)
                && header.name == self.name.as_str().as_bytes()
        };
        match header.filter(same) {
            Some(header) if !header.is_snapshot() => {
                self.found = Some((vid, header));
                self.pause()
            }
            Some(header) if self.is_tagged(&header) => Action::End(Ok(())),
            // Somebody else made a snapshot of it before us, or deleted it.
            Some(_) | None => self.begin_anew(),
        }
    }

    fn pause(&mut self) -> Action {
        self.step = Step::Pause;
        if self.found.is_some() { Action::Pause } else { Action::Restart }
    }

    /// What the name means while the volume holds still.
    fn verified(&mut self, vid: VdiId) -> Action {
        if self.found.as_ref().is_none_or(|(found, _)| *found != vid) {
            return Action::Restart;
        }
        if self.rests.is_some_and(|rests| rests != vid) {
            self.step = Step::Pause;
            return Action::Follow;
        }
        self.ask(Step::WriteTag, Request::write_tag(vid, &self.tag))
    }

    fn make(&mut self) -> Result<Action, Failure> {
        let (vid, header) = self.found.as_ref().ok_or(Failure::BadAnswer)?;
        let new = NewVdi {
            size: header.vdi_size,
            copies: header.nr_copies,
            copy_policy: header.copy_policy,
            block_size_shift: header.block_size_shift,
            base: vid.get(),
            snapshot: true,
            store_policy: header.store_policy,
        };
        let request = Request::new_vdi(&self.name, &new);
        Ok(self.ask(Step::Make, request))
    }

    /// Somebody who makes a snapshot at the same time may have written his tag over ours.
    fn check(&mut self) -> Action {
        match &self.found {
            Some((vid, _)) => {
                let vid = *vid;
                self.ask(Step::Check(vid), Request::read_inode_header(vid))
            }
            None => Action::Restart,
        }
    }

    fn is_tagged(&self, header: &InodeHeader) -> bool {
        header.tag == self.tag.as_str().as_bytes()
    }

    fn take_back(&mut self, failure: Failure) -> Result<Action, Failure> {
        let (vid, _) = self.found.as_ref().ok_or(failure)?;
        let request = Request::clear_tag(*vid);
        Ok(self.ask(Step::TakeBack(failure), request))
    }
}
