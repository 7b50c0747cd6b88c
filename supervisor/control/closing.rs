//! Detaching what was open a moment ago. The kernel tells of a close after the
//! program that closed has gone on, so `umount` of a loop device followed by a
//! write to `vdi/unmount` finds the volume open still. Who detaches an open volume
//! waits for such news a little before being refused.

use super::attempt::Attempt;
use super::waits::Caller;
use super::{Control, Refusal};
use sheepfs::wire::name::VolumeName;
use std::time::{Duration, Instant};

/// Far longer than the kernel's news of a close takes, and short for whoever
/// detaches a volume that is really in use.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// Somebody who waits for a volume to be closed.
#[derive(Debug)]
pub struct Closing {
    name: VolumeName,
    caller: Caller,
    until: Instant,
}

impl Control {
    /// Somebody wants a volume gone that is open.
    pub(super) fn wait_for_close(&mut self, name: VolumeName, caller: Caller, now: Instant) {
        self.closing.push(Closing { name, caller, until: now + CLOSE_GRACE });
    }

    /// A volume was closed: who waits for that tries again.
    pub(super) fn closed(&mut self, now: Instant) {
        for Closing { name, caller, until } in std::mem::take(&mut self.closing) {
            match self.removable(&name) {
                Err(Refusal::Open) => self.closing.push(Closing { name, caller, until }),
                Err(_) => self.detach(name, caller, now),
                Ok(volume) => self.detach_volume(&volume, vec![caller], now),
            }
        }
    }

    /// When the next of them is refused.
    pub(super) fn closing_deadline(&self) -> Option<Instant> {
        self.closing.iter().map(|closing| closing.until).min()
    }

    pub(super) fn tick_closing(&mut self, now: Instant) {
        let (late, waiting) =
            std::mem::take(&mut self.closing).into_iter().partition(|closing| closing.until <= now);
        self.closing = waiting;
        let late: Vec<Closing> = late;
        for Closing { name, caller, .. } in late {
            self.refuse(Attempt::detach(&name), Refusal::Open, vec![caller], now);
        }
    }
}
