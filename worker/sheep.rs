//! The sheep this worker serves: a few connections to its own sheep, which is called home;
//! connections to nodes that hold objects, made when they are needed; and short ones
//! besides, for one question each.
//!
//! A request that any node may be asked for waits in an inbox until [`Sheep::dispatch`]
//! decides which node it goes to ([`crate::routing`]); all others are home's. A request that
//! was asked for has not left yet: dispatching gives it to a connection. Whoever must say
//! something before it leaves has until then.

mod behind;
mod class;
mod direct;
mod news;
mod peer;
mod side;

use crate::connection::Stalled;
use crate::frame::Reply;
use crate::routing::Router;
pub use behind::BEHIND_MAX;
use behind::Behind;
use class::{Class, class_of};
use peer::Peer;
use sheepfs::ipc::{Arena, LostReason, Span};
use sheepfs::wire::Request;
use side::Side;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Connections to home: one big transfer must not stand before small ones.
pub const CONNECTIONS: usize = 4;
/// Bits of a request's id that count; those above say which worker it is from.
const COUNTER_BITS: u32 = 24;

/// Names a connection in the event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Why there is no session any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Who is gone.
    pub node: SocketAddr,
    /// Why.
    pub reason: LostReason,
}

/// A request that waits for its place.
#[derive(Debug)]
struct Waiting {
    id: u32,
    request: Request,
    span: Option<Span>,
    /// Of the object; 0: only home may be asked.
    copies: u8,
}

/// A request, to be asked once more.
type Again = (Request, Option<Span>);

/// A request without an answer.
#[derive(Debug)]
struct Flight {
    class: Class,
    /// Who has it, if that is not home, nor a connection besides.
    node: Option<SocketAddr>,
    /// What to ask home when that node's answer does not count.
    again: Option<Again>,
}

/// What must not leave now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Changes, wherever they go.
    pub changes: bool,
    /// Everything that goes to home.
    pub home: bool,
}

/// All connections of the worker.
#[derive(Debug)]
pub struct Sheep {
    address: SocketAddr,
    home: Peer,
    direct: BTreeMap<SocketAddr, Peer>,
    /// Whose connection that is, of those of [`Self::direct`].
    owners: HashMap<ConnectionId, SocketAddr>,
    side: HashMap<ConnectionId, Side>,
    /// What any holder may serve, of changes and of reads.
    inbox: [VecDeque<Waiting>; 2],
    flights: HashMap<u32, Flight>,
    router: Router,
    /// Whether home knows what its cluster knows.
    behind: Behind,
    generation: u8,
    next_id: u32,
    next_connection: u64,
}

impl Sheep {
    /// Starts so many connections to `address`, as the worker of that number.
    ///
    /// # Errors
    /// Why that can't even be tried.
    pub fn connect(
        address: SocketAddr,
        connections: usize,
        generation: u64,
        now: Instant,
    ) -> Result<Self, LostReason> {
        let names = (0..connections as u64).map(ConnectionId);
        Ok(Self {
            address,
            home: Peer::connect(address, names, now)?,
            direct: BTreeMap::new(),
            owners: HashMap::new(),
            side: HashMap::new(),
            inbox: [VecDeque::new(), VecDeque::new()],
            flights: HashMap::new(),
            router: Router::new(address, 0, 0),
            behind: Behind::default(),
            generation: generation.to_le_bytes()[0],
            next_id: 1,
            next_connection: connections as u64,
        })
    }

    /// Asks for objects as this one decides, from now on.
    pub fn route_by(&mut self, router: Router) {
        self.router = router;
    }

    /// Queues a request. Its answer goes to the arena when it is a read with a
    /// span, else into memory. Gives the id by which the reply will come. One for a data
    /// object of so many copies may go to any holder; with 0 of them it goes to home.
    pub fn request(&mut self, request: Request, span: Option<Span>, copies: u8) -> u32 {
        let class = class_of(&request);
        let id = self.take_id(class, None);
        let waiting = Waiting { id, request, span, copies };
        match class {
            Class::Change | Class::Read if copies > 0 && waiting.request.is_for_any_node() => {
                self.inbox[class as usize].push_back(waiting);
            }
            _ => self.home.enqueue(class, waiting),
        }
        id
    }

    /// Asks the sheep something for the session itself, which waits for no place.
    pub fn ask(&mut self, request: Request, now: Instant) -> u32 {
        let id = self.take_id(Class::Own, None);
        self.home.ask(id, request, now);
        id
    }

