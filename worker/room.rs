//! The waiting room: the worker before it has a sheep, when it is a hot spare.
//!
//! It looks whether sheep would do ([`ToWorker::Check`]), connects to one, and says
//! when that one does not answer, after which it waits on: no candidate costs a
//! process. Each attempt is a few connections on which the cluster's facts are
//! asked for, refused at once or given up after [`ANSWER_MAX`]; several may be under
//! way, and pings and the supervisor's end are noticed meanwhile, since one `poll`
//! is all that ever waits.

use crate::errands::Plan;
use crate::facts::{self, Heard};
use crate::link::Link;
use crate::poller::poll_until;
use crate::session::{End, Session};
use crate::sheep::{CONNECTIONS, ConnectionId, Sheep};
use sheepfs::ipc::message::BUILD;
use sheepfs::ipc::{Arena, ClusterFacts, FromWorker, LostReason, Tag, ToWorker};
use sheepfs::logging;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tracing::{debug, error};

/// How long a candidate may take from the first packet to the facts.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// A sheep that is asked for its cluster's facts.
struct Candidate {
    sheep: Sheep,
    until: Instant,
}

/// What an attempt is for.
enum Purpose {
    Check(Tag),
    Connect { plan: Plan, cache_bytes: u64 },
}

/// The waiting room.
pub struct Room {
    link: Link,
    attempts: Vec<(Purpose, Candidate)>,
}

/// How an attempt ended.
type Outcome = Result<ClusterFacts, LostReason>;

impl Room {
    /// An empty room.
    pub fn new(link: Link) -> Self {
        Self { link, attempts: Vec::new() }
    }

