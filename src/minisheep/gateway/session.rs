//! A client's way through a gateway.
//!
//! One thread takes the client's requests and forwards them, another takes the replies and passes
//! them on; neither waits for the other, so requests are pipelined as they came. The connection
//! to the minisheep outlives the client's until all that was taken is answered.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tracing::debug;

use super::link::Link;
use super::{Notice, State};
use crate::minisheep::connection::{Connection, Received};
use crate::minisheep::hooks::{After, Before, Delay, Fate};
use crate::minisheep::sheep::{Answer, Incoming};
use crate::wire::{Opcode, ReplyHeader, RequestHeader, Status};

/// One client.
#[derive(Debug)]
pub struct Session {
    gateway: Arc<State>,
    client: Arc<Connection>,
    link: Link,
    open: Mutex<Open>,
}

/// What was taken and is not finished.
#[derive(Debug, Default)]
struct Open {
    /// All of it.
    count: usize,
    /// What was forwarded, by id and opcode. Ids may be double: then either is as good.
    forwarded: HashMap<(u32, u8), VecDeque<RequestHeader>>,
    /// Nothing more will be taken.
    client_ended: bool,
    /// Nothing more will be answered.
    link_ended: bool,
}

impl Session {
    /// Serves a client on threads of its own.
    ///
    /// # Errors
    /// What the sockets say, or that the system has no room for threads.
    pub fn start(gateway: &Arc<State>, stream: TcpStream) -> io::Result<()> {
        let client = Arc::new(Connection::new(stream)?);
        let link = Link::open(gateway.behind, Notice::Client(gateway.address))?;
        let open = Mutex::default();
        let session = Arc::new(Self { gateway: Arc::clone(gateway), client, link, open });
        let replies = Arc::clone(&session);
        thread::Builder::new().name("replies".into()).spawn(move || replies.pass_replies())?;
        thread::Builder::new().name("requests".into()).spawn(move || session.take_requests())?;
        Ok(())
    }

    fn take_requests(self: &Arc<Self>) {
        let mut receiver = self.client.receiver();
        loop {
            match receiver.wait() {
                // Only gateways say such things.
                Received::Request(request) if Notice::of(&request.header).is_some() => break,
                Received::Request(request) => self.take(request),
                Received::End => break,
                Received::Malformed => {
                    self.tell(Notice::Frame);
                    break;
                }
            }
        }
        self.client.close();
        self.tell(Notice::Gone);
        let mut open = self.open();
        open.client_ended = true;
        self.close_if_over(&open);
    }

    fn take(self: &Arc<Self>, request: Incoming) {
        let header = request.header;
        self.gateway.begin(header.opcode);
        self.open().count += 1;
        if self.gateway.is_stopping() {
            return self.answer(&header, Status::Killed);
        }
        match self.gateway.hooks.before(None, &header) {
            Before::Go => self.forward(&request),
            Before::Delay(delay) => self.later(delay, move |this| this.forward(&request)),
            Before::Hold(place) => self.hold(place, header, move |this| this.forward(&request)),
            Before::Drop => {
                self.finish(&header);
                self.client.close();
            }
            Before::Answer(status) => self.answer(&header, status),
        }
    }

    fn forward(&self, request: &Incoming) {
        let header = &request.header;
        if !self.remember(header) {
            return self.finish(header);
        }
        if let Err(error) = self.link.send(header, &request.payload) {
            debug!("the minisheep is gone: {error}");
            // Whoever waits for replies notices too, and gives up what is open.
            self.client.close();
        }
    }

    /// `false`: nothing more will be answered.
    fn remember(&self, header: &RequestHeader) -> bool {
        let mut open = self.open();
        if !open.link_ended {
            let key = (header.id, header.opcode);
            open.forwarded.entry(key).or_default().push_back(*header);
        }
        !open.link_ended
    }

    fn pass_replies(self: &Arc<Self>) {
        let mut replies = self.link.replies();
        while let Ok(answer) = replies.next() {
            match self.answered(&answer.header) {
                Some(request) => self.pass(request, answer),
                None => debug!(id = answer.header.id, "an answer to nothing"),
            }
        }
        self.client.close();
        let mut open = self.open();
        open.link_ended = true;
        let left = std::mem::take(&mut open.forwarded);
        drop(open);
        left.values().flatten().for_each(|header| self.finish(header));
    }

    /// The request that a reply is to.
    fn answered(&self, reply: &ReplyHeader) -> Option<RequestHeader> {
        let mut open = self.open();
        let key = (reply.id, reply.opcode);
        let requests = open.forwarded.get_mut(&key)?;
        let request = requests.pop_front();
        if requests.is_empty() {
            open.forwarded.remove(&key);
        }
        request
    }

    fn pass(self: &Arc<Self>, request: RequestHeader, mut answer: Answer) {
        self.gateway.epoch.store(answer.header.epoch, Ordering::Relaxed);
        // The minisheep counts what all gateways forward; each answers for itself.
        if request.opcode == Opcode::Stat.code() && answer.header.status.is_success() {
            answer.payload = self.gateway.counters.stat().into();
        }
        match self.gateway.hooks.after(&request) {
            After::Send => self.reply(&request, &answer),
            After::Delay(delay) => self.later(delay, move |this| this.reply(&request, &answer)),
            After::Hold(place) => {
                self.hold(place, request, move |this| this.reply(&request, &answer));
            }
            After::Drop => {
                self.finish(&request);
                self.client.close();
            }
            After::Swap(limit) => {
                self.gateway.end(request.opcode);
                self.client.send_after_next(answer, limit);
                self.leave();
            }
        }
    }

    /// Answers in the minisheep's place.
    fn answer(&self, request: &RequestHeader, status: Status) {
        let mut answer = Answer::new(request, status);
        answer.header.epoch = self.gateway.epoch.load(Ordering::Relaxed);
        self.reply(request, &answer);
    }

    fn reply(&self, request: &RequestHeader, answer: &Answer) {
        self.gateway.end(request.opcode);
        self.client.send(answer);
        self.leave();
    }

    /// Nothing more becomes of a request.
    fn finish(&self, request: &RequestHeader) {
        self.gateway.end(request.opcode);
        self.leave();
    }

    fn leave(&self) {
        let mut open = self.open();
        open.count -= 1;
        self.close_if_over(&open);
        drop(open);
        self.gateway.done();
    }

    fn close_if_over(&self, open: &Open) {
        if open.client_ended && open.count == 0 {
            self.link.close();
        }
    }

    /// Holds a request until somebody decides.
    fn hold(
        self: &Arc<Self>,
        place: u64,
        header: RequestHeader,
        then: impl FnOnce(&Arc<Self>) + Send + 'static,
    ) {
        let this = Arc::clone(self);
        let held = move |fate| match fate {
            Fate::Goes => then(&this),
            Fate::Forgotten => this.finish(&header),
        };
        self.gateway.hooks.hold(place, Box::new(held));
    }

    fn later(self: &Arc<Self>, delay: Delay, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let this = Arc::clone(self);
        thread::spawn(move || {
            this.gateway.hooks.pass(delay);
            then(&this);
        });
    }

    fn tell(&self, notice: Notice) {
        if let Err(error) = self.link.send(&notice.header(), &[]) {
            debug!("could not tell the minisheep {notice:?}: {error}");
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
