//! The sheep this worker serves: a few connections, requests spread over them,
//! and short connections besides: to other nodes, and fresh ones to this one.
//!
//! How many requests may be outstanding is bounded here (hazard 49): a sheep has
//! 32 threads for all its clients, and a write to a frozen peer keeps one of them
//! until the peer is back. Writes get fewer places than reads, so that reads and
//! look-ups go on. What finds no place waits here, in order.
//!
//! A request that was asked for has not left yet: [`Sheep::dispatch`] gives it to
//! a connection. Whoever must say something before it leaves has until then.

use crate::connection::{Connection, Stalled, lost};
use crate::frame::{Destination, Expected, Frame, Reply};
use sheepfs::ipc::{Arena, LostReason, Span};
use sheepfs::wire::{Opcode, Request};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Connections to the sheep: one big transfer must not stand before small ones.
pub const CONNECTIONS: usize = 4;
/// Changes outstanding at most; a sheep on a small machine has 32 threads.
const CHANGES_MAX: usize = 24;
/// Requests outstanding at most that change nothing.
const READS_MAX: usize = 64;
/// Bits of a request's id that count; those above say which worker it is from.
const COUNTER_BITS: u32 = 24;

/// Names a connection in the event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A request that waits for its place.
#[derive(Debug)]
struct Waiting {
    id: u32,
    request: Request,
    span: Option<Span>,
}

/// What a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Change,
    Read,
    /// An operation of the whole cluster: it may wait for others' for long
    /// (hazard 50), and a sheep does not count it among its object requests.
    Cluster,
    /// Against nothing: the session's own few questions.
    Own,
}

/// A connection for one question.
#[derive(Debug)]
struct Side {
    connection: Connection,
    until: Instant,
}

