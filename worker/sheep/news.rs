//! What the session hears and says of nodes that are asked directly: news of the cluster for
//! the router, and the router's words for the supervisor. Nothing here asks anything.

use super::Sheep;
use sheepfs::ipc::{FromWorker, Route, Routed};
use sheepfs::wire::cluster::Node;
use std::net::SocketAddr;
use std::time::Instant;

impl Sheep {
    /// Takes the cluster's nodes, and which one home is; `None`: objects are placed in a way
    /// that is not known.
    pub fn learn(
        &mut self,
        epoch: u32,
        nodes: Option<&[Node]>,
        home: Option<SocketAddr>,
        now: Instant,
    ) {
        self.router.learn(epoch, nodes, home, now);
    }

    /// A watched node is listed under another address.
    pub fn watched_as(&mut self, node: SocketAddr, listed: SocketAddr) {
        self.router.watched_as(node, listed);
    }

    /// Asks in another way from now on.
    pub fn set_route(&mut self, route: Route) {
        self.router.set_route(route);
    }

    /// The supervisor has noted what was said under that number.
    pub fn may_use(&mut self, opening: u64, now: Instant) {
        self.router.may_use(opening, now);
    }

    /// Nothing of earlier workers runs on that node any more; `None`: on any.
    pub fn note_quiet(&mut self, node: Option<SocketAddr>) {
        match node {
            Some(node) => self.router.quiet(node),
            None => self.router.all_quiet(),
        }
    }

    /// The newest epoch that anybody mentions.
    pub fn newest_epoch(&self) -> u32 {
        self.router.newest_epoch()
    }

    /// What the supervisor is to be told.
    pub fn take_words(&mut self) -> Vec<FromWorker> {
        self.router.take_words()
    }

    /// How requests were sent.
    pub fn routed(&self) -> Routed {
        self.router.counted()
    }
}
