//! The sending side of a connection: frames that have not left, in order, and how much of
//! them has.

use crate::frame::{Frame, Source};
use sheepfs::ipc::Arena;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::time::Instant;

/// Frames that one vectored write takes at most.
const BATCH_MAX: usize = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that have left already.
    sent: usize,
    queued_bytes: usize,
    /// When bytes left last.
    sent_at: Instant,
}

impl Outbox {
    /// Nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { frames: VecDeque::new(), sent: 0, queued_bytes: 0, sent_at: now }
    }

    /// One more, behind all others.
    pub(super) fn push(&mut self, frame: Frame) {
        self.queued_bytes += frame.len();
        self.frames.push_back(frame);
    }

    /// Whether everything has left.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that have not left.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// When bytes left last.
    pub(super) fn sent_at(&self) -> Instant {
        self.sent_at
    }

    /// The ids of frames that have not left completely.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.frames.iter().map(Frame::id)
    }

    /// One write, of as many frames as it takes. Gives how many bytes left, which are to be
    /// accounted for.
    pub(super) fn send_batch(&self, mut stream: &TcpStream, arena: &Arena) -> io::Result<usize> {
        let mut slices = Vec::with_capacity(2 * BATCH_MAX);
        for frame in self.frames.iter().take(BATCH_MAX) {
            slices.push(IoSlice::new(&frame.header));
            match &frame.source {
                Source::None => {}
                Source::Bytes(bytes) => slices.push(IoSlice::new(bytes)),
                Source::Arena(span) => slices.push(arena.io_slice(*span)),
            }
        }
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, self.sent);
        stream.write_vectored(rest)
    }

    /// So many bytes have left. `complete` hears of each frame that has left with them.
    pub(super) fn account(&mut self, sent: usize, now: Instant, mut complete: impl FnMut(u32)) {
        self.sent_at = now;
        self.queued_bytes -= sent;
        self.sent += sent;
        while let Some(first) = self.frames.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            complete(first.id());
            self.frames.pop_front();
        }
    }
}
