//! Where the next request of a bare client goes.

use crate::cases::{Case, Direction, READS_PERCENT};
use std::sync::atomic::{AtomicU64, Ordering};

/// The places of one measurement, shared by all lanes. Each slot has places of its own, so that
/// no two writes in flight overlap: that is the client's duty (protocol 8.5).
#[derive(Debug)]
pub struct Places {
    len: u64,
    count: u64,
    depth: u64,
    random: bool,
    direction: Direction,
    state: AtomicU64,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where, in the volume.
    pub offset: u64,
    /// A write, or else a read.
    pub write: bool,
}

impl Places {
    /// Those of a case in the first `bytes` of a volume.
    pub fn new(case: &Case, bytes: u64) -> Self {
        let (len, depth) = (u64::from(case.len), u64::from(case.depth));
        let state = AtomicU64::new(1);
        let (random, direction) = (case.random, case.direction);
        Self { len, count: bytes / len, depth, random, direction, state }
    }

    /// The next for a slot.
    pub fn next(&self, slot: u32) -> Place {
        let step = self.state.fetch_add(1, Ordering::Relaxed);
        Place { offset: self.number(step, slot) * self.len, write: self.writes(step) }
    }

    fn number(&self, step: u64, slot: u32) -> u64 {
        if !self.random {
            return step % self.count;
        }
        let row = scramble(step) % (self.count / self.depth).max(1);
        row * self.depth + u64::from(slot)
    }

    fn writes(&self, step: u64) -> bool {
        match self.direction {
            Direction::Read => false,
            Direction::Write => true,
            Direction::Mixed => scramble(!step) % 100 >= READS_PERCENT,
        }
    }
}

/// `SplitMix64`'s output function: neighbouring numbers in, unrelated numbers out.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
