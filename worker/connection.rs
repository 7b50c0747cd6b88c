//! One TCP connection to a sheep, without blocking.
//!
//! Requests leave in order, header and payload together in one vectored write
//! (hazard 48): the payload lies complete in the arena or in memory before the
//! first byte goes out. Replies come in any order and are matched by id.
//!
//! A staging buffer takes whatever comes when no payload is under way, so that one
//! read fetches many small replies with their payloads, which are copied from there.
//! While a large reply is awaited, only a few headers' worth of it is used, and nearly
//! all of the payload is received straight into the arena, by the same call that
//! fetches the headers behind it. A read that fills less than it was offered has
//! emptied the socket: more is waited for, not asked for.

use crate::frame::{Destination, Expected, Frame, Reply, Source};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use sheepfs::ipc::{Arena, LostReason};
use sheepfs::wire::{HEADER_LEN, Opcode, ReplyHeader};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

/// Room for the replies to eight reads of 4 KiB: what payload falls in here is copied
/// once more, which costs less than a system call.
const STAGING_LEN: usize = 8 * (HEADER_LEN + 4096);
/// What is used of it while a large reply is awaited: room for a few headers.
const STAGING_LEN_MIN: usize = 8 * HEADER_LEN;
/// Replies above this are large: to copy them would cost more than to fetch them apart.
const SMALL_REPLY_LEN_MAX: usize = 8192;
/// Frames that one vectored write takes at most.
const BATCH_MAX: usize = 32;
/// How long the peer's kernel may acknowledge nothing, in milliseconds. A sheep
/// that hangs is found sooner (`detection`); this is for a single connection that
/// the network forgot while new ones work, which nothing else would end.
const UNACKNOWLEDGED_MS_MAX: u32 = 30_000;

/// A connection, established or on its way.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    outbox: VecDeque<Frame>,
    /// Bytes of the first frame that have left already.
    sent: usize,
    queued_bytes: usize,
    /// Bytes of replies still to come.
    awaited_bytes: usize,
    expected: HashMap<u32, Pending>,
    /// When bytes left last.
    sent_at: Instant,
    inbox: Inbox,
    staging: Box<[u8]>,
    staged: usize,
    /// Large replies awaited.
    large: usize,
}

/// A request without an answer.
#[derive(Debug)]
struct Pending {
    expected: Expected,
    /// When it made progress last.
    since: Instant,
}

/// Where the receiving side stands.
#[derive(Debug)]
enum Inbox {
    /// The next bytes are a reply's header.
    Header,
    /// The next bytes are the payload of this reply.
    Payload {
        header: ReplyHeader,
        expected: Expected,
        buffer: Vec<u8>,
        received: usize,
        len: usize,
        /// When bytes of it came last.
        since: Instant,
    },
}

/// How long a request has made no progress: none of it was sent, and none of its
/// reply received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// The request's kind.
    pub opcode: Opcode,
    /// Since when.
    pub since: Instant,
}

