//! The requests on one object, in order: which may run beside which.
//!
//! The cluster orders nothing (protocol 1.8), so the worker does:
//!
//! - requests that overlap, one of them a write, run one after the other, in the
//!   order in which they came; on an erasure-coded VDI a range is widened to
//!   stripes of 512 bytes (protocol 6.1);
//! - while an object is created, until its index entry is written, no other
//!   write to it runs (protocol 8.5), and the oldest write that is there creates it:
//!   the supervisor takes the first of several writes for the creator when it
//!   must repeat them (hazard 40).
//!
//! Reads wait for overlapping writes too, and writes for reads: so a read is
//! never torn, and once it has seen a write, no later read misses it. A discard of an
//! object overlaps everything.

use sheepfs::ipc::{Span, Tag};
use sheepfs::wire::VdiId;
use sheepfs::wire::request::Extent;
use std::time::Instant;

/// The unit in which erasure-coded objects are written.
pub const STRIPE_LEN: u32 = 512;

/// Names a part within its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartId(pub u64);

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads into its span.
    Read,
    /// Writes from its span.
    Write,
    /// Takes the whole object away ([`super::discard`]).
    Discard,
}

impl Kind {
    /// Whether it changes the object.
    pub fn is_change(self) -> bool {
        self != Self::Read
    }
}

/// Where a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for those before it, or for its volume.
    Waiting,
    /// It waits for this time as well, since the cluster asked for patience.
    Delayed(Instant),
    /// A read or a write of an own object is on the wire.
    Running,
    /// Its object is being created, or the index entry written.
    Creating,
    /// What it wants to read is being read ahead.
    Awaiting,
    /// Its index entry is read again, which was this before.
    Rechecking(u32),
    /// A discard's turn has come here, and not yet on all of its objects.
    Holding,
}

/// The piece of a request that lies in one object.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its name.
    pub id: PartId,
    /// The request it belongs to.
    pub tag: Tag,
    /// Read or write.
    pub kind: Kind,
    /// Where in the object.
    pub extent: Extent,
    /// Where in the arena.
    pub span: Span,
    /// Where it stands.
    pub state: State,
    /// What was done already because its object is absent.
    pub doubt: Doubt,
    /// Whose object's blocks the cache may keep of it when it is done.
    pub learns: Option<VdiId>,
}

/// An object is absent though its index entry names it: how far that was looked into
/// (hazard 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Not at all.
    None,
    /// The entry was read again, so often, and names nobody.
    Cleared(u8),
    /// The entry was read again, and names the object.
    Rechecked,
    /// The cluster recovers nothing either: this try is the last.
    Last,
}

impl Part {
    /// A part that waits.
    pub fn new(id: PartId, tag: Tag, kind: Kind, extent: Extent, span: Span) -> Self {
        let (state, doubt) = (State::Waiting, Doubt::None);
        Self { id, tag, kind, extent, span, state, doubt, learns: None }
    }

    fn is_active(&self) -> bool {
        matches!(self.state, State::Running | State::Creating | State::Rechecking(_))
    }

    fn range(&self, stripes: bool) -> (u64, u64) {
        if self.kind == Kind::Discard {
            return (0, u64::MAX);
        }
        let start = u64::from(self.extent.offset());
        let end = start + u64::from(self.extent.len());
        if stripes {
            let stripe = u64::from(STRIPE_LEN);
            (start / stripe * stripe, end.next_multiple_of(stripe))
        } else {
            (start, end)
        }
    }
}

/// The parts on one object, oldest first.
#[derive(Debug, Default)]
pub struct ObjectQueue {
    parts: Vec<Part>,
}

impl ObjectQueue {
    /// Adds the newest part.
    pub fn push(&mut self, part: Part) {
        self.parts.push(part);
    }

