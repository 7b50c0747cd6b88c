//! Searches for the tree of VDIs.

use super::*;
use crate::census::found;
use sheepfs::ipc::{Report, Search};

impl Loop {
    fn search(&mut self, search: Search, is_afresh: bool) -> u64 {
        let caller = self.caller();
        self.apply(Input::Search(caller, search, is_afresh));
        self.callers
    }

    /// The searches that the worker was told of since the last look.
    fn searches(&mut self) -> Vec<(Tag, Search)> {
        let search = |message| match message {
            ToWorker::Search { tag, search } => Some((tag, search)),
            _ => None,
        };
        self.sent().into_iter().filter_map(search).collect()
    }

    fn finds(&mut self, tag: Tag, vids: &[u32]) {
        let vdis = vids.iter().map(|vid| found(*vid, b"disk", 0)).collect();
        let bytes = Report::Vdis(vdis).encode().unwrap();
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        self.says(FromWorker::ReportChunk { tag, last: false, bytes: half.to_vec() });
        self.says(FromWorker::ReportChunk { tag, last: true, bytes: rest.to_vec() });
    }

    fn has_found(&mut self, caller: u64, vid: u32) -> bool {
        let vid = sheepfs::wire::VdiId::new(vid).unwrap();
        matches!(self.answer(caller), Some(Answer::Census(census)) if census.vdi(vid).is_some())
    }
}

#[test]
fn who_looks_for_the_same_shares_a_search_and_who_opens_has_one_alone() {
    let mut running = Loop::running();
    let first = running.search(Search::All, false);
    let second = running.search(Search::All, false);
    let opens = [1, 2].map(|_| running.search(Search::Vdi(7), true));
    let searches = running.searches();
    let wanted: Vec<_> = searches.iter().map(|(_, search)| search.clone()).collect();
    assert_eq!(wanted, [Search::All, Search::Vdi(7), Search::Vdi(7)]);
    running.finds(searches[0].0, &[7]);
    assert!(running.has_found(first, 7) && running.has_found(second, 7));
    assert!(opens.iter().all(|caller| running.answer(*caller).is_none()));
    for (tag, _) in &searches[1..] {
        running.finds(*tag, &[7]);
    }
    assert!(opens.iter().all(|caller| running.has_found(*caller, 7)));
    // What is known needs no question, but for who opens.
    let again = running.search(Search::Vdi(7), false);
    assert!(running.has_found(again, 7) && running.searches().is_empty());
    running.search(Search::Vdi(7), true);
    assert_eq!(running.searches().len(), 1);
}

#[test]
fn a_search_outlives_its_worker_and_is_given_up_in_time() {
    let mut running = Loop::running();
    let caller = running.search(Search::All, false);
    let (tag, _) = running.searches()[0].clone();
    running.says(FromWorker::ReportChunk { tag, last: false, bytes: vec![9; 100] });
    running.is_gone(KILLED);
    running.connect();
    let searches = running.searches();
    assert_eq!(searches, [(tag, Search::All)]);
    running.finds(tag, &[7]);
    assert!(running.has_found(caller, 7), "the first half was forgotten");
    let caller = running.search(Search::Named(b"x".to_vec()), false);
    running.later(Duration::from_secs(5));
    assert_eq!(running.answer(caller), Some(Answer::Refused(nix::errno::Errno::ETIMEDOUT)));
    assert!(running.last_error().unwrap().contains("vdi/tree"));
}

#[test]
fn what_a_worker_says_amiss_is_no_answer() {
    let mut running = Loop::running();
    let caller = running.search(Search::All, false);
    let (tag, _) = running.searches()[0].clone();
    running.says(FromWorker::ReportChunk { tag, last: true, bytes: vec![9; 100] });
    assert_eq!(running.answer(caller), Some(Answer::Refused(nix::errno::Errno::EIO)));
    let caller = running.search(Search::All, false);
    let (tag, _) = running.searches()[0].clone();
    running.says(FromWorker::Done { tag, outcome: Err(sheepfs::ipc::Failure::Halted) });
    assert_eq!(running.answer(caller), Some(Answer::Refused(nix::errno::Errno::EAGAIN)));
}
