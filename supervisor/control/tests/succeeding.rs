//! What a successor of this process finds, and goes on with.

use super::*;
use crate::control::volumes_of;

/// The next process, with what this one has saved.
pub(super) fn successor(of: &Loop, wishes: Wishes) -> Loop {
    let saved = of.control.saved();
    let volumes = Arc::new(Volumes::default());
    for volume in volumes_of(&saved) {
        volumes.add(volume);
    }
    let shared = Arc::new(Shared::alone(wishes.candidates.current(), volumes));
    let now = of.now;
    let control =
        Control::taking_over(Arc::clone(&shared), wishes, saved, (false, Some(FENCE)), now);
    let mut new = Loop { control, shared, now, done: Vec::new(), callers: 0, answers_pings: true };
    new.apply(Input::Tick);
    new
}

/// The gateways that the newest connecting was told were left.
fn left(running: &mut Loop) -> Option<Vec<u16>> {
    let found = running.done.iter().rev().find_map(|effect| match effect {
        Effect::Connect { left, .. } => Some(left.iter().map(|left| left.port()).collect()),
        _ => None,
    });
    running.done.clear();
    found
}

#[test]
fn volumes_go_on_under_their_numbers_and_new_ones_get_others() {
    let mut running = Loop::running();
    let volume = running.attached("a", 7);
    let mut next = successor(&running, wishes(&[7000], &[]));
    assert!(next.control.generation > running.control.generation, "one generation twice");
    next.connect();
    let again = next.shared.volumes().by_name("a").unwrap();
    assert_eq!((again.id, again.ino, again.facts()), (volume.id, volume.ino, volume.facts()));
    let tag = next.resume_tags()[0];
    next.says(FromWorker::Attached { tag, facts: facts(7) });
    assert!(next.does("ConnectData"));
    assert_ne!(next.attached("b", 8).id, volume.id);
}

#[test]
fn the_last_session_is_saved_until_its_data_is_lost() {
    let mut running = Loop::running();
    let generation = running.worker();
    assert_eq!(running.control.saved().session, Some((generation, sheep(7000))));
    running.says(FromWorker::Lost { reason: LostReason::Disconnected, node: sheep(7000) });
    assert_eq!(running.control.saved().session, Some((generation, sheep(7000))));
    // What comes now must not be saved before its effect: the session is another already.
    running.done.clear();
    running.is_gone(KILLED);
    assert!(matches!(running.done[0], Effect::DataLost { .. }), "{:?}", running.done);
}

/// The cluster may not have noticed the death of that sheep yet.
#[test]
fn a_sheep_that_was_given_up_is_left_for_every_worker_and_successor_for_a_while() {
    let mut running = Loop::running_at(&[7000, 7001]);
    running.lose(LostReason::Refused);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    assert_eq!(left(&mut running), Some(vec![7000]));
    let mut next = successor(&running, wishes(&[7000, 7001], &[]));
    next.greet();
    assert_eq!(left(&mut next), Some(vec![7000]), "the session is not there yet");
    running.reach();
    let mut next = successor(&running, wishes(&[7000, 7001], &[]));
    next.greet();
    assert_eq!(left(&mut next), Some(vec![7000]));
    next.reach();
    next.is_gone(KILLED);
    next.greet();
    assert_eq!(left(&mut next), Some(vec![7000]), "another worker died meanwhile");
    next.reach();
    next.later(Duration::from_secs(60));
    next.is_gone(KILLED);
    next.greet();
    assert_eq!(left(&mut next), Some(vec![]));
}

