//! Whether the supervisor is alive. Pure.
//!
//! It watches from the first word of life on: a supervisor that is not ready yet has
//! none, and a build that never speaks of it is not killed for that. Time is
//! `CLOCK_MONOTONIC`, as all [`Instant`]s are, which stands still while the machine
//! is suspended.

use std::time::{Duration, Instant};

/// How long it may take to die of SIGABRT, which writes its memory down.
const ABORT_LIMIT: Duration = Duration::from_secs(10);

/// What to do to one that is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bite {
    /// End it, so that it can be seen why.
    Abort,
    /// End it.
    Kill,
}

/// Watches one supervisor after the other.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    limit: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting,
    Watching { since: Instant },
    Aborted { at: Instant },
    Killed,
}

impl Watchdog {
    /// One that bites after `limit`; resting.
    pub fn new(limit: Duration) -> Self {
        Self { limit, state: State::Resting }
    }

    /// After what it bites.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// There is a new supervisor.
    pub fn rest(&mut self) {
        self.state = State::Resting;
    }

    /// The supervisor said that it is alive. After an abort that is too late.
    pub fn pet(&mut self, now: Instant) {
        if matches!(self.state, State::Resting | State::Watching { .. }) {
            self.state = State::Watching { since: now };
        }
    }

    /// When to check next.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Resting | State::Killed => None,
            State::Watching { since } => Some(since + self.limit),
            State::Aborted { at } => Some(at + ABORT_LIMIT),
        }
    }

    /// What is due now.
    pub fn check(&mut self, now: Instant) -> Option<Bite> {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return None;
        }
        let (state, bite) = match self.state {
            State::Aborted { .. } => (State::Killed, Bite::Kill),
            _ => (State::Aborted { at: now }, Bite::Abort),
        };
        self.state = state;
        Some(bite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn it_bites_when_life_is_not_repeated_and_then_harder() {
        let begin = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT);
        assert_eq!(watchdog.check(begin + LIMIT * 9), None);
        watchdog.pet(begin);
        watchdog.pet(begin + LIMIT / 2);
        assert_eq!(watchdog.deadline(), Some(begin + LIMIT / 2 + LIMIT));
        assert_eq!(watchdog.check(begin + LIMIT), None);
        let late = begin + LIMIT * 2;
        assert_eq!(watchdog.check(late), Some(Bite::Abort));
        watchdog.pet(late);
        assert_eq!(watchdog.check(late), None);
        assert_eq!(watchdog.check(late + ABORT_LIMIT), Some(Bite::Kill));
        assert_eq!((watchdog.check(late + LIMIT * 9), watchdog.deadline()), (None, None));
    }

    #[test]
    fn the_next_supervisor_is_not_bitten_for_the_last_one() {
        let begin = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT);
        watchdog.pet(begin);
        watchdog.rest();
        assert_eq!(watchdog.check(begin + LIMIT * 9), None);
    }
}
