//! The event loop: one thread, one `poll`, no waiting anywhere else.
//!
//! A session is one sheep. It begins with the connections, goes on until the
//! sheep is lost or the supervisor ends, and is never repaired: the supervisor
//! starts another worker.

use crate::context::Wire;
use crate::engine::{Engine, Surroundings};
use crate::frame::Reply;
use crate::sheep::{ConnectionId, Sheep};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sheepfs::ipc::{Arena, ChannelError, FromWorker, LostReason, Span, ToWorker, WorkerEnd};
use sheepfs::wire::Request;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long a sheep may take to answer the first, cheapest request.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug, Error)]
pub enum End {
    /// The supervisor closed its end or died.
    #[error(transparent)]
    Supervisor(#[from] ChannelError),
    /// The sheep is gone.
    #[error("the sheep is lost: {}", .0.words())]
    Sheep(LostReason),
    /// The system failed.
    #[error("waiting for events failed: {0}")]
    Poll(Errno),
}

/// One sheep's session.
pub struct Session {
    channel: WorkerEnd,
    arena: Arena,
    sheep: Sheep,
    engine: Engine,
    /// Messages that found no room in the socket, in order. Bounded by what the
    /// supervisor has asked: each request has one answer, or one report.
    outbox: VecDeque<FromWorker>,
}

/// The sheep, as decisions see it.
struct Outgoing<'a>(&'a mut Sheep);

impl Wire for Outgoing<'_> {
    fn request(&mut self, request: Request, span: Option<Span>) -> u32 {
        self.0.request(request, span)
    }

    fn ask_node(&mut self, node: SocketAddr, request: Request, now: Instant) -> Option<u32> {
        self.0.ask_node(node, request, now).ok()
    }
}

/// What one `poll` found.
struct Ready {
    channel: bool,
    connections: Vec<ConnectionId>,
}

impl Session {
    /// Connects, and makes sure that a sheep answers.
    ///
    /// # Errors
    /// Why there is no session.
    pub fn open(
        channel: WorkerEnd,
        arena: Arena,
        address: SocketAddr,
        cache_bytes: u64,
    ) -> Result<Self, (WorkerEnd, End)> {
        let connected = Sheep::connect(address).map_err(|_| End::Sheep(LostReason::Unreachable));
        let sheep = match connected
            .and_then(|mut sheep| first_answer(&mut sheep, &arena).map(|()| sheep))
        {
            Ok(sheep) => sheep,
            Err(end) => return Err((channel, end)),
        };
        let outbox = VecDeque::from([FromWorker::Connected]);
        Ok(Self { channel, arena, sheep, engine: Engine::new(cache_bytes), outbox })
    }

    /// Serves until the end, and says why it came.
    pub fn run(mut self) -> (WorkerEnd, End) {
        loop {
            if let Err(end) = self.turn() {
                return (self.channel, end);
            }
        }
    }

    /// What was answered before the sheep is lost still counts, and is told: a
    /// write that was carried out must not fail.
    fn turn(&mut self) -> Result<(), End> {
        let ready = self.wait()?;
        let now = Instant::now();
        let mut replies = Vec::new();
        let mut lost = Ok(());
        for id in ready.connections {
            let outcome = self.sheep.ready(id, &self.arena, &mut replies);
            lost = lost.and(outcome);
        }
        self.sheep.expire(now, &mut replies);
        let mut out = Vec::new();
        let around = &mut Surroundings {
            wire: &mut Outgoing(&mut self.sheep),
            out: &mut out,
            arena: &self.arena,
            now,
        };
        for reply in &replies {
            let outcome = self.engine.reply(reply, around);
            lost = lost.and(outcome);
        }
        if lost.is_ok() {
            while ready.channel
                && let Some(message) = self.channel.receive()?
            {
                self.engine.message(message, around);
            }
            self.engine.tick(around);
            lost = self.sheep.flush(&self.arena);
        }
        self.outbox.extend(out);
        self.send_messages()?;
        lost.map_err(End::Sheep)
    }

    fn send_messages(&mut self) -> Result<(), End> {
        while let Some(message) = self.outbox.front() {
            if !self.channel.send(message)? {
                break;
            }
            self.outbox.pop_front();
        }
        Ok(())
    }

