//! Which node of the cluster a request for a data object goes to, or one that reads an inode
//! for a list: the decisions, pure.
//!
//! Any node serves any object, as a gateway; one that holds a replica serves it without a
//! hop. So a data object of a replicated VDI is asked of one of its holders
//! ([`sheepfs::wire::placement`]), and everything else, and everything for which no holder
//! is ready, of the sheep of the session, which is called home here.
//!
//! ```text
//!  wanted ──> Trying ── it answers ──> Announced ── noted ──> Ready ──> Retiring ──┐
//!    ^          │ no answer, another       │ lost               │ lost     all     │
//!    │          │ cluster, an old epoch    │                    │          answered│
//!    └─ pause ─ Resting <──────────────────┴────────────────────┘                  │
//!    ^                                                                             │
//!    └──────────────────────────── forgotten <─────────────────────────────────────┘
//! ```
//!
//! # Why that is safe
//!
//! - **A wrong guess is only slower.** A node that holds nothing serves as a gateway. An old
//!   ring, a wrong number of copies, a foreign rule of placement change nothing else.
//! - **Orphans are fenced at every node that may have them.** The supervisor writes down a
//!   node ([`sheepfs::ipc::FromWorker::Opened`]) before the first request goes there, and
//!   strikes it off when nothing of ours is outstanding there. When the session ends, however
//!   it does, what was changed and not answered is fenced at home and at all of these, and
//!   each must be quiet before newer changes to the object may go. A node that is watched for
//!   that is not asked directly until it is quiet, so its counter is never kept up by us.
//! - **A change without an answer is never sent again by its worker.** When a node is lost that
//!   has not answered one, the session ends, as if home was lost: whether the change was carried out is
//!   unknown, and the ordinary recovery, with its fence, is the one answer to that.
//! - **A read may be asked again anywhere**: it changes nothing, and is answered once, by the
//!   last answer. So a node that was lost while only reads were outstanding costs no session.
//! - **Home's node list is the only authority on the membership.** Nodes are asked directly
//!   only while the list is of the newest epoch that anybody mentions ([`Epochs`]). What a
//!   node read in another epoch than the list's is read again from home.
//! - **A change that was answered in another epoch than the list's is repeated through home**,
//!   with the same bytes, before it is given out as done: a node that was cut off, or belongs
//!   to another part of a cluster that is in pieces, may be alone with it. The node has
//!   answered, so the first execution is over. The part of which the change is stays under
//!   way all the while, and nothing that overlaps it, nor anything else on an object that is
//!   being created, runs beside it ([`crate::volume`]): so nothing newer was answered that
//!   the second execution could undo, which also makes it good for creates (protocol 8.6).
//!   What was refused changed nothing, and is not repeated here.
//! - **Order.** Nothing here orders requests: what must come after an answer is sent after it,
//!   and an answered write is on all replicas, whichever node is asked next.
//!
//! # Which address
//!
//! Home may be known by another address than the list has ([`crate::alias`]). The listed node
//! that it is counts as home here; where that is not known, nothing is asked directly.
//!
//! A node may have a second address for traffic between nodes. It listens there for the same
//! protocol, but that network is the cluster's own, and a client need not reach it, nor
//! belong there; so clients, the original ones too, use the first address.

mod epochs;
mod known;
mod life;
mod trial;

pub use epochs::Epochs;
pub use trial::{Trial, Unfit};

use known::{Known, Stage};
use sheepfs::ipc::message::AVOIDED_MAX;
use sheepfs::ipc::route::{CONNECTIONS_MIN, DIRECT_MAX};
use sheepfs::ipc::{FromWorker, Route, Routed};
use sheepfs::wire::ObjectId;
use sheepfs::wire::cluster::Node;
use sheepfs::wire::placement::Ring;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// Connections to a node that is asked directly.
pub const CONNECTIONS_EACH: usize = 2;

/// How many may wait for their trial.
const WANTED_MAX: usize = 32;

/// What is to be done with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Connect, and ask on each connection.
    Try(SocketAddr),
    /// Close its connections: nothing is outstanding.
    Close(SocketAddr),
    /// The trial took too long.
    GiveUp(SocketAddr),
}