impl Connection {
    /// Starts to connect. It is established when the socket can be written.
    ///
    /// Closing it resets it, so that a sheep drops what it has not read yet
    /// (`SO_LINGER {1,0}`, hazards 1 and 3).
    ///
    /// # Errors
    /// The system's, when it refuses at once.
    pub fn start(address: SocketAddr, now: Instant) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
        setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        setsockopt(&socket, sockopt::KeepAlive, &true)?;
        setsockopt(&socket, sockopt::TcpKeepIdle, &10)?;
        setsockopt(&socket, sockopt::TcpKeepInterval, &5)?;
        setsockopt(&socket, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS_MAX)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(Self {
            stream: TcpStream::from(socket),
            outbox: VecDeque::new(),
            sent: 0,
            queued_bytes: 0,
            awaited_bytes: 0,
            expected: HashMap::new(),
            sent_at: now,
            inbox: Inbox::Header,
            staging: vec![0; STAGING_LEN].into_boxed_slice(),
            staged: 0,
            large: 0,
        })
    }

    /// Bytes waiting to be sent or received: what a new request stands behind.
    pub fn load(&self) -> usize {
        self.queued_bytes + self.awaited_bytes
    }

    /// Whether bytes wait to be sent.
    pub fn wants_to_send(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Queues a request; [`Self::flush`] sends it.
    pub fn push(&mut self, frame: Frame, expected: Expected, now: Instant) {
        self.queued_bytes += frame.len();
        self.awaited_bytes += HEADER_LEN + expected.reply_len();
        self.large += usize::from(expected.is_large());
        self.expected.insert(frame.id(), Pending { expected, since: now });
        self.outbox.push_back(frame);
    }

    /// The ids of all requests without an answer.
    pub fn unanswered(&self) -> Vec<u32> {
        let receiving = match &self.inbox {
            Inbox::Header => None,
            Inbox::Payload { header, .. } => Some(header.id),
        };
        self.expected.keys().copied().chain(receiving).collect()
    }

    /// All requests without an answer, with what is known of their progress. Those
    /// that wait for bytes before them to leave advance with these.
    pub fn stalled(&self) -> Vec<Stalled> {
        let unsent: HashSet<u32> = self.outbox.iter().map(Frame::id).collect();
        let since = |id, pending: &Pending| {
            if unsent.contains(id) { pending.since.max(self.sent_at) } else { pending.since }
        };
        let waiting = self.expected.iter().map(|(id, pending)| Stalled {
            opcode: pending.expected.opcode,
            since: since(id, pending),
        });
        let receiving = match &self.inbox {
            Inbox::Header => None,
            Inbox::Payload { expected, since, .. } => {
                Some(Stalled { opcode: expected.opcode, since: *since })
            }
        };
        waiting.chain(receiving).collect()
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// Why the connection is lost.
    pub fn flush(&mut self, arena: &Arena, now: Instant) -> Result<(), LostReason> {
        while !self.outbox.is_empty() {
            match self.send_batch(arena) {
                Ok(sent) => self.account(sent, now),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(())
    }

    fn send_batch(&mut self, arena: &Arena) -> io::Result<usize> {
        let mut slices = Vec::with_capacity(2 * BATCH_MAX);
        for frame in self.outbox.iter().take(BATCH_MAX) {
            slices.push(IoSlice::new(&frame.header));
            match &frame.source {
                Source::None => {}
                Source::Bytes(bytes) => slices.push(IoSlice::new(bytes)),
                Source::Arena(span) => slices.push(arena.io_slice(*span)),
            }
        }
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, self.sent);
        self.stream.write_vectored(rest)
    }

    fn account(&mut self, sent: usize, now: Instant) {
        self.sent_at = now;
        self.queued_bytes -= sent;
        self.sent += sent;
        while let Some(first) = self.outbox.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            if let Some(pending) = self.expected.get_mut(&first.id()) {
                pending.since = now;
            }
            self.outbox.pop_front();
        }
    }

    /// Receives what is there and appends the replies that are complete.
    ///
    /// # Errors
    /// Why the connection is lost: it broke, or the peer is no sheep.
    pub fn receive(
        &mut self,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), LostReason> {
        loop {
            let (received, offered) = match self.receive_once(arena) {
                Ok((0, _)) => return Err(LostReason::Disconnected),
                Ok(both) => both,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(lost(&error)),
            };
            self.advance(received, arena, now, replies)?;
            if received < offered {
                return Ok(());
            }
        }
    }

    /// One read: first what is missing of a payload, then the staging buffer. Gives how
    /// many bytes came, and how many could have come.
    fn receive_once(&mut self, arena: &Arena) -> io::Result<(usize, usize)> {
        // Less than a header is staged between two reads.
        let end = if self.large > 0 { STAGING_LEN_MIN } else { STAGING_LEN };
        let staging = IoSliceMut::new(&mut self.staging[self.staged..end]);
        let room = staging.len();
        match &mut self.inbox {
            Inbox::Header => {
                (&self.stream).read_vectored(&mut [staging]).map(|received| (received, room))
            }
            Inbox::Payload { expected, buffer, received, len, .. } => {
                let target = match expected.direct(*len) {
                    Some(span) => {
                        arena.io_slice_mut(span.part(count(*received), count(*len - *received)))
                    }
                    None => IoSliceMut::new(&mut buffer[*received..]),
                };
                let offered = target.len() + room;
                let received = (&self.stream).read_vectored(&mut [target, staging])?;
                Ok((received, offered))
            }
        }
    }

    /// Accounts for `n` bytes received by [`Self::receive_once`].
    fn advance(
        &mut self,
        n: usize,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), LostReason> {
        let mut staged_more = n;
        if let Inbox::Payload { received, len, since, .. } = &mut self.inbox {
            let direct = n.min(*len - *received);
            *received += direct;
            *since = now;
            staged_more = n - direct;
        }
        self.staged += staged_more;
        self.finish_payload(replies);
        let mut at = 0;
        while matches!(self.inbox, Inbox::Header) && self.staged - at >= HEADER_LEN {
            let mut bytes = [0; HEADER_LEN];
            bytes.copy_from_slice(&self.staging[at..at + HEADER_LEN]);
            at += HEADER_LEN;
            self.begin(ReplyHeader::decode(&bytes), now)?;
            at += self.take_staged(at, arena);
            self.finish_payload(replies);
        }
        self.staging.copy_within(at..self.staged, 0);
        self.staged -= at;
        Ok(())
    }

    /// A header has come: check it against what was asked.
    fn begin(&mut self, header: ReplyHeader, now: Instant) -> Result<(), LostReason> {
        let pending = self.expected.remove(&header.id).ok_or(LostReason::NotASheep)?;
        let expected = pending.expected;
        self.large -= usize::from(expected.is_large());
        self.awaited_bytes -= HEADER_LEN + expected.reply_len();
        let len = header.data_length as usize;
        let known = Opcode::from_code(header.opcode) == Some(expected.opcode);
        // Servers before 0.8 trimmed zeros off (protocol 1.9); these are not
        // supported, so a read is answered whole or not at all.
        let read_whole = expected.opcode == Opcode::ReadObj && header.status.is_success();
        let fits =
            if read_whole { len == expected.reply_len() } else { len <= expected.reply_len() };
        if !known || !fits {
            return Err(LostReason::NotASheep);
        }
        let buffered = if expected.direct(len).is_some() { 0 } else { len };
        let buffer = vec![0; buffered];
        self.inbox = Inbox::Payload { header, expected, buffer, received: 0, len, since: now };
        Ok(())
    }

    /// Copies the payload's beginning out of the staging buffer.
    fn take_staged(&mut self, at: usize, arena: &Arena) -> usize {
        let Inbox::Payload { expected, buffer, received, len, .. } = &mut self.inbox else {
            return 0;
        };
        let have = &self.staging[at..self.staged];
        let taken = have.len().min(*len);
        match expected.direct(*len) {
            Some(span) => arena.fill(span, &have[..taken]),
            None => buffer[..taken].copy_from_slice(&have[..taken]),
        }
        *received = taken;
        taken
    }

    fn finish_payload(&mut self, replies: &mut Vec<Reply>) {
        let done = matches!(&self.inbox, Inbox::Payload { received, len, .. } if received == len);
        if !done {
            return;
        }
        if let Inbox::Payload { header, buffer, .. } =
            std::mem::replace(&mut self.inbox, Inbox::Header)
        {
            replies.push(Reply::new(header, buffer));
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Expected {
    fn is_large(&self) -> bool {
        self.reply_len() > SMALL_REPLY_LEN_MAX
    }

    /// Where a payload of `len` bytes may go straight away.
    fn direct(&self, len: usize) -> Option<sheepfs::ipc::Span> {
        match &self.destination {
            Destination::Arena(span) if span.len() as usize == len => Some(*span),
            Destination::Arena(_) | Destination::Memory { .. } => None,
        }
    }
}

/// What an error of a socket means.
pub fn lost(error: &io::Error) -> LostReason {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => LostReason::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => LostReason::Disconnected,
        _ => LostReason::Unreachable,
    }
}

/// Lengths of payloads fit 32 bits, as `data_length` does.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
