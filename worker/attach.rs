//! Attaching: from what a user wrote to a volume that can be used.
//!
//! ```text
//!  Find (lock a working VDI, look others up) ──> Header ──> attached
//!   │ no such name or snapshot: the next meaning       │ unusable: give the
//!   v                                                  v lock back, then fail
//!  fail                                               fail
//! ```
//!
//! A lock that is refused may be our own, when an earlier worker asked for it and died, so
//! its owner is looked up ([`crate::locks`]). Another's is taken away only if the user said
//! so, and then once: who gets it in between keeps it. If the user wants no locks, a working
//! VDI is looked up like a snapshot, and nothing is ever given back.
//!
//! A line may mean several things ("a:b" is a VDI's name, or a snapshot of "a"),
//! which are tried in order. The inode's header is read, a few KiB, and checked;
//! the index is left for later.

use crate::context::Context;
use crate::engine::Waiter;
use crate::locks::{Owner, OwnerSearch};
use crate::verdict::{Verdict, on_lookup, on_object};
use crate::volume::Volume;
use sheepfs::ipc::{Failure, FromWorker, Gateways, Locking, Tag, VolumeId};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiRef, VolumeName};
use sheepfs::wire::{Request, Status, VdiId};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tracing::warn;

/// How long to wait before a question that the cluster can't answer now is asked
/// again.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often in all a lock may be refused that nobody holds a moment later.
const UNHELD_MAX: u32 = 10;

/// An attach under way.
#[derive(Debug)]
pub struct Attach {
    tag: Tag,
    volume: VolumeId,
    meanings: VecDeque<VdiRef>,
    /// The gateways through which earlier workers may have got the lock.
    lock_sent: Gateways,
    locking: Locking,
    /// How often nobody held the lock that was refused.
    unheld: u32,
    locked: Option<VdiId>,
    /// Who holds the lock that was refused.
    search: Option<OwnerSearch>,
    missing: Failure,
    step: Step,
    /// The name is to be asked for again then.
    delayed: Option<Instant>,
}

/// What was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The vid of a name, without its lock.
    Find,
    /// The vid of the name, with its lock.
    Lock,
    /// The header of that vid.
    Header(VdiId),
    /// The vid of the name, whose lock was refused but may be ours, or may be taken.
    Refused,
    /// Who holds that lock.
    Owner,
    /// The end of that lock, which is another's.
    Steal,
    /// The end of a lock that was taken for nothing; why comes afterwards.
    Release(Failure),
}

/// How a step ended.
pub enum Progress {
    /// The next question is on its way.
    Going,
    /// A volume.
    Attached(Box<Volume>),
    /// It can't be attached.
    Failed(Failure),
    /// The sheep says that it is going.
    SheepGone,
}

impl Attach {
    /// Begins; asks the first question.
    pub fn begin(
        tag: Tag,
        volume: VolumeId,
        name: &VolumeName,
        lock_sent: Gateways,
        locking: Locking,
        io: &mut Context<Waiter>,
    ) -> Self {
        let mut attach = Self {
            tag,
            volume,
            meanings: name.meanings().into(),
            lock_sent,
            locking,
            unheld: 0,
            search: None,
            locked: None,
            missing: Failure::NoSuchVdi,
            step: Step::Find,
            delayed: None,
        };
        attach.find(io);
        attach
    }

