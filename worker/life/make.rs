//! The last part of all that makes a VDI: the name must be free, and then it is made.
//!
//! One that is there already is ours if an earlier worker was about to make it, and it is
//! what was to be made.

use super::{Action, Event, out_of_turn};
use sheepfs::ipc::{Failure, Mark};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiName, VdiRef};
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{Request, Status, VdiId};

/// The making of a VDI.
#[derive(Debug)]
pub struct Make {
    name: VdiName,
    new: NewVdi,
    mark: Mark,
    /// Whether an earlier worker may have made it.
    again: bool,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    LookUp,
    Compare(VdiId),
    Mark,
    Make,
}

impl Make {
    /// Will make that.
    pub fn new(name: VdiName, new: NewVdi, mark: Mark, again: bool) -> Self {
        Self { name, new, mark, again, step: Step::Begin }
    }

    /// Takes what it is told.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (self.step, event) {
            (Step::Begin, _) => {
                self.step = Step::LookUp;
                let vdi = VdiRef { name: self.name.clone(), generation: Generation::Working };
                Ok(Action::Ask(Request::get_vdi_info(&vdi)))
            }
            (Step::LookUp, Event::Answer(answer)) if answer.is_missing() && self.again => {
                Ok(self.make())
            }
            (Step::LookUp, Event::Answer(answer)) if answer.is_missing() => {
                self.step = Step::Mark;
                Ok(Action::Mark(self.mark))
            }
            (Step::LookUp, Event::Answer(answer)) => {
                let vid = answer.found()?;
                if !self.again {
                    return Err(Failure::Exists);
                }
                self.step = Step::Compare(vid);
                Ok(Action::Ask(Request::read_inode_header(vid)))
            }
            (Step::Compare(vid), Event::Answer(answer)) => match answer.header(vid)? {
                Some(header) if self.is_made(&header) => Ok(Action::End(Ok(()))),
                Some(_) => Err(Failure::Exists),
                None => Ok(Action::Restart),
            },
            (Step::Mark, Event::Marked) => Ok(self.make()),
            // The earlier worker's own request may have come before this one.
            (Step::Make, Event::Answer(answer))
                if answer.status == Status::VdiExist && self.again =>
            {
                Ok(Action::Restart)
            }
            (Step::Make, Event::Answer(answer)) if answer.is_done() => Ok(Action::End(Ok(()))),
            (Step::Make, Event::Answer(answer)) => Err(match answer.status {
                Status::BaseVdiRead | Status::NoBaseVdi => Failure::NoSuchSnapshot,
                _ => answer.failure(),
            }),
            (Step::LookUp | Step::Compare(_) | Step::Mark | Step::Make, _) => out_of_turn(),
        }
    }

    fn make(&mut self) -> Action {
        self.step = Step::Make;
        Action::Ask(Request::new_vdi(&self.name, &self.new))
    }

    /// Whether that is what was to be made; 0 is the cluster's default, so any.
    fn is_made(&self, header: &InodeHeader) -> bool {
        let is = |wanted: u8, found: u8| wanted == 0 || wanted == found;
        let new = &self.new;
        !header.is_snapshot()
            && header.name == self.name.as_str().as_bytes()
            && header.parent_vdi_id == new.base
            && header.vdi_size == new.size
            && header.store_policy == new.store_policy
            && is(new.copies, header.nr_copies)
            && is(new.copy_policy, header.copy_policy)
            && is(new.block_size_shift, header.block_size_shift)
    }
}

/// The child of a snapshot is what that is: 0 would be the cluster's default (protocol 4.4).
pub fn child_of(parent: &InodeHeader) -> NewVdi {
    NewVdi {
        size: parent.vdi_size,
        copies: parent.nr_copies,
        copy_policy: parent.copy_policy,
        block_size_shift: parent.block_size_shift,
        base: parent.vdi_id,
        snapshot: false,
        store_policy: parent.store_policy,
    }
}
