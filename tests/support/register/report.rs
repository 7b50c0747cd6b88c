//! What a load has done: what must be in its registers, and how long its calls took.

use super::block::decode;
use super::plan::Plan;
use crate::stalls::Stalls;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// One call, from its beginning to its answer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// When it was made.
    pub begun: Instant,
    /// When it was answered.
    pub ended: Instant,
    /// The object that it writes to, by its number; `None` for a read.
    pub changes: Option<u64>,
}

/// What the fences of a fault have to do with a call.
///
/// A client can't see a fence, so this tells by what was unanswered at the instant of the fault,
/// and is only that exact:
/// - a call counts as [`Kin::MaybeFenced`] also when its fence fell before it was made. Those took
///   no longer than any other, so the longest, which is what is printed, is not hidden by them;
/// - a write that was made before the fault, and had not come to the supervisor yet, counts as
///   [`Kin::Repeated`], though it waits for the fence of another write to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// A read, or a write made later to an object to which none was unanswered: never fenced.
    Unfenced,
    /// A write that was unanswered: the next worker is given it, and it waits for no fence, but
    /// when its object was just being created by another.
    Repeated,
    /// A write made later to an object to which one was unanswered.
    MaybeFenced,
}

impl Kin {
    fn words(self) -> &'static str {
        match self {
            Self::Unfenced => "not fenced",
            Self::Repeated => "repeated",
            Self::MaybeFenced => "may be fenced",
        }
    }
}

/// The longest stall of the calls of that kin: of those under way at `fault`, since then; of
/// those made later, before `next`, as a whole.
pub fn longest(
    calls: &[Call],
    kin: Kin,
    fault: Instant,
    next: Option<Instant>,
) -> Option<Duration> {
    let is_hit = |call: &&Call| call.begun <= fault && fault < call.ended;
    let unanswered: BTreeSet<u64> =
        calls.iter().filter(is_hit).filter_map(|call| call.changes).collect();
    let kin_of = |call: &Call| match call.changes {
        Some(_) if call.begun <= fault => Kin::Repeated,
        Some(object) if unanswered.contains(&object) => Kin::MaybeFenced,
        Some(_) | None => Kin::Unfenced,
    };
    let counts = |call: &&Call| {
        call.ended > fault && next.is_none_or(|next| call.begun < next) && kin_of(call) == kin
    };
    calls.iter().filter(counts).map(|call| call.ended - call.begun.max(fault)).max()
}

/// What a load has done, and what must be in its registers from now on.
#[derive(Debug)]
pub struct Report {
    plan: Plan,
    expected: Vec<u64>,
    calls: Vec<Call>,
}

impl Report {
    /// What a load hands over.
    pub fn new(plan: Plan, expected: Vec<u64>, calls: Vec<Call>) -> Self {
        Self { plan, expected, calls }
    }

    /// Fails the test unless `content`, a volume as somebody else sees it, holds the same.
    pub fn compare(&self, content: &[u8]) {
        for (register, expected) in (0..).zip(&self.expected) {
            let block = &content[self.plan.offset(register) as usize..][..self.plan.block];
            assert_eq!(decode(register, block).as_ref(), Ok(expected), "by the wire");
        }
    }

    /// How many registers were written at all.
    pub fn touched(&self) -> usize {
        self.expected.iter().filter(|write| **write > 0).count()
    }

    /// Prints for the faults at those instants: how long calls that were under way then went
    /// on, and how long the slowest took that was made later, before the next fault.
    pub fn print_stalls(&self, row: &str, faults: &[Instant]) {
        let (mut under_way, mut later) = (Stalls::new(row), Stalls::new(&format!("{row}, later")));
        for (number, fault) in faults.iter().enumerate() {
            let next = faults.get(number + 1);
            under_way.extend(self.stall_at(*fault));
            later.extend(self.slowest_between(*fault, next.copied()));
        }
        under_way.print();
        later.print();
    }

    /// Prints the same faults' stalls apart by what a fence has to do with them: for each fault
    /// the longest of each [`Kin`].
    pub fn print_by_fence(&self, row: &str, faults: &[Instant]) {
        for kin in [Kin::Unfenced, Kin::Repeated, Kin::MaybeFenced] {
            let mut stalls = Stalls::new(&format!("{row}, {}", kin.words()));
            for (number, fault) in faults.iter().enumerate() {
                let next = faults.get(number + 1).copied();
                stalls.extend(longest(&self.calls, kin, *fault, next));
            }
            stalls.print();
        }
    }

    /// For how much longer some call that was under way at `fault` had no answer.
    pub fn stall_at(&self, fault: Instant) -> Option<Duration> {
        let hit = self.calls.iter().filter(|call| call.begun <= fault && fault < call.ended);
        hit.map(|call| call.ended - fault).max()
    }

    fn slowest_between(&self, from: Instant, to: Option<Instant>) -> Option<Duration> {
        let later = self
            .calls
            .iter()
            .filter(|call| from < call.begun && to.is_none_or(|to| call.begun < to));
        later.map(|call| call.ended - call.begun).max()
    }
}

/// Which stalls a fence can have made is told by what was unanswered at the fault.
#[test]
fn stalls_are_told_apart_by_what_was_unanswered() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let call = |begun, ended, changes| Call { begun: at(begun), ended: at(ended), changes };
    let calls = [
        call(0, 9, Some(2)),
        call(5, 40, Some(1)),
        call(6, 20, None),
        call(11, 71, Some(1)),
        call(12, 15, Some(2)),
        call(100, 300, Some(1)),
    ];
    let longest = |kin, next| longest(&calls, kin, at(10), next).map(|stall| stall.as_millis());
    let next = Some(at(90));
    assert_eq!(longest(Kin::Repeated, next), Some(30));
    assert_eq!(longest(Kin::MaybeFenced, next), Some(60));
    assert_eq!(longest(Kin::Unfenced, next), Some(10), "the read");
    assert_eq!(longest(Kin::MaybeFenced, None), Some(200));
}
