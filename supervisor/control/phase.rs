//! Where in its life the mount is (the picture is in [`super`]), and how it comes to run. How
//! it leaves that is in `leaving`, when a successor goes on, and in `ending`.

use super::ending::Ending;
use super::leaving::Leaving;
use super::{Control, Effect};

/// Where in its life the mount is.
#[derive(Debug)]
pub(super) enum Phase {
    Starting { to_attach: usize },
    Mounting,
    Running,
    Leaving(Leaving),
    Ending(Ending),
}

impl Control {
    /// The kernel has the mount.
    pub(super) fn mounted(&mut self) {
        if matches!(self.phase, Phase::Mounting) {
            self.phase = Phase::Running;
        }
    }

    /// At the start: connected, and one more volume, or none, is there.
    pub(super) fn start_goes_on(&mut self, attached: usize) {
        if let Phase::Starting { to_attach } = &mut self.phase {
            *to_attach = to_attach.saturating_sub(attached);
            if *to_attach == 0 {
                self.phase = Phase::Mounting;
                self.effects.push(Effect::Mount);
            }
        }
    }

    /// Whether it is not mounted yet, nor about to be.
    pub(super) fn is_starting(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. })
    }

    /// Whether its end has begun.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }
}
