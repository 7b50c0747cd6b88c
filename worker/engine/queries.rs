//! Queries of control files ([`crate::query`]) and searches of the tree of VDIs
//! ([`crate::search`]) under way. Both are many questions at once, and one report.

use super::{Engine, Surroundings};
use crate::frame::Reply;
use crate::query::{Part, Progress, QueryRun, send_report};
use crate::search::SearchRun;
use sheepfs::ipc::{FromWorker, Query, Search, Tag};

impl Engine {
    /// Begins a query.
    pub(super) fn query(&mut self, tag: Tag, query: Query, around: &mut Surroundings) {
        let (mut io, _) = self.context(around);
        let run = QueryRun::begin(tag, query, &mut io);
        self.queries.insert(tag, run);
    }

    /// The sheep has answered for a query or a search. Gives whether it is going.
    pub(super) fn query_replied(
        &mut self,
        tag: Tag,
        part: Part,
        reply: &Reply,
        around: &mut Surroundings,
    ) -> bool {
        if let Some(mut run) = self.searches.remove(&tag) {
            let progress = run.reply(part, reply, &mut self.context(around).0);
            return self.searched(run, tag, progress, around);
        }
        let Some(mut run) = self.queries.remove(&tag) else { return false };
        let (mut io, _) = self.context(around);
        match run.reply(part, reply, &mut io) {
            Progress::Going => {
                self.queries.insert(tag, run);
            }
            Progress::Done(report) => send_report(run.tag(), &report, io.out),
            Progress::Failed(failure) => io.done(run.tag(), Err(failure)),
            Progress::SheepGone => return true,
        }
        false
    }

    /// Begins a search, which may be over at once.
    pub(super) fn search(&mut self, tag: Tag, search: Search, around: &mut Surroundings) {
        let (run, progress) = SearchRun::begin(tag, search, &mut self.context(around).0);
        self.searched(run, tag, progress, around);
    }

    fn searched(
        &mut self,
        run: SearchRun,
        tag: Tag,
        progress: Progress,
        around: &mut Surroundings,
    ) -> bool {
        match progress {
            Progress::Going => drop(self.searches.insert(tag, run)),
            Progress::Done(report) => send_report(tag, &report, around.out),
            Progress::Failed(failure) => {
                around.out.push(FromWorker::Done { tag, outcome: Err(failure) });
            }
            Progress::SheepGone => return true,
        }
        false
    }
}