    /// The request that asked for it.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// What it shall be called.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.delayed
    }

    /// Asks again when it is time.
    pub fn tick(&mut self, io: &mut Context<Waiter>) {
        if self.delayed.is_some_and(|until| until <= io.now) {
            self.delayed = None;
            self.find(io);
        }
    }

    /// Asks for the next meaning.
    fn find(&mut self, io: &mut Context<Waiter>) -> Progress {
        let Some(vdi) = self.meanings.front() else { return Progress::Failed(self.missing) };
        let locks = vdi.generation == Generation::Working && self.locking != Locking::Without;
        let (step, request) = if locks {
            (Step::Lock, Request::lock_vdi(vdi))
        } else {
            (Step::Find, Request::get_vdi_info(vdi))
        };
        self.ask(step, request, io)
    }

    fn ask(&mut self, step: Step, request: Request, io: &mut Context<Waiter>) -> Progress {
        self.step = step;
        if step == Step::Lock {
            io.out.push(FromWorker::LockSent { volume: self.volume });
        }
        io.send(request, None, Waiter::Attach(self.tag));
        Progress::Going
    }

    /// Takes an answer.
    pub fn reply(
        &mut self,
        status: Status,
        bytes: &[u8],
        vid: u32,
        io: &mut Context<Waiter>,
    ) -> Progress {
        match self.step {
            Step::Find | Step::Lock | Step::Refused => self.found(status, vid, io),
            Step::Owner => self.owner(status, bytes, io),
            Step::Steal => self.stolen(status, io),
            Step::Header(vid) => self.header(vid, status, bytes, io),
            Step::Release(failure) => Progress::Failed(failure),
        }
    }

    fn found(&mut self, status: Status, vid: u32, io: &mut Context<Waiter>) -> Progress {
        match on_lookup(status) {
            Verdict::Done => match VdiId::new(vid) {
                Some(vid) if self.step == Step::Refused => self.search_owner(vid, io),
                Some(vid) => self.found_vid(vid, io),
                None => Progress::Failed(Failure::BadAnswer),
            },
            Verdict::Retry => self.later(io),
            Verdict::SheepGone => Progress::SheepGone,
            Verdict::Fail(missing @ (Failure::NoSuchVdi | Failure::NoSuchSnapshot)) => {
                self.missing = missing;
                self.meanings.pop_front();
                self.find(io)
            }
            Verdict::Fail(Failure::Locked) => {
                match self.meanings.front().map(Request::get_vdi_info) {
                    Some(request) => self.ask(Step::Refused, request, io),
                    None => Progress::Failed(Failure::Locked),
                }
            }
            Verdict::Fail(failure) => Progress::Failed(failure),
            Verdict::Reload | Verdict::Recheck => Progress::Failed(Failure::BadAnswer),
        }
    }

    /// Begins anew in a moment.
    fn later(&mut self, io: &mut Context<Waiter>) -> Progress {
        self.delayed = Some(io.now + RETRY_DELAY);
        Progress::Going
    }

    /// The lock was refused: it may be ours, or is to be ours, and who has it is told.
    fn search_owner(&mut self, vid: VdiId, io: &mut Context<Waiter>) -> Progress {
        let search = OwnerSearch::new(self.lock_sent, vid);
        self.search = Some(search);
        self.ask(Step::Owner, search.question(), io)
    }

    fn owner(&mut self, status: Status, bytes: &[u8], io: &mut Context<Waiter>) -> Progress {
        let Some(search) = &mut self.search else { return Progress::Failed(Failure::Locked) };
        match search.hear(status, bytes) {
            Owner::MoreRoom => {
                let question = search.question();
                self.ask(Step::Owner, question, io)
            }
            Owner::Later => self.later(io),
            Owner::Nobody if self.unheld < UNHELD_MAX => {
                self.unheld += 1;
                self.later(io)
            }
            Owner::Ours => {
                let vid = search.vid();
                warn!(volume_id = self.volume.0, %vid, "the VDI's lock is taken to be ours: an earlier worker asked for it through the node that holds it");
                self.step = Step::Lock;
                self.found_vid(vid, io)
            }
            Owner::Node(owner) if self.locking == Locking::Steal => {
                let vid = search.vid();
                self.steal_lock(vid, owner, io)
            }
            Owner::Node(owner) => Progress::Failed(Failure::LockedBy(owner)),
            Owner::Nobody | Owner::Other => Progress::Failed(Failure::Locked),
            Owner::SheepGone => Progress::SheepGone,
        }
    }

    /// Ends the lock of another, since the user said that its holder is dead.
    fn steal_lock(&mut self, vid: VdiId, owner: SocketAddr, io: &mut Context<Waiter>) -> Progress {
        self.locking = Locking::Take;
        let name = self.meanings.front().map(|vdi| vdi.name.as_str());
        warn!(
            name, %vid, %owner,
            "taking the VDI's lock from the client of that node, as --steal-lock says; if that client still lives, two writers destroy the volume"
        );
        self.ask(Step::Steal, Request::release_vdi(vid), io)
    }

    fn stolen(&mut self, status: Status, io: &mut Context<Waiter>) -> Progress {
        match on_object(status) {
            Verdict::SheepGone => Progress::SheepGone,
            // Whether the lock is free now, the next request for it tells.
            Verdict::Done
            | Verdict::Retry
            | Verdict::Reload
            | Verdict::Recheck
            | Verdict::Fail(_) => self.find(io),
        }
    }

    fn found_vid(&mut self, vid: VdiId, io: &mut Context<Waiter>) -> Progress {
        if self.step == Step::Lock {
            self.locked = Some(vid);
        }
        self.ask(Step::Header(vid), Request::read_inode_header(vid), io)
    }

    fn header(
        &mut self,
        vid: VdiId,
        status: Status,
        bytes: &[u8],
        io: &mut Context<Waiter>,
    ) -> Progress {
        let decoded = match on_object(status) {
            Verdict::Done => InodeHeader::decode(bytes),
            Verdict::SheepGone => return Progress::SheepGone,
            Verdict::Retry | Verdict::Reload | Verdict::Recheck | Verdict::Fail(_) => {
                return self.give_up(Failure::from_status(status), io);
            }
        };
        match decoded.and_then(|header| header.check_usable(vid).map(|()| header)) {
            Ok(header) => self.attached(vid, header, io),
            Err(cause) => self.give_up(Failure::Unusable(cause), io),
        }
    }

    fn attached(&mut self, vid: VdiId, header: InodeHeader, io: &mut Context<Waiter>) -> Progress {
        let Some(vdi) = self.meanings.front() else { return Progress::Failed(self.missing) };
        let working = vdi.generation == Generation::Working;
        if header.name != vdi.name.as_str().as_bytes() || header.is_snapshot() == working {
            return self.give_up(Failure::Replaced, io);
        }
        let volume = Volume::new(self.volume, vdi.name.clone(), vid, header, self.locked, io.now);
        Progress::Attached(Box::new(volume))
    }

    /// Gives back a lock that was taken for nothing, then fails.
    fn give_up(&mut self, failure: Failure, io: &mut Context<Waiter>) -> Progress {
        match self.locked.take() {
            Some(vid) => self.ask(Step::Release(failure), Request::release_vdi(vid), io),
            None => Progress::Failed(failure),
        }
    }
}
