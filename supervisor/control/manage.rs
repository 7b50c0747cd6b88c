//! Errands: what becomes of VDIs besides their data. One at a time, since the cluster does
//! them one by one as well, in the order in which they were written; only one whose volume is
//! on its way lets others pass.
//!
//! **Once, however often it is delivered** (hazard 20). A control write that the kernel
//! delivers again to a successor is known by the kernel's number of it. If it was answered,
//! it is answered so again; if its errand had begun, it joins that. Somebody else's write of
//! the same words is another errand, and finds the first one done.
//!
//! What an errand is about to change is in the state before the worker changes it, and a
//! worker that goes on with it looks by that how far the last one came. So an errand that has
//! begun goes on without anybody who waits for it, and in the next process too; one that has
//! not is over when nobody does any more, since its worker never gets leave to go on.
//!
//! **Nothing late.** What an earlier worker has sent may still be carried out by a gateway
//! that hangs, and a snapshot or a size that comes late would undo a newer one. So no errand
//! goes on or begins before that gateway is known to be through, or the fence time is over
//! ([`crate::fence`] has the argument).

use super::attempt::Attempt;
use super::life::Life;
use super::waits::{Wait, Work};
use super::{Caller, Control, Effect, Phase, Refusal};
use sheepfs::ipc::{Errand, Failure, Mark, Tag, ToWorker, VolumeFacts, VolumeId};
use sheepfs::wire::inode::INDEX_ENTRIES;
use sheepfs::wire::name::VdiName;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// An errand, and what is known of its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// What.
    pub errand: Errand,
    /// The kernel's number of the request for it.
    pub number: u64,
    /// What is changed by it, since a worker was told to go on.
    pub begun: Option<Mark>,
    /// The worker that was told of it.
    pub told: Option<u64>,
}

/// Where requests of errands may still be under way that nobody hears of.
#[derive(Debug, Default)]
pub struct Held {
    /// How long they are waited for; `None`: not at all.
    time: Option<Duration>,
    gateways: BTreeSet<SocketAddr>,
    until: Option<Instant>,
}

impl Control {
    /// How long changes may be fenced.
    pub fn set_fence_time(&mut self, time: Option<Duration>) {
        self.held.time = time;
    }

    /// Gateways to be watched until they are quiet.
    pub fn watched(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.held.gateways.iter().copied()
    }

    /// Somebody truncates a volume to more than it has.
    pub(super) fn grow(
        &mut self,
        caller: Caller,
        (name, size): (&str, u64),
        number: u64,
        now: Instant,
    ) {
        match VdiName::new(name) {
            _ if self.is_ending() => {
                self.refuse("truncate a volume", Refusal::Stopping, vec![caller], now);
            }
            Ok(name) => self.manage(Errand::Resize { name, size }, number, caller, now),
            Err(why) => self.refuse("truncate a volume", why.into(), vec![caller], now),
        }
    }

    /// Somebody wants that done.
    pub(super) fn manage(&mut self, errand: Errand, number: u64, caller: Caller, now: Instant) {
        let connected = self.life.is_connected();
        if let Some(wait) = self.waits.managed_of(number) {
            wait.callers.push(caller);
            return wait.extend(connected, now);
        }
        let why = match () {
            () if !self.waits.has_room() => Some(Refusal::TooMany),
            // The worker finds out too, but its lock comes in the way of that.
            () if ends(&errand) && self.volumes.by_name(errand.target()).is_some() => {
                Some(Failure::Attached.into())
            }
            () => None,
        };
        if let Some(why) = why {
            return self.refuse(attempt(&errand), why, vec![caller], now);
        }
        let managed = Managed { errand, number, begun: None, told: None };
        let tag = self.waits.add(Work::Manage(managed), vec![caller], now);
        self.ask(tag, now);
    }

    /// Tells the worker of the oldest errand, as soon as it may go on.
    pub(super) fn tick_managed(&mut self, now: Instant) {
        if self.held.until.is_some_and(|until| until <= now) {
            let gateways: Vec<_> = self.watched().collect();
            tracing::warn!(
                ?gateways,
                "what an earlier worker sent there to change VDIs may still be under way; going on, since the fence time is over"
            );
            self.held.gateways.clear();
            self.held.until = None;
        }
        let Life::Serving { generation, .. } = self.life else { return };
        let is_told = self.waits.managed().any(|(_, managed)| managed.told == Some(generation));
        let is_leaving = matches!(self.phase, Phase::Leaving(_));
        if is_told || is_leaving || !self.held.gateways.is_empty() {
            return;
        }
        let is_ripe = |managed: &Managed| {
            let wanted = managed.begun.is_some() || !self.is_ending();
            wanted && !self.is_moving(managed.errand.target())
        };
        let Some((tag, _)) = self.waits.managed().find(|(_, managed)| is_ripe(managed)) else {
            return;
        };
        if let Some(Wait { work: Work::Manage(managed), .. }) = self.waits.get(tag) {
            managed.told = Some(generation);
            let (errand, begun) = (managed.errand.clone(), managed.begun);
            self.send(ToWorker::Manage { tag, errand, begun });
        }
    }

    /// Whether a volume of that name is on its way to the worker, or away from it.
    fn is_moving(&self, name: &str) -> bool {
        let volume = self.volumes.by_name(name);
        volume.is_some_and(|volume| self.absent.contains_key(&volume.id))
            || self.waits.attaches().any(|(_, attached)| attached.as_str() == name)
            || self.waits.detaches().any(|gone| gone.name.as_str() == name)
    }

