//! How a mount ends.

use super::*;

#[test]
fn a_signal_drains_releases_and_ends_in_this_order() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.effects();
    running.apply(Input::Stop);
    assert_eq!(running.effects(), ["Unmount"]);
    assert!(running.control.awaits_drained());
    running.apply(Input::Unmounted);
    assert!(running.effects().is_empty());
    running.apply(Input::Drained);
    let tags = running.detach_tags();
    assert_eq!(tags.len(), 1);
    assert!(running.end().is_none());
    running.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert!(matches!(running.end(), Some(Ok(()))));
    assert_eq!(running.state(), WorkerState::Stopped);
}

#[test]
fn nothing_new_is_taken_on_and_who_waits_is_sent_away() {
    let mut running = Loop::running();
    let waiting = running.write(WritableFile::Mount, "a");
    let tag = running.attach_tags()[0];
    running.apply(Input::Stop);
    let refused = Some(Answer::Refused(Errno::ESHUTDOWN));
    assert_eq!(running.answer(waiting), refused);
    let late = running.write(WritableFile::Mount, "b");
    assert_eq!(running.answer(late), refused);
    let late = running.open(Query::Nodes);
    assert_eq!(running.answer(late), refused);
    running.apply(Input::Drained);
    assert!(running.end().is_none());
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    let tags = running.detach_tags();
    running.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert!(matches!(running.end(), Some(Ok(()))));
}

#[test]
fn an_unmount_by_somebody_else_ends_it_too() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.apply(Input::Unmounted);
    running.apply(Input::Drained);
    let tags = running.detach_tags();
    running.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert!(matches!(running.end(), Some(Ok(()))));
}

#[test]
fn further_signals_cut_it_short() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.apply(Input::Stop);
    running.apply(Input::Stop);
    assert_eq!(running.detach_tags().len(), 1);
    assert!(running.end().is_none());
    running.apply(Input::Stop);
    assert!(matches!(running.end(), Some(Ok(()))));
    running.apply(Input::Stop);
    assert!(running.effects().iter().all(|effect| !effect.starts_with("End")));
}

#[test]
fn no_stage_lasts_for_ever() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.apply(Input::Stop);
    running.later(Duration::from_secs(10));
    assert_eq!(running.detach_tags().len(), 1);
    running.later(Duration::from_secs(10));
    assert!(matches!(running.end(), Some(Ok(()))));
}

#[test]
fn without_a_sheep_it_ends_at_once() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.is_gone(KILLED);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    running.apply(Input::Stop);
    running.apply(Input::Drained);
    assert!(matches!(running.end(), Some(Ok(()))));
    running.effects();
    running.later(Duration::from_secs(60));
    assert!(running.effects().is_empty());
}

#[test]
fn a_sheep_lost_at_the_end_is_not_waited_for() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.apply(Input::Stop);
    running.apply(Input::Drained);
    running.lose(LostReason::ShuttingDown);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    assert!(matches!(running.end(), Some(Ok(()))));
    running.effects();
    running.later(Duration::from_secs(60));
    assert!(running.effects().is_empty());
}

#[test]
fn a_mount_that_fails_releases_what_was_attached() {
    let mut start = Loop::new(&[7000], &["a"]);
    start.connect();
    let tag = start.attach_tags()[0];
    start.says(FromWorker::Attached { tag, facts: facts(1) });
    start.apply(Input::NotMounted(Failed::Killed));
    let tags = start.detach_tags();
    assert_eq!(tags.len(), 1);
    start.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert!(matches!(start.end(), Some(Err(Failed::Killed))));
}

/// What is drained must reach the cluster, whatever happens to a worker.
#[test]
fn a_worker_lost_while_draining_is_replaced() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.apply(Input::Stop);
    running.is_gone(KILLED);
    running.reach();
    let tags = running.resume_tags();
    running.says(FromWorker::Attached { tag: tags[0], facts: facts(1) });
    assert!(running.does("ConnectData { generation: 2"));
    assert!(!running.does("StartWorker"), "no spare is needed any more");
    running.apply(Input::Drained);
    let tags = running.detach_tags();
    running.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert!(matches!(running.end(), Some(Ok(()))));
}

#[test]
fn a_worker_lost_while_locks_are_released_is_replaced() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.apply(Input::Stop);
    running.apply(Input::Drained);
    assert_eq!(running.detach_tags().len(), 1);
    running.is_gone(KILLED);
    running.reach();
    let tags = running.resume_tags();
    running.says(FromWorker::Attached { tag: tags[0], facts: facts(1) });
    let tags = running.detach_tags();
    assert!(running.end().is_none());
    running.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert!(matches!(running.end(), Some(Ok(()))));
}

/// Hazard 25: whoever waits for a request that no sheep serves can't be killed.
#[test]
fn what_no_sheep_serves_fails_when_the_time_to_drain_is_up() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.lose(LostReason::Disconnected);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    running.apply(Input::Stop);
    running.effects();
    for _ in 0..9 {
        running.later(Duration::from_secs(1));
        if !running.connects().is_empty() {
            running.says(FromWorker::Unreached { reason: LostReason::Refused });
        }
    }
    assert!(!running.does("FailData"));
    running.later(Duration::from_secs(1));
    assert!(running.does("FailData"));
    let end = loop {
        if let Some(end) = running.end() {
            break end;
        }
        running.later(Duration::from_millis(100));
        if !running.connects().is_empty() {
            running.says(FromWorker::Unreached { reason: LostReason::Refused });
        }
    };
    assert!(end.is_ok());
}

/// What waits for a fence will reach the cluster, and is waited for.
#[test]
fn fences_are_waited_for_while_a_sheep_serves() {
    let mut running = Loop::running();
    running.attached("a", 1);
    let fenced_until = running.now + Duration::from_secs(25);
    running.control.set_fenced_until(Some(fenced_until));
    running.apply(Input::Stop);
    running.effects();
    for _ in 0..25 {
        running.later(Duration::from_secs(1));
    }
    assert!(!running.does("FailData"));
    running.control.set_fenced_until(None);
    running.later(Duration::from_secs(1));
    assert!(running.does("FailData"), "the usual time is over");
}
