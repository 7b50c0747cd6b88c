//! A VDI, or a snapshot, is deleted, unless somebody has its lock.

use super::clear::Clear;
use super::find::Find;
use super::{Action, Event, out_of_turn};
use crate::locks::{Owner, OwnerSearch};
use sheepfs::ipc::{Failure, Gateways, Mark};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::VolumeName;
use sheepfs::wire::{Request, VdiId};

/// A deletion.
#[derive(Debug)]
pub struct Delete {
    find: Find,
    mark: Option<Mark>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Begin,
    Find,
    Header(VdiId),
    Lock(OwnerSearch, InodeHeader),
    Mark(VdiId, InodeHeader),
    Clear(Clear),
}

/// What a lock says about a VDI that is to go.
pub enum Free {
    /// Nobody has it.
    Yes,
    /// Ask again.
    Ask(Request),
}

/// Takes an answer to the question who holds a lock.
///
/// # Errors
/// When somebody does.
pub fn is_free(search: &mut OwnerSearch, answer: &super::Answer) -> Result<Free, Failure> {
    match search.hear(answer.status, answer.bytes) {
        Owner::Nobody => Ok(Free::Yes),
        Owner::MoreRoom => Ok(Free::Ask(search.question())),
        Owner::Later | Owner::SheepGone => Err(Failure::TimedOut),
        Owner::Ours | Owner::Node(_) | Owner::Other => Err(Failure::Locked),
    }
}

impl Delete {
    /// Will delete what that means.
    pub fn new(name: &VolumeName, mark: Option<Mark>) -> Self {
        Self { find: Find::new(name.meanings()), mark, step: Step::Begin }
    }

    /// Takes what it is told.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (&mut self.step, event) {
            (Step::Begin, _) => match self.mark.and_then(|mark| VdiId::new(mark.vid)) {
                Some(vid) => Ok(self.read(vid)),
                None => {
                    self.step = Step::Find;
                    self.find.ask()
                }
            },
            (Step::Find, Event::Answer(answer)) => match self.find.heard(answer)? {
                Some((_, vid)) => Ok(self.read(vid)),
                None => self.find.ask(),
            },
            (Step::Header(vid), Event::Answer(answer)) => {
                let vid = *vid;
                let header = answer.header(vid)?;
                self.found(vid, header)
            }
            (Step::Lock(search, header), Event::Answer(answer)) => match is_free(search, answer)? {
                Free::Ask(question) => Ok(Action::Ask(question)),
                Free::Yes => {
                    let (vid, header) = (search.vid(), header.clone());
                    Ok(self.mark(vid, header))
                }
            },
            (Step::Mark(vid, header), Event::Marked) => {
                let clear = Clear::new(*vid, header)?;
                self.clear(clear)
            }
            (Step::Clear(clear), event) => clear.step(event),
            (Step::Find | Step::Header(_) | Step::Lock(..) | Step::Mark(..), _) => out_of_turn(),
        }
    }

    fn read(&mut self, vid: VdiId) -> Action {
        self.step = Step::Header(vid);
        Action::Ask(Request::read_inode_header(vid))
    }

    fn found(&mut self, vid: VdiId, header: Option<InodeHeader>) -> Result<Action, Failure> {
        match (self.mark, header) {
            // An earlier worker came to the end of it.
            (Some(_), None) => Ok(Action::End(Ok(()))),
            (Some(mark), Some(header)) if header.create_time != mark.create_time => {
                Ok(Action::End(Ok(())))
            }
            (Some(_), Some(header)) => {
                let clear = Clear::new(vid, &header)?;
                self.clear(clear)
            }
            (None, None) => Err(Failure::NoSuchVdi),
            (None, Some(header)) if header.is_snapshot() => Ok(self.mark(vid, header)),
            (None, Some(header)) => {
                let search = OwnerSearch::new(Gateways::default(), vid);
                let question = search.question();
                self.step = Step::Lock(search, header);
                Ok(Action::Ask(question))
            }
        }
    }

    fn mark(&mut self, vid: VdiId, header: InodeHeader) -> Action {
        let mark = Mark { vid: vid.get(), create_time: header.create_time, base: 0 };
        self.step = Step::Mark(vid, header);
        Action::Mark(mark)
    }

    fn clear(&mut self, mut clear: Clear) -> Result<Action, Failure> {
        let first = clear.step(Event::Begin);
        self.step = Step::Clear(clear);
        first
    }
}
