//! Copies between volumes, which the worker does by itself.
//!
//! To everything here a copy is a write of its destination without bytes: its range is
//! claimed, its objects are fenced and recorded, and it is told again to the next worker.
//! Its source is only read. But that is why a copy that is repeated may write other bytes
//! than before: what was written to the source meanwhile is answered. A late request of
//! the first try would undo the second then, so a copy waits also for the fences that
//! itself has caused, as newer changes do.

use super::{Cut, DataPath, Parked};
use crate::inflight::{Kind, Request};
use crate::volumes::Volume;

impl<R: Parked> DataPath<R> {
    /// Copies. Both ranges lie inside their volumes, and don't overlap.
    pub fn copy(
        &self,
        (from, at): (&Volume, u64),
        (to, offset): (&Volume, u64),
        len: u32,
        reply: R,
    ) {
        let kind = Kind::Copy { from: from.id, at };
        let request = Request { kind, volume: to.id, offset, len, shift: to.shift() };
        self.submit(request, &[], Cut::Never, reply);
    }
}