    /// Waits for a message, a connection, or the next deadline.
    fn wait(&self) -> Result<Ready, End> {
        let interest = |send: bool| {
            if send { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN }
        };
        let mut fds = vec![PollFd::new(self.channel.as_fd(), interest(!self.outbox.is_empty()))];
        let mut names = Vec::with_capacity(crate::sheep::CONNECTIONS);
        for (id, fd, wants_to_send) in self.sheep.watched() {
            names.push(id);
            fds.push(PollFd::new(fd, interest(wants_to_send)));
        }
        let deadlines = [self.engine.next_deadline(), self.sheep.next_deadline()];
        poll_until(&mut fds, deadlines.into_iter().flatten().min())?;
        let hit = |fd: &PollFd| fd.any().unwrap_or(true);
        Ok(Ready {
            channel: hit(&fds[0]),
            connections: names
                .into_iter()
                .zip(&fds[1..])
                .filter(|(_, fd)| hit(fd))
                .map(|(id, _)| id)
                .collect(),
        })
    }
}

/// Asks the cheapest question over a fresh set of connections.
fn first_answer(sheep: &mut Sheep, arena: &Arena) -> Result<(), End> {
    let until = Instant::now() + FIRST_ANSWER_MAX;
    let mut replies: Vec<Reply> = Vec::new();
    sheep.request(Request::get_cluster_default(), None);
    while replies.is_empty() {
        if Instant::now() >= until {
            return Err(End::Sheep(LostReason::Unreachable));
        }
        sheep.flush(arena).map_err(End::Sheep)?;
        let names: Vec<_> = sheep.watched().map(|(id, _, _)| id).collect();
        let mut fds: Vec<_> = sheep
            .watched()
            .map(|(_, fd, send)| {
                PollFd::new(
                    fd,
                    if send { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN },
                )
            })
            .collect();
        poll_until(&mut fds, Some(until))?;
        let hit: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        for (id, _) in names.into_iter().zip(hit).filter(|(_, hit)| *hit) {
            sheep.ready(id, arena, &mut replies).map_err(End::Sheep)?;
        }
    }
    Ok(())
}

fn poll_until(fds: &mut [PollFd], deadline: Option<Instant>) -> Result<(), End> {
    let timeout = deadline.map_or(PollTimeout::NONE, |at| {
        let left = at.saturating_duration_since(Instant::now());
        // A deadline is met late, by up to a millisecond, rather than early and often.
        PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
    });
    match poll(fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(End::Poll(errno)),
    }
}

/// Waits for the next message, before there is a session.
///
/// # Errors
/// When the supervisor is gone.
pub fn next_message(channel: &WorkerEnd) -> Result<ToWorker, End> {
    loop {
        if let Some(message) = channel.receive()? {
            return Ok(message);
        }
        poll_until(&mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)], None)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::ipc::{Query, Tag, channel::pair};
    use sheepfs::wire::header::{ReplyHeader, RequestHeader};
    use sheepfs::wire::{HEADER_LEN, Status};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    /// Answers a request that has no payload, with success and nothing more.
    fn answer(peer: &mut TcpStream) {
        let mut request = [0; HEADER_LEN];
        peer.read_exact(&mut request).unwrap();
        let reply = ReplyHeader::new(&RequestHeader::decode(&request), 1, Status::Success, 0);
        peer.write_all(&reply.encode()).unwrap();
    }

    #[test]
    fn an_answer_counts_though_the_sheep_is_gone_behind_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sheep = std::thread::spawn(move || {
            let mut peers: Vec<_> =
                (0..crate::sheep::CONNECTIONS).map(|_| listener.accept().unwrap().0).collect();
            answer(&mut peers[0]);
            answer(&mut peers[0]);
        });
        let (supervisor, worker) = pair().unwrap();
        let arena = Arena::create(4096).unwrap();
        let opened = Session::open(WorkerEnd::from_fd(worker), arena, address, 0);
        let mut session = opened.map_err(|(_, end)| end).unwrap();
        let query = ToWorker::Query { tag: Tag(1), query: Query::Nodes };
        assert!(supervisor.send(&query).unwrap());
        session.turn().unwrap();
        sheep.join().unwrap();
        let (_channel, end) = session.run();
        assert!(matches!(end, End::Sheep(LostReason::Disconnected)), "{end}");
        assert_eq!(supervisor.receive().unwrap(), Some(FromWorker::Connected));
        let report = supervisor.receive().unwrap();
        assert!(matches!(report, Some(FromWorker::ReportChunk { last: true, .. })), "{report:?}");
    }
}