    /// When errands may go on whatever is known.
    pub(super) fn managed_deadline(&self) -> Option<Instant> {
        self.held.until
    }

    /// Whether that name is being deleted, or put back to a snapshot.
    pub(super) fn is_going(&self, name: &str) -> bool {
        self.waits.managed().any(|(_, one)| ends(&one.errand) && one.errand.target() == name)
    }

    /// The worker is about to change something. Where nobody waits for that any more, it may not.
    pub(super) fn begun(&mut self, tag: Tag, mark: Mark) {
        if let Some(Wait { work: Work::Manage(managed), callers, .. }) = self.waits.get(tag)
            && (managed.begun.is_some() || !callers.is_empty())
        {
            managed.begun = Some(mark);
            self.send(ToWorker::GoOn { tag });
        }
    }

    /// An errand is over.
    pub(super) fn managed_done(
        &mut self,
        managed: &Managed,
        outcome: Result<(), Refusal>,
        callers: Vec<Caller>,
        now: Instant,
    ) {
        // One that failed may have changed something too.
        self.shared.catalog().forget();
        let errno = outcome.err().map_or(0, |why| why.errno() as i32);
        if callers.is_empty() {
            self.effects.push(Effect::Answered { number: managed.number, errno });
        }
        match outcome {
            Ok(()) => {
                tracing::info!("done: {}", managed.errand.words());
                self.answer_all(callers);
            }
            // It went on without them, and they were told why.
            Err(why) if callers.is_empty() => {
                self.note_errno(attempt(&managed.errand), &why, Some(errno));
            }
            Err(why) => self.refuse(attempt(&managed.errand), why, callers, now),
        }
    }

    /// Worker after worker broke down over it.
    pub(super) fn managed_broken(&mut self, managed: &Managed, callers: Vec<Caller>, now: Instant) {
        let has_begun = managed.begun.is_some();
        let why = if has_begun { Refusal::HalfDone } else { Refusal::Interrupted };
        self.managed_done(managed, Err(why), callers, now);
    }

    /// The end is here, and what has begun is not done.
    pub(super) fn leave_errands(&self) {
        for (_, managed) in self.waits.managed().filter(|(_, managed)| managed.begun.is_some()) {
            self.note(attempt(&managed.errand), &Refusal::LeftHalfDone);
        }
    }

    /// A volume has grown.
    pub(super) fn grown(&mut self, id: VolumeId, size: u64) {
        let Some(volume) = self.volumes.by_id(id) else { return };
        let before = volume.facts();
        let size_max = u64::from(INDEX_ENTRIES) << before.block_size_shift.min(31);
        let can_be = !before.snapshot && i64::try_from(size).is_ok();
        if !can_be || size < before.size || !before.hyper && size > size_max {
            return self.note(Attempt::grow(&volume.name), &Refusal::BadFacts);
        }
        tracing::info!(volume = %volume.name, size, "the volume has grown");
        volume.set_facts(VolumeFacts { size, ..before });
        self.effects.push(Effect::VolumeGrown(id));
    }

    /// A worker is gone, which had a session with these gateways: what it sent for an errand
    /// that has begun may still be under way.
    pub(super) fn hold_errands(&mut self, gateways: &[SocketAddr], now: Instant) {
        if self.waits.managed().any(|(_, managed)| managed.begun.is_some()) {
            self.hold_all(gateways, now);
        }
    }

    fn hold_all(&mut self, gateways: &[SocketAddr], now: Instant) {
        if let Some(time) = self.held.time
            && !gateways.is_empty()
        {
            self.held.gateways.extend(gateways);
            self.held.until = Some(now + time);
        }
    }

    /// Nothing of earlier workers is under way there.
    pub(super) fn errands_quiet(&mut self, gateway: SocketAddr) {
        self.held.gateways.remove(&gateway);
        if self.held.gateways.is_empty() {
            self.held.until = None;
        }
    }

    /// Errands that have begun, for a successor.
    pub(super) fn saved_errands(&self) -> Vec<(u64, Errand, Mark)> {
        let begun = |one: &Managed| one.begun.map(|mark| (one.number, one.errand.clone(), mark));
        self.waits.managed().filter_map(|(_, one)| begun(one)).collect()
    }

    /// Goes on with those of a predecessor, which held them for some gateways, and had a session
    /// with others.
    pub(super) fn inherit_errands(
        &mut self,
        errands: Vec<(u64, Errand, Mark)>,
        (held, session): (&[SocketAddr], &[SocketAddr]),
        time: Option<Duration>,
        now: Instant,
    ) {
        self.held.time = time;
        for (number, errand, mark) in errands {
            let managed = Managed { errand, number, begun: Some(mark), told: None };
            self.waits.add(Work::Manage(managed), Vec::new(), now);
        }
        self.hold_all(held, now);
        self.hold_errands(session, now);
    }
}

/// Whether an errand makes an end of what is there.
fn ends(errand: &Errand) -> bool {
    matches!(errand, Errand::Delete { .. } | Errand::Rollback { .. })
}

/// What an errand tries.
pub(super) fn attempt(errand: &Errand) -> Attempt {
    Attempt::errand(errand.words(), errand.target())
}
