//! A VDI grows: its inode says so (protocol 12.5). That may be said twice. A snapshot that
//! somebody makes at the same time would leave the new size behind, so that the name still
//! means the vid is seen afterwards.

use super::create::check_size;
use super::{Action, Event, out_of_turn};
use sheepfs::ipc::{Failure, Mark};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiName, VdiRef};
use sheepfs::wire::{Request, VdiId};

/// The growing of a VDI.
#[derive(Debug)]
pub struct Resize {
    name: VdiName,
    size: u64,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    LookUp,
    Header(VdiId),
    Mark(VdiId),
    Write(VdiId),
    Verify(VdiId),
}

impl Resize {
    /// Will let that VDI grow.
    pub fn new(name: VdiName, size: u64) -> Self {
        Self { name, size, step: Step::Begin }
    }

    /// Takes what it is told.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (self.step, event) {
            (Step::Begin, _) => Ok(self.look_up(Step::LookUp)),
            (Step::LookUp, Event::Answer(answer)) => {
                let vid = answer.found()?;
                self.step = Step::Header(vid);
                Ok(Action::Ask(Request::read_inode_header(vid)))
            }
            (Step::Header(vid), Event::Answer(answer)) => self.found(vid, answer.header(vid)?),
            (Step::Mark(vid), Event::Marked) => {
                self.step = Step::Write(vid);
                Ok(Action::Ask(Request::write_size(vid, self.size)))
            }
            (Step::Write(vid), Event::Answer(answer)) if answer.is_done() => {
                Ok(self.look_up(Step::Verify(vid)))
            }
            (Step::Write(_), Event::Answer(answer)) => Err(answer.failure()),
            (Step::Verify(vid), Event::Answer(answer)) => {
                let same = answer.found()? == vid;
                Ok(if same { Action::End(Ok(())) } else { Action::Restart })
            }
            (Step::LookUp | Step::Header(_), _) => out_of_turn(),
            (Step::Mark(_) | Step::Write(_) | Step::Verify(_), _) => out_of_turn(),
        }
    }

    fn look_up(&mut self, step: Step) -> Action {
        self.step = step;
        let vdi = VdiRef { name: self.name.clone(), generation: Generation::Working };
        Action::Ask(Request::get_vdi_info(&vdi))
    }

    fn found(&mut self, vid: VdiId, header: Option<InodeHeader>) -> Result<Action, Failure> {
        let Some(header) = header.filter(|header| !header.is_snapshot()) else {
            return Ok(Action::Restart);
        };
        if self.size < header.vdi_size {
            return Err(Failure::Shrinks);
        }
        check_size(self.size, header.block_size_shift, header.store_policy != 0)?;
        if self.size == header.vdi_size {
            return Ok(Action::End(Ok(())));
        }
        self.step = Step::Mark(vid);
        Ok(Action::Mark(Mark { vid: vid.get(), create_time: header.create_time, base: 0 }))
    }
}