    /// Waits until there is a session.
    ///
    /// # Errors
    /// Why there will be none; with what was inherited.
    pub fn wait(mut self) -> Result<Box<Session>, Box<(Link, End)>> {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(found)) => return Ok(self.leave(found)),
                Err(end) => return Err(Box::new((self.link, end))),
            }
        }
    }

    /// One step; something: a session can begin.
    fn turn(&mut self) -> Result<Option<Found>, End> {
        self.link.send()?;
        let (channel, hits) = self.poll()?;
        let now = Instant::now();
        let mut found = None;
        let attempts = std::mem::take(&mut self.attempts);
        for ((purpose, mut candidate), hits) in attempts.into_iter().zip(hits) {
            match candidate.advance(&hits, &self.link.arena, now) {
                None => self.attempts.push((purpose, candidate)),
                Some(outcome) => found = self.ended(purpose, Some(candidate), outcome).or(found),
            }
        }
        while found.is_none()
            && channel
            && let Some(message) = self.link.receive()?
        {
            self.message(message, now);
        }
        Ok(found)
    }

    /// Waits for a message, a candidate, or the next deadline.
    fn poll(&self) -> Result<(bool, Vec<Vec<ConnectionId>>), End> {
        let mut watched = vec![(self.link.as_fd(), !self.link.is_clear())];
        for (_, candidate) in &self.attempts {
            watched.extend(candidate.sheep.watched().map(|(_, fd, send)| (fd, send)));
        }
        let deadline = self.attempts.iter().map(|(_, candidate)| candidate.until).min();
        let mut hits = poll_until(&watched, deadline).map_err(End::Poll)?.into_iter();
        let channel = hits.next().unwrap_or(true);
        let of = |candidate: &Candidate| {
            let names = candidate.sheep.watched().zip(hits.by_ref());
            names.filter(|(_, hit)| *hit).map(|((id, _, _), _)| id).collect()
        };
        Ok((channel, self.attempts.iter().map(|(_, candidate)| candidate).map(of).collect()))
    }

    fn message(&mut self, message: ToWorker, now: Instant) {
        match message {
            ToWorker::Ping { number } => self.link.say([FromWorker::Pong { number }]),
            ToWorker::LogFilter { filter } => logging::set_filter(&filter),
            ToWorker::Check { tag, sheep } => self.begin(Purpose::Check(tag), sheep, 1, 0, now),
            ToWorker::Connect {
                build,
                sheep,
                cache_bytes,
                io_timeout_ms,
                generation,
                watch,
                left,
                route,
                connections_max,
                avoid,
            } if build == BUILD => {
                let io_timeout = Duration::from_millis(io_timeout_ms.into());
                let plan = Plan {
                    sheep,
                    io_timeout,
                    generation,
                    watch,
                    left,
                    route,
                    connections_max,
                    avoid,
                };
                // Only one answer is waited for: the last address counts.
                self.attempts.retain(|(purpose, _)| matches!(purpose, Purpose::Check(_)));
                let purpose = Purpose::Connect { plan, cache_bytes };
                self.begin(purpose, sheep, CONNECTIONS, generation, now);
            }
            ToWorker::Connect { build, .. } => {
                error!(%build, ours = BUILD, "the supervisor is of another build and is not heard");
            }
            other => debug!(?other, "a message before the address is dropped"),
        }
    }

    fn begin(
        &mut self,
        purpose: Purpose,
        sheep: SocketAddr,
        connections: usize,
        generation: u64,
        now: Instant,
    ) {
        match Candidate::begin(sheep, connections, generation, now) {
            Ok(candidate) => self.attempts.push((purpose, candidate)),
            Err(reason) => drop(self.ended(purpose, None, Err(reason))),
        }
    }

    /// An attempt is over; a session can begin when it connected.
    fn ended(
        &mut self,
        purpose: Purpose,
        candidate: Option<Candidate>,
        outcome: Outcome,
    ) -> Option<Found> {
        match (purpose, outcome, candidate) {
            (Purpose::Check(tag), outcome, _) => {
                self.link.say([FromWorker::Checked { tag, outcome }]);
                None
            }
            (
                Purpose::Connect { plan, cache_bytes },
                Ok(cluster),
                Some(Candidate { sheep, .. }),
            ) => Some(Found { sheep, plan, cluster, cache_bytes }),
            (Purpose::Connect { .. }, outcome, _) => {
                let reason = outcome.err().unwrap_or(LostReason::Unreachable);
                self.link.say([FromWorker::Unreached { reason }]);
                None
            }
        }
    }

    /// Begins the session. Checks that are still under way have no outcome then.
    fn leave(mut self, found: Found) -> Box<Session> {
        for (purpose, _) in std::mem::take(&mut self.attempts) {
            self.ended(purpose, None, Err(LostReason::Unreachable));
        }
        let Found { sheep, plan, cluster, cache_bytes } = found;
        logging::set_sheep(plan.sheep);
        Box::new(Session::new(self.link, sheep, &plan, cluster, cache_bytes, Instant::now()))
    }
}

/// A sheep that answers, and what the session with it shall be.
struct Found {
    sheep: Sheep,
    plan: Plan,
    cluster: ClusterFacts,
    cache_bytes: u64,
}

impl Candidate {
    fn begin(
        address: SocketAddr,
        connections: usize,
        generation: u64,
        now: Instant,
    ) -> Result<Self, LostReason> {
        let mut sheep = Sheep::connect(address, connections, generation, now)?;
        sheep.ask(facts::question(), now);
        Ok(Self { sheep, until: now + ANSWER_MAX })
    }

    /// Goes on where something is up. Something: it is over.
    fn advance(&mut self, hits: &[ConnectionId], arena: &Arena, now: Instant) -> Option<Outcome> {
        let mut replies = Vec::new();
        for id in hits {
            if let Err(loss) = self.sheep.ready(*id, arena, now, &mut replies) {
                return Some(Err(loss.reason));
            }
        }
        for reply in &replies {
            match facts::hear(reply) {
                Heard::Facts(cluster) => return Some(Ok(cluster)),
                Heard::Lost(reason) => return Some(Err(reason)),
                Heard::Ask(request) => drop(self.sheep.ask(request, now)),
            }
        }
        (self.until <= now).then_some(Err(LostReason::Unreachable))
    }
}

#[cfg(test)]
mod tests;
