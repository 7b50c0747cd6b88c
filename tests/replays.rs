//! What a client sends again after a recovery is told apart from a bug, and requests and replies
//! can be held back to make such recoveries happen.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/gateway.rs"]
mod gateway;
#[allow(dead_code, reason = "each test program uses the part that it needs")]
#[path = "support/tools.rs"]
mod tools;

use std::fs;
use std::net::SocketAddr;

use client::{Client, Minisheep, count, extent};
use gateway::{Behind, Gateway, threads_named};
use nix::sys::signal::Signal;
use sheepfs::wire::name::Generation;
use sheepfs::wire::{Opcode, Request, RequestHeader, Status, VdiId};
use tempfile::TempDir;
use tools::wait_for;

impl Behind for Minisheep {
    fn listens_on(&self) -> SocketAddr {
        self.address
    }
}

/// A minisheep with a VDI, and two lives of a client of it.
fn start() -> (TempDir, Minisheep, [Client; 2], VdiId) {
    let dir = tempfile::tempdir().unwrap();
    let sheep = Minisheep::start(&dir.path().join("store"), &["--format", "--create", "disk:64M"]);
    let mut lives = [1, 2].map(|life| sheep.client().in_life(life));
    let vid = lives[0].find("disk", Generation::Working).unwrap();
    (dir, sheep, lives, vid)
}

/// How many requests and how many replies are held.
fn held(sheep: &Minisheep) -> (u64, u64) {
    let held = sheep.control("held");
    (count(&held, "requests"), count(&held, "replies"))
}