    /// Whether there is none left.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// A part by its name.
    pub fn get_mut(&mut self, id: PartId) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.id == id)
    }

    /// Where a part stands.
    pub fn state_of(&self, id: PartId) -> Option<State> {
        self.parts.iter().find(|part| part.id == id).map(|part| part.state)
    }

    /// Takes a part out.
    pub fn remove(&mut self, id: PartId) -> Option<Part> {
        let at = self.parts.iter().position(|part| part.id == id)?;
        Some(self.parts.remove(at))
    }

    /// Takes out all parts that are not on the wire.
    pub fn remove_waiting(&mut self) -> Vec<Part> {
        let (active, waiting) = self.parts.drain(..).partition(Part::is_active);
        self.parts = active;
        waiting
    }

    /// Whether a change is under way or waits.
    pub fn has_writes(&self) -> bool {
        self.parts.iter().any(|part| part.kind.is_change())
    }

    /// Whether something is written, or waits to be.
    pub fn is_written(&self) -> bool {
        self.parts.iter().any(|part| part.kind == Kind::Write)
    }

    /// Lets all parts that wait wait until then.
    pub fn delay_waiting(&mut self, until: Instant) {
        for part in self.parts.iter_mut().filter(|part| !part.is_active()) {
            part.state = State::Delayed(until);
        }
    }

    /// Lets parts whose delay is over wait for those before them only. `true`:
    /// there is one.
    pub fn ripen(&mut self, now: Instant) -> bool {
        let mut found = false;
        for part in &mut self.parts {
            if matches!(part.state, State::Delayed(until) if until <= now) {
                part.state = State::Waiting;
                found = true;
            }
        }
        found
    }

    /// Lets parts that stand so wait for those before them only.
    pub fn wake(&mut self, state: State) {
        for part in self.parts.iter_mut().filter(|part| part.state == state) {
            part.state = State::Waiting;
        }
    }

    /// When the first delayed part may run.
    pub fn delayed_until(&self) -> Option<Instant> {
        let until = |part: &Part| match part.state {
            State::Delayed(until) => Some(until),
            State::Waiting
            | State::Running
            | State::Creating
            | State::Awaiting
            | State::Rechecking(_)
            | State::Holding => None,
        };
        self.parts.iter().filter_map(until).min()
    }

    /// The oldest part that may run now. `creates` says that a write will have
    /// to create the object; `stripes` that the VDI is erasure coded.
    pub fn next(&self, creates: bool, stripes: bool, now: Instant) -> Option<Part> {
        let startable = |at: &usize| self.may_start(*at, creates, stripes, now);
        let at = (0..self.parts.len()).find(startable)?;
        Some(self.parts[at])
    }

    fn may_start(&self, at: usize, creates: bool, stripes: bool, now: Instant) -> bool {
        let part = &self.parts[at];
        let ripe = match part.state {
            State::Waiting => true,
            State::Delayed(until) => until <= now,
            State::Running
            | State::Creating
            | State::Awaiting
            | State::Rechecking(_)
            | State::Holding => false,
        };
        let blocks = |(number, other): (usize, &Part)| {
            let before = number < at || other.is_active();
            number != at && before && conflicts(part, other, creates, stripes)
        };
        ripe && !self.parts.iter().enumerate().any(blocks)
    }
}

