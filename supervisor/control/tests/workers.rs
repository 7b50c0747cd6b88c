//! Workers end and others come: which, where, and when; and what becomes of the
//! volumes.

use super::*;
use crate::settings::SpareState;

const TICK: Duration = Duration::from_millis(1);

fn unreached(running: &mut Loop) {
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
}

#[test]
fn a_spare_takes_over_when_the_lost_one_is_gone_and_not_before() {
    let mut running = Loop::running();
    assert_eq!(running.shared.known().spare, SpareState::Ready);
    running.says(FromWorker::Lost { reason: LostReason::Disconnected, node: sheep(7000) });
    assert_eq!(running.effects(), ["KillWorker(1)"]);
    assert_eq!(running.state(), WorkerState::Lost);
    assert!(running.last_error().unwrap().contains("the connection broke"));
    running.later(Duration::from_secs(60));
    assert!(running.effects().is_empty(), "its process may live still");
    running.is_gone(KILLED);
    let words = running.effects();
    assert!(words[0].starts_with("DataLost { generation: 1, gateways: [127.0.0.1:7000]"));
    assert!(words[1].starts_with("Connect { generation: 2, sheep: 127.0.0.1:7000"), "{words:?}");
    assert_eq!(words.len(), 2, "one spare after the other: {words:?}");
    running.reach();
    let words = running.effects();
    assert_eq!(words, ["ConnectData { generation: 2, pace: All }", "StartWorker(3)"]);
    assert_eq!(running.state(), WorkerState::Serving);
}

#[test]
fn without_a_spare_one_is_started() {
    let mut running = Loop::running();
    running.apply(Input::WorkerGone(2, KILLED));
    running.effects();
    running.is_gone(KILLED);
    assert!(running.does("StartWorker(3)"));
    assert_eq!(running.state(), WorkerState::Starting);
    running.greet();
    assert_eq!(running.connects(), [(3, 7000)]);
}

#[test]
fn a_spare_that_is_being_started_takes_over_as_soon_as_it_can() {
    let mut running = Loop::new(&[7000], &[]);
    running.connect();
    running.apply(Input::Mounted);
    running.effects();
    running.is_gone(KILLED);
    assert!(!running.does("StartWorker"));
    assert_eq!(running.connects(), []);
    running.greet();
    assert_eq!(running.connects(), [(2, 7000)]);
}

#[test]
fn a_spare_that_dies_is_replaced_after_a_pause() {
    let mut running = Loop::running();
    running.apply(Input::WorkerGone(2, CRASHED));
    assert_eq!(running.shared.known().spare, SpareState::None);
    running.later(Duration::from_secs(1) - TICK);
    assert!(running.effects().is_empty());
    running.later(TICK);
    assert_eq!(running.effects(), ["StartWorker(3)"]);
    running.later(Duration::from_secs(10));
    assert_eq!(running.effects(), ["KillWorker(3)"], "no hello");
    running.apply(Input::WorkerGone(3, KILLED));
    running.later(Duration::from_secs(1));
    assert_eq!(running.effects(), ["StartWorker(4)"]);
    running.apply(Input::NotStarted(4, SpawnError::Alive));
    running.later(Duration::from_secs(1));
    assert_eq!(running.effects(), ["StartWorker(5)"]);
    assert_eq!(running.state(), WorkerState::Serving);
}

#[test]
fn swaps_are_counted_by_their_cause() {
    let mut running = Loop::running();
    running.lose(LostReason::Disconnected);
    running.reach();
    running.spare_ready();
    running.is_gone(KILLED);
    running.reach();
    running.spare_ready();
    running.lose(LostReason::Silent);
    let swaps = running.shared.known().swaps;
    assert_eq!((swaps.sheep_lost, swaps.worker_died, swaps.sheep_silent), (1, 1, 1));
    assert_eq!((swaps.worker_silent, swaps.failover), (0, 0));
}

#[test]
fn rounds_in_vain_have_pauses_between_them() {
    let mut running = Loop::running_at(&[7000, 7001]);
    running.lose(LostReason::Disconnected);
    assert_eq!(running.connects(), [(2, 7000)]);
    unreached(&mut running);
    assert_eq!(running.connects(), [(2, 7001)], "the same worker tries the next one at once");
    for pause_ms in [100, 200, 400, 800, 1600, 2000, 2000] {
        unreached(&mut running);
        assert_eq!(running.state(), WorkerState::BackingOff);
        running.later(Duration::from_millis(pause_ms / 2) - TICK);
        assert_eq!(running.connects(), [], "{pause_ms} ms are not over");
        running.later(Duration::from_millis(pause_ms) + TICK);
        assert_eq!(running.connects(), [(2, 7000)], "{pause_ms} ms are over");
        unreached(&mut running);
        assert_eq!(running.connects(), [(2, 7001)]);
    }
    running.reach();
    assert_eq!(running.state(), WorkerState::Serving);
}

