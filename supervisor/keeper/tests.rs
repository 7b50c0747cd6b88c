//! The keeper as a process, with a supervisor that is only played.
//!
//! Both are this test program, started anew in another role. Each life of the played
//! supervisor calls the test over a socket, tells what it found, and does as it is
//! told, line by line; the keeper tells there that it has told its starter. So no
//! test waits for anything but an answer.

mod played;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use played::Site;
use std::fs;
use std::os::unix::process::ExitStatusExt;

/// The status with which a keeper ends whose child was killed.
const KILLED: i32 = 70;

#[test]
fn ready_is_told_once_and_an_end_without_fault_is_the_end() {
    let site = Site::new();
    let mut life = site.life();
    assert!(life.found("fds=0 names= pid_is_ours=none watchdog=15000000"), "{}", life.hello);
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    life.order("ready");
    life.order("barrier");
    life.last_order("exit 0");
    // Nobody calls after that: the keeper has ended, and all its lives.
    assert_eq!(site.end().code(), Some(0));
}

#[test]
fn what_was_stored_is_there_in_the_next_life_under_its_name() {
    let site = Site::new();
    let mut life = site.life();
    for order in ["store device one", "store state two", "store state three", "ready", "barrier"] {
        life.order(order);
    }
    assert_eq!(site.call(), "told\n");
    life.kill(Signal::SIGKILL);
    let mut life = site.life();
    let names = "names=sheepfs-device:sheepfs-state";
    assert!(life.found(&format!("fds=2 {names} pid_is_ours=true")), "{}", life.hello);
    life.order("write device 1");
    life.order("write state 3");
    assert_eq!(site.read("one"), "1");
    // The later one of a name is the one that counts.
    assert_eq!((site.read("two"), site.read("three")), (String::new(), "3".to_owned()));
    life.order("remove device");
    life.order("ready");
    life.order("barrier");
    life.last_order("exit 69");
    let life = site.life();
    assert!(life.found("fds=1 names=sheepfs-state"), "{}", life.hello);
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

/// A message sent right before the end is heard all the same, and a keeper has
/// nothing open but what it must have.
#[test]
fn last_words_count_and_nothing_else_is_held() {
    let site = Site::new();
    let mut life = site.life();
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    life.order("barrier");
    let before = site.keeper_fds();
    life.order("store device one");
    life.kill(Signal::SIGKILL);
    let mut life = site.life();
    life.order("barrier");
    assert!(life.found("fds=1 names=sheepfs-device"), "{}", life.hello);
    assert_eq!(site.keeper_fds(), before + 1);
    assert!(site.keeper_has_open(&site.path("one")));
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

#[test]
fn a_stranger_can_store_nothing_and_is_not_ready_for_another() {
    let site = Site::new();
    let mut life = site.life();
    life.order("stranger store device one");
    life.order("stranger ready");
    life.order("barrier");
    // Had the stranger been heard, the attempt would be over with success, and this
    // would be a crash, which is followed by another life.
    life.last_order("exit 69");
    assert_eq!(site.end().code(), Some(69));
}

#[test]
fn an_attempt_that_fails_is_the_end_with_its_status() {
    for (order, status) in [("exit 78", 78), ("exit 0", 0), ("exit 64", 64)] {
        let site = Site::new();
        site.life().last_order(order);
        assert_eq!(site.end().code(), Some(status), "{order}");
    }
    let site = Site::new();
    site.life().kill(Signal::SIGKILL);
    assert_eq!(site.end().code(), Some(KILLED));
}

#[test]
fn it_is_started_again_for_ever_while_there_is_a_mount() {
    let site = Site::new();
    let mut life = site.life();
    life.order("store device one");
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    for (round, order) in ["exit 64", "exit 78", "exit 70", "exit 1", "exit 69"].iter().enumerate()
    {
        life.last_order(order);
        life = site.life();
        assert!(life.found("fds=1 "), "{round}: {}", life.hello);
    }
    life.order("remove device");
    life.order("barrier");
    life.last_order("exit 78");
    assert_eq!(site.end().code(), Some(78));
}

#[test]
fn signals_are_passed_on_and_the_child_decides() {
    let site = Site::new();
    let mut life = site.life();
    life.order("hear signals");
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    for (sent, heard) in [
        (Signal::SIGHUP, Signal::SIGHUP),
        (Signal::SIGUSR1, Signal::SIGUSR1),
        (Signal::SIGINT, Signal::SIGTERM),
        (Signal::SIGTERM, Signal::SIGTERM),
    ] {
        site.signal(sent);
        assert_eq!(life.signal(), heard);
    }
    life.last_order("exit 69");
    // It was asked to stop, so there is no other life.
    assert_eq!(site.end().code(), Some(69));
}

/// A signal that arrives before the supervisor can hear one would kill it.
#[test]
fn a_signal_waits_until_the_child_can_hear_it() {
    let site = Site::new();
    let mut life = site.life();
    site.signal(Signal::SIGHUP);
    life.order("hear signals");
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    assert_eq!(life.signal(), Signal::SIGHUP);
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

/// While it starts another program in its own place, it has nobody who listens.
#[test]
fn a_signal_waits_for_the_end_of_a_reload() {
    let site = Site::new();
    let mut life = site.life();
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    life.order("reloading");
    life.order("barrier");
    site.signal(Signal::SIGHUP);
    life.order("hear signals");
    life.order("ready");
    assert_eq!(life.signal(), Signal::SIGHUP);
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

#[test]
fn a_stop_before_the_mount_is_ready_ends_the_attempt() {
    let site = Site::new();
    let mut life = site.life();
    life.order("barrier");
    site.signal(Signal::SIGTERM);
    assert_eq!(site.end().code(), Some(KILLED));
}

/// SIGUSR2 asks to leave the mount to a successor, and status 75 says that it is left.
#[test]
fn one_that_leaves_the_mount_is_followed_by_another() {
    let site = Site::new();
    let mut life = site.life();
    life.order("hear signals");
    life.order("store device one");
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    site.signal(Signal::SIGUSR2);
    assert_eq!(life.signal(), Signal::SIGUSR2);
    life.last_order("exit 75");
    let life = site.life();
    assert!(life.found("fds=1 "), "{}", life.hello);
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

/// Nothing lives at that moment, and something must unmount.
#[test]
fn a_stop_between_two_lives_starts_one_that_is_told_when_it_is_ready() {
    let site = Site::new();
    let mut life = site.life();
    life.order("store device one");
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    // After so many short lives there is a pause; it is longest when the signal
    // comes late, and nothing here depends on its coming within one.
    for _ in 0..8 {
        life.kill(Signal::SIGKILL);
        life = site.life();
    }
    life.kill(Signal::SIGKILL);
    site.signal(Signal::SIGTERM);
    let mut life = site.life();
    life.order("hear signals");
    life.order("ready");
    assert_eq!(life.signal(), Signal::SIGTERM);
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

/// The one that was asked has crashed: the next one is asked in its place.
#[test]
fn a_stop_outlives_the_one_that_was_asked() {
    let site = Site::new();
    let mut life = site.life();
    life.order("hear signals");
    life.order("store device one");
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    site.signal(Signal::SIGTERM);
    assert_eq!(life.signal(), Signal::SIGTERM);
    life.kill(Signal::SIGKILL);
    let mut life = site.life();
    life.order("hear signals");
    life.order("ready");
    assert_eq!(life.signal(), Signal::SIGTERM);
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

#[test]
fn one_that_stops_saying_that_it_is_alive_is_killed_and_replaced() {
    let site = Site::with_watchdog("20");
    let mut life = site.life();
    life.order("store device one");
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    // Without a first word of life it would live on: it may never speak of that.
    life.begin("alive");
    let dead = life.pid();
    let life = site.life();
    assert!(life.found("fds=1 "), "{}", life.hello);
    assert_eq!(kill(Pid::from_raw(dead), None), Err(Errno::ESRCH));
    life.last_order("exit 0");
    assert_eq!(site.end().code(), Some(0));
}

#[test]
fn a_keeper_that_is_killed_takes_nothing_with_it() {
    let site = Site::new();
    let mut life = site.life();
    life.order("ready");
    assert_eq!(site.call(), "told\n");
    site.signal(Signal::SIGKILL);
    assert_eq!(site.end().signal(), Some(Signal::SIGKILL as i32));
    life.order("alive");
    assert!(fs::exists(format!("/proc/{}", life.pid())).unwrap());
    life.last_order("exit 0");
}
