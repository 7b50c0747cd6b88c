//! Workers that say nothing.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Steps of half a second, as a loop with nothing else to do makes them.
fn pass(running: &mut Loop, seconds: u32) {
    (0..seconds * 2).for_each(|_| running.later(SECOND / 2));
}

#[test]
fn a_worker_that_answers_is_left_alone() {
    let mut running = Loop::running();
    pass(&mut running, 60);
    assert!(running.effects().is_empty());
    assert_eq!(running.state(), WorkerState::Serving);
}

#[test]
fn a_silent_worker_is_killed_and_replaced_at_its_sheep() {
    let mut running = Loop::running_at(&[7000, 7001]);
    running.answers_pings = false;
    pass(&mut running, 1);
    assert_eq!(running.sent(), [ToWorker::Ping { number: 1 }]);
    running.later(SECOND * 3 - SECOND / 2);
    assert!(running.effects().is_empty());
    running.later(SECOND / 2);
    assert_eq!(running.effects(), ["KillWorker(1)"]);
    assert_eq!(running.shared.known().swaps.worker_silent, 1);
    running.is_gone(KILLED);
    assert_eq!(running.connects(), [(2, 7000)]);
}

#[test]
fn whatever_it_says_is_a_sign_of_life() {
    let mut running = Loop::running();
    running.answers_pings = false;
    for epoch in 0..20 {
        running.later(SECOND);
        running.says(FromWorker::Members { epoch, nodes: Vec::new() });
    }
    assert_eq!(running.state(), WorkerState::Serving);
}

/// A machine that was suspended, or a supervisor that was stopped.
#[test]
fn our_own_sleep_is_not_its_silence() {
    let mut running = Loop::running();
    running.answers_pings = false;
    pass(&mut running, 1);
    running.later(SECOND * 3600);
    assert!(!running.does("KillWorker"));
    running.sent();
    running.later(SECOND * 3);
    assert!(running.does("KillWorker(1)"));
}

#[test]
fn a_silent_spare_is_replaced_and_nothing_else_happens() {
    let mut running = Loop::running();
    running.answers_pings = false;
    for _ in 0..10 {
        running.later(SECOND);
        running.says(FromWorker::Pong { number: 0 });
    }
    assert!(running.does("KillWorker(2)") && !running.does("KillWorker(1)"));
    running.apply(Input::WorkerGone(2, KILLED));
    running.effects();
    running.later(SECOND);
    assert!(running.does("StartWorker(3)"));
    assert_eq!(running.state(), WorkerState::Serving);
}

#[test]
fn one_that_says_nothing_while_it_connects_is_killed() {
    let mut running = Loop::running();
    running.answers_pings = false;
    running.is_gone(KILLED);
    assert_eq!(running.connects(), [(2, 7000)]);
    pass(&mut running, 5);
    assert!(running.does("KillWorker(2)"));
}
