//! The link to one worker: its end of the socket, its arena, and the messages
//! that the socket had no room for.
//!
//! Any thread sends; nobody waits. When the socket is full a message goes to the
//! outbox, and behind it every later one, so the order is kept. The outbox needs
//! no bound of its own: it holds at most one message for each request in flight,
//! and those are bounded by what the kernel has outstanding. One thread for each
//! link reads what the worker says, all there is at each waking, and empties the
//! outbox when there is room again. It ends with the link.

use crate::datapath::{DataPath, Parked};
use crate::events::{Event, Events};
use crate::inflight::{Allegation, CONTROL_TAG};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{Shutdown, shutdown};
use sheepfs::ipc::{Arena, ChannelError, Failure, FromWorker, SupervisorEnd, Tag, ToWorker};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The most messages that are read before their answers are passed on: the first
/// one of a long queue shall not wait for the last.
const BATCH_LEN_MAX: usize = 64;

/// Why a link ended.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The worker ended, or broke the channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The worker said something that can't be.
    #[error("the worker can't be trusted: {0}")]
    Allegation(#[from] Allegation),
    /// This process can't wait for messages.
    #[error("waiting for the worker failed: {0}")]
    Wait(Errno),
}

/// One worker's link.
#[derive(Debug)]
pub struct Link {
    generation: u64,
    socket: SupervisorEnd,
    arena: Arena,
    outbox: Mutex<VecDeque<ToWorker>>,
    /// Rouses the reader when the outbox is no longer empty.
    wake: EventFd,
    /// Readable when the process is dead.
    pidfd: OwnedFd,
}

impl Link {
    /// A link to the worker of that generation, over a new pair and a new arena.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new(
        generation: u64,
        socket: SupervisorEnd,
        arena: Arena,
        pidfd: OwnedFd,
    ) -> Result<Self, Errno> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { generation, socket, arena, outbox: Mutex::default(), wake, pidfd })
    }

    /// Which worker.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its shared memory.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Tells the worker something, in order and without waiting. When the worker
    /// is gone nothing happens here; the reader notices.
    pub fn send(&self, message: ToWorker) {
        let mut outbox = self.outbox();
        if outbox.is_empty() && self.offer(&message) {
            return;
        }
        outbox.push_back(message);
        drop(outbox);
        // The only error is a counter at its limit, which wakes as well.
        let _ = self.wake.write(1);
    }

    /// Hangs up: the worker gets to the end of what it was told, and the reader
    /// ends. What the worker still says is lost.
    pub fn hang_up(&self) {
        // It fails only when the worker has done it already.
        let _ = shutdown(self.socket.as_fd().as_raw_fd(), Shutdown::Both);
    }

    /// Reads until the link ends, and tells the control loop that it did.
    /// Answers to reads, writes and flushes go to `data`, all else to `events`.
    pub fn run<R: Parked>(&self, data: &DataPath<R>, events: &Events) {
        let nonsense = loop {
            match self.turn(data, events) {
                Ok(()) => {}
                Err(LinkError::Channel(ChannelError::Closed)) => break false,
                Err(error) => {
                    tracing::error!(generation = self.generation, "{error}; the worker is ended");
                    break true;
                }
            }
        };
        events.tell(Event::WorkerBroken { generation: self.generation, nonsense });
        let _ = poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE);
        events.tell(Event::WorkerGone { generation: self.generation });
    }

    fn turn<R: Parked>(&self, data: &DataPath<R>, events: &Events) -> Result<(), LinkError> {
        self.wait().map_err(LinkError::Wait)?;
        self.empty_outbox();
        let (done, end) = self.receive(events);
        data.complete(self.generation, done)?;
        end.map_err(LinkError::Channel)
    }

    fn wait(&self) -> Result<(), Errno> {
        let waiting = !self.outbox().is_empty();
        let room = if waiting { PollFlags::POLLOUT } else { PollFlags::empty() };
        let socket = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | room);
        let wake = PollFd::new(self.wake.as_fd(), PollFlags::POLLIN);
        match poll(&mut [socket, wake], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Answers of the data path, and whether the link has ended behind them.
    fn receive(&self, events: &Events) -> (Vec<Outcome>, Result<(), ChannelError>) {
        let mut done = Vec::new();
        for _ in 0..BATCH_LEN_MAX {
            match self.socket.receive() {
                Ok(Some(FromWorker::Done { tag, outcome })) if tag.0 & CONTROL_TAG == 0 => {
                    done.push((tag, outcome));
                }
                Ok(Some(message)) => {
                    events.tell(Event::Worker { generation: self.generation, message });
                }
                Ok(None) => break,
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    fn empty_outbox(&self) {
        // Only the count is thrown away; an error says that it was 0.
        let _ = self.wake.read();
        let mut outbox = self.outbox();
        while outbox.front().is_some_and(|message| self.offer(message)) {
            outbox.pop_front();
        }
    }

    /// Whether the message needs no further care.
    fn offer(&self, message: &ToWorker) -> bool {
        match self.socket.send(message) {
            Ok(sent) => sent,
            Err(ChannelError::Closed) => true,
            Err(error) => {
                tracing::error!(generation = self.generation, "{error}; the worker is ended");
                self.hang_up();
                true
            }
        }
    }

    fn outbox(&self) -> MutexGuard<'_, VecDeque<ToWorker>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a request of the data path ended, as the worker says.
pub type Outcome = (Tag, Result<(), Failure>);
