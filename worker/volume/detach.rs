//! The end of a volume: it finishes what is under way and gives its lock back.

use super::{Io, Phase, Volume, Wait};
use crate::verdict::Verdict;
use sheepfs::ipc::{Failure, Tag};
use sheepfs::wire::Request;

impl Volume {
    /// Finishes what is under way, then gives the lock back and answers.
    pub fn detach(&mut self, tag: Tag, io: &mut Io) {
        if self.detaching.is_some() {
            return io.done(tag, Err(Failure::NotAttached));
        }
        self.detaching = Some(tag);
        self.settle(io);
    }

    /// Everything is over: a last look for a snapshot that may have lost index
    /// entries of ours, since nobody else will repair them; then the release.
    pub(super) fn finish_detach(&mut self, io: &mut Io) {
        let Some(tag) = self.detaching else { return };
        if !self.looked && self.failure().is_none() && !self.recent.is_empty() {
            self.looked = true;
            return self.look_at_header(io);
        }
        self.detaching = None;
        self.release(tag, io);
    }

    fn release(&mut self, tag: Tag, io: &mut Io) {
        self.phase = Phase::Failed(Failure::NotAttached);
        io.cache.drop_volume(self.id);
        io.ahead.drop_volume(self.id);
        match self.locked.take() {
            Some(vid) => self.send(Request::release_vdi(vid), None, Wait::Release(tag), io),
            None => io.done(tag, Ok(())),
        }
    }

    /// Whether it was detached, and all is answered.
    pub fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Failed(Failure::NotAttached)) && self.on_wire == 0
    }
}

/// Whether a lock is given back. One that is not stays, and the supervisor says so.
pub fn released(verdict: Verdict) -> Result<(), Failure> {
    match verdict {
        Verdict::Done => Ok(()),
        Verdict::Fail(failure) => Err(failure),
        Verdict::Retry | Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
            Err(Failure::TimedOut)
        }
    }
}
