//! Writing the index, after the objects that it names exist.

use super::index::Update;
use super::recent::Allocation;
use super::{Io, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use crate::verdict::Verdict;
use sheepfs::ipc::{self, Failure, FromWorker};
use sheepfs::wire::Request;

impl Volume {
    pub(super) fn send_updates(&mut self, io: &mut Io) {
        if self.updates_delayed.is_some() {
            return;
        }
        if self.is_hyper() {
            return self.change_tree(io);
        }
        while let Some(update) = self.updates.next() {
            if let Some(failure) = self.failure() {
                // The inode may be somebody else's by now.
                self.finish_update(&update, Some(failure), io);
                continue;
            }
            match Request::write_index(self.own, update.first, update.count(), self.own) {
                Some(request) => self.send(request, None, Wait::Update(update), io),
                None => self.finish_update(&update, Some(Failure::OutOfBounds), io),
            }
        }
    }

    pub(super) fn update_replied(&mut self, update: &Update, verdict: Verdict, io: &mut Io) {
        match verdict {
            Verdict::Done => {
                for (block, _) in update.blocks() {
                    self.set_entry(block, self.own.get());
                    self.unsure.remove(&block);
                    let owner = self.own;
                    self.recent.push(Allocation::new(block, owner, io.now));
                    self.tell_allocation(block, owner.get(), io);
                }
                self.refusals = 0;
                self.tell_stored(io);
                self.finish_update(update, None, io);
            }
            Verdict::Retry => self.update_later(update, io),
            // While the cluster recovers, an inode may not be found yet.
            Verdict::Recheck if self.refusals < REFUSALS_MAX && self.failure().is_none() => {
                self.refusals += 1;
                self.update_later(update, io);
            }
            Verdict::Fail(failure) => self.finish_update(update, Some(failure), io),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                self.finish_update(update, Some(Failure::ObjectLost), io);
            }
        }
        self.send_updates(io);
    }

    fn update_later(&mut self, update: &Update, io: &Io) {
        self.updates.finish();
        update.blocks().for_each(|(block, part)| self.updates.push(block, part));
        self.updates_delayed = Some(io.now + RETRY_DELAY);
    }

    /// Lets the supervisor remember an entry: a worker that follows this one may have
    /// to repair it. Said before the write that waits for it is done.
    pub(super) fn tell_allocation(&self, block: u32, owner: u32, io: &mut Io) {
        if self.is_hyper() {
            return;
        }
        let allocation = ipc::Allocation { block, owner };
        io.out.push(FromWorker::Allocated { volume: self.id, allocation });
    }

    pub(super) fn finish_update(&mut self, update: &Update, failure: Option<Failure>, io: &mut Io) {
        self.updates.finish();
        if failure.is_some() {
            // The entry may be there or not.
            self.give_up_count(io);
        }
        for (block, part) in update.blocks() {
            if failure.is_some() {
                self.unsure.insert(block);
            }
            self.finish_part(block, part, failure, io);
            self.pump(block, io);
        }
    }
}
