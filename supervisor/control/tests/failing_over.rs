//! `config/sheep_info` is written to.

use super::*;

const DONE: Option<Answer> = Some(Answer::Done);

fn refused(errno: Errno) -> Option<Answer> {
    Some(Answer::Refused(errno))
}

fn wish(running: &mut Loop, text: &str) -> u64 {
    running.write(WritableFile::SheepInfo, text)
}

/// The address that the spare is to look at.
fn check(running: &mut Loop) -> (Tag, u16) {
    match running.sent()[..] {
        [ToWorker::Check { tag, sheep }] => (tag, sheep.port()),
        ref other => panic!("{other:?}"),
    }
}

/// A wish that was found good, so that the old session drains.
fn draining() -> (Loop, u64) {
    let mut running = Loop::running();
    let caller = wish(&mut running, "127.0.0.1:7001\n");
    let (tag, port) = check(&mut running);
    assert_eq!(port, 7001);
    running.spare_says(FromWorker::Checked { tag, outcome: Ok(cluster(CTIME)) });
    assert_eq!(running.effects(), ["HoldData"]);
    assert_eq!(running.state(), WorkerState::Draining);
    (running, caller)
}

#[test]
fn the_new_sheep_is_checked_the_old_one_drained_and_then_left() {
    let (mut running, caller) = draining();
    assert!(running.control.awaits_drain());
    running.apply(Input::DataDrained);
    assert_eq!(running.effects(), ["KillWorker(1)"]);
    running.is_gone(KILLED);
    assert!(running.does("DataLost { generation: 1, gateways: [127.0.0.1:7000]"));
    assert_eq!(running.connects(), [(2, 7001)]);
    assert_eq!(running.answer(caller), None);
    running.reach();
    assert_eq!(running.answer(caller), DONE);
    let known = running.shared.known();
    assert_eq!((known.sheep, known.swaps.failover), (sheep(7001), 1));
    assert!(known.last_error.is_none());
}

#[test]
fn what_does_not_drain_in_time_is_fenced() {
    let (mut running, _) = draining();
    running.later(Duration::from_millis(6999));
    assert!(!running.does("KillWorker"));
    running.later(Duration::from_millis(1));
    assert!(running.does("KillWorker(1)"));
    running.is_gone(KILLED);
    assert!(running.does("DataLost { generation: 1, gateways: [127.0.0.1:7000]"));
    assert_eq!(running.connects(), [(2, 7001)]);
}

#[test]
fn a_worker_that_dies_while_it_drains_leads_to_the_new_sheep_too() {
    let (mut running, caller) = draining();
    running.is_gone(KILLED);
    assert!(running.does("DataLost { generation: 1, gateways: [127.0.0.1:7000]"));
    assert_eq!(running.connects(), [(2, 7001)]);
    running.reach();
    assert_eq!(running.answer(caller), DONE);
}

#[test]
fn a_sheep_that_would_not_do_changes_nothing() {
    let unformatted = ClusterFacts::default();
    let waiting = ClusterFacts { running: false, ..cluster(CTIME) };
    for (outcome, after_ms, errno) in [
        (Err(LostReason::Refused), 0, Errno::ECONNREFUSED),
        (Err(LostReason::Unreachable), 100, Errno::EHOSTUNREACH),
        (Err(LostReason::Unreachable), 3000, Errno::ETIMEDOUT),
        (Err(LostReason::Silent), 0, Errno::ETIMEDOUT),
        (Err(LostReason::Disconnected), 0, Errno::EHOSTUNREACH),
        (Err(LostReason::ShuttingDown), 0, Errno::EHOSTUNREACH),
        (Err(LostReason::NotASheep), 0, Errno::EINVAL),
        (Ok(unformatted), 0, Errno::EINVAL),
        (Ok(waiting), 0, Errno::EHOSTUNREACH),
        (Ok(cluster(CTIME + 1)), 0, Errno::EXDEV),
    ] {
        let mut running = Loop::running();
        let caller = wish(&mut running, "127.0.0.1:7001");
        let (tag, _) = check(&mut running);
        running.later(Duration::from_millis(after_ms));
        running.spare_says(FromWorker::Checked { tag, outcome });
        assert_eq!(running.answer(caller), refused(errno), "{outcome:?}");
        assert_eq!(running.state(), WorkerState::Serving);
        assert_eq!(running.shared.known().sheep, sheep(7000));
        assert!(running.last_error().unwrap().starts_with("fail over to 127.0.0.1:7001: "));
        assert!(running.effects().is_empty());
    }
}

#[test]
fn what_is_no_address_is_einval() {
    let mut running = Loop::running();
    for text in ["", "\n", "a b", "1:2:3", "host:0", "host:x", "[::1", "300.1.1.1"] {
        let caller = wish(&mut running, text);
        assert_eq!(running.answer(caller), refused(Errno::EINVAL), "{text:?}");
    }
    running.apply(Input::Write(Caller::Program(99), (WritableFile::SheepInfo, 99), vec![0xff]));
    assert_eq!(running.answer(99), refused(Errno::EINVAL));
    assert!(running.effects().is_empty());
}

