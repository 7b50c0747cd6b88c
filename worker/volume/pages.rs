//! Reading the index, a page when one of its blocks is first touched.
//!
//! The index of a deleted VDI is all zeros, which would make holes of all that it
//! held. So a page is believed only when the header, read after it, is still our
//! VDI's (hazard 10).
//!
//! A snapshot that loses an entry loses it in the old inode too (protocol 7.4). A
//! worker that was there knows better, from its index; one that follows a dead one
//! reads the old inode afresh. So what is remembered of allocations counts more than
//! what is read, and a header that is a snapshot's by now begins a reload at once.

use super::index::{Index, PAGE_ENTRIES};
use super::tree::Wanted;
use super::{Io, Phase, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use crate::index_pages::Fate;
use crate::verdict::Verdict;
use sheepfs::ipc::Failure;
use sheepfs::wire::Request;
use sheepfs::wire::inode::InodeHeader;
use std::time::Instant;

impl Volume {
    pub(super) fn load_page(&mut self, page: u32, io: &mut Io) {
        if !self.index.begin_load(page) {
            return;
        }
        if self.is_hyper() {
            self.look_up(Wanted::Page(page), io);
        } else {
            let request = Request::read_index(self.own, page * PAGE_ENTRIES, PAGE_ENTRIES);
            self.send(request, None, Wait::Page(page), io);
        }
    }

    pub(super) fn page_replied(&mut self, page: u32, verdict: Verdict, bytes: &[u8], io: &mut Io) {
        if verdict == Verdict::Done {
            let wait = Wait::PageHeader(page, bytes.into());
            self.send(Request::read_inode_header(self.own), None, wait, io);
        } else {
            self.page_failed(page, verdict, io);
        }
    }

    pub(super) fn page_confirmed(
        &mut self,
        page: u32,
        entries: &[u8],
        (verdict, bytes): (Verdict, &[u8]),
        io: &mut Io,
    ) {
        if verdict != Verdict::Done {
            return self.page_failed(page, verdict, io);
        }
        let header = InodeHeader::decode(bytes).ok().filter(|header| self.is_still_ours(header));
        let Some(header) = header else {
            self.index.cancel_load(page);
            return self.fail(Failure::Replaced, io);
        };
        self.refusals = 0;
        if self.is_outdated(page) {
            self.index.cancel_load(page);
            return self.objects_of(page).iter().for_each(|object| self.pump(*object, io));
        }
        self.index.load(page, entries);
        io.pages.note(self.id, page);
        for known in self.recent.in_page(page) {
            // An own entry is the newest there can be, also if nobody told of it.
            if self.index.get(known.block) != Some(self.own.get()) {
                self.index.set(known.block, known.owner.get());
            }
        }
        if header.is_snapshot() && !self.header.is_snapshot() {
            self.drain();
        }
        self.objects_of(page).iter().for_each(|object| self.pump(*object, io));
    }

    /// Drops a page of the index that nobody needs and nobody used lately. What is under
    /// way on its blocks relies on it, updates too, whose writes wait for them. So does
    /// what a snapshot may have lost: that is known better here than in the cluster.
    pub fn drop_page(&mut self, page: u32) -> Fate {
        let needed = match self.phase {
            Phase::Resting | Phase::Draining | Phase::Reloading(_) => true,
            Phase::Failed(_) => false,
            Phase::Serving => {
                self.objects.range(Index::blocks_of(page)).next().is_some()
                    || self.recent.is_in_page(page)
                    || self.repairing.is_some_and(|block| Index::page_of(block) == page)
            }
        };
        if needed { Fate::Stays } else { self.index.drop_unused(page) }
    }

    fn page_failed(&mut self, page: u32, verdict: Verdict, io: &mut Io) {
        self.index.cancel_load(page);
        let failure = match verdict {
            Verdict::Retry => return self.delay_page(page, io.now + RETRY_DELAY),
            Verdict::Fail(_) | Verdict::Recheck
                if self.refusals < REFUSALS_MAX && self.failure().is_none() =>
            {
                self.refusals += 1;
                return self.delay_page(page, io.now + RETRY_DELAY);
            }
            Verdict::Fail(failure) => failure,
            Verdict::Done | Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                Failure::ObjectLost
            }
        };
        self.objects_of(page).iter().for_each(|object| self.fail_object(*object, failure, io));
    }

    pub(super) fn objects_of(&self, page: u32) -> Vec<u32> {
        self.objects.range(Index::blocks_of(page)).map(|(object, _)| *object).collect()
    }

    pub(super) fn delay_page(&mut self, page: u32, until: Instant) {
        for object in self.objects_of(page) {
            if let Some(queue) = self.objects.get_mut(&object) {
                queue.delay_waiting(until);
            }
        }
    }
}