/// All connections of the worker.
#[derive(Debug)]
pub struct Sheep {
    main: Vec<(ConnectionId, Connection)>,
    side: HashMap<ConnectionId, Side>,
    waiting: [VecDeque<Waiting>; 3],
    outstanding: [usize; 4],
    class_of: HashMap<u32, Class>,
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
        let mut main = Vec::with_capacity(connections);
        for number in 0..connections {
            let connection = Connection::start(address, now).map_err(|error| lost(&error))?;
            main.push((ConnectionId(number as u64), connection));
        }
        Ok(Self {
            main,
            side: HashMap::new(),
            waiting: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            outstanding: [0; 4],
            class_of: HashMap::new(),
            generation: generation.to_le_bytes()[0],
            next_id: 1,
            next_connection: connections as u64,
        })
    }

    /// Queues a request. Its answer goes to the arena when it is a read with a
    /// span, else into memory. Gives the id by which the reply will come.
    pub fn request(&mut self, request: Request, span: Option<Span>) -> u32 {
        let class = class_of(&request);
        let id = self.take_id(class);
        self.waiting[class as usize].push_back(Waiting { id, request, span });
        id
    }

    /// Asks the sheep something for the session itself, which waits for no place.
    pub fn ask(&mut self, request: Request, now: Instant) -> u32 {
        let id = self.take_id(Class::Own);
        self.outstanding[Class::Own as usize] += 1;
        self.hand_over(Waiting { id, request, span: None }, now);
        id
    }

    /// Asks a node something, over a connection of its own.
    ///
    /// # Errors
    /// Why that can't even be tried.
    pub fn ask_node(
        &mut self,
        node: SocketAddr,
        request: Request,
        until: Instant,
        now: Instant,
    ) -> Result<u32, LostReason> {
        let mut connection = Connection::start(node, now).map_err(|error| lost(&error))?;
        let id = self.take_id(Class::Own);
        self.outstanding[Class::Own as usize] += 1;
        push(&mut connection, id, request, None, now);
        let name = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.side.insert(name, Side { connection, until });
        Ok(id)
    }

    /// Gives waiting requests to connections, as many as there are places; none that
    /// change something if these are held.
    pub fn dispatch(&mut self, hold_changes: bool, now: Instant) {
        for class in [Class::Read, Class::Change, Class::Cluster] {
            if class == Class::Change && hold_changes {
                continue;
            }
            while self.outstanding[class as usize] < limit(class)
                && let Some(waiting) = self.waiting[class as usize].pop_front()
            {
                self.outstanding[class as usize] += 1;
                self.hand_over(waiting, now);
            }
        }
    }

    /// Sends what connections hold, as far as the sockets take it.
    ///
    /// # Errors
    /// Why the sheep is lost.
    pub fn flush(&mut self, arena: &Arena, now: Instant) -> Result<(), LostReason> {
        self.main.iter_mut().try_for_each(|(_, connection)| connection.flush(arena, now))
    }

    /// Whether nothing that was dispatched is without an answer.
    pub fn is_idle(&self) -> bool {
        self.is_quiet() && self.outstanding[Class::Cluster as usize] == 0
    }

    /// The same of object requests, which a sheep counts.
    pub fn is_quiet(&self) -> bool {
        [Class::Change, Class::Read].iter().all(|class| self.outstanding[*class as usize] == 0)
    }

    /// All requests on the wire to this sheep, with what is known of their progress.
    pub fn stalled(&self) -> Vec<Stalled> {
        self.main.iter().flat_map(|(_, connection)| connection.stalled()).collect()
    }

    /// A connection can be read or written.
    ///
    /// # Errors
    /// Why the sheep is lost. The loss of a connection besides is a reply.
    pub fn ready(
        &mut self,
        id: ConnectionId,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), LostReason> {
        let first = replies.len();
        let main = self.main.iter_mut().find(|(name, _)| *name == id);
        let outcome = match main {
            Some((_, connection)) => {
                connection.flush(arena, now).and_then(|()| connection.receive(arena, now, replies))
            }
            None => {
                self.side_ready(id, arena, now, replies);
                Ok(())
            }
        };
        for reply in &replies[first..] {
            self.settle(reply.id);
        }
        outcome
    }

    fn side_ready(
        &mut self,
        id: ConnectionId,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) {
        let Some(Side { connection, .. }) = self.side.get_mut(&id) else { return };
        let first = replies.len();
        let outcome =
            connection.flush(arena, now).and_then(|()| connection.receive(arena, now, replies));
        for reply in &mut replies[first..] {
            // What epoch another node believes in says nothing of this one's.
            reply.header.epoch = 0;
        }
        match outcome {
            Ok(()) if replies.len() == first => {}
            Ok(()) => drop(self.side.remove(&id)),
            Err(why) => self.end_side(id, why, replies),
        }
    }

    /// Gives up on nodes that take too long.
    pub fn expire(&mut self, now: Instant, replies: &mut Vec<Reply>) {
        let late = self.side.iter().filter(|(_, side)| side.until <= now);
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        let first = replies.len();
        for id in late {
            self.end_side(id, LostReason::Unreachable, replies);
        }
        for reply in &replies[first..] {
            self.settle(reply.id);
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.side.values().map(|side| side.until).min()
    }

    /// The connections to be watched, and whether each wants to send.
    pub fn watched(&self) -> impl Iterator<Item = (ConnectionId, BorrowedFd<'_>, bool)> {
        let main = self.main.iter().map(|(id, c)| (*id, c));
        let side = self.side.iter().map(|(id, side)| (*id, &side.connection));
        main.chain(side).map(|(id, c)| (id, c.as_fd(), c.wants_to_send()))
    }

    fn end_side(&mut self, id: ConnectionId, why: LostReason, replies: &mut Vec<Reply>) {
        if let Some(Side { connection, .. }) = self.side.remove(&id) {
            let unanswered = connection.unanswered().into_iter();
            replies.extend(unanswered.map(|id| Reply::unreachable(id, why)));
        }
    }

    /// A request has its answer: its place is free.
    fn settle(&mut self, id: u32) {
        if let Some(class) = self.class_of.remove(&id) {
            self.outstanding[class as usize] -= 1;
        }
    }

    /// Hands a request to the connection with the least before it.
    fn hand_over(&mut self, waiting: Waiting, now: Instant) {
        let least = self.main.iter_mut().min_by_key(|(_, connection)| connection.load());
        if let Some((_, connection)) = least {
            push(connection, waiting.id, waiting.request, waiting.span, now);
        }
    }

    /// An id that no outstanding request has; the numbers come round some time.
    /// The upper byte tells a look at the wire which worker's request it is.
    fn take_id(&mut self, class: Class) -> u32 {
        loop {
            let counter = self.next_id & ((1 << COUNTER_BITS) - 1);
            let id = u32::from(self.generation) << COUNTER_BITS | counter;
            self.next_id = counter + 1;
            if let Entry::Vacant(free) = self.class_of.entry(id) {
                free.insert(class);
                return id;
            }
        }
    }
}

fn push(connection: &mut Connection, id: u32, request: Request, span: Option<Span>, now: Instant) {
    let Some(opcode) = request.opcode() else { return };
    let destination = match span {
        Some(span) if opcode == Opcode::ReadObj => Destination::Arena(span),
        Some(_) | None => Destination::Memory { len_max: request.reply_len_max() },
    };
    connection.push(Frame::new(request, id, span), Expected { opcode, destination }, now);
}

fn class_of(request: &Request) -> Class {
    match request.opcode() {
        Some(Opcode::WriteObj | Opcode::CreateAndWriteObj | Opcode::DiscardObj) => Class::Change,
        Some(
            Opcode::NewVdi
            | Opcode::LockVdi
            | Opcode::ReleaseVdi
            | Opcode::GetVdiInfo
            | Opcode::DelVdi,
        ) => Class::Cluster,
        _ => Class::Read,
    }
}

fn limit(class: Class) -> usize {
    match class {
        Class::Change => CHANGES_MAX,
        Class::Read | Class::Cluster => READS_MAX,
        Class::Own => usize::MAX,
    }
}

#[cfg(test)]
mod tests;
