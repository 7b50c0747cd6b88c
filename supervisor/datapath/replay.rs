//! Workers come and go under the requests: what is kept of a lost worker's
//! requests, and how the next one is told of them.
//!
//! A replay is the ordinary path run a second time: a lost worker's requests go
//! back into the queue, where they are the oldest, and start from there as any
//! request does. It does no harm to run a request twice, since
//!
//! - a read, a flush or a seek changes nothing;
//! - writes that a worker was told of never overlap each other, so nothing newer
//!   than a repeated write can have been answered where it writes;
//! - a create is repeated as a create only while the index entry is not set, and
//!   then no other write to its object was answered, since all others wait for it;
//! - what is newer than an orphan on the same object waits for its fence
//!   ([`crate::fence`]);
//! - a copy may find other bytes in its source than the first time, so to its orphans it
//!   is newer, and waits for its own fences;
//! - a discard waits for them too: an orphan of it may clear an entry in a vid that has become
//!   a snapshot since, and it is the discard that puts that back, when it is repeated and
//!   nothing of that kind can come any more;
//! - where the orphan may change the tree of a hyper volume, everything waits for its fence;
//! - while a block is repaired after a snapshot, nothing else of it is on the wire, so all that
//!   changes it is newer than the repair, and waits for its fence.

use super::blocked::Blocker;
use super::counters::Counters;
use super::queue::{Started, State, Worker};
use crate::fence::Object;
use crate::inflight::{Entry, Kind, Payload, Request, Stage};
use crate::link::Link;
use sheepfs::ipc::{QuietReason, Tag, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// How the next worker is told of what the last one left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All at once.
    All,
    /// One at a time, until all are through: one of them may kill workers.
    Single,
}

impl<R> State<R> {
    /// Requests go to that worker from now on, the oldest first.
    pub fn connect(&mut self, link: Arc<Link>, pace: Pace) -> Started {
        self.told.forget();
        self.worker = Some(Worker::new(link));
        self.refusing = false;
        self.single = pace == Pace::Single && !self.suspects.is_empty();
        self.start_waiting()
    }

