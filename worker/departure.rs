//! The death of the sheep that was left, as the rest of its cluster sees it: the
//! decisions, pure.
//!
//! A sheep dies, and a client is at the next one in milliseconds, which is earlier than
//! the cluster knows of the death. Changes that are sent then straddle the change of
//! membership: the gateway tries them in the old epoch, and again in the new one,
//! while the node that takes the dead one's place already copies the object from a
//! replica that is just being written. Seen on a real cluster with two copies: a bare
//! client that repeated its requests at once found an answered write undone in each of
//! ten runs; one that paused never did in eighty kills. So changes, repeated ones too,
//! wait until the new sheep's node list lacks the dead one, or its epoch has grown,
//! and a moment longer. Reads go on, unless they overlap a change that waits.
//!
//! ```text
//!  Unknown ── node list ──> Listed ── it refuses ──> Holding ── left ──> Settling ──> Over
//!     │ not in it             │ it answers, or is silent   │ too long                 ^
//!     └───────────────────────┴────────────────────────────┴──────────────────────────┘
//! ```
//!
//! One that answers, or hangs, is no death that the cluster is about to notice. What
//! happens when another node of the cluster dies is the cluster's own business.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long it may take to answer.
pub const ANSWER_MAX: Duration = Duration::from_millis(200);
/// How often the node list is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// What was begun in the old epoch comes to its end, on the other nodes too.
const SETTLING: Duration = Duration::from_millis(100);
/// Longer than a cluster takes to notice a death. Some never count a node out.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The node list was not read yet.
    Unknown,
    /// It is in the list of that epoch; whether it lives is asked.
    Listed(u32),
    /// It is dead, and the cluster, in that epoch, does not know; the next look is then.
    Holding(u32, Instant),
    /// The cluster knows, until then.
    Settling(Instant),
    /// Changes may go.
    Over,
}

/// What is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// The sheep that was left, whether it lives.
    Left(SocketAddr),
    /// The sheep of this session, for its node list.
    Members,
}

/// The sheep that was left.
#[derive(Debug)]
pub struct Departure {
    left: Option<SocketAddr>,
    stage: Stage,
    until: Instant,
}

impl Departure {
    /// `left` was the sheep of the session before, if that ended by a loss.
    pub fn new(left: Option<SocketAddr>, now: Instant) -> Self {
        let stage = if left.is_some() { Stage::Unknown } else { Stage::Over };
        Self { left, stage, until: now + HOLD_MAX }
    }

    /// Whether changes must wait.
    pub fn holds(&self) -> bool {
        self.stage != Stage::Over
    }

    /// The node list was read. `None`: it could not be.
    pub fn listed(&mut self, list: Option<(u32, &[SocketAddr])>, now: Instant) -> Ask {
        let listed = |nodes: &[SocketAddr]| self.left.is_some_and(|left| nodes.contains(&left));
        match (self.stage, list) {
            (Stage::Unknown, Some((epoch, nodes))) if listed(nodes) => {
                self.stage = Stage::Listed(epoch);
                return self.left.map_or(Ask::Nothing, Ask::Left);
            }
            (Stage::Unknown, _) => self.stage = Stage::Over,
            (Stage::Holding(epoch, _), Some((new, nodes))) if new != epoch || !listed(nodes) => {
                self.stage = Stage::Settling(now + SETTLING);
            }
            _ => {}
        }
        Ask::Nothing
    }

    /// The sheep that was left refuses connections, or not.
    pub fn answered(&mut self, refused: bool, now: Instant) {
        if let Stage::Listed(epoch) = self.stage {
            self.stage = if refused { Stage::Holding(epoch, now) } else { Stage::Over };
        }
    }

    /// Takes a time step.
    pub fn tick(&mut self, now: Instant) -> Ask {
        match self.stage {
            Stage::Over => Ask::Nothing,
            Stage::Settling(until) if until <= now => {
                self.stage = Stage::Over;
                Ask::Nothing
            }
            _ if self.until <= now => {
                tracing::warn!(
                    sheep = self.left.map(tracing::field::display),
                    "the cluster does not notice that this sheep is dead; changes go on"
                );
                self.stage = Stage::Over;
                Ask::Nothing
            }
            Stage::Holding(epoch, look) if look <= now => {
                self.stage = Stage::Holding(epoch, now + LOOK_INTERVAL);
                Ask::Members
            }
            Stage::Unknown | Stage::Listed(_) | Stage::Holding(..) | Stage::Settling(_) => {
                Ask::Nothing
            }
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Over => None,
            Stage::Unknown | Stage::Listed(_) => Some(self.until),
            Stage::Holding(_, look) => Some(look.min(self.until)),
            Stage::Settling(until) => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn nothing_waits_for_one_that_was_not_lost_or_is_known_to_be_gone() {
        let now = Instant::now();
        assert!(!Departure::new(None, now).holds());
        for list in [None, Some((7, &[node(2)][..]))] {
            let mut departure = Departure::new(Some(node(1)), now);
            assert!(departure.holds());
            assert_eq!(departure.listed(list, now), Ask::Nothing);
            assert!(!departure.holds() && departure.next_deadline().is_none());
        }
    }

    #[test]
    fn changes_wait_until_the_cluster_knows_of_a_death() {
        for news in [(7, &[node(2)][..]), (8, &[node(1), node(2)][..])] {
            let now = Instant::now();
            let mut departure = Departure::new(Some(node(1)), now);
            let both = [node(1), node(2)];
            assert_eq!(departure.listed(Some((7, &both)), now), Ask::Left(node(1)));
            departure.answered(true, now);
            assert_eq!(departure.tick(now), Ask::Members);
            assert_eq!(departure.tick(now), Ask::Nothing);
            departure.listed(Some((7, &both)), now);
            assert_eq!(departure.tick(now + LOOK_INTERVAL), Ask::Members);
            departure.listed(Some(news), now);
            assert!(departure.holds());
            assert_eq!(departure.next_deadline(), Some(now + SETTLING));
            departure.tick(now + SETTLING);
            assert!(!departure.holds());
        }
    }

    #[test]
    fn one_that_lives_or_hangs_is_not_waited_for_and_nobody_for_ever() {
        let now = Instant::now();
        let mut departure = Departure::new(Some(node(1)), now);
        departure.listed(Some((7, &[node(1)])), now);
        departure.answered(false, now);
        assert!(!departure.holds());
        let mut departure = Departure::new(Some(node(1)), now);
        departure.listed(Some((7, &[node(1)])), now);
        departure.answered(true, now);
        departure.tick(now + HOLD_MAX);
        assert!(!departure.holds());
    }
}