#[test]
fn other_nodes_are_learnt_and_tried_when_the_sheep_is_at_fault() {
    let mut running = Loop::running();
    let nodes = vec![sheep(7000), sheep(7001)];
    running.says(FromWorker::Members { epoch: 5, nodes });
    let known = running.shared.known().clone();
    assert_eq!((known.epoch, known.candidates), (5, 2));
    running.lose(LostReason::Silent);
    assert_eq!(running.connects(), [(2, 7001)]);
    running.reach();
    running.spare_ready();
    running.is_gone(KILLED);
    assert_eq!(running.connects(), [(3, 7001)], "its sheep did nothing wrong");
    running.reach();
    running.spare_ready();
    running.lose(LostReason::ShuttingDown);
    assert_eq!(running.connects(), [(4, 7000)]);
}

#[test]
fn a_worker_that_dies_before_it_serves_is_replaced_at_the_same_sheep_a_few_times() {
    let mut running = Loop::running_at(&[7000, 7001]);
    running.is_gone(KILLED);
    for generation in 2..5 {
        assert_eq!(running.connects(), [(generation, 7000)]);
        running.is_gone(KILLED);
        running.greet();
    }
    assert_eq!(running.connects(), [(5, 7000)]);
    running.is_gone(KILLED);
    running.greet();
    assert_eq!(running.connects(), [(6, 7001)]);
}

#[test]
fn sessions_that_are_over_at_once_make_no_storm() {
    let mut running = Loop::running();
    for _ in 0..2 {
        running.lose(LostReason::Disconnected);
        running.reach();
        running.spare_ready();
    }
    running.effects();
    running.lose(LostReason::Disconnected);
    assert_eq!(running.state(), WorkerState::BackingOff);
    running.later(Duration::from_millis(150));
    running.reach();
    running.spare_ready();
    running.later(Duration::from_secs(1));
    running.effects();
    running.lose(LostReason::Disconnected);
    assert_eq!(running.connects().len(), 1, "it served for some time");
}

#[test]
fn a_worker_that_cannot_be_started_is_tried_again() {
    let mut running = Loop::running();
    running.apply(Input::WorkerGone(2, KILLED));
    running.is_gone(KILLED);
    running.effects();
    running.apply(Input::NotStarted(3, SpawnError::Alive));
    running.later(Duration::from_millis(150));
    assert_eq!(running.effects(), ["StartWorker(4)"]);
}

#[test]
fn a_sheep_of_another_cluster_is_never_used() {
    let mut running = Loop::running_at(&[7000, 7001]);
    running.lose(LostReason::Silent);
    running.effects();
    running.says(FromWorker::Connected { cluster: cluster(CTIME + 1) });
    assert_eq!(running.effects(), ["KillWorker(2)"]);
    running.says(FromWorker::Members { epoch: 9, nodes: vec![sheep(9)] });
    assert_eq!(running.shared.known().candidates, 2);
    running.is_gone(KILLED);
    let words = running.effects();
    assert!(words[0].starts_with("DataLost { generation: 2, gateways: []"), "{words:?}");
    assert!(words[1].starts_with("StartWorker"), "{words:?}");
    assert_eq!(running.shared.known().sheep, sheep(7000));
}

#[test]
fn what_an_earlier_worker_says_does_not_count() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.lose(LostReason::Disconnected);
    running.effects();
    running.apply(Input::Worker(1, FromWorker::Connected { cluster: cluster(CTIME) }));
    running.apply(Input::Worker(
        1,
        FromWorker::Lost { reason: LostReason::Refused, node: sheep(7000) },
    ));
    running.apply(Input::WorkerBroken { generation: 1, nonsense: true });
    running.apply(Input::WorkerGone(1, CRASHED));
    assert!(running.effects().is_empty());
    assert_eq!(running.state(), WorkerState::Starting);
}

