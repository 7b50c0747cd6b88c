//! Nodes that are asked directly: how connections are made, judged and given up, as
//! [`crate::routing`] decides.

use super::peer::Peer;
use super::{Class, ConnectionId, Flight, Loss, Sheep, Waiting};
use crate::facts;
use crate::frame::Reply;
use crate::routing::{Act, CONNECTIONS_EACH, Trial, Unfit};
use crate::verdict::{Verdict, on_object};
use sheepfs::ipc::{Arena, LostReason};
use sheepfs::wire::Status;
use std::net::SocketAddr;
use std::time::Instant;

impl Sheep {
    /// Does what the router wants done.
    pub fn arrange(&mut self, now: Instant) {
        for act in self.router.acts(now) {
            match act {
                Act::Try(node) => self.try_node(node, now),
                Act::Close(node) => self.drop_node(node),
                Act::GiveUp(node) => {
                    self.drop_node(node);
                    self.router.failed(node, Unfit::Lost(LostReason::Unreachable), now);
                }
            }
        }
    }

    /// Connects to a node, and asks it who it is, on each connection.
    fn try_node(&mut self, node: SocketAddr, now: Instant) {
        let names: Vec<_> = (0..CONNECTIONS_EACH).map(|_| self.take_name()).collect();
        match Peer::connect(node, names.iter().copied(), now) {
            Err(why) => self.router.failed(node, Unfit::Lost(why), now),
            Ok(mut peer) => {
                for place in 0..names.len() {
                    let id = self.take_id(Class::Own, Some(node));
                    peer.ask_on(place, id, facts::question(), now);
                }
                self.owners.extend(names.into_iter().map(|name| (name, node)));
                self.direct.insert(node, peer);
            }
        }
    }

    /// Closes a node's connections, on which nothing is outstanding but a trial.
    fn drop_node(&mut self, node: SocketAddr) {
        if let Some(peer) = self.direct.remove(&node) {
            self.owners.retain(|_, owner| *owner != node);
            for id in peer.unanswered() {
                self.flights.remove(&id);
            }
        }
    }

    /// Decides where the requests go that any holder may serve.
    pub(super) fn route(&mut self, hold_changes: bool, now: Instant) {
        for class in [Class::Read, Class::Change] {
            if class == Class::Change && hold_changes {
                continue;
            }
            while let Some(waiting) = self.inbox[class as usize].pop_front() {
                self.route_one(class, waiting, now);
            }
        }
    }

