//! What programs asked for outlives the worker that was asked.

use super::*;

const DONE: Option<Answer> = Some(Answer::Done);

#[test]
fn an_attach_is_asked_again_with_the_gateway_where_its_lock_may_be() {
    let mut running = Loop::running();
    let caller = running.write(WritableFile::Mount, "a");
    let [ToWorker::Attach { volume, .. }] = running.sent()[..] else { panic!() };
    running.says(FromWorker::LockSent { volume });
    assert_eq!(running.sent(), [ToWorker::Noted]);
    running.lose(LostReason::Disconnected);
    assert_eq!(running.answer(caller), None);
    running.reach();
    let sent = running.sent();
    let [ToWorker::Attach { tag, volume: again, lock_sent, .. }] = sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!((again, lock_sent), (volume, Gateways::default().with(sheep(7000))));
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert_eq!(running.answer(caller), DONE);
    assert_eq!(running.shared.volumes().all().len(), 1, "one volume, once");
}

/// Whether another's lock is taken is the user's word, and it is passed on with each attach.
#[test]
fn an_attach_says_whether_a_lock_is_to_be_stolen() {
    for wished in [Locking::Take, Locking::Steal, Locking::Without] {
        let mut running = Loop::with(Wishes { locking: wished, ..wishes(&[7000], &[]) });
        running.connect();
        running.apply(Input::Mounted);
        running.write(WritableFile::Mount, "a");
        let sent = running.sent();
        let says =
            |m: &ToWorker| matches!(m, ToWorker::Attach { locking, .. } if *locking == wished);
        assert!(sent.iter().any(says), "{sent:?}");
    }
}

#[test]
fn a_lock_request_that_is_heard_of_late_counts_too() {
    let mut running = Loop::running();
    running.write(WritableFile::Mount, "a");
    let [ToWorker::Attach { volume, .. }] = running.sent()[..] else { panic!() };
    running.apply(Input::WorkerBroken { generation: 1, nonsense: false });
    running.says(FromWorker::LockSent { volume });
    running.is_gone(KILLED);
    running.reach();
    let sent = running.sent();
    assert!(
        matches!(sent[..], [ToWorker::Attach { lock_sent, .. }] if !lock_sent.is_empty()),
        "{sent:?}"
    );
}

#[test]
fn an_answer_that_came_with_the_end_counts() {
    let mut running = Loop::running();
    let caller = running.write(WritableFile::Mount, "a");
    let tag = running.attach_tags()[0];
    running.apply(Input::WorkerBroken { generation: 1, nonsense: false });
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert_eq!(running.answer(caller), DONE);
    running.is_gone(KILLED);
    running.reach();
    assert_eq!(running.resume_tags().len(), 1);
}

#[test]
fn a_detach_takes_the_volume_up_first_so_that_its_lock_can_be_released() {
    let mut running = Loop::running();
    running.attached("a", 1);
    let caller = running.write(WritableFile::Unmount, "a");
    assert_eq!(running.detach_tags().len(), 1);
    running.lose(LostReason::Disconnected);
    running.reach();
    let sent = running.sent();
    let [ToWorker::Resume { tag, .. }] = sent[..] else { panic!("{sent:?}") };
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    let tag = running.detach_tags()[0];
    assert_eq!(running.answer(caller), None);
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    assert_eq!(running.answer(caller), DONE);
    assert!(running.shared.volumes().all().is_empty());
    assert!(!running.control.waits.any_volume());
}

#[test]
fn a_volume_that_is_detached_while_it_comes_back_is_released_then() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.lose(LostReason::Disconnected);
    running.reach();
    let tag = running.resume_tags()[0];
    let caller = running.write(WritableFile::Unmount, "a");
    assert_eq!(running.sent(), []);
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    let tag = running.detach_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    assert_eq!(running.answer(caller), DONE);
}

#[test]
fn a_detach_of_a_vdi_that_is_gone_is_done() {
    let mut running = Loop::running();
    running.attached("a", 1);
    let caller = running.write(WritableFile::Unmount, "a");
    running.lose(LostReason::Disconnected);
    running.sent();
    running.reach();
    let tag = running.resume_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Err(Failure::NoSuchVdi) });
    assert_eq!(running.answer(caller), DONE);
    running.write(WritableFile::Mount, "a");
    let sent = running.sent();
    assert!(
        matches!(sent[..], [ToWorker::Attach { lock_sent, .. }] if lock_sent.is_empty()),
        "{sent:?}"
    );
}

#[test]
fn a_report_begins_anew() {
    let mut running = Loop::running();
    let caller = running.open(Query::Vdis);
    let [ToWorker::Query { tag, .. }] = running.sent()[..] else { panic!() };
    running.says(FromWorker::ReportChunk { tag, last: false, bytes: vec![9; 100] });
    running.lose(LostReason::Disconnected);
    running.reach();
    let [ToWorker::Query { tag, query: Query::Vdis }] = running.sent()[..] else { panic!() };
    let bytes = Report::Vdis(Vec::new()).encode().unwrap();
    running.says(FromWorker::ReportChunk { tag, last: true, bytes });
    assert!(matches!(running.answer(caller), Some(Answer::Text(_))));
}

#[test]
fn without_a_session_everything_waits_five_seconds_for_one() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.attached("b", 2);
    let before = running.write(WritableFile::Mount, "c");
    running.lose(LostReason::Disconnected);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    running.sent();
    let detach = running.write(WritableFile::Unmount, "a");
    let attach = running.write(WritableFile::Mount, "d");
    let report = running.open(Query::Nodes);
    running.later(Duration::from_secs(4));
    let late = running.write(WritableFile::Mount, "e");
    running.later(Duration::from_secs(1));
    for caller in [before, detach, attach, report] {
        let answer = running.answer(caller);
        assert_eq!(answer, Some(Answer::Refused(Errno::EHOSTUNREACH)), "{caller}");
    }
    running.reach();
    assert_eq!(running.sent().len(), 3, "b comes back, a is released, and e is attached");
    assert_eq!(running.answer(late), None);
    running.later(Duration::from_secs(29));
    assert_eq!(running.answer(late), None);
    running.later(Duration::from_secs(1));
    assert_eq!(running.answer(late), Some(Answer::Refused(Errno::ETIMEDOUT)));
}

#[test]
fn what_was_refused_while_no_sheep_was_there_is_the_same_volume_afterwards() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.lose(LostReason::Disconnected);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    running.write(WritableFile::Unmount, "a");
    running.later(Duration::from_secs(6));
    let detach = running.write(WritableFile::Unmount, "a");
    let attach = running.write(WritableFile::Mount, "a");
    running.reach();
    let tag = running.resume_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    let tag = running.detach_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    assert_eq!(running.answer(detach), DONE);
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert_eq!(running.answer(attach), DONE);
    assert_eq!(running.shared.volumes().all().len(), 1);
}

#[test]
fn deadlines_stay_what_they_were_when_the_next_session_is_there() {
    let mut running = Loop::running();
    let caller = running.write(WritableFile::Mount, "a");
    running.later(Duration::from_secs(20));
    running.lose(LostReason::Disconnected);
    running.reach();
    running.later(Duration::from_secs(9));
    assert_eq!(running.answer(caller), None);
    running.later(Duration::from_secs(1));
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::ETIMEDOUT)));
}
