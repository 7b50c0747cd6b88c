//! What the worker's decisions act through: requests to the sheep, messages to
//! the supervisor, the arena, and the time, which is an argument everywhere.
//!
//! The decisions themselves hold no socket, so tests drive them with a server
//! in memory.

use crate::ahead::Ahead;
use crate::cache::Cache;
use crate::index_pages::IndexPages;
use sheepfs::ipc::{Arena, Failure, FromWorker, Span, Tag};
use sheepfs::wire::Request;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

/// Where requests go.
pub trait Wire {
    /// Queues a request to the sheep in use and gives its id.
    fn request(&mut self, request: Request, span: Option<Span>) -> u32;
    /// The same; one for an object of so many copies may go to any node that holds one, if it
    /// reads, or the object is of data.
    fn request_of(&mut self, request: Request, span: Option<Span>, copies: u8) -> u32;
    /// Asks another node. `None` when that can't even be tried.
    fn ask_node(&mut self, node: SocketAddr, request: Request, now: Instant) -> Option<u32>;
}

/// The surroundings of one step.
pub struct Context<'a, W> {
    /// The sheep.
    pub wire: &'a mut dyn Wire,
    /// Messages to the supervisor, in order.
    pub out: &'a mut Vec<FromWorker>,
    /// The shared memory.
    pub arena: &'a Arena,
    /// The object cache.
    pub cache: &'a mut Cache,
    /// What was read ahead.
    pub ahead: &'a mut Ahead,
    /// The pages of indexes that were read.
    pub pages: &'a mut IndexPages,
    /// The time of this step.
    pub now: Instant,
    /// Whether the sheep has refused a flush: it writes through, and need not be
    /// asked again.
    pub flush_refused: &'a mut bool,
    /// Who waits for which reply.
    pub waiters: &'a mut HashMap<u32, W>,
}

impl<W> Context<'_, W> {
    /// Sends a request; `waiter` gets the reply.
    pub fn send(&mut self, request: Request, span: Option<Span>, waiter: W) {
        let id = self.wire.request(request, span);
        self.waiters.insert(id, waiter);
    }

    /// Sends a request, as [`Wire::request_of`] does.
    pub fn send_of(&mut self, request: Request, span: Option<Span>, copies: u8, waiter: W) {
        let id = self.wire.request_of(request, span, copies);
        self.waiters.insert(id, waiter);
    }

    /// Answers a request of the supervisor's.
    pub fn done(&mut self, tag: Tag, outcome: Result<(), Failure>) {
        self.out.push(FromWorker::Done { tag, outcome });
    }
}
