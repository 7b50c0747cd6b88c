//! What the worker has from the supervisor: the channel, with the messages that
//! wait to be sent, and the arena.

use crate::poller::poll_until;
use sheepfs::ipc::{Arena, ChannelError, FromWorker, ToWorker, WorkerEnd};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

/// The worker's side of the supervisor.
pub struct Link {
    channel: WorkerEnd,
    /// The shared memory.
    pub arena: Arena,
    /// Messages that found no room in the socket, in order. Bounded by what the
    /// supervisor has asked: each request has one answer, or one report.
    outbox: VecDeque<FromWorker>,
}

impl Link {
    /// Takes what was inherited.
    pub fn new(channel: WorkerEnd, arena: Arena) -> Self {
        Self { channel, arena, outbox: VecDeque::new() }
    }

    /// Queues messages; [`Self::send`] sends them.
    pub fn say(&mut self, messages: impl IntoIterator<Item = FromWorker>) {
        self.outbox.extend(messages);
    }

    /// Sends as many messages as the socket takes.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn send(&mut self) -> Result<(), ChannelError> {
        while !self.outbox.is_empty() {
            match self.channel.send_some(&self.outbox)? {
                0 => break,
                sent => drop(self.outbox.drain(..sent)),
            }
        }
        Ok(())
    }

    /// Sends all messages, though the supervisor takes its time.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn send_all(&mut self) -> Result<(), ChannelError> {
        self.send()?;
        while !self.is_clear() {
            poll_until(&[(self.channel.as_fd(), true)], None).map_err(ChannelError::Socket)?;
            self.send()?;
        }
        Ok(())
    }

    /// Whether all that was said is in the kernel, and so outlives this process.
    pub fn is_clear(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn receive(&self) -> Result<Option<ToWorker>, ChannelError> {
        self.channel.receive()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
