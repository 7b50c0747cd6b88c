//! One TCP connection to a sheep, without blocking.
//!
//! Requests leave in order, header and payload together in one vectored write
//! (hazard 48): the payload lies complete in the arena or in memory before the
//! first byte goes out: that is in `outbox`. Replies come in any order and are matched
//! by id: how they are received is in `inbox`.

mod inbox;
mod outbox;

use crate::frame::{Expected, Frame};
use inbox::{Inbox, STAGING_LEN};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use outbox::Outbox;
use sheepfs::ipc::{Arena, LostReason};
use sheepfs::wire::{HEADER_LEN, Opcode};
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

/// How long the peer's kernel may acknowledge nothing, in milliseconds. A sheep
/// that hangs is found sooner (`detection`); this is for a single connection that
/// the network forgot while new ones work, which nothing else would end.
const UNACKNOWLEDGED_MS_MAX: u32 = 30_000;

/// A connection, established or on its way.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    outbox: Outbox,
    /// Bytes of replies still to come.
    awaited_bytes: usize,
    expected: HashMap<u32, Pending>,
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
            outbox: Outbox::new(now),
            awaited_bytes: 0,
            expected: HashMap::new(),
            inbox: Inbox::Header,
            staging: vec![0; STAGING_LEN].into_boxed_slice(),
            staged: 0,
            large: 0,
        })
    }

    /// Bytes waiting to be sent or received: what a new request stands behind.
    pub fn load(&self) -> usize {
        self.outbox.queued_bytes() + self.awaited_bytes
    }

    /// Whether bytes wait to be sent.
    pub fn wants_to_send(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Queues a request; [`Self::flush`] sends it.
    pub fn push(&mut self, frame: Frame, expected: Expected, now: Instant) {
        self.awaited_bytes += HEADER_LEN + expected.reply_len();
        self.large += usize::from(expected.is_large());
        self.expected.insert(frame.id(), Pending { expected, since: now });
        self.outbox.push(frame);
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
        let unsent: HashSet<u32> = self.outbox.ids().collect();
        let since = |id, pending: &Pending| {
            if unsent.contains(id) {
                pending.since.max(self.outbox.sent_at())
            } else {
                pending.since
            }
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
            match self.outbox.send_batch(&self.stream, arena) {
                Ok(sent) => self.outbox.account(sent, now, |id| {
                    if let Some(pending) = self.expected.get_mut(&id) {
                        pending.since = now;
                    }
                }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
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

#[cfg(test)]
mod tests;
