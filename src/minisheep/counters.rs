//! What a process has received, and what of it is not finished (protocol 15.8, STAT).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::Opcode;

/// Bytes of the answer to STAT.
pub const STAT_LEN: usize = 120;

const _: () = assert!(STAT_LEN == 15 * 8);

/// The counters of a minisheep or of one gateway.
#[derive(Debug)]
pub struct Counters {
    served: [AtomicU64; 256],
    active: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let served = std::array::from_fn(|_| AtomicU64::new(0));
        Self { served, active: AtomicU64::new(0) }
    }
}

impl Counters {
    /// A request was received.
    pub fn begin(&self, opcode: u8) {
        self.served[usize::from(opcode)].fetch_add(1, Ordering::Relaxed);
        if is_gateway(opcode) {
            self.active.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// It is about to be answered, or never will be.
    pub fn end(&self, opcode: u8) {
        if is_gateway(opcode) {
            self.active.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// How many requests of each opcode were received.
    pub fn served(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        let counts = self.served.iter().map(|count| count.load(Ordering::Relaxed));
        (0..=u8::MAX).zip(counts).filter(|(_, count)| *count > 0)
    }

    /// The answer to STAT: what clients asked of this gateway; bytes are not counted.
    #[must_use]
    pub fn stat(&self) -> Vec<u8> {
        let count =
            |opcode: Opcode| self.served[usize::from(opcode.code())].load(Ordering::Relaxed);
        let active = self.active.load(Ordering::Acquire);
        let (reads, removes) = (count(Opcode::ReadObj), count(Opcode::RemoveObj));
        let writes = count(Opcode::WriteObj) + count(Opcode::CreateAndWriteObj);
        let flushes = count(Opcode::FlushVdi);
        let total = reads + removes + writes + flushes;
        let words = [active, 0, total, 0, 0, 0, 0, 0, removes, reads, writes, flushes, 0, 0, 0];
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

/// Whether it is what the original counts as a gateway's request: those on objects.
fn is_gateway(opcode: u8) -> bool {
    matches!(
        Opcode::from_code(opcode),
        Some(
            Opcode::CreateAndWriteObj
                | Opcode::ReadObj
                | Opcode::WriteObj
                | Opcode::RemoveObj
                | Opcode::DiscardObj
                | Opcode::FlushVdi
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finished_is_active() {
        let counters = Counters::default();
        let active = || counters.stat()[0];
        let write = Opcode::WriteObj.code();
        counters.begin(write);
        counters.begin(Opcode::DiscardObj.code());
        counters.begin(Opcode::ClusterInfo.code());
        assert_eq!(active(), 2);
        counters.end(Opcode::ClusterInfo.code());
        counters.end(write);
        assert_eq!(active(), 1);
        assert_eq!(counters.served().find(|(opcode, _)| *opcode == write), Some((write, 1)));
        assert_eq!(counters.stat().len(), STAT_LEN);
    }
}
