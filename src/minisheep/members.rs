//! Who is in the cluster, and who was: the nodes of each epoch (protocol 15.3, 15.4).
//!
//! A minisheep by itself is its cluster's only node, in epoch 1 for ever. Once a gateway
//! ([`super::gateway`]) has joined, the gateways are the nodes, and the minisheep behind them is
//! none any more, so that no client ever fails over to it. Each coming and going is an epoch.
//! A real cluster takes a moment to notice that a node is dead: on request ([`super::faults`])
//! dead gateways stay nodes for as long as a test wants.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::wire::cluster::Node;

/// Past epochs that are remembered.
const HISTORY_MAX: usize = 64;
/// The epoch in which a cluster is formatted.
const FIRST: u32 = 1;

/// The membership during one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Its number.
    pub epoch: u32,
    /// When it began, in seconds.
    pub time: u64,
    /// Its nodes, by address.
    pub nodes: Vec<Node>,
}

/// The membership of a cluster, now and before.
#[derive(Debug)]
struct History {
    /// The node that keeps the data.
    own: Node,
    gateways: Vec<(u64, Node)>,
    /// Whether a gateway was ever there.
    fronted: bool,
    /// Gateways that have ended and are nodes still; `None` when each leaves as it ends.
    lingering: Option<Vec<u64>>,
    next: u64,
    /// Newest first; empty before the cluster is formatted.
    epochs: VecDeque<Past>,
}

impl History {
    fn new(own: Node) -> Self {
        let (gateways, epochs) = (Vec::new(), VecDeque::new());
        Self { own, gateways, fronted: false, lingering: None, next: 0, epochs }
    }

    /// All nodes, sorted as the original does.
    fn nodes(&self) -> Vec<Node> {
        if !self.fronted {
            return vec![self.own];
        }
        let mut nodes: Vec<_> = self.gateways.iter().map(|(_, node)| *node).collect();
        nodes.sort_by_key(|node| (node.id.addr, node.id.port));
        nodes
    }

    fn epoch(&self) -> u32 {
        self.epochs.front().map_or(0, |past| past.epoch)
    }

    fn format(&mut self, time: u64) {
        self.epochs = VecDeque::from([Past { epoch: FIRST, time, nodes: self.nodes() }]);
    }

    /// Adds a gateway and returns its number. One that was at the same address is dead, even
    /// when nobody has noticed yet.
    fn join(&mut self, node: Node, time: u64) -> u64 {
        if let Some((old, _)) = self.gateways.iter().find(|(_, member)| member.id == node.id) {
            self.remove(*old, time);
        }
        self.next += 1;
        self.fronted = true;
        self.gateways.push((self.next, node));
        self.turn(time);
        self.next
    }

    /// A gateway has ended.
    fn leave(&mut self, number: u64, time: u64) {
        match &mut self.lingering {
            Some(dead) => dead.push(number),
            None => drop(self.remove(number, time)),
        }
    }

    /// Whether it was a node until now.
    fn remove(&mut self, number: u64, time: u64) -> bool {
        let before = self.gateways.len();
        self.gateways.retain(|(other, _)| *other != number);
        let removed = self.gateways.len() != before;
        if removed {
            self.turn(time);
        }
        removed
    }

    /// The dead leave, each with an epoch of its own; returns how many.
    fn bury(&mut self, time: u64) -> usize {
        let dead = self.lingering.take().unwrap_or_default();
        dead.into_iter().filter(|number| self.remove(*number, time)).count()
    }

    /// A new epoch, where there are epochs.
    fn turn(&mut self, time: u64) {
        if self.epochs.is_empty() {
            return;
        }
        let nodes = self.nodes();
        self.epochs.push_front(Past { epoch: self.epoch() + 1, time, nodes });
        self.epochs.truncate(HISTORY_MAX);
    }
}

/// The membership, shared by all threads.
#[derive(Debug)]
pub struct Members {
    history: Mutex<History>,
    /// A copy: each answer carries it.
    epoch: AtomicU32,
}

impl Members {
    /// A cluster of one node.
    #[must_use]
    pub fn new(own: Node) -> Self {
        Self { history: Mutex::new(History::new(own)), epoch: AtomicU32::new(0) }
    }

    /// The cluster was formatted at that second: it is in its first epoch.
    pub fn format(&self, time: u64) {
        self.change(|history| history.format(time));
    }

    /// A gateway joins; it leaves when what this returns is dropped.
    #[must_use]
    pub fn join(self: &Arc<Self>, node: Node, time: u64) -> Membership {
        let number = self.change(|history| history.join(node, time));
        info!(gateway = %node.id, epoch = self.epoch(), "a gateway joined");
        Membership { members: Arc::clone(self), number, node }
    }

