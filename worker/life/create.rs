//! A new VDI: out of nothing, or as a snapshot's clone.

use super::find::Find;
use super::make::{Make, child_of};
use super::{Action, Event, out_of_turn};
use sheepfs::ipc::{Failure, Mark, NewShape};
use sheepfs::wire::cluster::ClusterInfo;
use sheepfs::wire::inode::{INDEX_ENTRIES, InodeHeader};
use sheepfs::wire::name::{VdiName, VdiRef};
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{Request, VdiId};

/// The objects of a hyper volume are that large, whatever the cluster's default is.
const HYPER_SHIFT: u8 = 22;
/// The most bytes of a hyper volume (protocol 5).
const HYPER_SIZE_MAX: u64 = 1 << 54;

/// Whether a VDI may be so large.
pub fn check_size(size: u64, shift: u8, is_hyper: bool) -> Result<(), Failure> {
    if is_hyper {
        return if size <= HYPER_SIZE_MAX { Ok(()) } else { Err(Failure::TooLargeForAny) };
    }
    let size_max = u64::from(INDEX_ENTRIES).checked_shl(shift.into()).unwrap_or(u64::MAX);
    if size <= size_max { Ok(()) } else { Err(Failure::TooLarge { shift }) }
}

/// The making of a fresh VDI.
#[derive(Debug)]
pub struct Create {
    shape: NewShape,
    make: Make,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Defaults,
    Make,
}

impl Create {
    /// Will make that VDI.
    pub fn new(name: VdiName, shape: NewShape, mark: Option<Mark>) -> Self {
        let new = NewVdi {
            size: shape.size,
            copies: shape.copies,
            copy_policy: shape.copy_policy,
            block_size_shift: if shape.hyper { HYPER_SHIFT } else { shape.block_size_shift },
            base: 0,
            snapshot: false,
            store_policy: u8::from(shape.hyper),
        };
        let make = Make::new(name, new, mark.unwrap_or_default(), mark.is_some());
        Self { shape, make, step: Step::Begin }
    }

    /// Takes what it is told.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (self.step, event) {
            (Step::Begin, _) if self.shape.block_size_shift == 0 && !self.shape.hyper => {
                self.step = Step::Defaults;
                Ok(Action::Ask(Request::cluster_info()))
            }
            (Step::Begin, _) => self.begin(self.shape.block_size_shift),
            (Step::Defaults, Event::Answer(answer)) => {
                if !answer.is_done() {
                    return Err(answer.failure());
                }
                let info = ClusterInfo::decode(answer.bytes).map_err(|_| Failure::BadAnswer)?;
                if info.ctime == 0 {
                    return Err(Failure::Unformatted);
                }
                self.begin(info.block_size_shift)
            }
            (Step::Defaults, _) => out_of_turn(),
            (Step::Make, event) => self.make.step(event),
        }
    }

    fn begin(&mut self, shift: u8) -> Result<Action, Failure> {
        check_size(self.shape.size, shift, self.shape.hyper)?;
        self.step = Step::Make;
        self.make.step(Event::Begin)
    }
}

/// The making of a clone.
#[derive(Debug)]
pub struct CloneOf {
    new: VdiName,
    mark: Option<Mark>,
    step: CloneStep,
}

#[derive(Debug)]
enum CloneStep {
    Begin(Find),
    Find(Find),
    Header(VdiId),
    Make(Make),
}

impl CloneOf {
    /// Will clone that snapshot.
    pub fn new(from: Vec<VdiRef>, new: VdiName, mark: Option<Mark>) -> Self {
        Self { new, mark, step: CloneStep::Begin(Find::new(from)) }
    }

    /// Takes what it is told.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (&mut self.step, event) {
            (CloneStep::Begin(find), _) => {
                if let Some(base) = self.mark.and_then(|mark| VdiId::new(mark.base)) {
                    return Ok(self.read(base));
                }
                let asked = find.ask();
                let find = std::mem::replace(find, Find::new(Vec::new()));
                self.step = CloneStep::Find(find);
                asked
            }
            (CloneStep::Find(find), Event::Answer(answer)) => match find.heard(answer)? {
                Some((_, base)) => Ok(self.read(base)),
                None => find.ask(),
            },
            (CloneStep::Header(base), Event::Answer(answer)) => {
                let base = *base;
                match answer.header(base)? {
                    Some(header) if header.is_snapshot() => self.begin(&header),
                    Some(_) | None => Err(Failure::NoSuchSnapshot),
                }
            }
            (CloneStep::Make(make), event) => make.step(event),
            (CloneStep::Find(_) | CloneStep::Header(_), _) => out_of_turn(),
        }
    }

    fn read(&mut self, base: VdiId) -> Action {
        self.step = CloneStep::Header(base);
        Action::Ask(Request::read_inode_header(base))
    }

    fn begin(&mut self, parent: &InodeHeader) -> Result<Action, Failure> {
        if parent.store_policy != 0 {
            return Err(Failure::NoSnapshots);
        }
        let mark = Mark { base: parent.vdi_id, ..Mark::default() };
        let again = self.mark.is_some();
        let mut make = Make::new(self.new.clone(), child_of(parent), mark, again);
        let first = make.step(Event::Begin);
        self.step = CloneStep::Make(make);
        first
    }
}
