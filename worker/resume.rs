//! Resuming: a volume of an earlier worker, by its vid.
//!
//! The name is not looked up: it may mean another vid by now, since somebody made a
//! snapshot while no worker lived. The header of the known vid says which:
//!
//! ```text
//!  Header ──> the same VDI, as it was ─────────────────> attached
//!   │    └──> the same VDI, a snapshot now ────────────> attached, in a reload
//!   └───────> another VDI, or none (hazard 10) ────────> replaced
//! ```
//!
//! In the second case the volume begins with the reload that a READONLY answer would
//! have begun ([`crate::volume::reload`]): it finds the new vid, moves the lock, and
//! repairs what the server lost of the allocations that the earlier worker told of.
//! So the path that survives a snapshot survives a death in the middle of it too.
//! Applications wait for a resume, so what the cluster can't do now is tried again
//! for ever, unlike for an attach.

use crate::attach::Progress;
use crate::context::Context;
use crate::engine::Waiter;
use crate::verdict::{Verdict, on_object};
use crate::volume::recent::Allocation;
use crate::volume::{Former, Volume};
use sheepfs::ipc::{Failure, Gateways, Tag, VolumeFacts, VolumeId};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiName, VolumeName};
use sheepfs::wire::{Request, Status, VdiId};
use std::time::{Duration, Instant};

/// How long to wait before a question is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often a header may be refused for a reason that waiting hardly heals.
const REFUSALS_MAX: u32 = 10;

/// What the supervisor knows of the volume.
#[derive(Debug)]
pub struct Wanted {
    /// Its name between the processes.
    pub volume: VolumeId,
    /// What the user wrote.
    pub name: VolumeName,
    /// What it was.
    pub facts: VolumeFacts,
    /// Through whom the lock of a newer vid was asked for.
    pub lock_sent: Gateways,
    /// The block whose index entry was being repaired.
    pub repairing: Option<u32>,
    /// What the earlier worker allocated, as vids that were checked.
    pub remembered: Vec<Allocation>,
}

/// A resume under way.
#[derive(Debug)]
pub struct Resume {
    tag: Tag,
    vid: VdiId,
    wanted: Wanted,
    refusals: u32,
    /// The header is to be asked for again then.
    delayed: Option<Instant>,
}

impl Resume {
    /// Begins; asks for the header.
    ///
    /// # Errors
    /// When what is known of the volume names no VDI.
    pub fn begin(tag: Tag, wanted: Wanted, io: &mut Context<Waiter>) -> Result<Self, Failure> {
        let vid = VdiId::new(wanted.facts.vid).ok_or(Failure::Replaced)?;
        let mut resume = Self { tag, vid, wanted, refusals: 0, delayed: None };
        resume.ask(io);
        Ok(resume)
    }

    /// What it is called.
    pub fn volume(&self) -> VolumeId {
        self.wanted.volume
    }

    /// The vid that it was.
    pub fn vid(&self) -> VdiId {
        self.vid
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.delayed
    }

    /// Asks again when it is time.
    pub fn tick(&mut self, io: &mut Context<Waiter>) {
        if self.delayed.is_some_and(|until| until <= io.now) {
            self.ask(io);
        }
    }

    fn ask(&mut self, io: &mut Context<Waiter>) {
        self.delayed = None;
        io.send(Request::read_inode_header(self.vid), None, Waiter::Resume(self.tag));
    }

    /// Takes the header.
    pub fn reply(&mut self, status: Status, bytes: &[u8], now: Instant) -> Progress {
        match on_object(status) {
            Verdict::Done => self.compare(bytes, now),
            Verdict::Retry => self.later(now),
            Verdict::SheepGone => Progress::SheepGone,
            Verdict::Recheck | Verdict::Fail(_) if self.refusals < REFUSALS_MAX => {
                self.refusals += 1;
                self.later(now)
            }
            Verdict::Reload | Verdict::Recheck | Verdict::Fail(_) => {
                Progress::Failed(Failure::from_status(status))
            }
        }
    }

    fn later(&mut self, now: Instant) -> Progress {
        self.delayed = Some(now + RETRY_DELAY);
        Progress::Going
    }

    fn compare(&mut self, bytes: &[u8], now: Instant) -> Progress {
        let header = match InodeHeader::decode(bytes) {
            Ok(header) => header,
            Err(cause) => return Progress::Failed(Failure::Unusable(cause)),
        };
        match self.same_vdi(&header) {
            Some(name) => Progress::Attached(Box::new(self.volume_of(name, header, now))),
            None => Progress::Failed(Failure::Replaced),
        }
    }

    /// The name by which the VDI was meant, if it is still that VDI.
    fn same_vdi(&self, header: &InodeHeader) -> Option<VdiName> {
        let facts = &self.wanted.facts;
        let same = header.create_time == facts.create_time
            && header.block_size_shift == facts.block_size_shift
            && header.copy_policy == facts.copy_policy
            && header.is_hyper() == facts.hyper
            && header.vdi_size >= facts.size
            && header.check_usable(self.vid).is_ok()
            && (header.is_snapshot() || !facts.snapshot);
        let meant = self.wanted.name.meanings().into_iter().find(|meaning| {
            let working = meaning.generation == Generation::Working;
            working != facts.snapshot && meaning.name.as_str().as_bytes() == header.name
        });
        meant.filter(|_| same).map(|meaning| meaning.name)
    }

    fn volume_of(&mut self, name: VdiName, header: InodeHeader, now: Instant) -> Volume {
        let facts = &self.wanted.facts;
        let became_snapshot = header.is_snapshot() && !facts.snapshot;
        // Until the new vid is found, the volume is what it was announced to be.
        let snap_ctime = if became_snapshot { 0 } else { header.snap_ctime };
        let header = InodeHeader { vdi_size: facts.size, snap_ctime, ..header };
        let locked = facts.locked.then_some(self.vid);
        let former = Former {
            allocations: std::mem::take(&mut self.wanted.remembered),
            lock_sent: self.wanted.lock_sent,
            repairing: self.wanted.repairing,
            became_snapshot,
        };
        Volume::new(self.wanted.volume, name, self.vid, header, locked, now).resumed(former, now)
    }
}
