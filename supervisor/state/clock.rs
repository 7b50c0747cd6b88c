//! Instants as numbers that mean the same in another process of this machine.

use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// The machine's monotonic clock and ours, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    now: Instant,
    since_boot: Duration,
}

impl Clock {
    /// Reads both.
    pub fn read() -> Self {
        // It can't fail for a clock that every Linux has.
        let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        Self { now: Instant::now(), since_boot: time }
    }

    /// Milliseconds since the machine was started.
    pub fn number(self, at: Instant) -> u64 {
        let later = at.saturating_duration_since(self.now);
        let earlier = self.now.saturating_duration_since(at);
        let since_boot = (self.since_boot + later).saturating_sub(earlier);
        u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant of such a number. One that can't be is now.
    pub fn instant(self, number: u64) -> Instant {
        let then = Duration::from_millis(number);
        match self.since_boot.checked_sub(then) {
            Some(age) => self.now.checked_sub(age),
            None => self.now.checked_add(then - self.since_boot),
        }
        .unwrap_or(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_survives_as_a_number() {
        let (one, other) = (Clock::read(), Clock::read());
        for offset in [0, 1, 77, 30_000] {
            let offset = Duration::from_millis(offset);
            for at in [one.now + offset, one.now.checked_sub(offset).unwrap()] {
                let back = other.instant(one.number(at));
                let error = back.max(at) - back.min(at);
                assert!(error < Duration::from_millis(3), "{error:?}");
            }
        }
    }
}
