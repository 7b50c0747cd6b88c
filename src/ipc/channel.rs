//! The socket between the processes, typed by direction.
//!
//! A `SOCK_SEQPACKET` socketpair: the order is kept, and the end of either process is
//! an end-of-file at the other. A datagram is one message, or, from the worker under
//! load, several whole ones one behind the other. It never blocks: a send that finds
//! no room says so, and the sender keeps a queue.

use super::message::{FromWorker, ToWorker};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt,
};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The longest message; reports are cut into pieces below this.
pub const MESSAGE_LEN_MAX: usize = 32 << 10;
/// Room for every message of the data path, on the sender's stack.
const SMALL_LEN: usize = 64;
/// The longest datagram of several messages.
const PACK_LEN: usize = 2048;
/// Room for messages in the kernel: some ten thousand small ones.
const SOCKET_BUFFER_LEN: usize = 4 << 20;

/// What went wrong on the channel.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The other process closed its end or died.
    #[error("the other process is gone")]
    Closed,
    /// The socket failed.
    #[error("the socket to the other process failed: {0}")]
    Socket(Errno),
    /// A message is not what this build sends.
    #[error("a message from the other process can't be read: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// A message is too long to be sent.
    #[error("a message to the other process can't be written: {0}")]
    Encode(#[from] bincode::error::EncodeError),
}

/// One end of the channel: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Channel<S, R> {
    socket: OwnedFd,
    /// One thread receives, so nobody ever waits for the lock.
    inbox: Mutex<Inbox>,
    types: PhantomData<fn(S) -> R>,
}

/// Where datagrams are received, and what was not yet taken from the last one.
#[derive(Debug)]
struct Inbox {
    buffer: Box<[u8]>,
    taken: usize,
    len: usize,
}

/// The supervisor's end.
pub type SupervisorEnd = Channel<ToWorker, FromWorker>;
/// The worker's end.
pub type WorkerEnd = Channel<FromWorker, ToWorker>;

/// Makes a channel. The worker's end is a bare descriptor, to be inherited.
///
/// # Errors
/// When the kernel gives no descriptors.
pub fn pair() -> Result<(SupervisorEnd, OwnedFd), ChannelError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
        .map_err(ChannelError::Socket)?;
    Ok((Channel::from_fd(ours), theirs))
}

