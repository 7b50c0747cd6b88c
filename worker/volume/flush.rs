//! Flushes: each waits for the writes that came before it, with their index
//! updates, and no others (protocol 11).

use super::{Io, RETRY_DELAY, Volume, Wait};
use crate::verdict::{Verdict, on_flush};
use sheepfs::ipc::{Failure, Tag};
use sheepfs::wire::{Request, Status};
use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

/// The writes under way, by age, and the flushes that wait for some of them.
#[derive(Debug, Default)]
pub struct Barriers {
    next: u64,
    writes: BTreeSet<u64>,
    waiting: VecDeque<(u64, Tag)>,
    /// Flushes that the cluster did not want yet, to be sent again then.
    delayed: VecDeque<(Instant, Tag)>,
}

impl Barriers {
    /// A write begins; gives its place.
    pub fn begin_write(&mut self) -> u64 {
        self.next += 1;
        self.writes.insert(self.next);
        self.next
    }

    /// A write is over.
    pub fn end_write(&mut self, write: u64) {
        self.writes.remove(&write);
    }

    /// A flush waits for all writes so far.
    pub fn wait(&mut self, tag: Tag) {
        self.waiting.push_back((self.next, tag));
    }

    /// The oldest flush whose writes are all over.
    pub fn ready(&mut self) -> Option<Tag> {
        let (barrier, tag) = self.waiting.front().copied()?;
        let oldest = self.writes.first().copied().unwrap_or(u64::MAX);
        (oldest > barrier).then(|| self.waiting.pop_front())?;
        Some(tag)
    }

    /// A flush waits for that time; its writes are all over.
    pub fn delay(&mut self, tag: Tag, until: Instant) {
        self.delayed.push_back((until, tag));
    }

    /// The first delayed flush whose time has come.
    pub fn ripe(&mut self, now: Instant) -> Option<Tag> {
        self.delayed_until().filter(|until| *until <= now)?;
        self.delayed.pop_front().map(|(_, tag)| tag)
    }

    /// When the first delayed flush is to be sent.
    pub fn delayed_until(&self) -> Option<Instant> {
        self.delayed.front().map(|(until, _)| *until)
    }

    /// Whether no write is under way and no flush waits.
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.waiting.is_empty() && self.delayed.is_empty()
    }
}

impl Volume {
    /// Takes a flush.
    pub fn flush(&mut self, tag: Tag, io: &mut Io) {
        self.barriers.wait(tag);
        self.send_flushes(io);
    }

    pub(super) fn send_flushes(&mut self, io: &mut Io) {
        while let Some(tag) = self.barriers.ready() {
            self.send_flush(tag, io);
        }
    }

    /// Sends again what was delayed.
    pub(super) fn tick_flushes(&mut self, io: &mut Io) {
        while let Some(tag) = self.barriers.ripe(io.now) {
            self.send_flush(tag, io);
        }
    }

    fn send_flush(&mut self, tag: Tag, io: &mut Io) {
        if let Some(failure) = self.failure() {
            io.done(tag, Err(failure));
        } else if *io.flush_refused {
            io.done(tag, Ok(()));
        } else {
            self.send(Request::flush_vdi(self.own), None, Wait::Flush(tag), io);
        }
    }

    pub(super) fn flush_replied(&mut self, tag: Tag, status: Status, io: &mut Io) {
        if status == Status::InvalidParms {
            *io.flush_refused = true;
        }
        match on_flush(status) {
            Verdict::Done => io.done(tag, Ok(())),
            Verdict::Retry => self.barriers.delay(tag, io.now + RETRY_DELAY),
            Verdict::Fail(failure) => io.done(tag, Err(failure)),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                io.done(tag, Err(Failure::BadAnswer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_earlier_writes_only() {
        let mut barriers = Barriers::default();
        let first = barriers.begin_write();
        barriers.wait(Tag(1));
        let second = barriers.begin_write();
        barriers.wait(Tag(2));
        assert_eq!(barriers.ready(), None);
        barriers.end_write(first);
        assert_eq!(barriers.ready(), Some(Tag(1)));
        assert_eq!(barriers.ready(), None);
        barriers.end_write(second);
        assert_eq!(barriers.ready(), Some(Tag(2)));
        assert!(barriers.is_idle());
    }

    #[test]
    fn a_flush_with_nothing_before_it_is_ready() {
        let mut barriers = Barriers::default();
        barriers.wait(Tag(7));
        assert_eq!(barriers.ready(), Some(Tag(7)));
    }
}
