//! Workers end and others come: what becomes of the volumes, and of who waits.

use super::*;

fn lose(running: &mut Loop) {
    running.says(FromWorker::Lost { reason: LostReason::Disconnected });
}

#[test]
fn a_lost_sheep_cuts_the_data_off_and_the_next_worker_comes_after_a_pause() {
    let mut running = Loop::running();
    lose(&mut running);
    assert_eq!(running.effects(), ["KillWorker"]);
    assert_eq!(running.state(), WorkerState::Waiting);
    assert!(running.last_error().unwrap().contains("the connection broke"));
    running.apply(Input::WorkerGone(1));
    running.later(Duration::from_millis(999));
    assert!(running.effects().is_empty());
    running.later(Duration::from_millis(1));
    assert_eq!(running.effects(), ["StartWorker(2)"]);
}

#[test]
fn the_pause_doubles_up_to_half_a_minute_and_starts_anew_when_a_sheep_answers() {
    let mut running = Loop::running();
    lose(&mut running);
    for (generation, pause) in (2..).zip([1, 2, 4, 8, 16, 30, 30]) {
        running.effects();
        running.later(Duration::from_secs(pause) - Duration::from_millis(1));
        assert!(running.effects().is_empty(), "before {pause} s");
        running.later(Duration::from_millis(1));
        assert_eq!(running.effects(), [format!("StartWorker({generation})")]);
        lose(&mut running);
    }
    running.later(Duration::from_secs(30));
    running.connect();
    lose(&mut running);
    running.effects();
    running.later(Duration::from_secs(1));
    assert_eq!(running.effects().len(), 1);
}

#[test]
fn a_worker_that_cannot_be_started_is_tried_again() {
    let mut running = Loop::running();
    lose(&mut running);
    running.later(Duration::from_secs(1));
    running.apply(Input::NotStarted(SpawnError::Alive));
    running.effects();
    running.later(Duration::from_millis(20));
    assert_eq!(running.effects(), ["StartWorker(3)"], "it only had to be buried");
}

#[test]
fn candidates_are_tried_in_turn() {
    let mut running = Loop::new(&[7000, 7001], &[]);
    running.connect();
    running.apply(Input::Mounted);
    for port in [7001, 7000] {
        lose(&mut running);
        assert_eq!(running.shared.known().sheep, sheep(port));
        running.later(Duration::from_secs(30));
        running.sent();
        running.says(FromWorker::Hello { build: BUILD.to_owned() });
        assert!(
            matches!(running.sent()[..], [ToWorker::Connect { sheep: to, .. }] if to == sheep(port))
        );
    }
}

#[test]
fn what_an_earlier_worker_says_does_not_count() {
    let mut running = Loop::running();
    running.attached("a", 1);
    lose(&mut running);
    running.later(Duration::from_secs(1));
    running.effects();
    running.apply(Input::Worker(1, FromWorker::Connected));
    running.apply(Input::Worker(1, FromWorker::Lost { reason: LostReason::Refused }));
    running.apply(Input::WorkerGone(1));
    assert!(running.effects().is_empty());
    assert_eq!(running.state(), WorkerState::Starting);
}

#[test]
fn volumes_come_back_with_their_lock_before_data_flows() {
    let mut running = Loop::running();
    let volume = running.attached("a", 1);
    running.says(FromWorker::Moved {
        volume: volume.id,
        facts: VolumeFacts { snap_id: 2, ..facts(3) },
    });
    lose(&mut running);
    running.later(Duration::from_secs(1));
    running.effects();
    running.connect();
    let sent = running.sent();
    let [_, ToWorker::Attach { tag, volume: id, held_lock: 3, .. }] = sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(id, volume.id);
    assert_eq!(running.state(), WorkerState::Attaching);
    let moved = VolumeFacts { snap_id: 3, ..facts(9) };
    running.says(FromWorker::Attached { tag, facts: moved.clone() });
    assert_eq!(running.effects(), ["ConnectData"]);
    assert_eq!(volume.facts(), moved);
}