    /// Gives waiting requests to connections, as many as there are places, but for those
    /// that are held.
    pub fn dispatch(&mut self, hold: Hold, now: Instant) {
        self.route(hold.changes, now);
        if !hold.home {
            self.home.dispatch(hold.changes, now);
        }
        for peer in self.direct.values_mut() {
            peer.dispatch(hold.changes, now);
        }
    }

    /// Sends what connections hold, as far as the sockets take it.
    ///
    /// # Errors
    /// Why the sheep is lost. The loss of another node is found when it is read from.
    pub fn flush(&mut self, arena: &Arena, now: Instant) -> Result<(), Loss> {
        for (_, connection) in self.direct.values_mut().flat_map(|peer| &mut peer.connections) {
            let _ = connection.flush(arena, now);
        }
        let mut connections = self.home.connections.iter_mut();
        let sent = connections.try_for_each(|(_, connection)| connection.flush(arena, now));
        sent.map_err(|reason| self.home_lost(reason))
    }

    /// Home is gone.
    pub fn home_lost(&self, reason: LostReason) -> Loss {
        Loss { node: self.address, reason }
    }

    /// Whether nothing that was dispatched to home is without an answer.
    pub fn is_idle(&self) -> bool {
        self.is_quiet() && self.home.is_clear_of(Class::Cluster)
    }

    /// The same of object requests, which a sheep counts.
    pub fn is_quiet(&self) -> bool {
        [Class::Change, Class::Read].iter().all(|class| self.home.is_clear_of(*class))
    }

    /// All requests on the wire to home, with what is known of their progress.
    pub fn stalled(&self) -> Vec<Stalled> {
        self.home.stalled()
    }

    /// The same of a node that is asked directly.
    pub fn stalled_at(&self, node: SocketAddr) -> Vec<Stalled> {
        self.direct.get(&node).map(Peer::stalled).unwrap_or_default()
    }

    /// A connection can be read or written.
    ///
    /// # Errors
    /// Who is lost. The loss of a connection besides is a reply.
    pub fn ready(
        &mut self,
        id: ConnectionId,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Loss> {
        if let Some(node) = self.owners.get(&id).copied() {
            return self.direct_ready(node, id, arena, now, replies);
        }
        let first = replies.len();
        let main = self.home.connections.iter_mut().find(|(name, _)| *name == id);
        let is_home = main.is_some();
        let outcome = match main {
            Some((_, connection)) => {
                connection.flush(arena, now).and_then(|()| connection.receive(arena, now, replies))
            }
            None => {
                self.side_ready(id, arena, now, replies);
                Ok(())
            }
        };
        let mut judged = Ok(());
        for reply in &mut replies[first..] {
            self.settle(reply.id, is_home);
            if is_home {
                let newest = self.router.newest_epoch();
                judged = judged.and(self.behind.judge(reply, newest, now));
            }
            self.router.note_epoch(reply.header.epoch);
        }
        outcome.and(judged).map_err(|reason| self.home_lost(reason))
    }

    /// When [`Self::expire`] or [`Self::arrange`] has something to do.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let side = self.side.values().map(|side| side.until).min();
        side.into_iter().chain(self.router.next_deadline(now)).min()
    }

    /// The connections to be watched, and whether each wants to send.
    pub fn watched(&self) -> impl Iterator<Item = (ConnectionId, BorrowedFd<'_>, bool)> {
        let peers = std::iter::once(&self.home).chain(self.direct.values());
        let lasting = peers.flat_map(|peer| &peer.connections).map(|(id, c)| (*id, c));
        let side = self.side.iter().map(|(id, side)| (*id, &side.connection));
        lasting.chain(side).map(|(id, c)| (id, c.as_fd(), c.wants_to_send()))
    }

    /// A request has its answer: its place is free, if home has given it one.
    fn settle(&mut self, id: u32, is_home: bool) {
        if let Some(flight) = self.flights.remove(&id)
            && is_home
        {
            self.home.settle(flight.class);
        }
    }

    fn take_name(&mut self) -> ConnectionId {
        let name = ConnectionId(self.next_connection);
        self.next_connection += 1;
        name
    }

    /// An id that no outstanding request has; the numbers come round some time.
    /// The upper byte tells a look at the wire which worker's request it is.
    fn take_id(&mut self, class: Class, node: Option<SocketAddr>) -> u32 {
        loop {
            let counter = self.next_id & ((1 << COUNTER_BITS) - 1);
            let id = u32::from(self.generation) << COUNTER_BITS | counter;
            self.next_id = counter + 1;
            if let Entry::Vacant(free) = self.flights.entry(id) {
                free.insert(Flight { class, node, again: None });
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests;
