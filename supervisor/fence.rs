//! Fences: what keeps a request that may still run on an abandoned gateway from
//! landing on newer data.
//!
//! # Why
//!
//! A worker died, or its sheep was given up. Each change that was on the wire then
//! is an orphan: nobody hears its answer, and it may be carried out at any later
//! time (hazards 1 and 2). The change itself is repeated by the next worker, which
//! does no harm: it writes the same bytes. But a *newer* change to the same object,
//! answered and then overwritten by the orphan, would be lost, and an orphaned
//! create even zeroes the rest of its object. So newer changes to such an object
//! wait until it is known that the orphans are over:
//!
//! - the gateway is asked how many requests it has active, and says none
//!   (`Drained`; the argument why that is proof is in the worker's `watch` module);
//! - its process is gone: connections are refused (`Gone`);
//! - the cluster does not count it as a member any more (`NotMember`);
//! - or the fence time is over. Nothing is proved then, and that is logged.
//!
//! A change of the cluster's epoch releases nothing: a gateway that wakes up stamps
//! its old requests with the epoch that it then learns (protocol 17.6).
//!
//! # How long
//!
//! When only the worker died, its sheep is asked before anything is repeated. The
//! worker's connections were reset when it died, and its death was waited for, so
//! what the sheep had not read is dropped, and what it had read is counted in its
//! number of active requests until it is answered. A sheep that is alive is through
//! with that in milliseconds, and then no fence is left when the volumes go on: the
//! shortest wait there is, the time of the orphans themselves. Where other clients
//! keep the same gateway's counter up, or a peer of it hangs, the asking goes on,
//! and the fence time is the end of it.
//!
//! # Several gateways
//!
//! A session asks holders of objects directly, besides its own sheep (the worker's
//! `routing` module). Which of them had an orphan is not known here, so all may have it:
//! an orphan is over when it is over at each gateway that the session could have sent
//! changes to. The worker says so of a gateway before the first request for data goes
//! there, and waits until that is in the state; it says when a gateway is left, which it
//! only is with nothing outstanding. Gateways that never had an orphan say at once that
//! nothing is active, so this costs milliseconds. The last one to be over counts.
//!
//! # What is fenced
//!
//! The unit is an object of a volume, not a range: a late create replaces all of it.
//! Replays don't wait for fences, with exceptions. While an object is being
//! created only its creator is on the wire, and all else that writes to it waits in
//! the worker; so to the cluster those are newer changes, and are fenced like
//! them. The worker says which write creates, before the create leaves; likewise which
//! entry it repairs, beside which nothing is on the wire. Copies and discards always wait
//! ([`crate::datapath`]'s `replay` says why).
//!
//! # Trees
//!
//! An entry of an array index has its own four bytes. In the tree of a hyper volume a new
//! entry moves those behind it, so a write of the tree that is carried out late takes back all
//! that was entered since, of any block (hazard 52), and one that is carried out while a
//! worker looks for entries may hide some, which would be read as zeros. So while such a write
//! may be an orphan, the whole volume waits: reads too, and also what is repeated. It is
//! fenced as an object of its own ([`Object::tree`]). The worker says which writes and discards
//! change the tree, before their objects are created or their entries cleared, and overwriting
//! what is there changes none. A worker that follows on a sheep which is alive finds that quiet
//! in milliseconds, as above.

use crate::inflight::Request;
use crate::state::{Clock, SavedFences};
use sheepfs::ipc::{QuietReason, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// An object of a volume, by its block number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// The volume.
    pub volume: VolumeId,
    /// The block.
    pub block: u32,
}

/// Stands for the whole index of a hyper volume. It is the number of the last block that the
/// largest of them has, so a fence on that block holds up more than it must, and no less. No
/// other VDI has such a block.
const TREE: u32 = u32::MAX;

impl Object {
    /// The index tree of a hyper volume.
    pub fn tree(volume: VolumeId) -> Self {
        Self { volume, block: TREE }
    }

    /// The objects that a request touches.
    pub fn of(request: Request) -> impl Iterator<Item = Self> {
        let Request { volume, offset, len, shift, .. } = request;
        let last = offset.saturating_add(u64::from(len)).saturating_sub(1) >> shift;
        let block = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
        (block(offset >> shift)..=block(last)).map(move |block| Self { volume, block })
    }
}

/// Why a fence is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It is known that nothing runs on the gateway any more.
    Known(QuietReason),
    /// Its time is over.
    Time,
}

/// Where the orphans of one worker may still run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Orphans {
    /// Never empty.
    gateways: BTreeSet<SocketAddr>,
    since: Instant,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FenceCounters {
    /// Objects that were fenced.
    pub fenced: u64,
    /// Of those, released since the gateway said that nothing is active.
    pub drained: u64,
    /// Released since the gateway's process is gone.
    pub gone: u64,
    /// Released since the gateway is no member any more.
    pub not_member: u64,
    /// Released by time.
    pub time: u64,
}

