//! What each end is followed by.

use super::*;

const LONG: Duration = Duration::from_secs(60);
const KILLED: Exit = Exit::Signal(9);
const AT_ONCE: Verdict = Verdict::Again(Duration::ZERO);

fn ready() -> Lives {
    let mut lives = Lives::default();
    lives.began();
    lives.said_ready();
    lives
}

fn again(lives: &mut Lives) {
    lives.began();
    lives.said_ready();
}

#[test]
fn an_attempt_that_fails_is_not_repeated() {
    for exit in [Exit::Code(0), Exit::Code(69), KILLED, Exit::NotStarted] {
        let mut lives = Lives::default();
        lives.began();
        assert_eq!(lives.ended(exit, LONG, true), Verdict::End, "{exit}");
    }
}

#[test]
fn an_end_without_fault_is_the_end_and_any_other_is_not() {
    assert_eq!(ready().ended(Exit::Code(0), LONG, true), Verdict::End);
    for exit in [Exit::Code(70), Exit::Code(69), Exit::Code(1), KILLED, Exit::NotStarted] {
        assert_eq!(ready().ended(exit, LONG, false), AT_ONCE, "{exit}");
    }
}

#[test]
fn what_cannot_get_better_is_repeated_only_for_a_mount() {
    for exit in [Exit::Code(64), Exit::Code(78)] {
        assert_eq!(ready().ended(exit, LONG, false), Verdict::End, "{exit}");
        assert_eq!(ready().ended(exit, LONG, true), AT_ONCE, "{exit}");
    }
}

#[test]
fn short_lives_make_pauses_that_grow_and_a_long_one_ends_them() {
    let mut lives = ready();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let Verdict::Again(pause) = lives.ended(KILLED, SHORT / 2, true) else { panic!() };
        pauses.push(pause.as_millis());
        lives.began();
    }
    assert_eq!(pauses, [0, 0, 0, 50, 100, 200, 400, 500, 500, 500, 500, 500]);
    assert_eq!(lives.begun(), 13);
    assert_eq!(lives.ended(KILLED, SHORT, true), AT_ONCE);
    assert_eq!(lives.ended(KILLED, SHORT / 2, true), AT_ONCE);
}

#[test]
fn one_that_leaves_the_mount_has_a_successor_and_one_that_stops_has_none() {
    let mut lives = ready();
    for _ in 0..20 {
        assert_eq!(lives.ended(Exit::Code(LEFT), SHORT / 2, true), AT_ONCE);
        again(&mut lives);
    }
    lives.stop();
    assert_eq!(lives.ended(Exit::Code(LEFT), LONG, true), Verdict::End);
    assert_eq!(ready().ended(Exit::Code(0), LONG, true), Verdict::End);
}

#[test]
fn a_stop_that_crashes_is_tried_again_a_few_times_while_there_is_a_mount() {
    let mut lives = ready();
    lives.stop();
    for _ in 0..STOPPING_LIVES {
        assert_eq!(lives.ended(KILLED, LONG, true), AT_ONCE);
        again(&mut lives);
        lives.stop();
    }
    assert_eq!(lives.ended(KILLED, LONG, true), Verdict::End);
    let mut lives = ready();
    lives.stop();
    assert_eq!(lives.ended(KILLED, LONG, false), Verdict::End);
    let mut lives = ready();
    lives.stop();
    assert_eq!(lives.ended(Exit::Code(70), LONG, true), Verdict::End);
}

#[test]
fn the_keeper_ends_as_the_supervisor_did() {
    assert_eq!(Exit::Code(69).outcome().unwrap(), Status::Unavailable);
    assert!(matches!(KILLED.outcome(), Err(Failed::Killed)));
    assert_eq!(Exit::NotStarted.outcome().unwrap(), Status::Internal);
}
