//! The sheep this worker serves: a few connections, requests spread over them,
//! and, for the space of other nodes, short connections besides.
//!
//! How many requests may be outstanding is bounded here (hazard 49): a sheep has
//! 32 threads for all its clients, and a write to a frozen peer keeps one of them
//! until the peer is back. Writes get fewer places than reads, so that reads and
//! look-ups go on. What finds no place waits here, in order.

use crate::connection::Connection;
use crate::frame::{Destination, Expected, Frame, Reply};
use sheepfs::ipc::{Arena, LostReason, Span};
use sheepfs::wire::{Opcode, Request};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Connections to the sheep: one big transfer must not stand before small ones.
pub const CONNECTIONS: usize = 4;
/// Changes outstanding at most; a sheep on a small machine has 32 threads.
const CHANGES_MAX: usize = 24;
/// Requests outstanding at most that change nothing.
const READS_MAX: usize = 64;
/// How long another node may take to say how much space it has.
const NODE_ANSWER_MAX: Duration = Duration::from_secs(2);

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
}

/// All connections of the worker.
#[derive(Debug)]
pub struct Sheep {
    main: Vec<(ConnectionId, Connection)>,
    side: HashMap<ConnectionId, (Connection, Instant)>,
    waiting: [VecDeque<Waiting>; 2],
    outstanding: [usize; 2],
    class_of: HashMap<u32, Class>,
    next_id: u32,
    next_connection: u64,
}

impl Sheep {
    /// Starts to connect to `address`.
    ///
    /// # Errors
    /// The system's, when it refuses at once.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut main = Vec::with_capacity(CONNECTIONS);
        for number in 0..CONNECTIONS {
            main.push((ConnectionId(number as u64), Connection::start(address)?));
        }
        Ok(Self {
            main,
            side: HashMap::new(),
            waiting: [VecDeque::new(), VecDeque::new()],
            outstanding: [0; 2],
            class_of: HashMap::new(),
            next_id: 1,
            next_connection: CONNECTIONS as u64,
        })
    }

    /// Queues a request. Its answer goes to the arena when it is a read with a
    /// span, else into memory. Gives the id by which the reply will come.
    pub fn request(&mut self, request: Request, span: Option<Span>) -> u32 {
        let id = self.take_id();
        let class = class_of(&request);
        self.class_of.insert(id, class);
        self.waiting[class as usize].push_back(Waiting { id, request, span });
        id
    }

    /// Asks another node something, over a connection of its own.
    ///
    /// # Errors
    /// The system's, when it refuses at once.
    pub fn ask_node(
        &mut self,
        node: SocketAddr,
        request: Request,
        now: Instant,
    ) -> io::Result<u32> {
        let mut connection = Connection::start(node)?;
        let id = self.take_id();
        push(&mut connection, id, request, None);
        let name = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.side.insert(name, (connection, now + NODE_ANSWER_MAX));
        Ok(id)
    }

    /// Moves waiting requests to connections and sends what can be sent.
    ///
    /// # Errors
    /// Why the sheep is lost.
    pub fn flush(&mut self, arena: &Arena) -> Result<(), LostReason> {
        for class in [Class::Read, Class::Change] {
            while self.outstanding[class as usize] < limit(class)
                && let Some(waiting) = self.waiting[class as usize].pop_front()
            {
                self.outstanding[class as usize] += 1;
                self.dispatch(waiting);
            }
        }
        self.main.iter_mut().try_for_each(|(_, connection)| connection.flush(arena))
    }

    /// A connection can be read or written.
    ///
    /// # Errors
    /// Why the sheep is lost. The loss of another node's connection is a reply.
    pub fn ready(
        &mut self,
        id: ConnectionId,
        arena: &Arena,
        replies: &mut Vec<Reply>,
    ) -> Result<(), LostReason> {
        if let Some((_, connection)) = self.main.iter_mut().find(|(name, _)| *name == id) {
            let first = replies.len();
            let outcome = connection.flush(arena).and_then(|()| connection.receive(arena, replies));
            for reply in &replies[first..] {
                self.settle(reply.id);
            }
            return outcome;
        }
        self.side_ready(id, arena, replies);
        Ok(())
    }

    fn side_ready(&mut self, id: ConnectionId, arena: &Arena, replies: &mut Vec<Reply>) {
        let Some((connection, _)) = self.side.get_mut(&id) else { return };
        let before = replies.len();
        let outcome = connection.flush(arena).and_then(|()| connection.receive(arena, replies));
        if outcome.is_err() || replies.len() > before {
            self.end_side(id, replies);
        }
    }

    /// Gives up on nodes that take too long.
    pub fn expire(&mut self, now: Instant, replies: &mut Vec<Reply>) {
        let late: Vec<_> =
            self.side.iter().filter(|(_, (_, until))| *until <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.end_side(id, replies);
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.side.values().map(|(_, until)| *until).min()
    }

    /// The connections to be watched, and whether each wants to send.
    pub fn watched(&self) -> impl Iterator<Item = (ConnectionId, BorrowedFd<'_>, bool)> {
        let main = self.main.iter().map(|(id, c)| (*id, c.as_fd(), c.wants_to_send()));
        let side = self.side.iter().map(|(id, (c, _))| (*id, c.as_fd(), c.wants_to_send()));
        main.chain(side)
    }

    fn end_side(&mut self, id: ConnectionId, replies: &mut Vec<Reply>) {
        if let Some((connection, _)) = self.side.remove(&id) {
            replies.extend(connection.unanswered().into_iter().map(Reply::unreachable));
        }
    }

    /// A request has its answer: its place is free.
    fn settle(&mut self, id: u32) {
        if let Some(class) = self.class_of.remove(&id) {
            self.outstanding[class as usize] -= 1;
        }
    }

    /// Hands a request to the connection with the least before it.
    fn dispatch(&mut self, waiting: Waiting) {
        let least = self.main.iter_mut().min_by_key(|(_, connection)| connection.load());
        if let Some((_, connection)) = least {
            push(connection, waiting.id, waiting.request, waiting.span);
        }
    }

    /// An id that no outstanding request has; the numbers come round some time.
    fn take_id(&mut self) -> u32 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            if !self.class_of.contains_key(&id) {
                return id;
            }
        }
    }
}

fn push(connection: &mut Connection, id: u32, request: Request, span: Option<Span>) {
    let Some(opcode) = request.opcode() else { return };
    let destination = match span {
        Some(span) if opcode == Opcode::ReadObj => Destination::Arena(span),
        Some(_) | None => Destination::Memory { len_max: request.reply_len_max() },
    };
    connection.push(Frame::new(request, id, span), Expected { opcode, destination });
}

fn class_of(request: &Request) -> Class {
    match request.opcode() {
        Some(Opcode::WriteObj | Opcode::CreateAndWriteObj | Opcode::DiscardObj) => Class::Change,
        _ => Class::Read,
    }
}

fn limit(class: Class) -> usize {
    match class {
        Class::Change => CHANGES_MAX,
        Class::Read => READS_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_id_that_is_outstanding_is_not_given_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sheep = Sheep::connect(listener.local_addr().unwrap()).unwrap();
        sheep.next_id = u32::MAX;
        let ids: Vec<u32> =
            (0..3).map(|_| sheep.request(Request::get_cluster_default(), None)).collect();
        assert_eq!(ids, [u32::MAX, 0, 1]);
        sheep.next_id = u32::MAX;
        assert_eq!(sheep.request(Request::get_cluster_default(), None), 2);
    }
}
