//! The sheep that was given up for another. The cluster may not have noticed its death
//! yet, and may lose changes while it does: so workers hold changes for a while (the
//! worker's `departure` module), also the next one, and that of a successor.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a cluster may take to notice the death of a sheep; the worker holds changes
/// for at most a third of that.
const DEPARTURE_TIME: Duration = Duration::from_secs(30);

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departed {
    /// The sheep of the last session that was lost, and when that was.
    last: Option<(SocketAddr, Instant)>,
    /// The last sheep that was given up for another, and when it was lost.
    left: Option<(SocketAddr, Instant)>,
}

impl Departed {
    /// As a predecessor of this process left it, which died in a session with that sheep.
    pub fn inherited(
        session: Option<SocketAddr>,
        left: Option<(SocketAddr, Instant)>,
        now: Instant,
    ) -> Self {
        Self { last: session.map(|gateway| (gateway, now)), left }
    }

    /// A session with that sheep is lost.
    pub fn session_lost(&mut self, gateway: SocketAddr, now: Instant) {
        self.last = Some((gateway, now));
    }

    /// A gateway besides the sheep of the session is lost, and the session with it.
    pub fn node_lost(&mut self, node: SocketAddr, now: Instant) {
        self.left = Some((node, now));
    }

    /// The sheep whose death the cluster may not have noticed yet, when the next session
    /// is with that one.
    pub fn left_for(&mut self, sheep: SocketAddr, now: Instant) -> Option<SocketAddr> {
        if let Some(last) = self.last.filter(|(last, _)| *last != sheep) {
            self.left = Some(last);
        }
        let is_recent = |at: Instant| now.saturating_duration_since(at) < DEPARTURE_TIME;
        self.left.filter(|(left, at)| *left != sheep && is_recent(*at)).map(|(left, _)| left)
    }

    /// For a successor. `has_session`: there is another session already, or the attempt
    /// at one, of which the successor hears otherwise.
    pub fn saved(&self, has_session: bool) -> Option<(SocketAddr, Instant)> {
        self.last.filter(|_| !has_session).or(self.left)
    }
}
