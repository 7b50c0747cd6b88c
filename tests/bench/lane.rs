//! A lane of the bare client: a thread with connections of its own and some of the requests in
//! flight. A slot is one of these; its number is the id of its requests.

use crate::cases::Case;
use crate::connection::Connection;
use crate::places::Places;
use crate::results::Failure;
use crate::wire::{Whom, Wire};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sheepfs::wire::HEADER_LEN;
use std::os::fd::AsFd;
use std::time::Instant;

/// A lane.
#[derive(Debug)]
pub struct Lane<'a> {
    wire: &'a Wire,
    whom: Whom,
    case: Case,
    places: &'a Places,
    links: Vec<Link>,
    message: Vec<u8>,
    holders: Vec<u16>,
}

/// What a lane has with one node.
#[derive(Debug, Default)]
struct Link {
    connection: Option<Connection>,
    outstanding: u32,
}

impl<'a> Lane<'a> {
    /// One without connections.
    pub fn new(wire: &'a Wire, whom: Whom, case: &Case, places: &'a Places) -> Self {
        let links = wire.nodes().iter().map(|_| Link::default()).collect();
        let message = vec![0x5a; HEADER_LEN + case.len as usize];
        Self { wire, whom, case: *case, places, links, message, holders: Vec::new() }
    }

    /// Keeps one request in flight for each slot. Returns how many were answered before `end`;
    /// waits for the others.
    pub fn run(mut self, slots: &[u32], end: Instant) -> Result<u64, Failure> {
        let mut in_flight = slots.len();
        let mut done = 0;
        for slot in slots {
            self.send(*slot)?;
        }
        let mut ready = Vec::new();
        while in_flight > 0 {
            self.wait(&mut ready)?;
            for node in ready.drain(..) {
                let slot = self.receive(node)?;
                if Instant::now() >= end {
                    in_flight -= 1;
                    continue;
                }
                done += 1;
                self.send(slot)?;
            }
        }
        Ok(done)
    }

    /// To the node with the fewest requests outstanding, of those that may be asked; a write to
    /// the first of the fewest.
    fn send(&mut self, slot: u32) -> Result<(), Failure> {
        let place = self.places.next(slot);
        let errand = self.wire.errand(self.whom, place, self.case.len, &mut self.holders)?;
        let nodes = errand.nodes.iter().copied().map(usize::from);
        let node = nodes.min_by_key(|node| self.links[*node].outstanding);
        let node = node.ok_or("no node of the cluster holds anything")?;
        let address = self.wire.address(self.whom, node);
        let link = &mut self.links[node];
        let connection = match &mut link.connection {
            Some(connection) => connection,
            empty => empty.insert(Connection::open(address)?),
        };
        connection.send(&errand.request, slot, &mut self.message)?;
        link.outstanding += 1;
        Ok(())
    }

    fn receive(&mut self, node: usize) -> Result<u32, Failure> {
        let link = &mut self.links[node];
        let connection = link.connection.as_mut().ok_or("no connection")?;
        link.outstanding -= 1;
        connection.receive(&mut self.message[HEADER_LEN..])
    }

    /// Finds the nodes that have a reply; does not ask the kernel when only one can.
    fn wait(&self, ready: &mut Vec<usize>) -> Result<(), Failure> {
        let busy = |link: &Link| link.outstanding > 0;
        let places = self.links.iter().enumerate().filter(|(_, link)| busy(link));
        ready.extend(places.map(|(node, _)| node));
        if ready.len() == 1 {
            return Ok(());
        }
        let connections = ready.iter().filter_map(|node| self.links[*node].connection.as_ref());
        let mut polled: Vec<_> =
            connections.map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut polled, PollTimeout::NONE)?;
        let mut answers = polled.iter().map(|one| one.any().unwrap_or_default());
        ready.retain(|_| answers.next().unwrap_or_default());
        Ok(())
    }
}
