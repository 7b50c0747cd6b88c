//! Workers that break down over a request.

use super::*;

/// The worker in use breaks down while these were under way; the next one serves.
fn crash(running: &mut Loop, exit: Exit, under_way: &[Tag]) {
    running.done.clear();
    running.is_gone(exit);
    let death = running.done.iter().find_map(|effect| match effect {
        Effect::DataLost { death, .. } => Some(*death),
        _ => None,
    });
    running.apply(Input::Unanswered(death.unwrap(), under_way.to_vec()));
    // After some in a row there are pauses.
    if running.state() == WorkerState::BackingOff {
        running.later(Duration::from_secs(8));
    }
    if running.connects().is_empty() {
        running.greet();
    }
    running.reach();
    running.spare_ready();
}

#[test]
fn what_kills_alone_three_times_is_answered_with_an_error() {
    let mut running = Loop::running();
    crash(&mut running, CRASHED, &[Tag(1), Tag(2)]);
    assert!(running.does("ConnectData { generation: 2, pace: All"));
    crash(&mut running, CRASHED, &[Tag(1), Tag(2)]);
    assert!(running.does("ConnectData { generation: 3, pace: Single"));
    for _ in 0..2 {
        crash(&mut running, CRASHED, &[Tag(2)]);
        assert!(!running.does("Poison"));
    }
    crash(&mut running, CRASHED, &[Tag(2)]);
    assert!(running.does("Poison(Tag(2))"));
}

#[test]
fn kills_prove_nothing() {
    let mut running = Loop::running();
    for _ in 0..20 {
        crash(&mut running, KILLED, &[Tag(2)]);
        assert!(!running.does("Poison") && !running.does("Pace: Single"));
    }
}

#[test]
fn nonsense_is_a_breakdown_though_we_kill_for_it() {
    let mut running = Loop::running();
    running.apply(Input::WorkerBroken { generation: 1, nonsense: true });
    assert!(running.does("KillWorker(1)"));
    running.is_gone(KILLED);
    assert!(running.does("DataLost { generation: 1, gateways: [127.0.0.1:7000], death: OwnMaking"));
}

#[test]
fn what_workers_break_down_over_again_and_again_is_given_up() {
    let mut running = Loop::running();
    let attach = running.write(WritableFile::Mount, "a");
    for _ in 0..2 {
        crash(&mut running, CRASHED, &[]);
        assert_eq!(running.attach_tags().len(), 1);
        // Somebody still wants it.
        running.write(WritableFile::Mount, "a");
    }
    running.is_gone(CRASHED);
    assert_eq!(running.answer(attach), Some(Answer::Refused(Errno::EHOSTUNREACH)));
    assert!(running.last_error().unwrap().contains("broke down again and again"));
}

#[test]
fn a_report_that_kills_makes_no_write_guilty() {
    let mut running = Loop::running();
    for _ in 0..3 {
        running.open(ReportFile::Vdis);
        crash(&mut running, CRASHED, &[Tag(2)]);
        assert!(!running.does("Poison"), "the report was under way as well");
    }
}