impl<S: Serialize, R: DeserializeOwned> Channel<S, R> {
    /// Takes an end of a pair.
    #[must_use]
    pub fn from_fd(socket: OwnedFd) -> Self {
        // Without the right to exceed the system's limit the usual buffer must
        // do; it holds some hundred messages.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER_LEN)
            .or_else(|_| setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_LEN));
        let buffer = vec![0; MESSAGE_LEN_MAX].into_boxed_slice();
        let inbox = Mutex::new(Inbox { buffer, taken: 0, len: 0 });
        Self { socket, inbox, types: PhantomData }
    }

    /// Sends a message. `false`: there is no room now; it was not sent.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the other process is gone.
    pub fn send(&self, message: &S) -> Result<bool, ChannelError> {
        let mut small = [0; SMALL_LEN];
        let config = bincode::config::standard();
        match bincode::serde::encode_into_slice(message, &mut small, config) {
            Ok(len) => self.send_bytes(&small[..len]),
            Err(_) => self.send_bytes(&bincode::serde::encode_to_vec(message, config)?),
        }
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<bool, ChannelError> {
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), bytes, flags) {
                Ok(_) => return Ok(true),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(false),
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(ChannelError::Closed),
                Err(errno) => return Err(ChannelError::Socket(errno)),
            }
        }
    }

    /// Receives a message. `None`: there is none now.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the other process is gone.
    pub fn receive(&self) -> Result<Option<R>, ChannelError> {
        let mut inbox = self.inbox();
        let Inbox { buffer, taken, len } = &mut *inbox;
        while *taken == *len {
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(received) => (*taken, *len) = (0, received),
                // Said once, before its last words are given out, by the end of a
                // process that had not read all of ours: they count all the same.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(ChannelError::Socket(errno)),
            }
        }
        let config = bincode::config::standard().with_limit::<MESSAGE_LEN_MAX>();
        let rest = &buffer[*taken..*len];
        // What follows something that can't be read can't be read either.
        *taken = *len;
        let (message, used) = bincode::serde::decode_from_slice(rest, config)?;
        *taken -= rest.len().saturating_sub(used);
        Ok(Some(message))
    }

    /// Whether [`Self::receive`] has a message that the socket tells nobody of.
    pub fn has_received(&self) -> bool {
        let inbox = self.inbox();
        inbox.taken < inbox.len
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkerEnd {
    /// Sends the first of `messages`, as many as make one datagram. Gives how many that
    /// were; 0: there is no room now.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the supervisor is gone.
    pub fn send_some(&self, messages: &VecDeque<FromWorker>) -> Result<usize, ChannelError> {
        let mut pack = [0; PACK_LEN];
        let config = bincode::config::standard();
        let (mut count, mut len) = (0, 0);
        for message in messages {
            match bincode::serde::encode_into_slice(message, &mut pack[len..], config) {
                Ok(more) => (count, len) = (count + 1, len + more),
                Err(_) => break,
            }
        }
        match messages.front() {
            None => Ok(0),
            Some(first) if count == 0 => self.send(first).map(usize::from),
            Some(_) => Ok(if self.send_bytes(&pack[..len])? { count } else { 0 }),
        }
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::{RawSpan, Tag, VolumeId};

    fn read(tag: u64) -> ToWorker {
        let span = RawSpan { offset: u32::MAX, len: u32::MAX };
        ToWorker::Read { tag: Tag(tag), volume: VolumeId(u32::MAX), offset: u64::MAX, span }
    }

    #[test]
    fn messages_arrive_in_order_and_an_end_is_noticed() {
        let (ours, theirs) = pair().unwrap();
        let theirs = WorkerEnd::from_fd(theirs);
        assert!(theirs.receive().unwrap().is_none());
        for tag in 0..3 {
            assert!(ours.send(&read(tag)).unwrap());
        }
        for tag in 0..3 {
            assert_eq!(theirs.receive().unwrap(), Some(read(tag)));
        }
        drop(theirs);
        assert!(matches!(ours.receive(), Err(ChannelError::Closed)));
        assert!(matches!(ours.send(&read(0)), Err(ChannelError::Closed)));
    }

    #[test]
    fn the_last_words_of_one_who_did_not_listen_are_heard() {
        let (ours, theirs) = pair().unwrap();
        let theirs = WorkerEnd::from_fd(theirs);
        assert!(ours.send(&read(1)).unwrap());
        let words = FromWorker::Creating { tag: Tag(1), block: 7 };
        assert!(theirs.send(&words).unwrap());
        drop(theirs);
        assert_eq!(ours.receive().unwrap(), Some(words));
        assert!(matches!(ours.receive(), Err(ChannelError::Closed)));
    }

    #[test]
    fn messages_in_one_datagram_are_as_good_as_each_in_its_own() {
        let (ours, theirs) = pair().unwrap();
        let theirs = WorkerEnd::from_fd(theirs);
        let long = FromWorker::ReportChunk { tag: Tag(7), last: true, bytes: vec![9; 5000] };
        let pong = |number| FromWorker::Pong { number };
        let said: Vec<_> = (0..1000).map(pong).chain([long]).chain((0..3).map(pong)).collect();
        let mut queue: VecDeque<_> = said.iter().cloned().collect();
        let mut datagrams = 0;
        while !queue.is_empty() {
            let sent = theirs.send_some(&queue).unwrap();
            assert!(sent > 0);
            queue.drain(..sent);
            datagrams += 1;
        }
        assert!(datagrams < 10, "{datagrams} datagrams");
        assert_eq!(theirs.send_some(&queue).unwrap(), 0);
        assert!(!ours.has_received());
        for (at, message) in said.iter().enumerate() {
            assert_eq!(ours.receive().unwrap().as_ref(), Some(message));
            assert!(at > 0 || ours.has_received(), "the first came alone");
        }
        assert!(!ours.has_received());
        assert_eq!(ours.receive().unwrap(), None);
    }

    #[test]
    fn a_full_socket_says_so() {
        let (ours, _theirs) = pair().unwrap();
        let sent = (0..1_000_000).take_while(|tag| ours.send(&read(*tag)).unwrap()).count();
        assert!(sent > 100, "{sent} messages fit");
        assert!(sent < 1_000_000);
    }

    #[test]
    fn messages_of_the_data_path_are_small() {
        let encoded = bincode::serde::encode_to_vec(read(u64::MAX), bincode::config::standard());
        assert!(encoded.unwrap().len() <= 64);
    }

    #[test]
    fn rubbish_is_an_error_not_a_panic() {
        let (ours, theirs) = pair().unwrap();
        send(ours.as_fd().as_raw_fd(), &[0xff; 40], MsgFlags::empty()).unwrap();
        let theirs = WorkerEnd::from_fd(theirs);
        assert!(matches!(theirs.receive(), Err(ChannelError::Decode(_))));
    }
}