    /// From now on, gateways that end are nodes still.
    pub fn linger(&self) {
        self.change(|history| {
            history.lingering.get_or_insert_default();
        });
    }

    /// Those leave, and from now on each does as it ends; returns how many were there.
    pub fn bury(&self) -> usize {
        let time = super::state::now() >> 32;
        self.change(|history| history.bury(time))
    }

    /// The present epoch; 0 before the cluster is formatted.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The present epoch and its nodes.
    #[must_use]
    pub fn now(&self) -> (u32, Vec<Node>) {
        let history = self.lock();
        (history.epoch(), history.nodes())
    }

    /// The epochs that are remembered, newest first.
    #[must_use]
    pub fn epochs(&self) -> Vec<Past> {
        self.lock().epochs.iter().cloned().collect()
    }

    fn change<T>(&self, change: impl FnOnce(&mut History) -> T) -> T {
        let mut history = self.lock();
        let result = change(&mut history);
        self.epoch.store(history.epoch(), Ordering::Release);
        result
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gateway's place in the cluster; dropped when its connection ends.
#[derive(Debug)]
pub struct Membership {
    members: Arc<Members>,
    number: u64,
    node: Node,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let time = super::state::now() >> 32;
        self.members.change(|history| history.leave(self.number, time));
        info!(gateway = %self.node.id, epoch = self.members.epoch(), "a gateway left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cluster::NodeId;

    fn node(port: u16) -> Node {
        let id = NodeId::new(([127, 0, 0, 1], port).into());
        Node { id, nr_vnodes: 128, zone: port.into(), space: 1 }
    }

    fn ports(history: &History) -> Vec<u16> {
        history.nodes().iter().map(|node| node.id.port).collect()
    }

    #[test]
    fn gateways_take_the_place_of_the_node_behind_them() {
        let mut history = History::new(node(1));
        assert_eq!((ports(&history), history.epoch()), (vec![1], 0));
        history.format(100);
        let nine = history.join(node(9), 101);
        let eight = history.join(node(8), 102);
        assert_eq!((ports(&history), history.epoch()), (vec![8, 9], 3));
        history.leave(nine, 103);
        history.leave(nine, 104);
        assert_eq!((ports(&history), history.epoch()), (vec![8], 4));
        history.leave(eight, 105);
        assert_eq!((ports(&history), history.epoch()), (vec![], 5));
        let told: Vec<_> = history.epochs.iter().map(|past| (past.epoch, past.time)).collect();
        assert_eq!(told, [(5, 105), (4, 103), (3, 102), (2, 101), (1, 100)]);
        assert_eq!(history.epochs[4].nodes, [node(1)]);
    }

    #[test]
    fn who_comes_back_to_an_address_is_new_there() {
        let mut history = History::new(node(1));
        history.format(100);
        let dead = history.join(node(9), 101);
        let alive = history.join(node(9), 102);
        assert_eq!((ports(&history), history.epoch()), (vec![9], 4));
        history.leave(dead, 103);
        assert_eq!((ports(&history), history.epoch()), (vec![9], 4), "known already");
        history.leave(alive, 104);
        assert_eq!(ports(&history), [] as [u16; 0]);
    }

    #[test]
    fn the_dead_stay_until_the_cluster_may_notice() {
        let mut history = History::new(node(1));
        history.format(100);
        let [seven, eight, _] = [7, 8, 9].map(|port| history.join(node(port), 101));
        history.lingering = Some(Vec::new());
        history.leave(seven, 102);
        history.leave(eight, 102);
        assert_eq!((ports(&history), history.epoch()), (vec![7, 8, 9], 4));
        // Whoever comes back to an address takes the dead one's place there.
        let seven = history.join(node(7), 103);
        assert_eq!((ports(&history), history.epoch()), (vec![7, 8, 9], 6));
        assert_eq!(history.bury(104), 1);
        assert_eq!((ports(&history), history.epoch()), (vec![7, 9], 7));
        history.leave(seven, 105);
        assert_eq!((ports(&history), history.epoch()), (vec![9], 8), "at once again");
    }

    #[test]
    fn only_so_many_epochs_are_remembered_and_none_before_formatting() {
        let mut history = History::new(node(1));
        let first = history.join(node(9), 1);
        assert_eq!((ports(&history), history.epoch()), (vec![9], 0));
        history.format(2);
        assert_eq!(history.epoch(), 1);
        history.leave(first, 3);
        for _ in 0..100 {
            history.join(node(9), 4);
        }
        assert_eq!((history.epochs.len(), history.epoch()), (HISTORY_MAX, 201));
    }
}