#[test]
fn a_vdi_made_anew_under_the_mount_is_never_shown() {
    let made_anew = [
        VolumeFacts { create_time: 77, ..facts(1) },
        VolumeFacts { size: 1 << 20, ..facts(1) },
        facts(2),
        VolumeFacts { snap_id: 2, size: 1 << 20, ..facts(2) },
    ];
    for other in made_anew {
        let mut running = Loop::running();
        let volume = running.attached("a", 1);
        lose(&mut running);
        running.later(Duration::from_secs(1));
        running.connect();
        let tag = running.attach_tags()[0];
        running.says(FromWorker::Attached { tag, facts: other });
        assert_eq!(volume.facts(), facts(1));
        assert_eq!(running.detach_tags().len(), 1);
        let again = running.write(WritableFile::Mount, "a");
        assert_eq!(running.answer(again), Some(Answer::Refused(Errno::EIO)));
        running.later(Duration::from_secs(60));
        assert!(running.attach_tags().is_empty());
        let gone = running.write(WritableFile::Unmount, "a");
        assert_eq!(running.answer(gone), Some(Answer::Done));
    }
}

#[test]
fn a_volume_that_does_not_come_back_at_once_is_tried_again() {
    let mut running = Loop::running();
    running.attached("a", 1);
    lose(&mut running);
    running.later(Duration::from_secs(1));
    running.connect();
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Err(Failure::WaitingForNodes) });
    assert_eq!(running.state(), WorkerState::Serving);
    running.later(Duration::from_secs(5));
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    running.later(Duration::from_secs(60));
    assert!(running.attach_tags().is_empty());
}

#[test]
fn a_volume_that_takes_too_long_does_not_hold_up_the_others() {
    let mut running = Loop::running();
    running.attached("a", 1);
    lose(&mut running);
    running.later(Duration::from_secs(1));
    running.connect();
    assert_eq!(running.state(), WorkerState::Attaching);
    running.later(Duration::from_secs(30));
    assert_eq!(running.state(), WorkerState::Serving);
}

#[test]
fn one_volume_is_tried_again_while_another_is_still_on_its_way() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.attached("b", 2);
    lose(&mut running);
    running.later(Duration::from_secs(1));
    running.connect();
    let tags = running.attach_tags();
    running.says(FromWorker::Done { tag: tags[0], outcome: Err(Failure::Locked) });
    running.later(Duration::from_secs(5));
    assert_eq!(running.attach_tags().len(), 1);
    assert_eq!(running.state(), WorkerState::Attaching);
    assert!(running.control.deadline().is_some_and(|at| at > running.now));
}

#[test]
fn who_waits_is_told_when_the_worker_ends() {
    let mut running = Loop::running();
    running.attached("a", 1);
    let attach = running.write(WritableFile::Mount, "b");
    let detach = running.write(WritableFile::Unmount, "a");
    lose(&mut running);
    assert_eq!(running.answer(attach), Some(Answer::Refused(Errno::EHOSTUNREACH)));
    assert_eq!(running.answer(detach), Some(Answer::Done));
    assert!(running.last_error().unwrap().contains("its lock may be left"));
    let later = running.write(WritableFile::Mount, "b");
    assert_eq!(running.answer(later), Some(Answer::Refused(Errno::EHOSTUNREACH)));
}

#[test]
fn rubbish_from_the_worker_is_survived() {
    let mut running = Loop::running();
    let tag = Tag(u64::MAX);
    running.says(FromWorker::Connected);
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    running.says(FromWorker::ReportChunk { tag, last: true, bytes: vec![] });
    running.says(FromWorker::Moved { volume: VolumeId(9), facts: facts(1) });
    running.says(FromWorker::Hello { build: "other".to_owned() });
    assert!(running.effects().is_empty());
    let caller = running.write(WritableFile::Mount, "a");
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::EIO)));
}
