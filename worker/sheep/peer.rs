//! One sheep with its connections, the requests that it has, and those that wait for
//! a place there.
//!
//! How many may be outstanding is bounded for each sheep (hazard 49): it has 32 threads
//! for all its clients, and a write to a frozen peer keeps one of them until the peer is
//! back. Writes get fewer places than reads, so that reads and look-ups go on.

use super::{Class, ConnectionId, Waiting};
use crate::connection::{Connection, Stalled, lost};
use crate::frame::{Destination, Expected, Frame};
use sheepfs::ipc::{LostReason, Span};
use sheepfs::wire::{Opcode, Request};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

/// Changes outstanding at most; a sheep on a small machine has 32 threads.
pub const CHANGES_MAX: usize = 24;
/// Requests outstanding at most that change nothing.
pub const READS_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Peer {
    pub connections: Vec<(ConnectionId, Connection)>,
    waiting: [VecDeque<Waiting>; 3],
    outstanding: [usize; 4],
}

impl Peer {
    /// Starts connections of those names.
    ///
    /// # Errors
    /// Why that can't even be tried.
    pub fn connect(
        address: SocketAddr,
        names: impl IntoIterator<Item = ConnectionId>,
        now: Instant,
    ) -> Result<Self, LostReason> {
        let start = |name| Ok((name, Connection::start(address, now).map_err(|e| lost(&e))?));
        let connections = names.into_iter().map(start).collect::<Result<_, _>>()?;
        let waiting = [VecDeque::new(), VecDeque::new(), VecDeque::new()];
        Ok(Self { connections, waiting, outstanding: [0; 4] })
    }

    /// Lets a request wait for its place.
    pub fn enqueue(&mut self, class: Class, waiting: Waiting) {
        self.waiting[class as usize].push_back(waiting);
    }

    /// Asks the session's own question at once, on the connection with the least before it.
    pub fn ask(&mut self, id: u32, request: Request, now: Instant) {
        self.outstanding[Class::Own as usize] += 1;
        self.hand_over(Waiting { id, request, span: None, copies: 0 }, now);
    }

    /// Asks it on that connection.
    pub fn ask_on(&mut self, place: usize, id: u32, request: Request, now: Instant) {
        if let Some((_, connection)) = self.connections.get_mut(place) {
            self.outstanding[Class::Own as usize] += 1;
            push(connection, id, request, None, now);
        }
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

    /// Hands a request to the connection with the least before it.
    fn hand_over(&mut self, waiting: Waiting, now: Instant) {
        let least = self.connections.iter_mut().min_by_key(|(_, connection)| connection.load());
        if let Some((_, connection)) = least {
            push(connection, waiting.id, waiting.request, waiting.span, now);
        }
    }

    /// A request has its answer: its place is free.
    pub fn settle(&mut self, class: Class) {
        self.outstanding[class as usize] -= 1;
    }

    /// Whether nothing of that class is without an answer.
    pub fn is_clear_of(&self, class: Class) -> bool {
        self.outstanding[class as usize] == 0
    }

    /// Object requests that it has, or that wait.
    pub fn load(&self) -> usize {
        let of =
            |class: Class| self.outstanding[class as usize] + self.waiting[class as usize].len();
        of(Class::Change) + of(Class::Read)
    }

    /// All requests on the wire, with what is known of their progress.
    pub fn stalled(&self) -> Vec<Stalled> {
        self.connections.iter().flat_map(|(_, connection)| connection.stalled()).collect()
    }

    /// The ids of all requests without an answer.
    pub fn unanswered(&self) -> Vec<u32> {
        self.connections.iter().flat_map(|(_, connection)| connection.unanswered()).collect()
    }

    /// What waits for a place, in order, those that change nothing first.
    pub fn into_waiting(self) -> impl Iterator<Item = (Class, Waiting)> {
        let [changes, reads, _] = self.waiting;
        let reads = reads.into_iter().map(|waiting| (Class::Read, waiting));
        reads.chain(changes.into_iter().map(|waiting| (Class::Change, waiting)))
    }
}

/// Gives a request to a connection.
pub fn push(
    connection: &mut Connection,
    id: u32,
    request: Request,
    span: Option<Span>,
    now: Instant,
) {
    let Some(opcode) = request.opcode() else { return };
    let destination = match span {
        Some(span) if opcode == Opcode::ReadObj => Destination::Arena(span),
        Some(_) | None => Destination::Memory { len_max: request.reply_len_max() },
    };
    connection.push(Frame::new(request, id, span), Expected { opcode, destination }, now);
}

fn limit(class: Class) -> usize {
    match class {
        Class::Change => CHANGES_MAX,
        Class::Read | Class::Cluster => READS_MAX,
        Class::Own => usize::MAX,
    }
}
