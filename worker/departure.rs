//! The deaths of gateways that were left, as the rest of their cluster sees them: the
//! decisions, pure.
//!
//! A sheep dies, and a client is at the next one in milliseconds, which is earlier than
//! the cluster knows of the death. Changes that are sent then straddle the change of
//! membership: the gateway tries them in the old epoch, and again in the new one,
//! while the node that takes the dead one's place already copies the object from a
//! replica that is just being written. Seen on a real cluster with two copies: a bare
//! client that repeated its requests at once found an answered write undone in each of
//! ten runs; one that paused never did in eighty kills. Besides, what the dead one had
//! handed to other nodes may still be under way there. So changes, repeated ones too,
//! wait until the new sheep's node list lacks the dead one, and a moment longer. Reads go
//! on, unless they overlap a change that waits.
//!
//! A session has several gateways: its sheep, and the nodes that it asked directly. Which
//! of them are dead is not known when it ends: one loss is reported, or none, when the
//! worker died too. So each is asked, all at once, and those that refuse are waited for.
//! A newer epoch is no proof, since it may be another's death that the cluster has
//! noticed; then those that are still listed are asked again, for one that was started
//! anew meanwhile answers.
//!
//! ```text
//!  Begun ──> Asking ── some refuse ──> Holding ── none is listed ──> Settling ──> Over
//!              │ ^                      │ │                                        ^
//!              │ └──── a newer epoch ───┘ │ none ever was, or too long             │
//!              └── none refuses ──────────┴────────────────────────────────────────┘
//! ```
//!
//! One that answers, or hangs, is no death that the cluster is about to notice. What
//! happens when another node of the cluster dies is the cluster's own business.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long one may take to answer.
pub const ANSWER_MAX: Duration = Duration::from_millis(200);
/// How often the node list is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// What was begun in the old epoch comes to its end, on the other nodes too.
const SETTLING: Duration = Duration::from_millis(100);
/// Longer than a cluster takes to notice a death. Some never count a node out.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// Where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody was asked yet; that is due then.
    Begun(Instant),
    /// Whether they live is asked: these have not answered, those refused. `epoch`:
    /// they refused before, in an older one.
    Asking { open: BTreeSet<SocketAddr>, dead: BTreeSet<SocketAddr>, epoch: Option<u32> },
    /// They are dead, and the cluster, in that epoch if it was heard of, may not know; the
    /// next look is then.
    Holding { dead: BTreeSet<SocketAddr>, epoch: Option<u32>, look: Instant },
    /// The cluster knows, until then.
    Settling(Instant),
    /// Changes may go.
    Over,
}

/// What is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// The gateways that were left, whether they live.
    Left(Vec<SocketAddr>),
    /// The sheep of this session, for its node list.
    Members,
}

/// The gateways that were left.
#[derive(Debug)]
pub struct Departure {
    stage: Stage,
    left: BTreeSet<SocketAddr>,
    /// Those of them that a node list of this session had.
    listed: BTreeSet<SocketAddr>,
    until: Instant,
}

impl Departure {
    /// `left` were gateways of sessions that ended lately; none is this session's sheep.
    pub fn new(left: impl IntoIterator<Item = SocketAddr>, now: Instant) -> Self {
        let left: BTreeSet<SocketAddr> = left.into_iter().collect();
        let stage = if left.is_empty() { Stage::Over } else { Stage::Begun(now) };
        Self { stage, left, listed: BTreeSet::new(), until: now + HOLD_MAX }
    }

    /// Whether changes must wait.
    pub fn holds(&self) -> bool {
        self.stage != Stage::Over
    }

    /// The node list was read. `None`: it could not be.
    pub fn listed(&mut self, list: Option<(u32, &[SocketAddr])>, now: Instant) -> Ask {
        let nodes = list.map_or(&[][..], |(_, nodes)| nodes);
        self.listed.extend(nodes.iter().filter(|node| self.left.contains(node)));
        let Stage::Holding { dead, epoch, .. } = &mut self.stage else { return Ask::Nothing };
        let Some((new, _)) = list else {
            if epoch.is_none() {
                self.stage = Stage::Over;
            }
            return Ask::Nothing;
        };
        let was_listed = dead.iter().any(|node| self.listed.contains(node));
        dead.retain(|node| nodes.contains(node));
        if dead.is_empty() {
            // An address that the list never had may be unknown there: it proves nothing.
            self.stage = if was_listed { Stage::Settling(now + SETTLING) } else { Stage::Over };
        } else if epoch.replace(new).is_some_and(|old| old != new) {
            let open = std::mem::take(dead);
            return self.ask(open, Some(new));
        }
        Ask::Nothing
    }

    /// A gateway that was left refuses connections, or not.
    pub fn answered(&mut self, node: SocketAddr, refused: bool, now: Instant) {
        let Stage::Asking { open, dead, epoch } = &mut self.stage else { return };
        if open.remove(&node) && refused {
            dead.insert(node);
        }
        if !open.is_empty() {
            return;
        }
        let (dead, epoch) = (std::mem::take(dead), *epoch);
        self.stage = match (dead.is_empty(), epoch) {
            (false, _) => Stage::Holding { dead, epoch, look: now },
            // Started anew, in a cluster that has noticed their deaths.
            (true, Some(_)) => Stage::Settling(now + SETTLING),
            (true, None) => Stage::Over,
        };
    }

    /// Takes a time step.
    pub fn tick(&mut self, now: Instant) -> Ask {
        match &mut self.stage {
            Stage::Over => return Ask::Nothing,
            Stage::Begun(_) => return self.ask(self.left.clone(), None),
            Stage::Settling(until) => {
                if *until <= now {
                    self.stage = Stage::Over;
                }
                return Ask::Nothing;
            }
            Stage::Asking { .. } | Stage::Holding { .. } if self.until <= now => {}
            Stage::Holding { look, .. } if *look <= now => {
                *look = now + LOOK_INTERVAL;
                return Ask::Members;
            }
            Stage::Asking { .. } | Stage::Holding { .. } => return Ask::Nothing,
        }
        if let Stage::Holding { dead, .. } = &self.stage {
            tracing::warn!(
                sheep = ?dead,
                "the cluster does not notice that these sheep are dead; changes go on"
            );
        }
        self.stage = Stage::Over;
        Ask::Nothing
    }

    fn ask(&mut self, open: BTreeSet<SocketAddr>, epoch: Option<u32>) -> Ask {
        let asked = open.iter().copied().collect();
        self.stage = Stage::Asking { open, dead: BTreeSet::new(), epoch };
        Ask::Left(asked)
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Over => None,
            Stage::Asking { .. } => Some(self.until),
            Stage::Holding { look, .. } => Some((*look).min(self.until)),
            Stage::Begun(at) | Stage::Settling(at) => Some(*at),
        }
    }
}

#[cfg(test)]
mod tests;
