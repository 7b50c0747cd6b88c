//! The link to one worker: its end of the socket, its arena, and the messages
//! that the socket had no room for.
//!
//! Any thread sends; nobody waits. When the socket is full a message goes to the
//! outbox, and behind it every later one, so the order is kept. The outbox needs
//! no bound of its own: it holds at most one message for each request with a slot,
//! and a few for control files and volumes. One thread for each
//! link reads what the worker says, all there is at each waking, and empties the
//! outbox when there is room again.
//!
//! The thread outlives the channel: it goes on until the worker's pidfd tells of
//! its death, since an end-of-file proves nothing (hazard 4). Then everything that
//! the worker has ever said is read, and only then the control loop hears that it
//! is gone.

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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// How the worker was after a turn.
enum Turn {
    Alive,
    Dead,
}

/// What a wait found besides words.
struct Woken {
    /// The worker is dead.
    dead: bool,
    /// There may be messages in the outbox.
    waking: bool,
}

/// How much of what was said was heard.
enum Heard {
    All,
    Some,
}

/// One worker's link.
#[derive(Debug)]
pub struct Link {
    generation: u64,
    socket: SupervisorEnd,
    arena: Arc<Arena>,
    /// Readable when the worker's process is dead.
    process: OwnedFd,
    outbox: Mutex<VecDeque<ToWorker>>,
    /// Whether there is something in the outbox; changed under its lock only. While
    /// nothing waits there, threads send side by side: a send may wake the worker on
    /// this very core, and nobody shall wait for a lock of a thread that does not run.
    /// What one thread says behind what another has said still comes behind it, since
    /// either that is in the socket already, or this says that it waits.
    is_waiting: AtomicBool,
    /// Rouses the reader when the outbox is no longer empty.
    wake: EventFd,
}

