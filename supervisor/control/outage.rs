//! How long there has been no session, and what becomes of requests meanwhile.
//!
//! The usual thing is to hold them for ever: an input/output error makes the file
//! system above read-only for good (hazard 23). Who prefers errors names a time.

use std::time::{Duration, Instant};

/// What becomes of requests while no sheep serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// They wait.
    Hold,
    /// They wait for so long; then they and all later ones fail until a sheep
    /// serves again.
    ErrorAfter(Duration),
}

/// The present outage, if there is one.
#[derive(Debug)]
pub struct Outage {
    policy: OnOutage,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A sheep serves, or the mount is only beginning.
    None,
    /// None serves since then; requests wait.
    Holding { since: Instant },
    /// Requests fail.
    Failing,
}

impl Outage {
    /// None yet.
    pub fn new(policy: OnOutage) -> Self {
        Self { policy, state: State::None }
    }

    /// No sheep serves from now on.
    pub fn begins(&mut self, now: Instant) {
        if self.state == State::None {
            self.state = State::Holding { since: now };
        }
    }

    /// A sheep serves. `true`: requests were failing until now.
    pub fn ends(&mut self) -> bool {
        std::mem::replace(&mut self.state, State::None) == State::Failing
    }

    /// Whether the time has come from which on requests fail; says it once.
    pub fn has_lasted(&mut self, now: Instant) -> bool {
        let over = self.deadline().is_some_and(|deadline| deadline <= now);
        if over {
            self.state = State::Failing;
        }
        over
    }

    /// When requests begin to fail.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.state, self.policy) {
            (State::Holding { since }, OnOutage::ErrorAfter(time)) => since.checked_add(time),
            (State::None | State::Failing, _) | (_, OnOutage::Hold) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn errors_come_after_their_time_and_end_with_the_outage() {
        let start = Instant::now();
        let mut outage = Outage::new(OnOutage::ErrorAfter(SECOND * 10));
        assert!(!outage.has_lasted(start + SECOND * 60));
        outage.begins(start);
        outage.begins(start + SECOND * 5);
        assert_eq!(outage.deadline(), Some(start + SECOND * 10));
        assert!(!outage.has_lasted(start + SECOND * 9));
        assert!(outage.has_lasted(start + SECOND * 10));
        assert!(!outage.has_lasted(start + SECOND * 11), "once");
        outage.begins(start + SECOND * 12);
        assert_eq!(outage.deadline(), None);
        assert!(outage.ends());
        outage.begins(start + SECOND * 20);
        assert!(!outage.ends());
    }

    #[test]
    fn holding_has_no_end() {
        let start = Instant::now();
        let mut outage = Outage::new(OnOutage::Hold);
        outage.begins(start);
        assert!(!outage.has_lasted(start + SECOND * 100_000));
        assert!(!outage.ends());
    }
}
