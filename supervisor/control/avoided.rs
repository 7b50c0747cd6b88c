//! Nodes that have ended sessions. One that answers its trial may still break on requests,
//! as behind a path that drops long packets, and each worker would find that out anew, at
//! the price of its session. So it is not asked directly for a while, longer each time.
//!
//! It is kept in memory only: a successor of this process pays for it once more.

use sheepfs::ipc::message::{AVOIDED_MAX, MEMBERS_MAX};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For how long: at first, and at most.
const PAUSE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];
/// After so long without a failure, the first pause is the next again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub struct Avoided {
    /// At most [`AVOIDED_MAX`].
    nodes: BTreeMap<SocketAddr, Failed>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    /// When it failed last.
    at: Instant,
    /// How long it is avoided since.
    pause: Duration,
}

impl Avoided {
    /// A session ended for that node.
    pub fn failed(&mut self, node: SocketAddr, now: Instant) {
        let since = |at| now.saturating_duration_since(at);
        self.nodes.retain(|_, failed| since(failed.at) < FORGOTTEN_AFTER);
        let before = self.nodes.get(&node).map(|failed| failed.pause);
        let pause = before.map_or(PAUSE[0], |pause| (2 * pause).min(PAUSE[1]));
        self.nodes.insert(node, Failed { at: now, pause });
        if self.nodes.len() > AVOIDED_MAX
            && let Some(oldest) = self.nodes.iter().min_by_key(|(_, failed)| failed.at)
        {
            let oldest = *oldest.0;
            self.nodes.remove(&oldest);
        }
    }

    /// The cluster has these nodes. Whoever comes back under the address of one that was
    /// away is another process.
    pub fn members(&mut self, nodes: &[SocketAddr]) {
        if nodes.len() < MEMBERS_MAX {
            self.nodes.retain(|node, _| nodes.contains(node));
        }
    }

    /// Which are avoided, for how many milliseconds more.
    pub fn told(&self, now: Instant) -> Vec<(SocketAddr, u32)> {
        let rest = |failed: &Failed| (failed.at + failed.pause).saturating_duration_since(now);
        let millis = |rest: Duration| u32::try_from(rest.as_millis()).unwrap_or(u32::MAX);
        let all = self.nodes.iter().map(|(node, failed)| (*node, millis(rest(failed))));
        all.filter(|(_, ms)| *ms > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_pause_grows_with_each_failure_and_is_forgotten_without() {
        let mut now = Instant::now();
        let mut avoided = Avoided::default();
        for expected in [5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
            avoided.failed(node(1), now);
            assert_eq!(avoided.told(now), [(node(1), expected)]);
            now += Duration::from_millis(expected.into());
            assert_eq!(avoided.told(now), []);
        }
        now += FORGOTTEN_AFTER;
        avoided.failed(node(1), now);
        now += Duration::from_secs(1);
        assert_eq!(avoided.told(now), [(node(1), 4_000)]);
    }

    #[test]
    fn one_that_has_left_the_cluster_is_forgotten() {
        let now = Instant::now();
        let mut avoided = Avoided::default();
        (1..3).for_each(|port| avoided.failed(node(port), now));
        avoided.members(&vec![node(9); MEMBERS_MAX]);
        assert_eq!(avoided.told(now).len(), 2, "not all nodes may have been told of");
        avoided.members(&[node(2), node(3)]);
        assert_eq!(avoided.told(now), [(node(2), 5_000)]);
    }

    #[test]
    fn the_newest_are_kept_when_there_are_too_many() {
        let mut now = Instant::now();
        let mut avoided = Avoided::default();
        for port in 1..=200 {
            now += Duration::from_millis(1);
            avoided.failed(node(port), now);
        }
        let told = avoided.told(now);
        assert_eq!(told.len(), AVOIDED_MAX);
        assert!(told.contains(&(node(200), 5_000)) && !told.iter().any(|(at, _)| *at == node(1)));
    }
}