#[test]
fn addresses_are_understood_as_people_write_them() {
    for (text, address) in
        [(" 127.0.0.1 \n", "127.0.0.1:7000"), ("::1", "[::1]:7000"), ("[::1]:7001\n", "[::1]:7001")]
    {
        let mut running = Loop::running_at(&[7009]);
        wish(&mut running, text);
        let sent = running.sent();
        let [ToWorker::Check { sheep, .. }] = sent[..] else { panic!("{sent:?}") };
        assert_eq!(sheep, address.parse().unwrap());
    }
}

#[test]
fn the_sheep_in_use_is_there_already() {
    let mut running = Loop::running();
    let caller = wish(&mut running, "127.0.0.1");
    assert_eq!(running.answer(caller), DONE);
    assert!(running.effects().is_empty());
}

#[test]
fn a_host_is_looked_up_and_each_of_its_addresses_tried() {
    let mut running = Loop::running();
    let caller = wish(&mut running, "sheep1:7001");
    let [Effect::Resolve { number, port: 7001, .. }] = running.done[..] else { panic!() };
    running.apply(Input::Resolved(number + 1, Ok(vec![sheep(1)])));
    assert_eq!(running.sent(), []);
    running.apply(Input::Resolved(number, Ok(vec![sheep(7001), sheep(7002)])));
    let (tag, port) = check(&mut running);
    assert_eq!(port, 7001);
    running.spare_says(FromWorker::Checked { tag, outcome: Err(LostReason::Refused) });
    let (tag, port) = check(&mut running);
    assert_eq!(port, 7002);
    running.spare_says(FromWorker::Checked { tag, outcome: Err(LostReason::NotASheep) });
    assert_eq!(running.answer(caller), refused(Errno::EINVAL));
}

#[test]
fn a_host_that_nobody_knows_is_not_waited_for() {
    let mut running = Loop::running();
    let caller = wish(&mut running, "nowhere");
    let none = ResolveError::NoAddress("nowhere".to_owned());
    running.apply(Input::Resolved(1, Err(none)));
    assert_eq!(running.answer(caller), refused(Errno::EHOSTUNREACH));
    let caller = wish(&mut running, "slow");
    running.later(Duration::from_secs(5));
    assert_eq!(running.answer(caller), refused(Errno::ETIMEDOUT));
    running.apply(Input::Resolved(2, Ok(vec![sheep(7001)])));
    assert_eq!(running.sent(), []);
}

#[test]
fn a_check_outlives_its_spare_within_its_time() {
    let mut running = Loop::running();
    let caller = wish(&mut running, "127.0.0.1:7001");
    check(&mut running);
    running.apply(Input::WorkerGone(2, KILLED));
    running.later(Duration::from_secs(1));
    assert!(running.does("StartWorker(3)"));
    running.spare_ready();
    check(&mut running);
    running.is_gone(KILLED);
    assert_eq!(running.connects(), [(3, 7000)], "the spare is needed for more than that");
    assert!(running.does("StartWorker(4)"), "though no sheep serves");
    running.spare_ready();
    check(&mut running);
    running.later(Duration::from_secs(4));
    assert_eq!(running.answer(caller), refused(Errno::ETIMEDOUT));
}

#[test]
fn several_wishes_come_true_in_their_order() {
    let (mut running, first) = draining();
    let second = wish(&mut running, "127.0.0.1:7002");
    let third = wish(&mut running, "127.0.0.1:7001");
    assert!(running.effects().is_empty());
    running.apply(Input::DataDrained);
    running.is_gone(KILLED);
    running.reach();
    assert_eq!(running.answer(first), DONE);
    running.spare_ready();
    let (tag, port) = check(&mut running);
    assert_eq!(port, 7002);
    running.spare_says(FromWorker::Checked { tag, outcome: Err(LostReason::Refused) });
    assert_eq!(running.answer(second), refused(Errno::ECONNREFUSED));
    assert_eq!(running.answer(third), DONE);
}

#[test]
fn a_new_sheep_that_fails_at_the_last_moment_leads_back_to_the_old_one() {
    for exit in [false, true] {
        let (mut running, caller) = draining();
        running.apply(Input::DataDrained);
        running.is_gone(KILLED);
        running.connects();
        if exit {
            running.later(Duration::from_secs(5));
            assert_eq!(running.answer(caller), refused(Errno::ETIMEDOUT));
            running.is_gone(KILLED);
            running.greet();
            assert_eq!(running.connects(), [(3, 7000)]);
        } else {
            running.says(FromWorker::Unreached { reason: LostReason::Refused });
            assert_eq!(running.answer(caller), refused(Errno::ECONNREFUSED));
            assert_eq!(running.connects(), [(2, 7000)]);
        }
        running.reach();
        assert_eq!(running.state(), WorkerState::Serving);
    }
}