#[test]
fn volumes_come_back_before_data_flows() {
    let mut running = Loop::running();
    let volume = running.attached("a", 1);
    let moved = VolumeFacts { snap_id: 2, ..facts(3) };
    running.says(FromWorker::Moved { volume: volume.id, facts: moved.clone() });
    running.lose(LostReason::Disconnected);
    running.effects();
    running.reach();
    let sent = running.sent();
    let [ToWorker::Resume { tag, volume: id, facts: ref told, .. }] = sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!((id, told), (volume.id, &moved));
    assert!(!running.does("ConnectData"));
    let again = VolumeFacts { snap_id: 3, ..facts(9) };
    running.says(FromWorker::Attached { tag, facts: again.clone() });
    assert!(running.does("VolumeAbsent(VolumeId(1), false)") && running.does("ConnectData"));
    assert_eq!(volume.facts(), again);
}

#[test]
fn what_was_allocated_lately_is_told_before_the_volume_is_taken_up() {
    let mut running = Loop::running();
    let volume = running.attached("a", 1).id;
    let beyond = Allocation { block: 256, owner: 1 };
    for allocation in
        [Allocation { block: 255, owner: 1 }, beyond, Allocation { block: 7, owner: 1 }]
    {
        running.says(FromWorker::Allocated { volume, allocation });
    }
    running.later(Duration::from_secs(61));
    let allocation = Allocation { block: 8, owner: 1 };
    running.says(FromWorker::Allocated { volume, allocation });
    running.says(FromWorker::HeaderSeen { volume, age_ms: 2000 });
    running.says(FromWorker::Lost { reason: LostReason::Disconnected, node: sheep(7000) });
    let last = Allocation { block: 7, owner: 0 };
    running.says(FromWorker::Allocated { volume, allocation: last });
    running.is_gone(KILLED);
    running.reach();
    let sent = running.sent();
    let [ToWorker::Remember { volume: told, allocations }, ToWorker::Resume { .. }] = &sent[..]
    else {
        panic!("{sent:?}")
    };
    assert_eq!(*told, volume);
    assert_eq!(allocations[..], [allocation, Allocation { block: 255, owner: 1 }]);
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
        running.lose(LostReason::Disconnected);
        running.reach();
        let tag = running.resume_tags()[0];
        running.says(FromWorker::Attached { tag, facts: other });
        assert_eq!(volume.facts(), facts(1));
        assert!(running.does("VolumeReplaced(VolumeId(1))"));
        assert_eq!(running.detach_tags().len(), 1);
        let again = running.write(WritableFile::Mount, "a");
        assert_eq!(running.answer(again), Some(Answer::Refused(Errno::EIO)));
        running.later(Duration::from_secs(60));
        assert!(running.resume_tags().is_empty());
        let gone = running.write(WritableFile::Unmount, "a");
        assert_eq!(running.answer(gone), Some(Answer::Done));
    }
}

#[test]
fn a_vdi_that_is_gone_for_good_fails_and_one_that_may_come_back_does_not() {
    for (failure, times) in [(Failure::Replaced, 1), (Failure::NoSuchVdi, 2)] {
        let mut running = Loop::running();
        running.attached("a", 1);
        running.lose(LostReason::Disconnected);
        running.reach();
        for time in 1..=times {
            let tag = running.resume_tags()[0];
            running.says(FromWorker::Done { tag, outcome: Err(failure) });
            assert_eq!(running.does("VolumeReplaced"), time == times, "{failure}");
            running.later(Duration::from_secs(5));
        }
        assert!(running.resume_tags().is_empty());
    }
}

#[test]
fn a_volume_that_does_not_come_back_at_once_is_tried_again() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.lose(LostReason::Disconnected);
    running.reach();
    let tag = running.resume_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Err(Failure::WaitingForNodes) });
    assert_eq!(running.state(), WorkerState::Serving);
    assert!(running.does("VolumeAbsent(VolumeId(1), true)"), "its requests must wait");
    running.later(Duration::from_secs(5));
    let tag = running.resume_tags()[0];
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    assert!(running.does("VolumeAbsent(VolumeId(1), false)"));
    running.later(Duration::from_secs(60));
    assert!(running.resume_tags().is_empty());
}

#[test]
fn a_volume_that_takes_too_long_does_not_hold_up_the_others() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.attached("b", 2);
    running.lose(LostReason::Disconnected);
    running.reach();
    let tags = running.resume_tags();
    running.says(FromWorker::Attached { tag: tags[1], facts: facts(2) });
    running.later(Duration::from_secs(5) - TICK);
    assert_eq!(running.state(), WorkerState::Starting);
    running.later(TICK);
    assert_eq!(running.state(), WorkerState::Serving);
    assert!(running.does("VolumeAbsent(VolumeId(1), true)"));
    running.says(FromWorker::Attached { tag: tags[0], facts: facts(1) });
    assert!(running.does("VolumeAbsent(VolumeId(1), false)"), "late is not too late");
}

