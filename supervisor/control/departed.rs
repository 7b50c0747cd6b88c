//! The gateways of sessions that were lost: their sheep, and the nodes that were asked
//! directly. The cluster may not have noticed the death of one yet, and may lose changes
//! while it does: so workers ask all of these, and hold changes for a while (the worker's
//! `departure` module), also the next one, and that of a successor. Whether a gateway was
//! the reason of the loss does not matter: one may die besides, unheard.

use sheepfs::ipc::message::WATCHED_MAX;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a cluster may take to notice the death of a sheep; the worker holds changes
/// for at most a third of that.
const DEPARTURE_TIME: Duration = Duration::from_secs(30);

/// What is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departed {
    /// When the last session with that gateway ended. At most [`WATCHED_MAX`].
    gateways: BTreeMap<SocketAddr, Instant>,
}

impl Departed {
    /// As a predecessor of this process left it, which died in a session with `session`.
    pub fn inherited(
        session: &[SocketAddr],
        left: impl IntoIterator<Item = (SocketAddr, Instant)>,
        now: Instant,
    ) -> Self {
        let mut inherited = Self { gateways: left.into_iter().collect() };
        inherited.session_lost(session, now);
        inherited
    }

    /// A session is over, which had these gateways.
    pub fn session_lost(&mut self, gateways: &[SocketAddr], now: Instant) {
        self.gateways.retain(|_, at| is_recent(*at, now));
        self.gateways.extend(gateways.iter().map(|gateway| (*gateway, now)));
        while self.gateways.len() > WATCHED_MAX {
            let oldest = self.gateways.iter().min_by_key(|(_, at)| **at);
            let Some(oldest) = oldest.map(|(gateway, _)| *gateway) else { return };
            self.gateways.remove(&oldest);
        }
    }

    /// The gateways whose death the cluster may not have noticed yet, when the next
    /// session is with that sheep.
    pub fn left_for(&self, sheep: SocketAddr, now: Instant) -> Vec<SocketAddr> {
        let left =
            self.gateways.iter().filter(|(gateway, at)| **gateway != sheep && is_recent(**at, now));
        left.map(|(gateway, _)| *gateway).collect()
    }

    /// For a successor, which adds the gateways of the session that there is.
    pub fn saved(&self) -> impl Iterator<Item = (SocketAddr, Instant)> {
        self.gateways.iter().map(|(gateway, at)| (*gateway, *at))
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < DEPARTURE_TIME
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn all_gateways_of_a_lost_session_are_left_but_the_next_sheep() {
        let now = Instant::now();
        let all = [gateway(1), gateway(2), gateway(3)];
        let mut departed = Departed::default();
        departed.session_lost(&all, now);
        assert_eq!(departed.left_for(gateway(1), now), all[1..]);
        assert_eq!(departed.left_for(gateway(4), now), all);
        assert_eq!(departed.left_for(gateway(4), now + DEPARTURE_TIME), []);
        let inherited = Departed::inherited(&[gateway(5)], departed.saved(), now);
        assert_eq!(inherited.left_for(gateway(2), now), [gateway(1), gateway(3), gateway(5)]);
    }

    #[test]
    fn the_newest_are_kept_when_there_are_too_many() {
        let now = Instant::now();
        let ports = |from: u16| (from..from + 100).map(gateway).collect::<Vec<_>>();
        let mut departed = Departed::default();
        departed.session_lost(&ports(1), now);
        departed.session_lost(&ports(201), now + Duration::from_secs(1));
        let left = departed.left_for(gateway(9999), now + Duration::from_secs(1));
        assert_eq!(left.len(), WATCHED_MAX);
        assert!(ports(201).iter().all(|gateway| left.contains(gateway)));
    }
}
