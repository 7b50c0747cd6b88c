//! The event loop: one thread, one `poll`, no waiting anywhere else.
//!
//! A session is one sheep. It begins with connections on which the sheep has
//! answered, goes on until the sheep is lost or the supervisor ends, and is never
//! repaired: the supervisor has another worker ready.
//!
//! A turn takes replies, then messages, then says what follows from them, and only
//! then sends requests. So what the supervisor must know before a request leaves, that
//! an object is created or a lock asked for, is in the kernel by then and outlives
//! this process. While the channel is full, no request is given to a connection. What
//! must outlive the supervisor too, a lock that is asked for or an index entry that is
//! repaired, waits besides until the supervisor says that it is noted.

use crate::context::Wire;
use crate::engine::{Engine, Surroundings};
use crate::errands::{Around, Errands, Plan};
use crate::frame::Reply;
use crate::link::Link;
use crate::poller::poll_until;
use crate::routing::Router;
use crate::sheep::{ConnectionId, Loss, Sheep};
use nix::errno::Errno;
use sheepfs::ipc::{ChannelError, ClusterFacts, FromWorker, Routed, Span, ToWorker};
use sheepfs::logging;
use sheepfs::wire::Request;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long another node may take to say how much space it has.
const NODE_ANSWER_MAX: Duration = Duration::from_secs(2);

/// Messages taken in one turn.
const MESSAGES_MAX: usize = 256;

/// Why a session ended.
#[derive(Debug, Error)]
pub enum End {
    /// The supervisor closed its end or died.
    #[error(transparent)]
    Supervisor(#[from] ChannelError),
    /// The sheep is gone.
    #[error("the sheep {} is lost: {}", .0.node, .0.reason.words())]
    Sheep(Loss),
    /// The system failed.
    #[error("waiting for events failed: {0}")]
    Poll(Errno),
}

/// One sheep's session.
pub struct Session {
    link: Link,
    sheep: Sheep,
    engine: Engine,
    errands: Errands,
    /// The cluster, until the supervisor is told of it.
    opening: Option<ClusterFacts>,
    /// The cluster's members, until then: the supervisor looks first whose cluster it is.
    early: Vec<FromWorker>,
    /// Words that the supervisor has not noted yet.
    unnoted: usize,
    /// What it was told last of how requests were sent.
    routed: Routed,
}

/// What is left of a session.
pub struct Ended {
    /// What was inherited.
    pub link: Link,
    /// Why it ended.
    pub end: End,
    /// Whether the supervisor was told of it.
    pub connected: bool,
}

/// The sheep, as decisions see it.
struct Outgoing<'a>(&'a mut Sheep);

impl Wire for Outgoing<'_> {
    fn request(&mut self, request: Request, span: Option<Span>) -> u32 {
        self.0.request(request, span, 0)
    }

    fn request_of(&mut self, request: Request, span: Option<Span>, copies: u8) -> u32 {
        self.0.request(request, span, copies)
    }

    fn ask_node(&mut self, node: SocketAddr, request: Request, now: Instant) -> Option<u32> {
        self.0.ask_node(node, request, now + NODE_ANSWER_MAX, now).ok()
    }
}

/// What one `poll` found.
struct Ready {
    channel: bool,
    connections: Vec<ConnectionId>,
}

impl Session {
    /// A session with a sheep that has answered.
    pub fn new(
        link: Link,
        mut sheep: Sheep,
        plan: &Plan,
        cluster: ClusterFacts,
        cache_bytes: u64,
        now: Instant,
    ) -> Self {
        let errands = Errands::new(plan, &cluster, now);
        let engine = Engine::new(cache_bytes, !cluster.recycles_vids);
        let router = Router::new(plan.sheep, cluster.ctime, cluster.epoch);
        let watched = plan.watch.iter().copied();
        sheep.route_by(
            router.with(plan.route, plan.connections_max, watched).avoiding(&plan.avoid, now),
        );
        let routed = Routed::default();
        let (opening, early) = (Some(cluster), Vec::new());
        Self { link, sheep, engine, errands, opening, early, unnoted: 0, routed }
    }

    /// Serves until the end, and says why it came.
    pub fn run(mut self) -> Ended {
        loop {
            if let Err(end) = self.turn() {
                return Ended { link: self.link, end, connected: self.opening.is_none() };
            }
        }
    }

    /// What was answered before the sheep is lost still counts, and is told: a
    /// write that was carried out must not be taken for one that may not have been.
    fn turn(&mut self) -> Result<(), End> {
        let ready = self.wait()?;
        let now = Instant::now();
        let mut out = Vec::new();
        let mut lost = self.take_replies(&ready.connections, &mut out, now);
        if lost.is_ok() {
            if ready.channel {
                self.take_messages(&mut out, now)?;
            }
            lost = self.tick(&mut out, now);
        }
        out.extend(self.sheep.take_words());
        self.unnoted += out.iter().filter(|word| must_be_noted(word)).count();
        if self.opening.is_some() {
            let is_early = |word: &mut FromWorker| matches!(word, FromWorker::Members { .. });
            self.early.extend(out.extract_if(.., is_early));
        }
        self.link.say(out);
        if lost.is_ok()
            && !self.errands.is_opening(now)
            && let Some(cluster) = self.opening.take()
        {
            self.link.say([FromWorker::Connected { cluster }]);
            self.link.say(std::mem::take(&mut self.early));
        }
        self.link.send()?;
        lost.and_then(|()| self.send_requests(now)).map_err(End::Sheep)
    }

