//! Attach, detach, reports: what programs ask for and get.

use super::*;

const DONE: Option<Answer> = Some(Answer::Done);

fn refused(errno: Errno) -> Option<Answer> {
    Some(Answer::Refused(errno))
}

#[test]
fn attaching_what_is_there_succeeds_without_a_word_to_the_worker() {
    let mut running = Loop::running();
    running.attached("a", 1);
    let again = running.write(WritableFile::Mount, "  a\n");
    assert_eq!(running.answer(again), DONE);
    assert_eq!(running.sent(), []);
}

#[test]
fn two_who_attach_the_same_get_the_same_answer() {
    let mut running = Loop::running();
    let first = running.write(WritableFile::Mount, "a");
    let second = running.write(WritableFile::Mount, "a\n");
    let tags = running.attach_tags();
    assert_eq!(tags.len(), 1);
    running.says(FromWorker::Done { tag: tags[0], outcome: Err(Failure::Locked) });
    assert_eq!(running.answer(first), refused(Errno::EBUSY));
    assert_eq!(running.answer(second), refused(Errno::EBUSY));
    assert!(running.last_error().unwrap().starts_with("attach a: the VDI is locked"));
}

#[test]
fn nonsense_in_control_files_is_einval() {
    let mut running = Loop::running();
    for (file, text) in [
        (WritableFile::Mount, ""),
        (WritableFile::Mount, "a/b"),
        (WritableFile::Unmount, " \n"),
        (WritableFile::PageCache, "2"),
        (WritableFile::ObjectCache, "yes"),
    ] {
        let caller = running.write(file, text);
        assert_eq!(running.answer(caller), refused(Errno::EINVAL), "{file:?} {text:?}");
    }
    assert_eq!(running.sent(), []);
}

#[test]
fn a_late_answer_to_an_attach_is_undone() {
    let mut running = Loop::running();
    let caller = running.write(WritableFile::Mount, "a");
    let tag = running.attach_tags()[0];
    running.later(Duration::from_secs(29));
    assert_eq!(running.answer(caller), None);
    running.later(Duration::from_secs(1));
    assert_eq!(running.answer(caller), refused(Errno::ETIMEDOUT));
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert!(running.shared.volumes().all().is_empty());
    let detach = running.detach_tags();
    assert_eq!(detach.len(), 1);
    // Whoever wants it while it goes away, gets it after that.
    let again = running.write(WritableFile::Mount, "a");
    assert_eq!(running.sent(), []);
    running.says(FromWorker::Done { tag: detach[0], outcome: Ok(()) });
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert_eq!(running.answer(again), DONE);
}

#[test]
fn a_late_answer_serves_who_has_asked_again() {
    let mut running = Loop::running();
    running.write(WritableFile::Mount, "a");
    let tag = running.attach_tags()[0];
    running.later(Duration::from_secs(31));
    let again = running.write(WritableFile::Mount, "a");
    assert_eq!(running.sent(), []);
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert_eq!(running.answer(again), DONE);
    assert!(running.shared.volumes().by_name("a").is_some());
}

#[test]
fn facts_that_cannot_be_are_refused_and_undone() {
    let bad = [
        VolumeFacts { vid: 0, ..facts(1) },
        VolumeFacts { vid: 1 << 24, ..facts(1) },
        VolumeFacts { size: 1 << 63, ..facts(1) },
        VolumeFacts { block_size_shift: 8, ..facts(1) },
        VolumeFacts { block_size_shift: 32, ..facts(1) },
    ];
    for facts in bad {
        let mut running = Loop::running();
        let caller = running.write(WritableFile::Mount, "a");
        let tag = running.attach_tags()[0];
        running.says(FromWorker::Attached { tag, facts });
        assert_eq!(running.answer(caller), refused(Errno::EIO));
        assert_eq!(running.detach_tags().len(), 1);
        assert!(running.shared.volumes().all().is_empty());
    }
}

#[test]
fn one_vdi_is_not_attached_under_two_names() {
    let mut running = Loop::running();
    let snapshot = VolumeFacts { snapshot: true, ..facts(1) };
    for (text, answer) in [("a:1", DONE), ("a:tag", refused(Errno::EBUSY))] {
        let caller = running.write(WritableFile::Mount, text);
        let tag = running.attach_tags()[0];
        running.says(FromWorker::Attached { tag, facts: snapshot.clone() });
        assert_eq!(running.answer(caller), answer);
    }
    assert_eq!(running.detach_tags().len(), 1);
    assert_eq!(running.shared.volumes().all().len(), 1);
}

#[test]
fn detaching_releases_at_the_worker_before_it_is_answered() {
    let mut running = Loop::running();
    running.attached("a", 1);
    let first = running.write(WritableFile::Unmount, "a\n");
    let second = running.write(WritableFile::Unmount, "a");
    assert!(running.shared.volumes().all().is_empty());
    assert_eq!((running.answer(first), running.answer(second)), (None, None));
    let tags = running.detach_tags();
    assert_eq!(tags.len(), 1);
    running.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert_eq!((running.answer(first), running.answer(second)), (DONE, DONE));
}

#[test]
fn what_is_open_or_not_there_is_not_detached() {
    let mut running = Loop::running();
    let volume = running.attached("a", 1);
    volume.opened();
    let caller = running.write(WritableFile::Unmount, "a");
    assert_eq!(running.answer(caller), None, "it may have been closed just now");
    running.later(Duration::from_secs(1));
    assert_eq!(running.answer(caller), refused(Errno::EBUSY));
    assert!(running.shared.volumes().by_name("a").is_some());
    volume.closed();
    let other = running.write(WritableFile::Unmount, "b");
    assert_eq!(running.answer(other), refused(Errno::ENOENT));
    running.write(WritableFile::Mount, "c");
    let coming = running.write(WritableFile::Unmount, "c");
    assert_eq!(running.answer(coming), refused(Errno::EBUSY));
}

