//! Searches for the tree of VDIs. Several that look for the same share one; who opens a file has
//! one of its own, so that two opened one after the other never show the older state last.

use super::waits::{Caller, SEARCH, Work};
use super::{Answer, Control, Refusal};
use crate::census::Census;
use sheepfs::ipc::{Report, Search};
use std::sync::Arc;
use std::time::Instant;

/// A search under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeking {
    /// For what.
    pub search: Search,
    /// Whether it is for somebody who opens a file.
    pub is_afresh: bool,
    /// When it began.
    pub since: Instant,
    /// What the catalog must still be to take the answer.
    pub version: u64,
}

impl Control {
    pub(super) fn search(&mut self, caller: Caller, search: Search, is_afresh: bool, now: Instant) {
        let why = match () {
            () if self.is_ending() => Refusal::Stopping,
            () if !self.waits.has_room() => Refusal::TooMany,
            () => return self.seek(caller, search, is_afresh, now),
        };
        self.refuse(SEARCH, why, vec![caller], now);
    }

    fn seek(&mut self, caller: Caller, search: Search, is_afresh: bool, now: Instant) {
        let catalog = self.shared.catalog();
        // It may have been found since the question was put into the queue.
        if let Some(census) = catalog.find(&search, now).filter(|_| !is_afresh) {
            return self.answer(caller, Answer::Census(census));
        }
        let search = if is_afresh { search } else { catalog.widen(search) };
        let version = catalog.version();
        let seeking = Seeking { search, is_afresh, since: now, version };
        if !is_afresh && let Some(wait) = self.waits.search_like(&seeking) {
            return wait.callers.push(caller);
        }
        let work = Work::Search { seeking, bytes: Vec::new() };
        let tag = self.waits.add(work, vec![caller], now);
        self.ask(tag, now);
    }

    /// The whole answer came.
    pub(super) fn searched(
        &mut self,
        seeking: Seeking,
        bytes: &[u8],
        callers: Vec<Caller>,
        now: Instant,
    ) {
        let Ok(Report::Vdis(found)) = Report::decode(bytes) else {
            return self.refuse(SEARCH, Refusal::BadReport, callers, now);
        };
        let census = Arc::new(Census::new(found));
        let Seeking { search, since, version, .. } = seeking;
        self.shared.catalog().keep(search, &census, version, since, now);
        for caller in callers {
            self.answer(caller, Answer::Census(Arc::clone(&census)));
        }
    }
}
