//! Reports: the files whose text the cluster must be asked for, and the space
//! that `df` shows.
//!
//! A report is asked for when its file is opened, and each open asks anew: two
//! that were opened one after the other never show the older state last. Without
//! a session, or when it ends, a report waits a little for the next one. `df`
//! never hangs or fails: without an answer it shows what was known last.

use super::waits::{Caller, Wait, Work, file_of};
use super::{Answer, Control, Refusal, Totals};
use sheepfs::ipc::message::REPORT_CHUNK_LEN;
use sheepfs::ipc::{Query, Report, Tag};
use sheepfs::text;
use std::time::Instant;

/// The longest encoded report: some hundred thousand VDIs.
const REPORT_LEN_MAX: usize = 64 << 20;

impl Control {
    pub(super) fn open_report(&mut self, caller: Caller, query: Query, now: Instant) {
        let why = match () {
            () if self.is_ending() => Refusal::Stopping,
            () if !self.waits.has_room() => Refusal::TooMany,
            () => return self.query(query, caller, now),
        };
        self.refuse(file_of(query), why, vec![caller], now);
    }

    pub(super) fn ask_space(&mut self, caller: Caller, now: Instant) {
        let can_ask = self.life.is_connected() && self.waits.has_room() && !self.is_ending();
        if let Some(wait) = self.waits.query_of(Query::Totals) {
            wait.callers.push(caller);
        } else if can_ask {
            self.query(Query::Totals, caller, now);
        } else {
            self.answer(caller, Answer::Space(self.totals));
        }
    }

    fn query(&mut self, query: Query, caller: Caller, now: Instant) {
        let work = Work::Query { query, bytes: Vec::new() };
        let tag = self.waits.add(work, vec![caller], now);
        self.ask(tag, now);
    }

    pub(super) fn report_chunk(&mut self, tag: Tag, last: bool, chunk: &[u8], now: Instant) {
        let connected = self.life.is_connected();
        let unwanted = || tracing::debug!(tag = tag.0, "a report that nobody waits for any more");
        let Some(wait) = self.waits.get(tag) else { return unwanted() };
        let bytes = match &mut wait.work {
            Work::Query { bytes, .. } | Work::Search { bytes, .. } => bytes,
            Work::Attach { .. } | Work::Resume { .. } | Work::Detach { .. } | Work::Manage(_) => {
                return unwanted();
            }
        };
        let fits = chunk.len() <= REPORT_CHUNK_LEN && bytes.len() + chunk.len() <= REPORT_LEN_MAX;
        if fits {
            bytes.extend_from_slice(chunk);
        }
        if fits && !last {
            return wait.extend(connected, now);
        }
        let Some(Wait { work, callers, .. }) = self.waits.finish(tag) else { return };
        match work {
            Work::Query { query, bytes } if fits => match answer_to(query, &bytes) {
                Some(answer) => self.reported(answer, callers),
                None => self.fail_query(query, Refusal::BadReport, callers, now),
            },
            Work::Search { seeking, bytes } if fits => {
                self.searched(seeking, &bytes, callers, now);
            }
            Work::Query { query, .. } => {
                self.fail_query(query, Refusal::BadReport, callers, now);
            }
            work => self.refuse(&work, Refusal::BadReport, callers, now),
        }
    }

    fn reported(&mut self, found: Found, callers: Vec<Caller>) {
        if let Found::Space(totals) = found {
            self.totals = totals;
        }
        for caller in callers {
            let answer = match &found {
                Found::Space(totals) => Answer::Space(*totals),
                Found::Text(text) => Answer::Text(text.clone()),
            };
            self.answer(caller, answer);
        }
    }

    /// There is no report.
    pub(super) fn fail_query(
        &mut self,
        query: Query,
        why: Refusal,
        callers: Vec<Caller>,
        now: Instant,
    ) {
        if query != Query::Totals {
            return self.refuse(file_of(query), why, callers, now);
        }
        self.note_errno(file_of(query), &why, Some(why.errno() as i32));
        for caller in callers {
            self.answer(caller, Answer::Space(self.totals));
        }
    }
}

/// What a whole report says.
enum Found {
    Text(Vec<u8>),
    Space(Totals),
}

/// Decodes a report. `None`: it is none, or not the one that was asked for.
fn answer_to(query: Query, bytes: &[u8]) -> Option<Found> {
    let zone = jiff::tz::TimeZone::system();
    let report = Report::decode(bytes).ok()?;
    match (query, report) {
        (Query::Cluster, Report::Cluster(report)) => {
            Some(Found::Text(text::cluster_info(&report, &zone)))
        }
        (Query::Nodes, Report::Nodes(report)) => Some(Found::Text(text::node_list(&report))),
        (Query::Space, Report::Space(report)) => Some(Found::Text(text::node_info(&report))),
        (Query::Vdis, Report::Vdis(reports)) => Some(Found::Text(text::vdi_list(&reports, &zone))),
        (Query::Totals, Report::Totals { size, free }) => Some(Found::Space(Totals { size, free })),
        _ => None,
    }
}