    fn route_one(&mut self, class: Class, waiting: Waiting, now: Instant) {
        let Waiting { id, copies, .. } = waiting;
        let oid = waiting.request.object();
        let node = self.router.choose(oid, copies, self.home.load(), now);
        let peer = node.and_then(|node| self.direct.get_mut(&node));
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.node = node.filter(|_| peer.is_some());
            let again = || (waiting.request.clone(), waiting.span);
            flight.again = flight.node.is_some().then(again);
        }
        peer.unwrap_or(&mut self.home).enqueue(class, waiting);
    }

    /// A connection of a node can be read or written.
    pub(super) fn direct_ready(
        &mut self,
        node: SocketAddr,
        id: ConnectionId,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Loss> {
        let mut came = Vec::new();
        let outcome = self.receive_of(node, id, arena, now, &mut came);
        self.judge_all(node, came, now, replies)?;
        match outcome {
            Ok(()) => Ok(()),
            Err(why) => self.give_up(node, why, arena, now, replies),
        }
    }

    /// Takes all that a node has answered, also what came behind its last word.
    fn judge_all(
        &mut self,
        node: SocketAddr,
        came: Vec<Reply>,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Loss> {
        let mut lost = Ok(());
        for reply in came {
            let verdict = self.judge(node, reply, now, replies);
            lost = lost.and(verdict);
        }
        lost
    }

    fn receive_of(
        &mut self,
        node: SocketAddr,
        id: ConnectionId,
        arena: &Arena,
        now: Instant,
        came: &mut Vec<Reply>,
    ) -> Result<(), LostReason> {
        let peer = self.direct.get_mut(&node);
        let found = peer.and_then(|peer| peer.connections.iter_mut().find(|(name, _)| *name == id));
        let Some((_, connection)) = found else { return Ok(()) };
        let sent = connection.flush(arena, now);
        connection.receive(arena, now, came).and(sent)
    }

    /// Takes a node's answer: it counts, or home is asked again.
    fn judge(
        &mut self,
        node: SocketAddr,
        mut reply: Reply,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Loss> {
        let Some(flight) = self.flights.remove(&reply.id) else { return Ok(()) };
        if let Some(peer) = self.direct.get_mut(&node) {
            peer.settle(flight.class);
        }
        if flight.class == Class::Own {
            if let Err(why) = self.router.tried(node, &Trial::of(&reply), now) {
                self.drop_node(node);
                self.router.failed(node, why, now);
            }
            return Ok(());
        }
        self.router.done(node);
        let is_sure = self.router.heard(node, std::mem::take(&mut reply.header.epoch), now);
        if is_sick(reply.status) {
            self.router.is_sick(node);
        }
        let is_change = flight.class == Class::Change;
        // What was refused changed nothing, and is the volume's to judge.
        let is_done = reply.status.is_success();
        let repeats = if is_change { is_done && !is_sure } else { !is_done || !is_sure };
        match flight.again.filter(|_| repeats) {
            Some(again) => {
                self.ask_again(reply.id, flight.class, again);
                Ok(())
            }
            None if is_change && on_object(reply.status) == Verdict::SheepGone => {
                // It may have been carried out.
                Err(Loss { node, reason: LostReason::ShuttingDown })
            }
            None => {
                replies.push(reply);
                Ok(())
            }
        }
    }

    /// A request goes to home, under the same name.
    fn ask_again(&mut self, id: u32, class: Class, (request, span): super::Again) {
        let flight = Flight { class, node: None, again: None };
        self.flights.insert(id, flight);
        self.router.asked_again();
        self.home.enqueue(class, Waiting { id, request, span, copies: 0 });
    }

    /// A node is lost: what it answered counts, reads are asked again of home, and what
    /// waited for a place there goes elsewhere.
    ///
    /// # Errors
    /// The session is over when the node has not answered a change.
    pub fn give_up(
        &mut self,
        node: SocketAddr,
        why: LostReason,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), Loss> {
        let names = self.owners.iter().filter(|(_, owner)| **owner == node);
        let names: Vec<ConnectionId> = names.map(|(name, _)| *name).collect();
        let mut came = Vec::new();
        for name in &names {
            // What it said before its end counts, on its other connection too.
            let _ = self.receive_of(node, *name, arena, now, &mut came);
        }
        self.judge_all(node, came, now, replies)?;
        let Some(peer) = self.direct.get(&node) else { return Ok(()) };
        if !peer.is_clear_of(Class::Change) {
            return Err(Loss { node, reason: why });
        }
        self.owners.retain(|_, owner| *owner != node);
        self.router.failed(node, Unfit::Lost(why), now);
        if let Some(peer) = self.direct.remove(&node) {
            self.scatter(peer);
        }
        Ok(())
    }

    fn scatter(&mut self, peer: Peer) {
        for id in peer.unanswered() {
            if let Some(Flight { class, again: Some(again), .. }) = self.flights.remove(&id) {
                self.ask_again(id, class, again);
            }
        }
        let waiting: Vec<_> = peer.into_waiting().collect();
        for (class, waiting) in waiting.into_iter().rev() {
            if let Some(flight) = self.flights.get_mut(&waiting.id) {
                (flight.node, flight.again) = (None, None);
            }
            self.inbox[class as usize].push_front(waiting);
        }
    }

    /// The nodes that have requests without an answer.
    pub fn busy_nodes(&self) -> impl Iterator<Item = SocketAddr> {
        let busy = self
            .direct
            .iter()
            .filter(|(_, peer)| !peer.is_clear_of(Class::Change) || !peer.is_clear_of(Class::Read));
        busy.map(|(node, _)| *node)
    }
}

/// Whether a node says of itself, rather than of the object or its cluster, that it can't
/// serve now.
fn is_sick(status: Status) -> bool {
    match on_object(status) {
        Verdict::SheepGone => true,
        Verdict::Retry => status != Status::Halt,
        Verdict::Done | Verdict::Reload | Verdict::Recheck | Verdict::Fail(_) => false,
    }
}