/// All that is known of whom to ask.
#[derive(Debug)]
pub struct Router {
    /// Home, as it is asked.
    home: SocketAddr,
    /// Home, as the cluster lists it.
    listed: Option<SocketAddr>,
    /// Whether the log says that the list lacks home.
    said_unlisted: bool,
    /// When the cluster was formatted.
    ctime: u64,
    route: Route,
    nodes_max: usize,
    ring: Ring,
    /// The nodes of the ring.
    addresses: Vec<SocketAddr>,
    known: HashMap<SocketAddr, Known>,
    wanted: VecDeque<SocketAddr>,
    /// Nodes to be kept away from, with the addresses under which they are listed.
    watched: BTreeMap<SocketAddr, SocketAddr>,
    /// Nodes that have ended sessions lately: not to be tried before that time.
    avoided: HashMap<SocketAddr, Instant>,
    epochs: Epochs,
    last_opening: u64,
    words: Vec<FromWorker>,
    sweep_at: Option<Instant>,
    /// Whether [`Self::acts`] has something to do at once.
    is_urgent: bool,
    counted: Routed,
}

impl Router {
    /// Nothing but home is known, of a cluster that was formatted then, in that epoch.
    pub fn new(home: SocketAddr, ctime: u64, epoch: u32) -> Self {
        Self {
            home,
            listed: None,
            said_unlisted: false,
            ctime,
            route: Route::Gateway,
            nodes_max: 0,
            ring: Ring::default(),
            addresses: Vec::new(),
            known: HashMap::new(),
            wanted: VecDeque::new(),
            watched: BTreeMap::new(),
            avoided: HashMap::new(),
            epochs: Epochs::new(epoch),
            last_opening: 0,
            words: Vec::new(),
            sweep_at: None,
            is_urgent: false,
            counted: Routed::default(),
        }
    }

    /// Asks in that way, over so many connections in all, and none of `watched`.
    #[must_use]
    pub fn with(
        self,
        route: Route,
        connections_max: u32,
        watched: impl IntoIterator<Item = SocketAddr>,
    ) -> Self {
        let left = connections_max.saturating_sub(CONNECTIONS_MIN) as usize;
        let nodes_max = (left / CONNECTIONS_EACH).min(DIRECT_MAX as usize);
        let watched = watched.into_iter().map(|node| (node, node)).collect();
        Self { route, nodes_max, watched, ..self }
    }

    /// Asks none of those directly for so many milliseconds, whatever the cluster says: a
    /// node that passes its trial, and then ends a session, would end each one.
    #[must_use]
    pub fn avoiding(self, avoid: &[(SocketAddr, u32)], now: Instant) -> Self {
        let until = |ms: u32| now + Duration::from_millis(ms.into());
        let avoided = avoid.iter().take(AVOIDED_MAX).map(|(node, ms)| (*node, until(*ms)));
        Self { avoided: avoided.collect(), ..self }
    }

    /// Asks in another way from now on.
    pub fn set_route(&mut self, route: Route) {
        self.route = route;
        match route {
            Route::Gateway => self.retire(|_| true),
            Route::Replica => self.say_unlisted(),
        }
    }

    /// A watched node is listed under another address.
    pub fn watched_as(&mut self, node: SocketAddr, listed: SocketAddr) {
        if let Some(known) = self.watched.get_mut(&node)
            && std::mem::replace(known, listed) != listed
        {
            self.retire(|other| other == listed);
        }
    }

    /// Nothing of earlier workers runs on that node any more.
    pub fn quiet(&mut self, node: SocketAddr) {
        self.watched.remove(&node);
    }

    /// No node is watched any more.
    pub fn all_quiet(&mut self) {
        self.watched.clear();
    }

    /// Takes the cluster's nodes, one of which is home, if it is listed. `None`: where they
    /// keep objects can't be computed.
    pub fn learn(
        &mut self,
        epoch: u32,
        nodes: Option<&[Node]>,
        home: Option<SocketAddr>,
        now: Instant,
    ) {
        let is_news = epoch != self.epochs.of_list();
        self.epochs.listed(epoch);
        self.listed = home;
        self.ring = match nodes.map(Ring::new) {
            Some(Ok(ring)) => ring,
            Some(Err(error)) => {
                warn!("objects are not asked for directly: {error}");
                Ring::default()
            }
            None => Ring::default(),
        };
        self.addresses.clear();
        self.addresses.extend(nodes.into_iter().flatten().map(|node| node.id.socket_addr()));
        let members: BTreeSet<SocketAddr> = self.addresses.iter().copied().collect();
        self.retire(|node| !members.contains(&node) || home.is_none_or(|home| home == node));
        if nodes.is_some() {
            // Whoever comes back under that address is another process.
            self.avoided.retain(|node, _| members.contains(node));
        }
        self.say_unlisted();
        self.known.retain(|node, known| members.contains(node) || known.is_open());
        if is_news {
            for known in self.known.values_mut() {
                known.try_soon(now);
            }
        }
    }