    fn take_replies(
        &mut self,
        ready: &[ConnectionId],
        out: &mut Vec<FromWorker>,
        now: Instant,
    ) -> Result<(), Loss> {
        let mut replies: Vec<Reply> = Vec::new();
        let mut lost = Ok(());
        for id in ready {
            lost = lost.and(self.sheep.ready(*id, &self.link.arena, now, &mut replies));
        }
        if lost.is_err() {
            // Answers that came before the end count, on all connections.
            let all: Vec<_> = self.sheep.watched().map(|(id, _, _)| id).collect();
            for id in all {
                let _ = self.sheep.ready(id, &self.link.arena, now, &mut replies);
            }
        }
        self.sheep.expire(now, &mut replies);
        for reply in &replies {
            lost = lost.and(self.take_reply(reply, out, now));
        }
        lost
    }

    /// What the errands do, and then the answers of a node that they have given up.
    fn run_errand<T>(
        &mut self,
        out: &mut Vec<FromWorker>,
        now: Instant,
        errand: impl FnOnce(&mut Errands, &mut Around) -> Result<T, Loss>,
    ) -> Result<T, Loss> {
        let mut late = Vec::new();
        let (sheep, arena) = (&mut self.sheep, &self.link.arena);
        let around = &mut Around { sheep, out, arena, late: &mut late, now };
        let outcome = errand(&mut self.errands, around);
        let mut taken = Ok(());
        for reply in &late {
            taken = taken.and(self.give_to_engine(reply, out, now));
        }
        outcome.and_then(|outcome| taken.map(|()| outcome))
    }

    fn take_reply(
        &mut self,
        reply: &Reply,
        out: &mut Vec<FromWorker>,
        now: Instant,
    ) -> Result<(), Loss> {
        if self.run_errand(out, now, |errands, around| errands.reply(reply, around))? {
            return Ok(());
        }
        self.give_to_engine(reply, out, now)
    }

    fn give_to_engine(
        &mut self,
        reply: &Reply,
        out: &mut Vec<FromWorker>,
        now: Instant,
    ) -> Result<(), Loss> {
        let wire = &mut Outgoing(&mut self.sheep);
        let around = &mut Surroundings { wire, out, arena: &self.link.arena, now };
        let outcome = self.engine.reply(reply, around);
        outcome.map_err(|reason| self.sheep.home_lost(reason))
    }

    /// A bounded number, so that answers and pings have their turn.
    fn take_messages(&mut self, out: &mut Vec<FromWorker>, now: Instant) -> Result<(), End> {
        for _ in 0..MESSAGES_MAX {
            let Some(message) = self.link.receive()? else { break };
            match message {
                ToWorker::Ping { number } => self.pong(number, out),
                ToWorker::SetRoute { route } => self.sheep.set_route(route),
                ToWorker::MayUse { opening } => self.sheep.may_use(opening, now),
                ToWorker::Noted => self.unnoted = self.unnoted.saturating_sub(1),
                ToWorker::LogFilter { filter } => logging::set_filter(&filter),
                message => {
                    let wire = &mut Outgoing(&mut self.sheep);
                    let around = &mut Surroundings { wire, out, arena: &self.link.arena, now };
                    self.engine.message(message, around);
                }
            }
        }
        Ok(())
    }

    fn pong(&mut self, number: u64, out: &mut Vec<FromWorker>) {
        out.push(FromWorker::Pong { number });
        let routed = self.sheep.routed();
        if std::mem::replace(&mut self.routed, routed) != routed {
            out.push(FromWorker::Routed { routed });
        }
    }

    fn tick(&mut self, out: &mut Vec<FromWorker>, now: Instant) -> Result<(), Loss> {
        let wire = &mut Outgoing(&mut self.sheep);
        let around = &mut Surroundings { wire, out, arena: &self.link.arena, now };
        self.engine.tick(around);
        if self.errands.are_orphans_over(now) {
            self.engine.orphans_are_over(around);
        }
        self.run_errand(out, now, Errands::tick)
    }

    /// Sends requests, once all that is to be known before is in the channel.
    fn send_requests(&mut self, now: Instant) -> Result<(), Loss> {
        if self.link.is_clear() && self.unnoted == 0 && !self.errands.is_opening(now) {
            self.sheep.dispatch(self.errands.hold(now), now);
        }
        self.errands.note_sent(&self.sheep, now);
        self.sheep.flush(&self.link.arena, now)
    }

    /// Waits for a message, a connection, or the next deadline.
    fn wait(&self) -> Result<Ready, End> {
        let mut watched = vec![(self.link.as_fd(), !self.link.is_clear())];
        let mut names = Vec::with_capacity(crate::sheep::CONNECTIONS);
        for (id, fd, wants_to_send) in self.sheep.watched() {
            names.push(id);
            watched.push((fd, wants_to_send));
        }
        let mut hits =
            poll_until(&watched, self.deadline(Instant::now())).map_err(End::Poll)?.into_iter();
        let channel = hits.next().unwrap_or(true);
        let hit = names.into_iter().zip(hits).filter(|(_, hit)| *hit);
        Ok(Ready { channel, connections: hit.map(|(id, _)| id).collect() })
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let tell = self.opening.filter(|_| !self.errands.is_opening(now)).map(|_| now);
        let own = [self.engine.next_deadline(), self.sheep.next_deadline(now)];
        own.into_iter().chain([self.errands.next_deadline(now), tell]).flatten().min()
    }
}

fn must_be_noted(word: &FromWorker) -> bool {
    matches!(
        word,
        FromWorker::LockSent { .. } | FromWorker::Repairing { .. } | FromWorker::Discarding { .. }
    )
}

#[cfg(test)]
mod tests;
