//! Reading the index, a page when one of its blocks is first touched.

use super::index::PAGE_ENTRIES;
use super::{Io, RETRY_DELAY, Volume, Wait};
use crate::verdict::Verdict;
use sheepfs::ipc::Failure;
use sheepfs::wire::Request;
use std::time::Instant;

impl Volume {
    pub(super) fn load_page(&mut self, page: u32, io: &mut Io) {
        if self.index.begin_load(page) {
            let request = Request::read_index(self.own, page * PAGE_ENTRIES, PAGE_ENTRIES);
            self.send(request, None, Wait::Page(page), io);
        }
    }

    pub(super) fn page_replied(&mut self, page: u32, verdict: Verdict, bytes: &[u8], io: &mut Io) {
        let failure = match verdict {
            Verdict::Done => {
                self.index.load(page, bytes);
                None
            }
            Verdict::Retry => {
                self.index.cancel_load(page);
                return self.delay_page(page, io.now + RETRY_DELAY);
            }
            Verdict::Fail(failure) => Some(failure),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => Some(Failure::ObjectLost),
        };
        let objects = self.objects_of(page);
        if let Some(failure) = failure {
            self.index.cancel_load(page);
            objects.iter().for_each(|object| self.fail_object(*object, failure, io));
        }
        objects.iter().for_each(|object| self.pump(*object, io));
    }

    pub(super) fn objects_of(&self, page: u32) -> Vec<u32> {
        let first = page * PAGE_ENTRIES;
        self.objects.range(first..first + PAGE_ENTRIES).map(|(object, _)| *object).collect()
    }

    pub(super) fn delay_page(&mut self, page: u32, until: Instant) {
        for object in self.objects_of(page) {
            if let Some(queue) = self.objects.get_mut(&object) {
                queue.delay_waiting(until);
            }
        }
    }
}
