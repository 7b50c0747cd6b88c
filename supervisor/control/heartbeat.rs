//! Whether a worker still answers.
//!
//! A worker that is stopped, or turns round in a loop, has its socket open still;
//! only its silence tells. It is asked at intervals, and whatever it says counts
//! as an answer. Our own silence must not be taken for its: after a time in which
//! this process itself did not run, the clock begins anew.

use std::time::{Duration, Instant};

/// How often the worker in use is asked, and the spare.
pub const EVERY_ACTIVE: Duration = Duration::from_secs(1);
pub const EVERY_SPARE: Duration = Duration::from_secs(5);
/// How long a worker may say nothing after it was asked. Its loop never waits
/// longer than for one system call.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// What the time has come for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing.
    Rest,
    /// Ask it, with that number.
    Ask(u64),
    /// It does not answer.
    Silent,
}

/// One worker's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    every: Duration,
    number: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It answered; it is asked again then.
    Heard { ask_at: Instant },
    /// It was asked; it is silent from then on.
    Asked { silent_at: Instant },
}

impl Heartbeat {
    /// Of a worker that has just said something.
    pub fn new(every: Duration, now: Instant) -> Self {
        Self { every, number: 0, state: State::Heard { ask_at: now + every } }
    }

    /// It said something.
    pub fn heard(&mut self, now: Instant) {
        if let State::Asked { .. } = self.state {
            self.state = State::Heard { ask_at: now + self.every };
        }
    }

    /// This process did not run for some time: what it did not hear meanwhile says
    /// nothing.
    pub fn slept(&mut self, now: Instant) {
        self.state = State::Heard { ask_at: now };
    }

    /// What is due.
    pub fn tick(&mut self, now: Instant) -> Beat {
        match self.state {
            State::Heard { ask_at } if ask_at <= now => {
                self.number += 1;
                self.state = State::Asked { silent_at: now + SILENCE_MAX };
                Beat::Ask(self.number)
            }
            State::Asked { silent_at } if silent_at <= now => Beat::Silent,
            State::Heard { .. } | State::Asked { .. } => Beat::Rest,
        }
    }

    /// When something is due.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Heard { ask_at } => ask_at,
            State::Asked { silent_at } => silent_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_answers_is_asked_again_and_who_does_not_is_silent() {
        let start = Instant::now();
        let mut beat = Heartbeat::new(EVERY_ACTIVE, start);
        assert_eq!(beat.tick(start), Beat::Rest);
        assert_eq!(beat.tick(start + SECOND), Beat::Ask(1));
        beat.heard(start + SECOND * 2);
        assert_eq!(beat.deadline(), start + SECOND * 3);
        assert_eq!(beat.tick(start + SECOND * 3), Beat::Ask(2));
        assert_eq!(beat.tick(start + SECOND * 3), Beat::Rest);
        assert_eq!(beat.deadline(), start + SECOND * 6);
        assert_eq!(beat.tick(start + SECOND * 6), Beat::Silent);
    }

    #[test]
    fn words_without_a_question_don_t_put_the_next_one_off() {
        let start = Instant::now();
        let mut beat = Heartbeat::new(EVERY_ACTIVE, start);
        beat.heard(start + SECOND / 2);
        assert_eq!(beat.tick(start + SECOND), Beat::Ask(1));
    }

    #[test]
    fn after_a_sleep_of_ours_it_is_asked_before_it_is_judged() {
        let start = Instant::now();
        let mut beat = Heartbeat::new(EVERY_ACTIVE, start);
        beat.tick(start + SECOND);
        let woken = start + SECOND * 60;
        beat.slept(woken);
        assert_eq!(beat.tick(woken), Beat::Ask(2));
        assert_eq!(beat.tick(woken + SECOND * 2), Beat::Rest);
        assert_eq!(beat.tick(woken + SECOND * 3), Beat::Silent);
    }
}
