//! What the data path keeps under its lock: the worker in use with its book of
//! slots, the in-flight table, and the queue of those that found no slot.
//!
//! Everything here is bookkeeping and returns at once. What takes longer, the
//! copying and the replying, is handed back to be done without the lock.

use crate::inflight::{Allegation, Entry, InFlight, Kind, Request, Slot};
use crate::link::{Link, Outcome};
use sheepfs::ipc::{Failure, Slots, Tag};
use std::collections::VecDeque;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct State<R> {
    worker: Option<Worker>,
    table: InFlight<R>,
    waiting: VecDeque<Waiting<R>>,
}

impl<R> Default for State<R> {
    fn default() -> Self {
        Self { worker: None, table: InFlight::default(), waiting: VecDeque::new() }
    }
}

#[derive(Debug)]
struct Worker {
    link: Arc<Link>,
    slots: Slots,
}

#[derive(Debug)]
struct Waiting<R> {
    request: Request,
    bytes: Vec<u8>,
    reply: R,
}

/// A request in the table of which the worker is still to be told.
#[derive(Debug)]
pub struct Start {
    /// Whom to tell, and whose arena the slot is in.
    pub link: Arc<Link>,
    /// Its name.
    pub tag: Tag,
    /// What.
    pub request: Request,
    /// Where its bytes go.
    pub slot: Option<Slot>,
}

/// What becomes of a new request.
#[derive(Debug)]
pub enum Admission<R> {
    /// It is in the table.
    Started(Start),
    /// It must queue, with bytes of its own.
    NoSlot(R),
    /// It can't be served.
    Refused(R),
}

/// Requests that left the queue for the table, with the bytes of writes.
pub type Started = Vec<(Start, Vec<u8>)>;

impl<R> State<R> {
    pub fn connect(&mut self, link: Arc<Link>) {
        let slots = Slots::new(link.arena().len());
        self.worker = Some(Worker { link, slots });
    }

    /// Forgets the worker. Returns all replies, oldest first: what a replay to
    /// the next worker would go through.
    pub fn disconnect(&mut self) -> Vec<R> {
        self.worker = None;
        let sent = self.table.take_all().into_iter().map(|entry| entry.reply);
        sent.chain(self.waiting.drain(..).map(|waiting| waiting.reply)).collect()
    }

    pub fn admit(&mut self, request: Request, reply: R) -> Admission<R> {
        let Some(worker) = self.worker.as_mut().filter(|worker| worker.could_fit(request)) else {
            return Admission::Refused(reply);
        };
        let lease = if self.waiting.is_empty() { worker.lease(request) } else { None };
        let Some(slot) = lease else { return Admission::NoSlot(reply) };
        let link = worker.link.clone();
        let tag = self.table.insert(request, slot, reply);
        Admission::Started(Start { link, tag, request, slot })
    }

    /// Queues a request, and returns what can start now: slots may have come
    /// free since it was not admitted. `Err`: the worker is gone.
    pub fn queue(&mut self, request: Request, bytes: Vec<u8>, reply: R) -> Result<Started, R> {
        if self.worker.is_none() {
            return Err(reply);
        }
        self.waiting.push_back(Waiting { request, bytes, reply });
        Ok(self.start_waiting())
    }

    /// Takes what a worker says is over out of the table, up to the first that
    /// can't be. The slots stay leased until [`State::give_back`]. No link: the
    /// worker is not the one in use.
    pub fn finish(
        &mut self,
        generation: u64,
        batch: Vec<Outcome>,
        finished: &mut Vec<(Entry<R>, Result<(), Failure>)>,
    ) -> (Option<Arc<Link>>, Result<(), Allegation>) {
        let link = self.worker_of(generation).map(|worker| worker.link.clone());
        if link.is_none() {
            return (None, Ok(()));
        }
        for (tag, outcome) in batch {
            match self.table.finish(tag) {
                Ok(entry) => finished.push((entry, outcome)),
                Err(allegation) => return (link, Err(allegation)),
            }
        }
        (link, Ok(()))
    }

    /// Gives slots back, and returns what can start now.
    pub fn give_back(&mut self, generation: u64, slots: Vec<Slot>) -> Started {
        let Some(worker) = self.worker_of(generation) else { return Vec::new() };
        slots.into_iter().for_each(|slot| worker.slots.give_back(slot.raw));
        self.start_waiting()
    }

    pub fn mark_sent(&mut self, tag: Tag) -> bool {
        self.table.mark_sent(tag)
    }

    pub fn len(&self) -> usize {
        self.table.len() + self.waiting.len()
    }

    fn worker_of(&mut self, generation: u64) -> Option<&mut Worker> {
        self.worker.as_mut().filter(|worker| worker.link.generation() == generation)
    }

    fn start_waiting(&mut self) -> Started {
        let mut started = Vec::new();
        let Some(worker) = self.worker.as_mut() else { return started };
        while let Some(front) = self.waiting.pop_front() {
            let Some(slot) = worker.lease(front.request) else {
                self.waiting.push_front(front);
                break;
            };
            let Waiting { request, bytes, reply } = front;
            let tag = self.table.insert(request, slot, reply);
            started.push((Start { link: worker.link.clone(), tag, request, slot }, bytes));
        }
        started
    }
}

impl Worker {
    /// Whether there can ever be a slot for a request.
    fn could_fit(&self, request: Request) -> bool {
        request.len <= self.link.arena().len()
    }

    /// A slot; `Some(None)` for a request that needs none, `None` if none is free.
    fn lease(&mut self, request: Request) -> Option<Option<Slot>> {
        if request.kind == Kind::Flush {
            return Some(None);
        }
        let raw = self.slots.take(request.len)?;
        let span = self.link.arena().check(raw)?;
        Some(Some(Slot { raw, span }))
    }
}