    /// The worker gets nothing new from now on.
    pub fn hold(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.held = true;
        }
    }

    /// The worker gets what is new again.
    pub fn release(&mut self) -> Started {
        if let Some(worker) = &mut self.worker {
            worker.held = false;
        }
        self.start_waiting()
    }

    /// A worker is dead, and all that it said was heard. What it was told of and has
    /// not answered waits again; its changes may still run on the gateways it had.
    /// Gives those requests, and its link, to be let go of without the lock.
    pub fn lost(
        &mut self,
        generation: u64,
        gateways: &[SocketAddr],
        now: Instant,
    ) -> (Vec<Tag>, Option<Arc<Link>>) {
        let repairing = std::mem::take(&mut self.repairing);
        for object in &repairing {
            self.fences.add(*object, gateways, generation, now);
        }
        let Some(worker) = self.worker.take_if(|worker| worker.generation() == generation) else {
            return (Vec::new(), None);
        };
        for volume in std::mem::take(&mut self.growing).into_values() {
            self.fences.add(Object::tree(volume), gateways, generation, now);
        }
        let is_told = |stage| matches!(stage, Stage::Told(told, _) if told == generation);
        let told: Vec<Tag> = self
            .table
            .iter()
            .filter(|(_, entry)| is_told(entry.stage))
            .map(|(tag, _)| tag)
            .collect();
        self.fence(&told, gateways, generation, now);
        self.mark_repeats(&is_told, repairing);
        for (tag, (request, _)) in std::mem::take(&mut self.abandoned) {
            self.created(tag, request);
        }
        for tag in &told {
            self.leave(*tag, worker.link.shared_arena());
            self.enqueue(*tag);
        }
        self.outstanding = 0;
        self.suspects.extend(told.iter().copied());
        (told, Some(worker.link))
    }

    /// Fences what a worker's changes, also those that nobody waits for any more,
    /// may still change.
    fn fence(&mut self, told: &[Tag], gateways: &[SocketAddr], generation: u64, now: Instant) {
        let told = told.iter().filter_map(|tag| self.table.get(*tag)).map(|entry| entry.request);
        let abandoned = self.abandoned.values().map(|(request, _)| *request);
        for request in told.chain(abandoned).filter(|request| request.is_write()) {
            Object::of(request)
                .for_each(|object| self.fences.add(object, gateways, generation, now));
        }
    }

    /// Which writes repeat what may be on the wire. One that waited in the worker
    /// for another write to create its object does not, nor one that may have waited there
    /// for what nobody waits for any more, or for a repair; nor does a copy, whose source may
    /// have been written to since: what is on the wire of it are other bytes then; nor does a
    /// discard, which mends what its orphans do.
    fn mark_repeats(&mut self, is_told: &impl Fn(Stage) -> bool, repairing: BTreeSet<Object>) {
        let creating = &self.creating;
        let abandoned = self.abandoned.values().map(|(request, _)| *request);
        let mut others = repairing;
        others.extend(abandoned.filter(|request| request.is_write()).flat_map(Object::of));
        for (tag, entry) in self.table.iter_mut().filter(|(_, entry)| entry.request.is_write()) {
            let waited = |object| {
                let created = creating.get(&object).is_some_and(|creator| *creator != tag);
                created || others.contains(&object)
            };
            let was_told = entry.repeats || is_told(entry.stage);
            let Request { kind, .. } = entry.request;
            let is_same = !matches!(kind, Kind::Copy { .. } | Kind::Discard);
            entry.repeats = was_told && is_same && !Object::of(entry.request).any(waited);
        }
    }

    /// A dead worker's request: its bytes stay in the arena for a replay. What has to
    /// wait longer gets a copy, so as not to keep the arena.
    fn leave(&mut self, tag: Tag, arena: &Arc<sheepfs::ipc::Arena>) {
        let Some(entry) = self.table.get_mut(tag) else { return };
        entry.told_before = true;
        entry.again = true;
        let Stage::Told(_, Some(slot)) = entry.stage else { return };
        if entry.request.has_payload() {
            entry.payload = if entry.repeats {
                Payload::Left(Arc::clone(arena), slot.span)
            } else {
                Payload::Kept(arena.bytes(slot.span).to_vec())
            };
            self.kept_len += entry.payload.kept_len();
        }
    }

    /// A worker has proof that nothing of earlier ones runs on a gateway. Gives how
    /// many objects that freed, and what can start now.
    pub fn quiet(
        &mut self,
        gateway: SocketAddr,
        said_by: u64,
        how: QuietReason,
    ) -> (usize, Started) {
        let free = self.fences.quiet(gateway, said_by, how);
        self.unfence(&free)
    }

    /// Releases the fences whose time is over, likewise.
    pub fn expire(&mut self, now: Instant) -> (usize, Started) {
        let free = self.fences.expire(now);
        self.unfence(&free)
    }

    fn unfence(&mut self, free: &[Object]) -> (usize, Started) {
        free.iter().for_each(|object| self.wake(Blocker::Fence(*object)));
        (free.len(), self.start_waiting())
    }

    /// A volume is new, perhaps only its id.
    pub fn volume_attached(&mut self, volume: VolumeId, name: VolumeName) {
        if let Some(before) = self.names.insert(name, volume) {
            self.fences.move_to(before, volume);
        }
    }

    /// Whether the worker has a volume; without it, the volume's requests wait.
    pub fn set_absent(&mut self, volume: VolumeId, absent: bool) -> Started {
        if absent {
            self.absent.insert(volume);
            return Vec::new();
        }
        self.absent.remove(&volume);
        self.wake(Blocker::Volume(volume));
        self.start_waiting()
    }

    /// A volume's VDI is another now: gives all its requests, to fail, and what can
    /// start instead.
    pub fn replace(&mut self, volume: VolumeId, now: Instant) -> (Vec<Entry<R>>, Started) {
        self.replaced.insert(volume);
        let of_volume = |entry: &Entry<R>| entry.request.concerns(volume);
        let entries = self.take(of_volume, now);
        (entries, self.start_waiting())
    }

    /// Gives all requests, to fail.
    pub fn take_all(&mut self, now: Instant) -> Vec<Entry<R>> {
        self.take(|_| true, now)
    }

    /// Gives the one request, to fail.
    pub fn take_one(&mut self, tag: Tag, now: Instant) -> Option<Entry<R>> {
        let entry = self.table.remove(tag)?;
        self.queued.remove(&tag);
        self.kept_len -= entry.payload.kept_len();
        match entry.stage {
            Stage::Blocked => self.blocked.remove(tag),
            Stage::Queued => {}
            Stage::Filling(generation) => self.forget_outstanding(generation),
            Stage::Told(generation, slot) => {
                self.forget_outstanding(generation);
                self.abandoned.insert(tag, (entry.request, slot));
                self.ended(tag, &entry, now);
                return Some(entry);
            }
        }
        self.created(tag, entry.request);
        self.ended(tag, &entry, now);
        Some(entry)
    }

    fn take(&mut self, which: impl Fn(&Entry<R>) -> bool, now: Instant) -> Vec<Entry<R>> {
        let tags: Vec<Tag> =
            self.table.iter().filter(|(_, entry)| which(entry)).map(|(tag, _)| tag).collect();
        tags.into_iter().filter_map(|tag| self.take_one(tag, now)).collect()
    }

    fn forget_outstanding(&mut self, generation: u64) {
        let present = self.worker.as_ref().is_some_and(|worker| worker.generation() == generation);
        self.outstanding -= usize::from(present);
    }

    /// How it stands.
    pub fn counters(&self, now: Instant) -> Counters {
        let fences = self.fences.counters();
        let waiting = self.table.oldest().map(|since| now.saturating_duration_since(since));
        let longest = self.longest.max(waiting.unwrap_or_default());
        Counters {
            fenced: fences.fenced,
            fenced_now: self.fences.len() as u64,
            held: self.blocked.len() as u64,
            released_drained: fences.drained,
            released_gone: fences.gone,
            released_not_member: fences.not_member,
            released_time: fences.time,
            queued_bytes: self.kept_len as u64,
            longest_stall_ms: u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
            ..self.counted
        }
    }
}