/// All fences.
#[derive(Debug)]
pub struct Fences {
    limit: Option<Duration>,
    /// By the worker's generation.
    orphans: BTreeMap<u64, Orphans>,
    /// The workers whose orphans may change an object.
    by_object: BTreeMap<Object, Vec<u64>>,
    counters: FenceCounters,
}

impl Fences {
    /// No fences yet; those to come last `limit` at most. Without a limit there will
    /// be none: that is for the test that shows what they are for.
    pub fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            orphans: BTreeMap::new(),
            by_object: BTreeMap::new(),
            counters: FenceCounters::default(),
        }
    }

    /// Changes of that worker to an object may still run on any of those gateways.
    pub fn add(&mut self, object: Object, gateways: &[SocketAddr], generation: u64, now: Instant) {
        if self.limit.is_none() || gateways.is_empty() {
            return;
        }
        let new = || Orphans { gateways: BTreeSet::new(), since: now };
        self.orphans.entry(generation).or_insert_with(new).gateways.extend(gateways);
        let fences = self.by_object.entry(object).or_default();
        if !fences.contains(&generation) {
            fences.push(generation);
            self.counters.fenced += 1;
        }
    }

    /// All, for a successor of this process.
    pub fn saved(&self) -> Vec<SavedFences> {
        let clock = Clock::read();
        let objects = |generation| {
            let of_worker = self.by_object.iter().filter(move |(_, all)| all.contains(&generation));
            of_worker.map(|(object, _)| (object.volume, object.block)).collect()
        };
        let save = |(generation, orphans): (&u64, &Orphans)| SavedFences {
            generation: *generation,
            gateways: orphans.gateways.iter().copied().collect(),
            since: clock.number(orphans.since),
            objects: objects(*generation),
        };
        self.orphans.iter().map(save).collect()
    }

    /// Those of a predecessor.
    pub fn restore(&mut self, fences: &[SavedFences]) {
        let clock = Clock::read();
        for SavedFences { generation, gateways, since, objects } in fences {
            for (volume, block) in objects.iter().copied() {
                let since = clock.instant(*since);
                self.add(Object { volume, block }, gateways, *generation, since);
            }
        }
    }

    /// Whether newer changes to an object must wait.
    pub fn holds(&self, object: Object) -> bool {
        self.by_object.contains_key(&object)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_object.is_empty()
    }

    /// Objects fenced now.
    pub fn len(&self) -> usize {
        self.by_object.len()
    }

    /// Where orphans may still run, each gateway once.
    pub fn gateways(&self) -> Vec<SocketAddr> {
        let all = self.orphans.values().flat_map(|orphans| &orphans.gateways);
        all.copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How often what happened.
    pub fn counters(&self) -> FenceCounters {
        self.counters
    }

    /// A worker has proof that nothing of earlier workers runs on a gateway. Gives
    /// the objects that are free now.
    pub fn quiet(&mut self, gateway: SocketAddr, said_by: u64, how: QuietReason) -> Vec<Object> {
        let mut over = Vec::new();
        for (generation, orphans) in self.orphans.range_mut(..said_by) {
            if orphans.gateways.remove(&gateway) && orphans.gateways.is_empty() {
                over.push(*generation);
            }
        }
        self.release(&over, Release::Known(how))
    }

    /// Releases those whose time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Object> {
        let limit = self.limit.unwrap_or_default();
        let over = self.orphans.iter().filter(|(_, orphans)| orphans.since + limit <= now);
        let over: Vec<u64> = over.map(|(generation, _)| *generation).collect();
        self.release(&over, Release::Time)
    }

    /// When the next one's time is over.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.orphans.values().map(|orphans| orphans.since).min()?;
        Some(since + self.limit?)
    }

    /// A VDI is attached again, under a new id: what was fenced still is.
    pub fn move_to(&mut self, from: VolumeId, to: VolumeId) {
        let moved: Vec<Object> =
            self.by_object.keys().filter(|object| object.volume == from).copied().collect();
        for object in moved {
            if let Some(fences) = self.by_object.remove(&object) {
                self.by_object.insert(Object { volume: to, ..object }, fences);
            }
        }
    }

    /// The volumes of which any object is fenced.
    pub fn volumes(&self) -> BTreeSet<VolumeId> {
        self.by_object.keys().map(|object| object.volume).collect()
    }

    /// Whether an object of that volume is fenced.
    pub fn any_of(&self, volume: VolumeId) -> bool {
        let object = |block| Object { volume, block };
        self.by_object.range(object(0)..=object(u32::MAX)).next().is_some()
    }

    fn release(&mut self, over: &[u64], why: Release) -> Vec<Object> {
        let (mut free, mut released) = (Vec::new(), 0);
        if over.is_empty() {
            return free;
        }
        self.orphans.retain(|generation, _| !over.contains(generation));
        self.by_object.retain(|object, fences| {
            let before = fences.len();
            fences.retain(|generation| !over.contains(generation));
            released += (before - fences.len()) as u64;
            if fences.is_empty() {
                free.push(*object);
            }
            !fences.is_empty()
        });
        *self.counter(why) += released;
        free
    }

    fn counter(&mut self, why: Release) -> &mut u64 {
        match why {
            Release::Known(QuietReason::Drained) => &mut self.counters.drained,
            Release::Known(QuietReason::Gone) => &mut self.counters.gone,
            Release::Known(QuietReason::NotMember) => &mut self.counters.not_member,
            Release::Time => &mut self.counters.time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::Kind;

    const LIMIT: Duration = Duration::from_secs(30);

    fn object(block: u32) -> Object {
        Object { volume: VolumeId(1), block }
    }

    fn gateway(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_request_touches_the_objects_its_bytes_lie_in() {
        let request = |offset, len| Request {
            kind: Kind::Write,
            volume: VolumeId(1),
            offset,
            len,
            shift: 12,
        };
        let blocks = |offset, len| {
            Object::of(request(offset, len)).map(|object| object.block).collect::<Vec<_>>()
        };
        assert_eq!(blocks(0, 4096), [0]);
        assert_eq!(blocks(4095, 2), [0, 1]);
        assert_eq!(blocks(8192, 8193), [2, 3, 4]);
    }

    #[test]
    fn a_proof_counts_for_earlier_workers_on_that_gateway_only() {
        let now = Instant::now();
        let mut fences = Fences::new(Some(LIMIT));
        fences.add(object(1), &[gateway(1)], 1, now);
        fences.add(object(1), &[gateway(1)], 1, now);
        fences.add(object(1), &[gateway(2)], 2, now);
        fences.add(object(2), &[gateway(1)], 3, now);
        assert_eq!(fences.gateways(), [gateway(1), gateway(2)]);
        assert_eq!(fences.quiet(gateway(1), 3, QuietReason::Drained), []);
        assert!(fences.holds(object(1)), "of the other gateway");
        assert!(fences.holds(object(2)), "the proof is older than the worker's death");
        assert_eq!(fences.quiet(gateway(2), 3, QuietReason::Gone), [object(1)]);
        assert_eq!(fences.quiet(gateway(1), 4, QuietReason::NotMember), [object(2)]);
        assert_eq!((fences.len(), fences.deadline()), (0, None));
        let expected = FenceCounters { fenced: 3, drained: 1, gone: 1, not_member: 1, time: 0 };
        assert_eq!(fences.counters(), expected);
    }

    /// An orphan that may run at any of several gateways is over when it is at each.
    #[test]
    fn all_gateways_of_a_session_must_be_quiet() {
        let now = Instant::now();
        let mut fences = Fences::new(Some(LIMIT));
        let all = [gateway(1), gateway(2), gateway(3)];
        fences.add(object(1), &all, 1, now);
        fences.add(object(2), &all, 1, now);
        assert_eq!(fences.gateways(), all);
        assert_eq!(fences.quiet(gateway(2), 2, QuietReason::Drained), []);
        assert_eq!(fences.quiet(gateway(2), 2, QuietReason::Drained), []);
        assert_eq!(fences.quiet(gateway(1), 2, QuietReason::Gone), []);
        assert!(fences.holds(object(1)) && fences.holds(object(2)));
        let mut successor = Fences::new(Some(LIMIT));
        successor.restore(&fences.saved());
        assert_eq!(successor.gateways(), [gateway(3)]);
        for mut fences in [fences, successor] {
            let free = fences.quiet(gateway(3), 2, QuietReason::Drained);
            assert_eq!(free, [object(1), object(2)]);
            assert_eq!((fences.counters().fenced, fences.counters().drained), (2, 2));
            assert!(fences.gateways().is_empty() && fences.is_empty());
        }
    }

    #[test]
    fn without_a_fence_time_there_are_none() {
        let mut fences = Fences::new(None);
        fences.add(object(1), &[gateway(1)], 1, Instant::now());
        assert!(fences.is_empty() && !fences.holds(object(1)));
        assert_eq!(fences.counters(), FenceCounters::default());
    }

    #[test]
    fn time_is_the_last_resort() {
        let now = Instant::now();
        let mut fences = Fences::new(Some(LIMIT));
        fences.add(object(1), &[gateway(1)], 1, now);
        fences.add(object(2), &[gateway(1)], 2, now + Duration::from_secs(1));
        assert_eq!(fences.deadline(), Some(now + LIMIT));
        assert_eq!(fences.expire(now + LIMIT - Duration::from_millis(1)), []);
        assert_eq!(fences.expire(now + LIMIT), [object(1)]);
        assert!(fences.holds(object(2)));
        fences.move_to(VolumeId(1), VolumeId(9));
        assert!(!fences.any_of(VolumeId(1)) && fences.any_of(VolumeId(9)));
        assert_eq!(fences.counters().time, 1);
    }
}