/// Word 0 of STAT.
fn active(sheep: &Minisheep) -> u64 {
    let header = RequestHeader::new(Opcode::Stat, 0, 120);
    let (_, bytes) = sheep.client().call_header(&header, &[]);
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

#[test]
fn a_create_may_be_sent_again_by_the_next_life_only() {
    let (_dir, sheep, [mut first, mut second], vid) = start();
    first.create(vid, 0, 0, b"x");
    assert_eq!(second.create(vid, 0, 0, b"x"), Status::Success);
    assert_eq!(sheep.all_bugs(), "");
    second.create(vid, 0, 0, b"x");
    assert_eq!(sheep.all_bugs(), "create_over_own=1", "it is this life's object now");
    first.create(vid, 1, 0, b"x");
    second.write(vid, 1, 0, b"y");
    second.create(vid, 1, 0, b"x");
    assert_eq!(sheep.all_bugs(), "create_over_own=2", "what this life wrote is lost");
}

#[test]
fn an_index_entry_may_be_repeated_by_the_next_life_only() {
    let (_dir, sheep, [mut first, mut second], old) = start();
    sheep.control("snapshot disk t after=2 lose=1");
    first.create(old, 0, 0, b"kept");
    first.create(old, 1, 0, b"lost");
    assert_eq!(first.write(old, 0, 0, b"x"), Status::Readonly);
    let new = first.find("disk", Generation::Working).unwrap();
    first.set_entry(new, 1, old);
    second.set_entry(new, 1, old);
    assert_eq!(sheep.all_bugs(), "", "a repair, and its replay");
    second.set_entry(new, 1, old);
    assert_eq!(sheep.all_bugs(), "index_inherited=1");
    second.set_entry(new, 0, old);
    assert_eq!(sheep.all_bugs(), "index_inherited=2", "nobody had written it");
}

#[test]
fn an_empty_entry_may_be_repeated_by_the_next_life_only() {
    let (_dir, sheep, [mut first, mut second], vid) = start();
    first.create(vid, 0, 0, b"x");
    let zero = |client: &mut Client, id: u32, block: u32| {
        let header = Request::write_index(vid, block, 1, vid).unwrap().header(id);
        assert_eq!(client.call_header(&header, &[0; 4]).0.status, Status::Success);
    };
    zero(&mut first, 0x0100_0100, 0);
    zero(&mut second, 0x0200_0100, 0);
    assert_eq!(sheep.all_bugs(), "");
    zero(&mut second, 0x0200_0101, 0);
    assert_eq!(sheep.all_bugs(), "index_empty=1");
    zero(&mut second, 0x0200_0102, 7);
    assert_eq!(sheep.all_bugs(), "index_empty=2", "nobody had written it");
}

#[test]
fn a_create_that_hangs_binds_its_own_life_only() {
    let (_dir, sheep, [mut first, mut second], vid) = start();
    sheep.control("hold opcode=create count=2");
    let creates = [0, 1].map(|block| Request::create(vid, block, extent(0, 4)));
    for create in &creates {
        first.send(create, b"1st!");
    }
    wait_for("the creates to be held", || held(&sheep) == (2, 0));
    for create in &creates {
        assert_eq!(second.status(create, b"2nd!"), Status::Success);
    }
    second.set_entry(vid, 0, vid);
    assert_eq!(sheep.all_bugs(), "", "its own object is there");
    first.set_entry(vid, 1, vid);
    assert_eq!(sheep.all_bugs(), "index_before_object=1");
    first.status(&creates[0], b"3rd!");
    assert_eq!(sheep.bugs("concurrent_create"), 1);
}

#[test]
fn a_dead_clients_late_requests_are_no_bugs() {
    let (_dir, sheep, [_, mut other], vid) = start();
    let gateway = Gateway::start(&sheep);
    let mut dying = Client::connect(gateway.address().parse().unwrap()).in_life(2);
    gateway.fault("hold count=2");
    dying.send(&Request::create(vid, 0, extent(0, 4)), b"late");
    dying.send(&Request::create(vid, 1, extent(0, 4)), b"late");
    wait_for("both to be held", || gateway.held() == 2);
    dying.reset();
    // One of its two threads waits for what was taken; the other has told of its end.
    wait_for("its end to be seen", || gateway.threads() == 1);
    other.create(vid, 0, 0, b"new!");
    sheep.control("pause");
    other.send(&Request::create(vid, 1, extent(0, 4)), b"new!");
    wait_for("the create to arrive", || count(&sheep.control("stats"), "CreateAndWriteObj") == 2);
    gateway.control("release");
    wait_for("all to arrive", || count(&sheep.control("stats"), "CreateAndWriteObj") == 4);
    sheep.control("resume");
    assert_eq!(other.receive().unwrap().0.status, Status::Success);
    wait_for("the late ones", || other.read(vid, 0, 0, 4).unwrap() == b"late");
    wait_for("all to be over", || gateway.threads() == 0);
    assert_eq!(sheep.all_bugs(), "");
}

#[test]
fn what_is_held_is_read_and_active_and_goes_on_in_order() {
    let (_dir, sheep, [mut first, mut reader], vid) = start();
    first.create(vid, 0, 0, b"base");
    assert_eq!(sheep.control("hold kind=data opcode=write count=3"), "ok hold#1\n");
    let ids = [1, 2, 3].map(|number: u32| {
        // Of one life they would overlap.
        let request = Request::write(vid, 0, extent(0, 4));
        let id = (number + 2) << 24;
        first.send_header(&request.header(id), &[number as u8; 4]);
        wait_for("the write to be held", || held(&sheep) == (number.into(), 0));
        id
    });
    assert_eq!((active(&sheep), count(&sheep.control("fired"), "hold#1")), (3, 3));
    assert_eq!(reader.read(vid, 0, 0, 4).unwrap(), b"base");
    assert_eq!(sheep.control("release"), "ok\n");
    assert_eq!(ids, [(); 3].map(|()| first.receive().unwrap().0.id));
    assert_eq!(reader.read(vid, 0, 0, 4).unwrap(), [3; 4]);
    assert_eq!((held(&sheep), active(&sheep)), ((0, 0), 0));
    assert_eq!(sheep.all_bugs(), "");
}

#[test]
fn a_held_request_is_carried_out_without_its_client_unless_it_is_dropped() {
    let (_dir, sheep, [_, mut reader], vid) = start();
    reader.create(vid, 0, 0, b"base");
    sheep.control("hold kind=data opcode=write");
    for (decision, found) in [("drop", b"base"), ("release", b"late")] {
        let mut writer = sheep.client().in_life(1);
        writer.send(&Request::write(vid, 0, extent(0, 4)), b"late");
        wait_for("the write to be held", || held(&sheep) == (1, 0));
        writer.reset();
        sheep.control(decision);
        assert_eq!(&reader.read(vid, 0, 0, 4).unwrap(), found, "{decision}");
        assert_eq!(active(&sheep), 0);
    }
}

#[test]
fn a_held_reply_is_to_a_request_that_was_carried_out() {
    let (_dir, mut sheep, [mut writer, mut reader], vid) = start();
    writer.create(vid, 0, 0, b"base");
    sheep.control("hold_reply kind=data opcode=write");
    let id = writer.send(&Request::write(vid, 0, extent(0, 4)), b"done");
    wait_for("the reply to be held", || held(&sheep) == (0, 1));
    assert_eq!((reader.read(vid, 0, 0, 4).unwrap(), active(&sheep)), (b"done".to_vec(), 1));
    sheep.control("release");
    assert_eq!(writer.receive().unwrap().0.id, id);
    writer.send(&Request::write(vid, 0, extent(0, 4)), b"more");
    wait_for("the reply to be held", || held(&sheep) == (0, 1));
    // What is held can't keep the program from ending.
    sheep.signal(Signal::SIGTERM);
    assert_eq!(sheep.wait().code(), Some(0));
    assert!(writer.receive().is_none());
}

#[test]
fn what_was_not_read_is_lost_by_a_reset_and_only_by_that() {
    let (_dir, sheep, [_idle, mut reader], vid) = start();
    reader.create(vid, 0, 0, b"base");
    let threads = || threads_named(sheep.child.id() as i32, &["connection"]);
    let writes = || count(&sheep.control("stats"), "WriteObj");
    let stat = format!("/proc/{}/stat", sheep.child.id());
    let is_stopped = || fs::read_to_string(&stat).unwrap().contains(") T ");
    for (reset, found) in [(true, b"base"), (false, b"late")] {
        let (before, written) = (threads(), writes());
        let mut writer = sheep.client();
        assert_eq!(writer.find("disk", Generation::Working), Ok(vid));
        sheep.signal(Signal::SIGSTOP);
        wait_for("it to be stopped", is_stopped);
        writer.send(&Request::write(vid, 0, extent(0, 4)), b"late");
        if reset {
            writer.reset();
        } else {
            drop(writer);
        }
        sheep.signal(Signal::SIGCONT);
        wait_for("the client's thread to end", || threads() == before);
        assert_eq!(writes(), written + u64::from(!reset));
        wait_for("the content", || reader.read(vid, 0, 0, 4).unwrap() == found);
    }
}