#[test]
fn without_a_session_a_wish_ends_the_waiting() {
    let mut running = Loop::running();
    running.lose(LostReason::Disconnected);
    running.says(FromWorker::Unreached { reason: LostReason::Refused });
    running.effects();
    let caller = wish(&mut running, "127.0.0.1:7001");
    assert!(running.does("StartWorker(3)"), "to check it");
    running.spare_ready();
    let (tag, _) = check(&mut running);
    running.spare_says(FromWorker::Checked { tag, outcome: Ok(cluster(CTIME)) });
    assert_eq!(running.connects(), [(2, 7001)]);
    running.reach();
    assert_eq!(running.answer(caller), DONE);
}

#[test]
fn an_attempt_elsewhere_is_cut_short() {
    let mut running = Loop::running();
    running.lose(LostReason::Disconnected);
    let caller = wish(&mut running, "127.0.0.1:7001");
    running.spare_ready();
    let (tag, _) = check(&mut running);
    running.spare_says(FromWorker::Checked { tag, outcome: Ok(cluster(CTIME)) });
    assert!(running.does("KillWorker(2)"));
    running.connects();
    running.is_gone(KILLED);
    assert_eq!(running.connects(), [(3, 7001)]);
    running.reach();
    assert_eq!(running.answer(caller), DONE);
}

#[test]
fn another_cluster_is_accepted_when_nothing_else_is_left() {
    for attached in [false, true] {
        let mut running = Loop::running();
        if attached {
            running.attached("a", 1);
        }
        running.says(FromWorker::Members { epoch: 1, nodes: vec![sheep(7005)] });
        running.lose(LostReason::Disconnected);
        running.says(FromWorker::Unreached { reason: LostReason::Refused });
        running.says(FromWorker::Unreached { reason: LostReason::Refused });
        let caller = wish(&mut running, "127.0.0.1:7001");
        running.spare_ready();
        let (tag, _) = check(&mut running);
        running.spare_says(FromWorker::Checked { tag, outcome: Ok(cluster(CTIME + 1)) });
        if attached {
            assert_eq!(running.answer(caller), refused(Errno::EXDEV));
            continue;
        }
        running.says(FromWorker::Connected { cluster: cluster(CTIME + 1) });
        assert_eq!(running.answer(caller), DONE);
        assert_eq!(running.shared.known().candidates, 1, "those of the old cluster are forgotten");
    }
}

#[test]
fn at_the_end_nobody_waits_for_another_sheep() {
    let (mut running, caller) = draining();
    running.apply(Input::Stop);
    assert_eq!(running.answer(caller), refused(Errno::ESHUTDOWN));
    assert!(running.does("KillWorker(1)"), "what was held back flows on elsewhere");
    running.is_gone(KILLED);
    assert_eq!(running.connects().len(), 1);
    let late = wish(&mut running, "127.0.0.1:7001");
    assert_eq!(running.answer(late), refused(Errno::ESHUTDOWN));
}

#[test]
fn an_allocation_said_just_before_a_swap_is_kept() {
    let mut running = Loop::running();
    let volume = running.attached("a", 7);
    wish(&mut running, "127.0.0.1:7001\n");
    let (tag, _) = check(&mut running);
    running.spare_says(FromWorker::Checked { tag, outcome: Ok(cluster(CTIME)) });
    running.apply(Input::DataDrained);
    let allocation = Allocation { block: 5, owner: 7 };
    running.says(FromWorker::Allocated { volume: volume.id, allocation });
    running.is_gone(KILLED);
    running.reach();
    let sent = running.sent();
    assert!(
        sent.iter().any(
            |m| matches!(m, ToWorker::Remember { allocations, .. } if allocations == &[allocation])
        ),
        "{sent:?}"
    );
}

#[test]
fn a_lock_sent_just_before_a_swap_is_kept_in_mind() {
    let mut running = Loop::running();
    let _attach = running.write(WritableFile::Mount, "a");
    let ToWorker::Attach { volume, .. } = running.sent()[0].clone() else { panic!() };
    wish(&mut running, "127.0.0.1:7001\n");
    let (tag, _) = check(&mut running);
    running.spare_says(FromWorker::Checked { tag, outcome: Ok(cluster(CTIME)) });
    running.apply(Input::DataDrained);
    running.says(FromWorker::LockSent { volume });
    running.is_gone(KILLED);
    running.reach();
    let sent = running.sent();
    assert!(
        sent.iter()
            .any(|m| matches!(m, ToWorker::Attach { lock_sent, .. } if !lock_sent.is_empty())),
        "{sent:?}"
    );
}

#[test]
fn a_failover_that_has_a_session_is_no_time_out() {
    let mut running = Loop::running();
    running.attached("a", 7);
    let caller = wish(&mut running, "127.0.0.1:7001\n");
    let (tag, _) = check(&mut running);
    running.spare_says(FromWorker::Checked { tag, outcome: Ok(cluster(CTIME)) });
    running.apply(Input::DataDrained);
    running.is_gone(KILLED);
    running.later(Duration::from_millis(200));
    running.reach();
    for _ in 0..60 {
        running.later(Duration::from_millis(100));
    }
    assert_eq!(running.state(), WorkerState::Serving);
    assert_eq!(running.shared.known().sheep, sheep(7001));
    assert_eq!(running.answer(caller), DONE);
}
