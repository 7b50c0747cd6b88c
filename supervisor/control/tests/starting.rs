//! How a mount begins, and why it may not.

use super::*;

#[test]
fn it_mounts_when_a_sheep_answers() {
    let mut start = Loop::new(&[7000], &[]);
    assert_eq!(start.effects(), ["StartWorker(1)"]);
    start.greet();
    assert_eq!(start.connects(), [(1, 7000)]);
    start.reach();
    let mount = ["Mount", "ConnectData { generation: 1, pace: All }", "StartWorker(2)"];
    assert_eq!(start.effects(), mount);
    start.apply(Input::Mounted);
    assert_eq!(start.state(), WorkerState::Serving);
}

#[test]
fn it_mounts_when_all_volumes_are_there() {
    let mut start = Loop::new(&[7000], &["a", "b", "a"]);
    start.connect();
    let tags = start.attach_tags();
    assert_eq!(tags.len(), 2);
    start.says(FromWorker::Attached { tag: tags[1], facts: facts(2) });
    assert!(!start.effects().contains(&"Mount".to_owned()));
    start.says(FromWorker::Attached { tag: tags[0], facts: facts(1) });
    assert!(start.does("Mount"));
    assert_eq!(start.shared.volumes().all().len(), 2);
}

#[test]
fn no_sheep_at_any_address_is_the_end() {
    let mut start = Loop::new(&[7000, 7001], &[]);
    start.greet();
    start.says(FromWorker::Unreached { reason: LostReason::Refused });
    assert!(start.end().is_none());
    assert_eq!(start.connects(), [(1, 7000), (1, 7001)]);
    start.says(FromWorker::Unreached { reason: LostReason::Unreachable });
    let failed = start.end().unwrap().unwrap_err();
    assert!(failed.to_string().starts_with("cannot reach a sheep at 127.0.0.1:7001: "), "{failed}");
    assert!(!start.does("StartWorker(2)"));
}

#[test]
fn a_worker_that_says_nothing_is_not_waited_for() {
    for greet in [false, true] {
        let mut start = Loop::new(&[7000], &[]);
        if greet {
            start.greet();
        }
        start.later(Duration::from_secs(9));
        assert!(start.end().is_none());
        start.later(Duration::from_secs(30));
        assert!(matches!(start.end(), Some(Err(Failed::NoSheep { .. }))), "greeted: {greet}");
    }
}

#[test]
fn a_worker_that_dies_or_is_of_another_build_is_the_end() {
    let mut start = Loop::new(&[7000], &[]);
    start.is_gone(KILLED);
    assert!(matches!(start.end(), Some(Err(Failed::WorkerEnded))));
    let mut start = Loop::new(&[7000], &[]);
    start.says(FromWorker::Hello { build: "sheepfs 9".to_owned() });
    assert!(matches!(start.end(), Some(Err(Failed::OtherBuild(_)))));
}

#[test]
fn a_volume_that_cannot_be_had_is_the_end_and_the_others_are_released() {
    let mut start = Loop::new(&[7000], &["a", "b"]);
    start.connect();
    let tags = start.attach_tags();
    start.says(FromWorker::Attached { tag: tags[0], facts: facts(1) });
    start.says(FromWorker::Done { tag: tags[1], outcome: Err(Failure::NoSuchVdi) });
    assert!(start.end().is_none());
    let detach = start.detach_tags();
    assert_eq!(detach.len(), 1);
    start.says(FromWorker::Done { tag: detach[0], outcome: Ok(()) });
    let failed = start.end().unwrap().unwrap_err();
    assert_eq!(failed.to_string(), "cannot attach b: the cluster has no such VDI");
    assert!(!start.effects().iter().any(|effect| effect == "Mount" || effect == "Unmount"));
}

#[test]
fn a_sheep_lost_while_volumes_are_attached_is_the_end() {
    let mut start = Loop::new(&[7000, 7001], &["a"]);
    start.connect();
    start.says(FromWorker::Lost { reason: LostReason::Disconnected, node: sheep(7000) });
    assert!(matches!(start.end(), Some(Err(Failed::NoSheep { .. }))));
}

#[test]
fn a_signal_before_the_mount_is_ready_is_no_success() {
    let mut start = Loop::new(&[7000], &["a"]);
    start.connect();
    let tag = start.attach_tags()[0];
    start.apply(Input::Stop);
    start.says(FromWorker::Attached { tag, facts: facts(1) });
    let tags = start.detach_tags();
    start.says(FromWorker::Done { tag: tags[0], outcome: Ok(()) });
    assert!(matches!(start.end(), Some(Err(Failed::Interrupted))));
}

#[test]
fn a_worker_that_cannot_be_started_at_all_ends_the_start() {
    let mut start = Loop::new(&[7000], &[]);
    start.effects();
    let cause = std::io::Error::from_raw_os_error(2);
    start.apply(Input::NotStarted(1, SpawnError::Arena(cause)));
    start.apply(Input::Drained);
    assert!(matches!(start.end(), Some(Err(Failed::Worker(_)))));
    start.effects();
    start.later(Duration::from_secs(3600));
    assert!(start.effects().is_empty());
}