    /// Says once that all goes through home, and what to do about it.
    fn say_unlisted(&mut self) {
        let is_lost = self.listed.is_none() && self.addresses.len() > 1;
        if is_lost && self.route == Route::Replica && !self.said_unlisted {
            self.said_unlisted = true;
            warn!(
                sheep = %self.home,
                "the cluster's node list does not have the address of the sheep in use, so no \
                 other node is asked directly, which is slower; give an address as node/list \
                 has it"
            );
        }
    }

    /// Which node to send a request for a data object of so many copies to; `None` is
    /// home, which has `home_load` requests.
    pub fn choose(
        &mut self,
        oid: ObjectId,
        copies: u8,
        home_load: usize,
        now: Instant,
    ) -> Option<SocketAddr> {
        let mut best: Option<(usize, Option<SocketAddr>)> = None;
        let is_sure = self.listed.is_some() && self.epochs.is_settled();
        if self.route == Route::Replica && is_sure && !self.ring.is_empty() {
            let holders = self.ring.holders(oid, copies);
            for holder in holders.as_slice() {
                let Some(node) = self.addresses.get(usize::from(*holder)).copied() else {
                    continue;
                };
                let offer = if self.listed == Some(node) {
                    Some((home_load, None))
                } else {
                    self.offer(node, now).map(|load| (load, Some(node)))
                };
                best = match (best, offer) {
                    (Some(best), Some(offer)) if offer.0 >= best.0 => Some(best),
                    (best, offer) => offer.or(best),
                };
            }
        }
        let chosen = best.and_then(|(_, node)| node);
        match chosen.and_then(|node| self.known.get_mut(&node)) {
            Some(known) => {
                known.load += 1;
                known.used = now;
                self.counted.direct += 1;
            }
            None => self.counted.gateway += 1,
        }
        chosen
    }

    /// The load of a node that can be asked. One that can't be is wanted.
    fn offer(&mut self, node: SocketAddr, now: Instant) -> Option<usize> {
        match self.known.get(&node) {
            Some(Known { stage: Stage::Ready, load, .. }) => return Some(*load),
            Some(Known { stage: Stage::Resting(until), .. }) if *until <= now => {}
            None => {}
            Some(_) => return None,
        }
        let is_barred = self.watched.values().any(|watched| *watched == node)
            || self.avoided.get(&node).is_some_and(|until| now < *until);
        let may = self.nodes_max > 0 && !is_barred && can_be_reached(node);
        if may && self.wanted.len() < WANTED_MAX && !self.wanted.contains(&node) {
            self.wanted.push_back(node);
            self.is_urgent = true;
        }
        None
    }

    /// A request that was sent there, or waited there, is over or goes elsewhere.
    pub fn done(&mut self, node: SocketAddr) {
        if let Some(known) = self.known.get_mut(&node) {
            known.load = known.load.saturating_sub(1);
            self.is_urgent |= known.load == 0 && known.stage == Stage::Retiring;
        }
    }

    /// A request is asked again of home.
    pub fn asked_again(&mut self) {
        self.counted.again += 1;
    }

    /// An answer mentions an epoch; refusals may mention none. Whether home's list confirms
    /// it. Nothing new goes to a node with an older one.
    pub fn heard(&mut self, node: SocketAddr, epoch: u32, now: Instant) -> bool {
        self.epochs.node_says(node, epoch, now);
        let home = self.epochs.of_home();
        if epoch < home {
            if epoch != 0 && self.known.get(&node).is_some_and(|known| known.stage == Stage::Ready)
            {
                debug!(sheep = %node, epoch, home, "that node is behind its cluster");
            }
            self.retire(|other| other == node);
        }
        self.epochs.is_settled() && epoch == self.epochs.of_list()
    }

    /// Home mentions an epoch.
    pub fn note_epoch(&mut self, epoch: u32) {
        self.epochs.home_says(epoch);
    }

    /// The newest epoch that anybody mentions.
    pub fn newest_epoch(&self) -> u32 {
        self.epochs.newest()
    }

    /// What the supervisor is to be told.
    pub fn take_words(&mut self) -> Vec<FromWorker> {
        std::mem::take(&mut self.words)
    }

    /// When [`Self::acts`] has something to do.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.is_urgent {
            return Some(now);
        }
        self.sweep_at.into_iter().chain(self.epochs.overdue_at()).min()
    }

    /// How requests were sent.
    pub fn counted(&self) -> Routed {
        let ready = self.known.values().filter(|known| known.stage == Stage::Ready).count();
        Routed { nodes: u32::try_from(ready).unwrap_or(u32::MAX), ..self.counted }
    }
}

/// An address that leads nowhere, or to ourselves.
fn can_be_reached(node: SocketAddr) -> bool {
    node.port() != 0 && !node.ip().is_unspecified() && !node.ip().is_multicast()
}

#[cfg(test)]
mod tests;