fn conflicts(part: &Part, other: &Part, creates: bool, stripes: bool) -> bool {
    let writes = part.kind.is_change() && other.kind.is_change();
    // The other one is older or under way, so the object is its to create.
    let creating = other.state == State::Creating || creates;
    if writes && creating {
        return true;
    }
    let (a, b) = (part.range(stripes), other.range(stripes));
    (part.kind.is_change() || other.kind.is_change()) && a.0 < b.1 && b.0 < a.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::ipc::{Arena, RawSpan};

    fn part(id: u64, kind: Kind, offset: u32, len: u32) -> Part {
        let arena = Arena::create(4096).unwrap();
        let span = arena.check(RawSpan { offset: 0, len: 0 }).unwrap();
        let extent = Extent::new(offset, len, 22).unwrap();
        Part::new(PartId(id), Tag(id), kind, extent, span)
    }

    /// Starts all that may start, and names them.
    fn start(queue: &mut ObjectQueue, creates: bool, stripes: bool) -> Vec<u64> {
        let mut started = Vec::new();
        while let Some(next) = queue.next(creates, stripes, Instant::now()) {
            let creating = creates && next.kind == Kind::Write;
            let state = if creating { State::Creating } else { State::Running };
            queue.get_mut(next.id).unwrap().state = state;
            started.push(next.id.0);
        }
        started
    }

    fn queue(parts: &[Part]) -> ObjectQueue {
        ObjectQueue { parts: parts.to_vec() }
    }

    #[test]
    fn what_overlaps_a_write_waits_for_it_in_order() {
        let (r, w) = (Kind::Read, Kind::Write);
        let parts = [part(1, w, 0, 10), part(2, r, 5, 10), part(3, w, 12, 10), part(4, r, 50, 1)];
        let mut queue = queue(&parts);
        assert_eq!(start(&mut queue, false, false), [1, 4]);
        queue.remove(PartId(1));
        assert_eq!(start(&mut queue, false, false), [2]);
        queue.remove(PartId(2));
        assert_eq!(start(&mut queue, false, false), [3]);
    }

    #[test]
    fn reads_run_side_by_side() {
        let parts = [part(1, Kind::Read, 0, 10), part(2, Kind::Read, 0, 10)];
        assert_eq!(start(&mut queue(&parts), true, true), [1, 2]);
    }

    #[test]
    fn one_write_creates_and_all_others_wait() {
        let w = Kind::Write;
        let parts = [part(1, w, 0, 1), part(2, w, 100, 1), part(3, Kind::Read, 200, 1)];
        let mut queue = queue(&parts);
        assert_eq!(start(&mut queue, true, false), [1, 3]);
        assert!(start(&mut queue, false, false).is_empty(), "still being created");
        queue.remove(PartId(1));
        assert_eq!(start(&mut queue, false, false), [2]);
    }

    /// Also when the oldest has to wait for something else.
    #[test]
    fn the_oldest_write_creates() {
        let (r, w) = (Kind::Read, Kind::Write);
        let mut queue = queue(&[part(1, r, 0, 10), part(2, w, 5, 10), part(3, w, 100, 10)]);
        assert_eq!(start(&mut queue, true, false), [1]);
        queue.remove(PartId(1));
        assert_eq!(start(&mut queue, true, false), [2]);
        let later = Instant::now() + std::time::Duration::from_secs(3600);
        queue.get_mut(PartId(2)).unwrap().state = State::Delayed(later);
        assert!(start(&mut queue, true, false).is_empty(), "delayed, and still the oldest");
        assert_eq!(start(&mut queue, false, false), [3], "nothing is to be created");
    }

    #[test]
    fn writes_that_share_a_stripe_wait_when_erasure_coded() {
        let parts = [part(1, Kind::Write, 0, 100), part(2, Kind::Write, 400, 100)];
        assert_eq!(start(&mut queue(&parts), false, true), [1]);
        assert_eq!(start(&mut queue(&parts), false, false), [1, 2]);
    }

    /// Whatever its place in the object.
    #[test]
    fn a_discard_has_its_object_for_itself() {
        let parts = [
            part(1, Kind::Read, 0, 10),
            part(2, Kind::Discard, 0, 0),
            part(3, Kind::Read, 4000, 10),
            part(4, Kind::Write, 8000, 10),
        ];
        let mut queue = queue(&parts);
        assert_eq!(start(&mut queue, false, false), [1]);
        queue.remove(PartId(1));
        assert_eq!(start(&mut queue, false, false), [2]);
        queue.get_mut(PartId(2)).unwrap().state = State::Holding;
        assert!(start(&mut queue, false, false).is_empty(), "it waits for other objects");
        queue.remove(PartId(2));
        assert_eq!(start(&mut queue, false, false), [3, 4]);
    }

    #[test]
    fn a_delayed_part_holds_back_what_overlaps_it() {
        let mut parts = [part(1, Kind::Write, 0, 10), part(2, Kind::Write, 0, 10)];
        parts[0].state = State::Delayed(Instant::now() + std::time::Duration::from_secs(3600));
        assert!(start(&mut queue(&parts), false, false).is_empty());
    }
}
