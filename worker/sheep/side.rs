//! Connections besides: each is made for one question to one node, and ends with its answer,
//! or when the answer takes too long. Whoever asked gets a reply in any case: one that says
//! why there is none ([`Reply::unreachable`]).

use super::peer::push;
use super::{Class, ConnectionId, Sheep};
use crate::connection::{Connection, lost};
use crate::frame::Reply;
use sheepfs::ipc::{Arena, LostReason};
use sheepfs::wire::Request;
use std::net::SocketAddr;
use std::time::Instant;

/// A connection for one question.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) connection: Connection,
    /// When it has taken too long.
    pub(super) until: Instant,
}

impl Sheep {
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
        let id = self.take_id(Class::Own, None);
        push(&mut connection, id, request, None, now);
        let name = self.take_name();
        self.side.insert(name, Side { connection, until });
        Ok(id)
    }

    /// A connection besides can be read or written.
    pub(super) fn side_ready(
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

    /// Gives up on questions that take too long.
    pub fn expire(&mut self, now: Instant, replies: &mut Vec<Reply>) {
        let late = self.side.iter().filter(|(_, side)| side.until <= now);
        let late: Vec<_> = late.map(|(id, _)| *id).collect();
        let first = replies.len();
        for id in late {
            self.end_side(id, LostReason::Unreachable, replies);
        }
        for reply in &replies[first..] {
            self.settle(reply.id, false);
        }
    }

    fn end_side(&mut self, id: ConnectionId, why: LostReason, replies: &mut Vec<Reply>) {
        if let Some(Side { connection, .. }) = self.side.remove(&id) {
            let unanswered = connection.unanswered().into_iter();
            replies.extend(unanswered.map(|id| Reply::unreachable(id, why)));
        }
    }
}