#[test]
fn what_was_detached_on_purpose_stays_detached_and_no_lock_is_stolen() {
    let mut running = Loop::new(&[7000], &["a"]);
    running.connect();
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    running.apply(Input::Mounted);
    running.write(WritableFile::Unmount, "a");
    let tag = running.detach_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    let mut next =
        successor(&running, Wishes { locking: Locking::Steal, ..wishes(&[7000], &["a", "b"]) });
    next.connect();
    let sent = next.sent();
    let [ToWorker::Attach { name: attached, locking: Locking::Take, .. }] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(*attached, name("b"), "which is new on the command line");
    let tag = match sent[0] {
        ToWorker::Attach { tag, .. } => tag,
        _ => unreachable!(),
    };
    next.says(FromWorker::Done { tag, outcome: Err(Failure::Locked) });
    assert!(!next.does("End"), "a mount that is there does not end for want of a volume");
}

#[test]
fn a_detach_under_way_goes_on() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.write(WritableFile::Unmount, "a");
    let mut next = successor(&running, wishes(&[7000], &[]));
    assert!(next.shared.volumes().by_name("a").is_none());
    let again = next.write(WritableFile::Unmount, "a");
    next.connect();
    let tag = next.resume_tags()[0];
    next.says(FromWorker::Attached { tag, facts: facts(1) });
    let tag = next.detach_tags()[0];
    next.says(FromWorker::Done { tag, outcome: Ok(()) });
    assert_eq!(next.answer(again), Some(Answer::Done));
}

/// The kernel may deliver the request only after the detach went on by itself.
#[test]
fn whoever_asked_for_a_detach_that_is_done_meanwhile_is_not_refused() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.write(WritableFile::Unmount, "a");
    let mut next = successor(&running, wishes(&[7000], &[]));
    next.connect();
    let tag = next.resume_tags()[0];
    next.says(FromWorker::Attached { tag, facts: facts(1) });
    let tag = next.detach_tags()[0];
    next.says(FromWorker::Done { tag, outcome: Ok(()) });
    let again = next.write(WritableFile::Unmount, "a");
    assert_eq!(next.answer(again), Some(Answer::Done));
    let wrong = next.write(WritableFile::Unmount, "a");
    assert!(matches!(next.answer(wrong), Some(Answer::Refused(_))), "once");
}

#[test]
fn a_lock_that_was_asked_for_is_known_to_be_ours() {
    let mut running = Loop::running();
    running.write(WritableFile::Mount, "a");
    let [ToWorker::Attach { volume, .. }] = running.sent()[..] else { panic!() };
    running.says(FromWorker::LockSent { volume });
    let mut next = successor(&running, wishes(&[7000], &[]));
    next.connect();
    next.write(WritableFile::Mount, "a");
    let [ToWorker::Attach { lock_sent, .. }] = next.sent()[..] else { panic!() };
    assert!(lock_sent.contains(sheep(7000)));
}

#[test]
fn a_mount_that_is_being_left_is_left_when_nothing_is_on_the_wire() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.apply(Input::Leave(Leave::ToSuccessor));
    assert!(running.does("HoldData") && running.control.awaits_leave());
    // A worker that dies meanwhile has nothing on the wire, and the next one gets nothing.
    running.is_gone(KILLED);
    running.reach();
    let tag = running.resume_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert!(!running.does("ConnectData"));
    running.apply(Input::Quiesced);
    assert!(running.does("Leave(ToSuccessor)"));
}

#[test]
fn what_does_not_come_to_its_end_does_not_keep_it() {
    let mut running = Loop::running();
    running.apply(Input::Leave(Leave::ToUpgrade));
    running.later(Duration::from_secs(9));
    assert!(!running.does("Leave(ToUpgrade)"));
    running.later(Duration::from_secs(1));
    assert!(running.does("Leave(ToUpgrade)"));
}

#[test]
fn a_stop_while_leaving_unmounts_and_lets_data_flow() {
    let mut running = Loop::running();
    running.apply(Input::Leave(Leave::ToSuccessor));
    running.apply(Input::Stop);
    assert!(running.does("ReleaseData") && running.does("Unmount"));
    assert!(running.control.awaits_drained() && !running.control.awaits_leave());
}