/// The kernel tells of a close after the program that closed has gone on.
#[test]
fn what_was_closed_a_moment_ago_is_detached() {
    let mut running = Loop::running();
    let volume = running.attached("a", 1);
    volume.opened();
    let caller = running.write(WritableFile::Unmount, "a");
    assert_eq!(running.detach_tags(), []);
    assert!(volume.closed());
    running.apply(Input::Closed);
    let tags = running.detach_tags();
    assert_eq!(tags.len(), 1);
    running.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert_eq!(running.answer(caller), DONE);
}

#[test]
fn a_lock_that_could_not_be_released_is_taken_over_later() {
    let mut running = Loop::running();
    running.attached("a", 5);
    let caller = running.write(WritableFile::Unmount, "a");
    let tag = running.detach_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Err(Failure::TimedOut) });
    assert_eq!(running.answer(caller), DONE);
    assert!(running.last_error().unwrap().contains("lock"));
    running.write(WritableFile::Mount, "a");
    let sent = running.sent();
    assert!(matches!(sent[..], [ToWorker::Attach { .. }]), "{sent:?}");
}

#[test]
fn switches_take_effect_at_once() {
    let mut running = Loop::running();
    let page = running.write(WritableFile::PageCache, "1\n");
    assert_eq!(running.answer(page), DONE);
    assert!(running.shared.page_cache());
    for (text, cache_bytes) in [("1", 1 << 20), ("0", 0)] {
        let object = running.write(WritableFile::ObjectCache, text);
        assert_eq!(running.answer(object), DONE);
        assert_eq!(running.sent(), [ToWorker::SetCache { cache_bytes }]);
    }
}

/// A list of many VDIs takes long; what counts is that it goes on.
#[test]
fn a_report_that_makes_progress_is_waited_for() {
    let mut running = Loop::running();
    let caller = running.open(Query::Vdis);
    let [ToWorker::Query { tag, .. }] = running.sent()[..] else { panic!() };
    for _ in 0..5 {
        running.later(Duration::from_secs(4));
        running.says(FromWorker::ReportChunk { tag, last: false, bytes: Vec::new() });
        assert_eq!(running.answer(caller), None);
    }
    running.later(Duration::from_secs(5));
    assert_eq!(running.answer(caller), refused(Errno::ETIMEDOUT));
}

#[test]
fn a_report_comes_in_pieces_and_is_checked() {
    let mut running = Loop::running();
    let report = Report::Vdis(Vec::new()).encode().unwrap();
    let caller = running.open(Query::Vdis);
    let [ToWorker::Query { tag, query: Query::Vdis }] = running.sent()[..] else { panic!() };
    assert_ne!(tag.0 >> 63, 0);
    let (head, tail) = report.split_at(1);
    running.says(FromWorker::ReportChunk { tag, last: false, bytes: head.to_vec() });
    assert_eq!(running.answer(caller), None);
    running.says(FromWorker::ReportChunk { tag, last: true, bytes: tail.to_vec() });
    let Some(Answer::Text(text)) = running.answer(caller) else { panic!() };
    assert!(text.starts_with(b"  Name"), "{:?}", String::from_utf8_lossy(&text));
    for wrong in [report, b"\xff\xff".to_vec()] {
        let caller = running.open(Query::Nodes);
        let [ToWorker::Query { tag, .. }] = running.sent()[..] else { panic!() };
        running.says(FromWorker::ReportChunk { tag, last: true, bytes: wrong });
        assert_eq!(running.answer(caller), refused(Errno::EIO));
    }
}

#[test]
fn a_report_has_five_seconds_with_and_without_a_sheep() {
    let mut running = Loop::running();
    let caller = running.open(Query::Cluster);
    running.later(Duration::from_secs(5));
    assert_eq!(running.answer(caller), refused(Errno::ETIMEDOUT));
    running.lose(LostReason::Disconnected);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    let caller = running.open(Query::Cluster);
    running.later(Duration::from_secs(4));
    assert_eq!(running.answer(caller), None);
    running.later(Duration::from_secs(1));
    assert_eq!(running.answer(caller), refused(Errno::EHOSTUNREACH));
}

#[test]
fn the_space_is_what_was_known_last_when_nobody_answers() {
    let mut running = Loop::running();
    let totals = Totals { size: 9 << 20, free: 4 << 20 };
    let first = running.caller();
    running.apply(Input::Space(first));
    let second = running.caller();
    running.apply(Input::Space(second));
    let [ToWorker::Query { tag, query: Query::Totals }] = running.sent()[..] else { panic!() };
    let report = Report::Totals { size: totals.size, free: totals.free };
    running.says(FromWorker::ReportChunk { tag, last: true, bytes: report.encode().unwrap() });
    assert_eq!(running.answer(1), Some(Answer::Space(totals)));
    assert_eq!(running.answer(2), Some(Answer::Space(totals)));
    let third = running.caller();
    running.apply(Input::Space(third));
    running.later(Duration::from_secs(5));
    assert_eq!(running.answer(3), Some(Answer::Space(totals)));
    running.lose(LostReason::Disconnected);
    let fourth = running.caller();
    running.apply(Input::Space(fourth));
    assert_eq!(running.answer(4), Some(Answer::Space(totals)));
}
