//! What is known of a node that is asked directly, or may be.

use std::time::{Duration, Instant};

/// Before a node is tried again: at first, and at most.
pub const PAUSE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];
/// After so long a use without a failure, the next pause is the first again.
pub const PROVEN: Duration = Duration::from_secs(60);

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its connections are asked a question each; so many have not answered.
    Trying { until: Instant, unanswered: usize },
    /// It answers, and the supervisor was told, under that number.
    Announced(u64),
    /// It is asked directly.
    Ready,
    /// Nothing new goes there; it is closed when all is answered.
    Retiring,
    /// It can't be used, and is not tried before that time.
    Resting(Instant),
}

/// What is known of a node.
#[derive(Debug)]
pub struct Known {
    /// Where it stands.
    pub stage: Stage,
    /// Requests that it has, or that wait for a place there.
    pub load: usize,
    /// When it was asked last.
    pub used: Instant,
    /// Since when it was asked directly, the last time that it was.
    pub since: Instant,
    /// The next pause after a failure.
    pub pause: Duration,
    /// The pause when it is closed; `None`: it is only behind.
    pub rest: Option<Duration>,
    /// Whether the log says that it can't be used.
    pub said: bool,
}

impl Known {
    /// Whether it has connections.
    pub fn is_open(&self) -> bool {
        !matches!(self.stage, Stage::Resting(_))
    }

    /// Whether it was used for long without a failure.
    pub fn is_proven(&self) -> bool {
        self.used.saturating_duration_since(self.since) >= PROVEN
    }

    /// It has failed: how long it rests.
    pub fn next_pause(&mut self) -> Duration {
        if matches!(self.stage, Stage::Ready | Stage::Retiring) && self.is_proven() {
            self.pause = PAUSE[0];
            self.said = false;
        }
        let next = (2 * self.pause).min(PAUSE[1]);
        std::mem::replace(&mut self.pause, next)
    }

    /// The cluster has changed: perhaps it can be used now.
    pub fn try_soon(&mut self, now: Instant) {
        if let Stage::Resting(until) = &mut self.stage {
            *until = now.min(*until);
        }
    }
}
