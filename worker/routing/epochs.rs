//! In which epoch the cluster is, and whom that is believed of, pure.
//!
//! Who is a member, and in which epoch, is what home's node list says. Other nodes may hear
//! of a change earlier than home, so a newer epoch that one of them mentions is a claim:
//! nothing is asked directly until home's list has it. One that is alone with its claim
//! for some seconds is broken, or of some other cluster by now, and is not asked any more;
//! a claim of several holds longer than home may be behind ([`BEHIND_MAX`]), so it is
//! home that is given up then, if objects are read.
//!
//! Nothing is lost when a single one was right after all: each change that was given out
//! as done was answered in an epoch that home knew, or by home itself.

use crate::sheep::BEHIND_MAX;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For how long a claim of one node counts. Shorter than home may be behind.
pub const ALONE_MAX: Duration = Duration::from_secs(3);
/// The same of claims of several nodes. Longer than that.
pub const SEVERAL_MAX: Duration = Duration::from_secs(10);

/// A node's word of an epoch that home does not know.
#[derive(Clone, Copy, Debug)]
struct Claim {
    epoch: u32,
    since: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Epochs {
    /// Of the node list; 0: it was not read.
    list: u32,
    /// The newest that home mentioned.
    home: u32,
    claims: BTreeMap<SocketAddr, Claim>,
    /// Claims that were given up: they make a later one of another node less alone.
    past: BTreeMap<SocketAddr, u32>,
    /// The newest that anybody mentions.
    newest: u32,
}

impl Epochs {
    /// Home has mentioned one; its list was not read.
    pub fn new(home: u32) -> Self {
        Self { list: 0, home, claims: BTreeMap::new(), past: BTreeMap::new(), newest: home }
    }

    /// The newest that anybody mentions.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// The newest that home mentioned.
    pub fn of_home(&self) -> u32 {
        self.home
    }

    /// The node list's; 0: it was not read.
    pub fn of_list(&self) -> u32 {
        self.list
    }

    /// Whether home's list is as new as anything that was heard.
    pub fn is_settled(&self) -> bool {
        self.list != 0 && self.list == self.newest
    }

    /// Home mentions one.
    pub fn home_says(&mut self, epoch: u32) {
        if epoch > self.home {
            self.home = epoch;
            self.settle();
        }
    }

    /// Home's list was read.
    pub fn listed(&mut self, epoch: u32) {
        self.list = epoch;
        self.home_says(epoch);
    }

    /// Another node mentions one.
    pub fn node_says(&mut self, node: SocketAddr, epoch: u32, now: Instant) {
        if epoch > self.home {
            let claim = self.claims.entry(node).or_insert(Claim { epoch, since: now });
            claim.epoch = epoch;
            self.settle();
        } else if self.claims.remove(&node).is_some() {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let home = self.home;
        self.claims.retain(|_, claim| claim.epoch > home);
        self.past.retain(|_, epoch| *epoch > home);
        let claimed = self.claims.values().map(|claim| claim.epoch).max();
        self.newest = claimed.unwrap_or(home);
    }

    /// When [`Self::overdue`] has something to say.
    pub fn overdue_at(&self) -> Option<Instant> {
        let past = self.past.keys().filter(|node| !self.claims.contains_key(node));
        let limit = if self.claims.len() + past.count() > 1 { SEVERAL_MAX } else { ALONE_MAX };
        self.claims.values().map(|claim| claim.since + limit).min()
    }

    /// The nodes whose claims count no more, since home does not confirm them.
    pub fn overdue(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.overdue_at().is_none_or(|at| at > now) {
            return Vec::new();
        }
        let claims = std::mem::take(&mut self.claims);
        self.past.extend(claims.iter().map(|(node, claim)| (*node, claim.epoch)));
        self.settle();
        claims.into_keys().collect()
    }
}

const _: () = assert!(
    ALONE_MAX.as_millis() < BEHIND_MAX.as_millis()
        && BEHIND_MAX.as_millis() < SEVERAL_MAX.as_millis()
);

#[cfg(test)]
mod tests {
    use super::*;

    fn node(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7000))
    }

    #[test]
    fn only_homes_list_settles_what_others_say() {
        let (mut epochs, now) = (Epochs::new(3), Instant::now());
        assert!(!epochs.is_settled(), "the list was not read");
        epochs.listed(3);
        assert!(epochs.is_settled());
        epochs.node_says(node(1), 4, now);
        epochs.node_says(node(2), 3, now);
        assert!(!epochs.is_settled() && epochs.newest() == 4 && epochs.of_home() == 3);
        epochs.home_says(4);
        assert!(!epochs.is_settled(), "home knows, but its list was not read");
        epochs.listed(4);
        assert!(epochs.is_settled() && epochs.overdue_at().is_none());
        epochs.home_says(3);
        assert!(epochs.is_settled(), "that answer was older");
    }

    #[test]
    fn a_claim_that_is_taken_back_is_none() {
        let (mut epochs, now) = (Epochs::new(3), Instant::now());
        epochs.listed(3);
        epochs.node_says(node(1), 9, now);
        epochs.node_says(node(1), 3, now);
        assert!(epochs.is_settled() && epochs.newest() == 3);
    }

    #[test]
    fn one_that_is_alone_is_not_believed_for_long() {
        let (mut epochs, now) = (Epochs::new(3), Instant::now());
        epochs.listed(3);
        epochs.node_says(node(1), u32::MAX, now);
        epochs.node_says(node(1), u32::MAX, now + ALONE_MAX / 2);
        epochs.listed(3);
        assert!(epochs.overdue(now + ALONE_MAX / 2).is_empty());
        assert_eq!(epochs.overdue_at(), Some(now + ALONE_MAX));
        assert_eq!(epochs.overdue(now + ALONE_MAX), [node(1)]);
        assert!(epochs.is_settled() && epochs.overdue_at().is_none());
    }

    /// Home has its time to catch up, or to be given up.
    #[test]
    fn several_are_believed_for_longer() {
        let (mut epochs, now) = (Epochs::new(3), Instant::now());
        epochs.listed(3);
        epochs.node_says(node(1), 4, now);
        epochs.node_says(node(2), 5, now + ALONE_MAX / 2);
        assert!(epochs.overdue(now + ALONE_MAX).is_empty());
        epochs.home_says(4);
        assert_eq!(epochs.newest(), 5);
        assert_eq!(epochs.overdue_at(), Some(now + ALONE_MAX / 2 + ALONE_MAX), "it is alone now");
        epochs.node_says(node(1), 5, now + ALONE_MAX);
        assert_eq!(epochs.overdue(now + 2 * SEVERAL_MAX), [node(1), node(2)]);
        assert_eq!(epochs.newest(), 4);
    }

    /// While one has a claim nothing is asked of others, which could say the same.
    #[test]
    fn also_when_they_say_it_one_after_the_other() {
        let (mut epochs, now) = (Epochs::new(3), Instant::now());
        epochs.listed(3);
        epochs.node_says(node(1), 4, now);
        assert_eq!(epochs.overdue(now + ALONE_MAX), [node(1)]);
        epochs.node_says(node(1), 4, now);
        assert_eq!(epochs.overdue_at(), Some(now + ALONE_MAX), "it is the same one");
        epochs.node_says(node(2), 4, now);
        assert_eq!(epochs.overdue_at(), Some(now + SEVERAL_MAX));
        epochs.listed(4);
        epochs.node_says(node(2), 5, now);
        assert_eq!(epochs.overdue_at(), Some(now + ALONE_MAX), "the first was right");
    }
}