impl Link {
    /// A link to the worker of that generation, over a new pair and a new arena, to
    /// the process of that pidfd.
    ///
    /// # Errors
    /// When the kernel gives no descriptor.
    pub fn new(
        generation: u64,
        socket: SupervisorEnd,
        arena: Arena,
        process: OwnedFd,
    ) -> Result<Self, Errno> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let arena = Arc::new(arena);
        let is_waiting = AtomicBool::new(false);
        Ok(Self { generation, socket, arena, process, outbox: Mutex::default(), is_waiting, wake })
    }

    /// Which worker.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Its shared memory.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Its shared memory, to be kept beyond the link.
    pub fn shared_arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Tells the worker something, in order and without waiting. When the worker
    /// is gone nothing happens here; the reader notices.
    pub fn send(&self, message: ToWorker) {
        if !self.is_waiting.load(Ordering::Acquire) && self.offer(&message) {
            return;
        }
        let mut outbox = self.outbox();
        if outbox.is_empty() && self.offer(&message) {
            return;
        }
        outbox.push_back(message);
        self.is_waiting.store(true, Ordering::Release);
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

    /// Reads until the worker is dead, and tells the control loop of the end of the
    /// channel and of the death. Answers to reads, writes and flushes go to `data`,
    /// all else to `events`.
    pub fn run<R: Parked>(&self, data: &DataPath<R>, events: &Events) {
        let generation = self.generation;
        loop {
            match self.turn(data, events) {
                Ok(Turn::Alive) => continue,
                Ok(Turn::Dead) => {}
                Err(LinkError::Channel(ChannelError::Closed)) => {
                    events.tell(Event::WorkerBroken { generation, nonsense: false });
                    self.wait_for_death();
                }
                Err(error) => {
                    tracing::error!(worker = generation, "{error}; the worker is ended");
                    events.tell(Event::WorkerBroken { generation, nonsense: true });
                    self.wait_for_death();
                    self.hear_of_changes(data);
                }
            }
            break;
        }
        events.tell(Event::WorkerGone { generation });
    }

    fn turn<R: Parked>(&self, data: &DataPath<R>, events: &Events) -> Result<Turn, LinkError> {
        let Woken { dead, waking } = self.wait().map_err(LinkError::Wait)?;
        if waking {
            self.empty_outbox();
        }
        loop {
            let (done, end) = self.receive(data, events);
            let heard = done.len();
            data.complete(self.generation, done)?;
            match end {
                Err(LinkError::Channel(ChannelError::Closed)) if dead => return Ok(Turn::Dead),
                Err(error) => return Err(error),
                // A dead worker's words are read to the last one.
                Ok(Heard::All) if dead => return Ok(Turn::Dead),
                Ok(Heard::Some) if dead => tracing::trace!(
                    worker = self.generation,
                    heard,
                    "more of a dead worker's words"
                ),
                Ok(_) => return Ok(Turn::Alive),
            }
        }
    }

    /// Waits for words, room, or the worker's death.
    fn wait(&self) -> Result<Woken, Errno> {
        let waiting = self.is_waiting.load(Ordering::Acquire);
        let room = if waiting { PollFlags::POLLOUT } else { PollFlags::empty() };
        let socket = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | room);
        let wake = PollFd::new(self.wake.as_fd(), PollFlags::POLLIN);
        let process = PollFd::new(self.process.as_fd(), PollFlags::POLLIN);
        let mut fds = [socket, wake, process];
        let heard = self.socket.has_received();
        match poll(&mut fds, if heard { PollTimeout::ZERO } else { PollTimeout::NONE }) {
            Ok(_) => {
                let [_, wake, process] = fds.map(|fd| fd.any().unwrap_or(true));
                Ok(Woken { dead: process, waking: waiting || wake })
            }
            Err(Errno::EINTR) => Ok(Woken { dead: false, waking: waiting }),
            Err(errno) => Err(errno),
        }
    }

    /// Of what a worker that was ended for its nonsense has said besides, only that
    /// counts which makes us more careful.
    fn hear_of_changes<R: Parked>(&self, data: &DataPath<R>) {
        loop {
            match self.socket.receive() {
                Ok(Some(FromWorker::Creating { tag, block })) => {
                    let _ = data.note_creating(self.generation, tag, block);
                }
                Ok(Some(FromWorker::Growing { tag })) => {
                    let _ = data.note_growing(self.generation, tag);
                }
                Ok(Some(FromWorker::Repairing { volume, block })) => {
                    data.note_repairing(volume, block);
                }
                Ok(Some(_)) | Err(ChannelError::Decode(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn wait_for_death(&self) {
        let mut process = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        while poll(&mut process, PollTimeout::NONE) == Err(Errno::EINTR) {}
    }

    /// Answers of the data path, and whether there is more, or the link has ended
    /// behind them.
    fn receive<R: Parked>(
        &self,
        data: &DataPath<R>,
        events: &Events,
    ) -> (Vec<Outcome>, Result<Heard, LinkError>) {
        let mut done = Vec::new();
        for _ in 0..BATCH_LEN_MAX {
            match self.socket.receive() {
                Ok(Some(FromWorker::Creating { tag, block })) => {
                    if let Err(lie) = data.note_creating(self.generation, tag, block) {
                        return (done, Err(lie.into()));
                    }
                }
                Ok(Some(FromWorker::Growing { tag })) => {
                    if let Err(lie) = data.note_growing(self.generation, tag) {
                        return (done, Err(lie.into()));
                    }
                }
                Ok(Some(FromWorker::Allocated { volume, allocation })) => {
                    data.note_allocated(volume, allocation);
                }
                // All that it follows is in the state by now.
                Ok(Some(FromWorker::Discarding { .. })) => self.send(ToWorker::Noted),
                Ok(Some(FromWorker::Sought { tag, offset })) => {
                    if let Err(lie) = data.note_sought(self.generation, tag, offset) {
                        return (done, Err(lie.into()));
                    }
                }
                Ok(Some(FromWorker::Stored { volume, number, usage }))
                    if data.note_stored(self.generation, volume, number, usage) => {}
                Ok(Some(FromWorker::Done { tag, outcome })) if tag.0 & CONTROL_TAG == 0 => {
                    done.push((tag, outcome));
                }
                Ok(Some(message)) => {
                    match &message {
                        FromWorker::Repairing { volume, block } => {
                            data.note_repairing(*volume, *block);
                        }
                        FromWorker::Moved { volume, .. } => data.note_moved(*volume),
                        _ => {}
                    }
                    events.tell(Event::Worker { generation: self.generation, message });
                }
                Ok(None) => return (done, Ok(Heard::All)),
                Err(error) => return (done, Err(error.into())),
            }
        }
        (done, Ok(Heard::Some))
    }

    fn empty_outbox(&self) {
        // Only the count is thrown away; an error says that it was 0.
        let _ = self.wake.read();
        let mut outbox = self.outbox();
        while outbox.front().is_some_and(|message| self.offer(message)) {
            outbox.pop_front();
        }
        self.is_waiting.store(!outbox.is_empty(), Ordering::Release);
    }

    /// Whether the message needs no further care.
    fn offer(&self, message: &ToWorker) -> bool {
        match self.socket.send(message) {
            Ok(sent) => sent,
            Err(ChannelError::Closed) => true,
            Err(error) => {
                tracing::error!(worker = self.generation, "{error}; the worker is ended");
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