#[test]
fn one_volume_is_tried_again_while_another_is_still_on_its_way() {
    let mut running = Loop::running();
    running.attached("a", 1);
    running.attached("b", 2);
    running.lose(LostReason::Disconnected);
    running.reach();
    let tags = running.resume_tags();
    running.says(FromWorker::Done { tag: tags[0], outcome: Err(Failure::Locked) });
    running.later(Duration::from_secs(5));
    assert_eq!(running.resume_tags().len(), 1);
    assert!(running.control.deadline().is_some_and(|at| at > running.now));
}

#[test]
fn what_is_quiet_is_passed_on_with_who_says_so() {
    let mut running = Loop::running();
    running.lose(LostReason::Disconnected);
    running.effects();
    let (gateway, how) = (sheep(7000), QuietReason::Gone);
    running.says(FromWorker::Quiet { gateway, how });
    let quiet = "Quiet { generation: 2, gateway: 127.0.0.1:7000, how: Gone }";
    assert_eq!(running.effects(), [quiet], "it may come before the session");
}

#[test]
fn requests_fail_after_an_outage_of_the_time_that_was_asked_for() {
    let wishes = Wishes {
        candidates: Candidates::one(sheep(7000)),
        attach: Vec::new(),
        cache_len: 0,
        cache_on: false,
        io_timeout: Duration::from_secs(5),
        on_outage: OnOutage::ErrorAfter(Duration::from_secs(10)),
        locking: Locking::Take,
        route: sheepfs::ipc::Route::Replica,
    };
    let mut running = Loop::with(wishes);
    running.connect();
    running.apply(Input::Mounted);
    running.lose(LostReason::Disconnected);
    running.greet();
    unreached(&mut running);
    for _ in 0..9 {
        running.later(Duration::from_secs(1));
        if !running.connects().is_empty() {
            unreached(&mut running);
        }
    }
    assert!(!running.does("FailData"));
    running.later(Duration::from_secs(1));
    assert!(running.does("FailData"));
    while running.connects().is_empty() {
        running.later(Duration::from_millis(100));
    }
    running.reach();
    assert!(running.does("RefuseNew(false)"));
}

#[test]
fn rubbish_from_the_worker_is_survived() {
    let mut running = Loop::running();
    let tag = Tag(u64::MAX);
    running.reach();
    running.says(FromWorker::Attached { tag, facts: facts(1) });
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    running.says(FromWorker::ReportChunk { tag, last: true, bytes: vec![] });
    running.says(FromWorker::Moved { volume: VolumeId(9), facts: facts(1) });
    running.says(FromWorker::Hello { build: "other".to_owned() });
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    running.says(FromWorker::Checked { tag, outcome: Err(LostReason::Refused) });
    running.says(FromWorker::HeaderSeen { volume: VolumeId(9), age_ms: u32::MAX });
    running.spare_says(FromWorker::Connected { cluster: cluster(CTIME) });
    running.spare_says(FromWorker::Checked { tag, outcome: Err(LostReason::Refused) });
    running.spare_says(FromWorker::Lost { reason: LostReason::Refused, node: sheep(7000) });
    assert!(running.effects().is_empty());
    let caller = running.write(WritableFile::Mount, "a");
    let tag = running.attach_tags()[0];
    running.says(FromWorker::Done { tag, outcome: Ok(()) });
    assert_eq!(running.answer(caller), Some(Answer::Refused(Errno::EIO)));
}

/// A worker on its way to its sheep has no session to be told in, and must hear of it then.
#[test]
fn a_setting_that_is_changed_while_a_worker_connects_is_told_when_it_has() {
    let mut running = Loop::running();
    running.is_gone(KILLED);
    assert_eq!(running.connects(), [(2, 7000)]);
    let caller = running.write(WritableFile::Route, "gateway");
    assert_eq!(running.answer(caller), Some(Answer::Done));
    let caller = running.write(WritableFile::ObjectCache, "1");
    assert_eq!(running.answer(caller), Some(Answer::Done));
    assert!(running.sent().is_empty());
    running.reach();
    let sent = running.sent();
    assert!(matches!(sent[0], ToWorker::SetCache { cache_bytes } if cache_bytes > 0), "{sent:?}");
    assert_eq!(sent[1..], [ToWorker::SetRoute { route: Route::Gateway }]);
    running.is_gone(KILLED);
    running.sent();
    running.connect();
    let again = |message: &ToWorker| {
        matches!(message, ToWorker::SetRoute { .. } | ToWorker::SetCache { .. })
    };
    assert!(!running.sent().iter().any(again), "it was told when it was sent off");
}
