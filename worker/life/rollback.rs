//! Rollback: the working VDI is deleted, and a new one made that begins as the snapshot
//! (protocol 7.1). Whoever begins it and dies leaves no working VDI, and the next one goes
//! on; so does a user who writes it once more.

use super::clear::Clear;
use super::delete::{Free, is_free};
use super::find::Find;
use super::make::{Make, child_of};
use super::{Action, Event, out_of_turn};
use crate::locks::OwnerSearch;
use sheepfs::ipc::{Failure, Gateways, Mark};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiName, VdiRef};
use sheepfs::wire::{Request, VdiId};

/// A rollback.
#[derive(Debug)]
pub struct Rollback {
    find: Find,
    mark: Option<Mark>,
    base: Option<InodeHeader>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Begin,
    Find,
    Base(VdiId),
    Working,
    Header(VdiId),
    Lock(OwnerSearch, InodeHeader),
    Mark(Option<(VdiId, InodeHeader)>),
    Clear(Clear),
    Make(Make),
}

impl Rollback {
    /// Will go back to that snapshot.
    pub fn new(to: Vec<VdiRef>, mark: Option<Mark>) -> Self {
        Self { find: Find::new(to), mark, base: None, step: Step::Begin }
    }

    /// Takes what it is told.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (&mut self.step, event) {
            (Step::Begin, _) => match self.mark.and_then(|mark| VdiId::new(mark.base)) {
                Some(base) => Ok(self.read(Step::Base(base), base)),
                None => {
                    self.step = Step::Find;
                    self.find.ask()
                }
            },
            (Step::Find, Event::Answer(answer)) => match self.find.heard(answer)? {
                Some((_, base)) => Ok(self.read(Step::Base(base), base)),
                None => self.find.ask(),
            },
            (Step::Base(base), Event::Answer(answer)) => {
                let header = answer.header(*base)?;
                self.found_base(header)
            }
            (Step::Working, Event::Answer(answer)) if answer.is_missing() => self.mark(None),
            (Step::Working, Event::Answer(answer)) => {
                let vid = answer.found()?;
                Ok(self.read(Step::Header(vid), vid))
            }
            (Step::Header(vid), Event::Answer(answer)) => {
                let vid = *vid;
                let header = answer.header(vid)?;
                self.found_working(vid, header)
            }
            (Step::Lock(search, header), Event::Answer(answer)) => match is_free(search, answer)? {
                Free::Ask(question) => Ok(Action::Ask(question)),
                Free::Yes => {
                    let found = (search.vid(), header.clone());
                    self.mark(Some(found))
                }
            },
            (Step::Mark(found), Event::Marked) => {
                let found = found.take();
                self.clear(found)
            }
            (Step::Clear(clear), event) => match clear.step(event)? {
                Action::End(Ok(())) => self.make(),
                action => Ok(action),
            },
            (Step::Make(make), event) => make.step(event),
            (
                Step::Find
                | Step::Base(_)
                | Step::Working
                | Step::Header(_)
                | Step::Lock(..)
                | Step::Mark(_),
                _,
            ) => out_of_turn(),
        }
    }

    fn read(&mut self, step: Step, vid: VdiId) -> Action {
        self.step = step;
        Action::Ask(Request::read_inode_header(vid))
    }

    fn found_base(&mut self, header: Option<InodeHeader>) -> Result<Action, Failure> {
        let header = header.filter(InodeHeader::is_snapshot).ok_or(Failure::NoSuchSnapshot)?;
        if header.store_policy != 0 {
            return Err(Failure::NoSnapshots);
        }
        let name = name_of(&header)?;
        self.base = Some(header);
        match self.mark.map(|mark| VdiId::new(mark.vid)) {
            Some(Some(vid)) => Ok(self.read(Step::Header(vid), vid)),
            Some(None) => self.make(),
            None => {
                self.step = Step::Working;
                let vdi = VdiRef { name, generation: Generation::Working };
                Ok(Action::Ask(Request::get_vdi_info(&vdi)))
            }
        }
    }

    fn found_working(
        &mut self,
        vid: VdiId,
        header: Option<InodeHeader>,
    ) -> Result<Action, Failure> {
        match (self.mark, header) {
            // An earlier worker deleted it.
            (Some(_), None) => self.make(),
            (Some(mark), Some(header)) if header.create_time != mark.create_time => self.make(),
            // It was frozen by somebody else, and must not be deleted now.
            (Some(_), Some(header)) if header.is_snapshot() => Err(Failure::Replaced),
            (Some(_), Some(header)) => self.clear(Some((vid, header))),
            (None, Some(header)) if !header.is_snapshot() => {
                let search = OwnerSearch::new(Gateways::default(), vid);
                let question = search.question();
                self.step = Step::Lock(search, header);
                Ok(Action::Ask(question))
            }
            (None, _) => Ok(Action::Restart),
        }
    }

    fn mark(&mut self, found: Option<(VdiId, InodeHeader)>) -> Result<Action, Failure> {
        let base = self.base.as_ref().ok_or(Failure::BadAnswer)?.vdi_id;
        let (vid, create_time) =
            found.as_ref().map_or((0, 0), |(vid, header)| (vid.get(), header.create_time));
        self.step = Step::Mark(found);
        Ok(Action::Mark(Mark { vid, create_time, base }))
    }

    fn clear(&mut self, found: Option<(VdiId, InodeHeader)>) -> Result<Action, Failure> {
        let Some((vid, header)) = found else { return self.make() };
        let mut clear = Clear::new(vid, &header)?;
        let first = clear.step(Event::Begin);
        self.step = Step::Clear(clear);
        first
    }

    fn make(&mut self) -> Result<Action, Failure> {
        let base = self.base.as_ref().ok_or(Failure::BadAnswer)?;
        let mut make = Make::new(name_of(base)?, child_of(base), Mark::default(), true);
        let first = make.step(Event::Begin);
        self.step = Step::Make(make);
        first
    }
}

fn name_of(header: &InodeHeader) -> Result<VdiName, Failure> {
    let name = std::str::from_utf8(&header.name).ok();
    name.and_then(|name| VdiName::new(name).ok()).ok_or(Failure::BadAnswer)
}
