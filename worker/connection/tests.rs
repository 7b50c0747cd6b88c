//! Replies of any length, cut anywhere, in any order.

use super::*;
use crate::frame::Destination;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;
use sheepfs::ipc::RawSpan;
use sheepfs::wire::header::RequestHeader;
use sheepfs::wire::{ReplyHeader, Request, Status};
use std::io::Write;
use std::net::TcpListener;

/// What the peer does with a request.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Where its answer goes.
    arena: bool,
    /// Bytes asked for.
    len: u32,
    /// Whether it is refused, with no bytes.
    refused: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let len = prop_oneof![0u32..100, Just(48), Just(384), 300u32..500, 0u32..20_000];
    (any::<bool>(), len, prop::bool::weighted(0.1)).prop_map(|(arena, len, refused)| Plan {
        arena,
        len,
        refused,
    })
}

/// A connection and its other end.
fn connected() -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = Connection::start(listener.local_addr().unwrap(), Instant::now()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    wait(&connection, PollFlags::POLLOUT);
    (connection, peer)
}

fn wait(connection: &Connection, events: PollFlags) {
    let ready = poll(&mut [PollFd::new(connection.as_fd(), events)], PollTimeout::from(60_000u16));
    assert_eq!(ready, Ok(1), "nothing comes");
}

fn header(id: u32, opcode: Opcode, status: Status, len: u32) -> [u8; HEADER_LEN] {
    let request = RequestHeader { id, ..RequestHeader::new(opcode, 0, 0) };
    ReplyHeader::new(&request, 1, status, len).encode()
}

fn content(id: u32, len: u32) -> Vec<u8> {
    (0..len).map(|n| ((n * 7 + id * 13) % 251) as u8).collect()
}

fn opcode(plan: Plan) -> Opcode {
    if plan.arena { Opcode::ReadObj } else { Opcode::GetNodeList }
}

fn ask(connection: &mut Connection, id: u32, plan: Plan, span: sheepfs::ipc::Span) {
    let destination = if plan.arena {
        Destination::Arena(span)
    } else {
        Destination::Memory { len_max: plan.len + id % 3 }
    };
    let frame = Frame::new(Request::get_cluster_default(), id, None);
    connection.push(frame, Expected { opcode: opcode(plan), destination }, Instant::now());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn replies_arrive_whole_however_they_are_cut(
        (plans, order) in prop::collection::vec(plan(), 1..24).prop_flat_map(|plans| {
            let order: Vec<usize> = (0..plans.len()).collect();
            (Just(plans), Just(order).prop_shuffle())
        }),
        cuts in prop::collection::vec(prop_oneof![1usize..60, 1usize..5000], 1..20),
    ) {
        let (mut connection, mut peer) = connected();
        let arena = Arena::create(1 << 20).unwrap();
        arena.zero(arena.check(RawSpan { offset: 0, len: 1 << 20 }).unwrap());
        let mut spans = Vec::new();
        for (id, plan) in (0u32..).zip(&plans) {
            let span = arena.check(RawSpan { offset: id * 24_000, len: plan.len }).unwrap();
            ask(&mut connection, id, *plan, span);
            spans.push(span);
        }
        connection.flush(&arena, Instant::now()).unwrap();
        let mut stream = Vec::new();
        for at in &order {
            let (plan, id) = (plans[*at], u32::try_from(*at).unwrap());
            let len = if plan.refused { 0 } else { plan.len };
            let status = if plan.refused { Status::Eio } else { Status::Success };
            stream.extend(header(id, opcode(plan), status, len));
            stream.extend(content(id, len));
        }
        let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
        let mut replies = Vec::new();
        while !rest.is_empty() {
            let (chunk, tail) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            peer.write_all(chunk).unwrap();
            rest = tail;
            connection.receive(&arena, Instant::now(), &mut replies).unwrap();
        }
        while replies.len() < plans.len() {
            wait(&connection, PollFlags::POLLIN);
            connection.receive(&arena, Instant::now(), &mut replies).unwrap();
        }
        let ids: Vec<_> = replies.iter().map(|reply| reply.id as usize).collect();
        prop_assert_eq!(ids, order);
        for reply in &replies {
            let plan = plans[reply.id as usize];
            let len = if plan.refused { 0 } else { plan.len };
            let expected = content(reply.id, len);
            prop_assert_eq!(reply.status.is_success(), !plan.refused);
            if plan.arena && len > 0 {
                prop_assert!(arena.bytes(spans[reply.id as usize]) == expected);
            } else {
                prop_assert_eq!(&reply.bytes, &expected);
            }
            let after = RawSpan { offset: reply.id * 24_000 + plan.len, len: 24_000 - plan.len };
            let after = arena.bytes(arena.check(after).unwrap());
            prop_assert!(after.iter().all(|byte| *byte == 0), "a neighbour was written");
        }
        prop_assert_eq!(connection.load(), 0);
        prop_assert!(connection.unanswered().is_empty());
    }
}

/// What no sheep says ends the connection, and nothing is taken from it.
#[test]
fn nonsense_is_noticed() {
    let span = RawSpan { offset: 0, len: 512 };
    let plan = Plan { arena: true, len: 512, refused: false };
    for wrong in [
        header(2, Opcode::ReadObj, Status::Success, 512),
        header(1, Opcode::WriteObj, Status::Success, 512),
        header(1, Opcode::ReadObj, Status::Success, 511),
        header(1, Opcode::ReadObj, Status::Success, 513),
        header(1, Opcode::ReadObj, Status::Eio, u32::MAX),
    ] {
        let (mut connection, mut peer) = connected();
        let arena = Arena::create(4096).unwrap();
        ask(&mut connection, 1, plan, arena.check(span).unwrap());
        connection.flush(&arena, Instant::now()).unwrap();
        peer.write_all(&wrong).unwrap();
        wait(&connection, PollFlags::POLLIN);
        let mut replies = Vec::new();
        assert_eq!(
            connection.receive(&arena, Instant::now(), &mut replies),
            Err(LostReason::NotASheep)
        );
        assert!(replies.is_empty());
    }
}

/// An end in the middle of a reply is no reply.
#[test]
fn half_a_reply_is_none() {
    let (mut connection, mut peer) = connected();
    let arena = Arena::create(4096).unwrap();
    let span = arena.check(RawSpan { offset: 0, len: 512 }).unwrap();
    ask(&mut connection, 1, Plan { arena: true, len: 512, refused: false }, span);
    connection.flush(&arena, Instant::now()).unwrap();
    peer.write_all(&header(1, Opcode::ReadObj, Status::Success, 512)).unwrap();
    peer.write_all(&[7; 100]).unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut replies = Vec::new();
    let end = loop {
        wait(&connection, PollFlags::POLLIN);
        if let Err(end) = connection.receive(&arena, Instant::now(), &mut replies) {
            break end;
        }
    };
    assert_eq!((end, replies.len()), (LostReason::Disconnected, 0));
    assert_eq!(connection.unanswered(), [1]);
}

/// A request advances while bytes before it leave and when bytes of its reply come.
#[test]
fn progress_is_bytes_of_a_request_or_of_its_reply() {
    let (mut connection, mut peer) = connected();
    let arena = Arena::create(4096).unwrap();
    let span = arena.check(RawSpan { offset: 0, len: 512 }).unwrap();
    let start = Instant::now();
    let at = |seconds| start + std::time::Duration::from_secs(seconds);
    let frame = Frame::new(Request::get_cluster_default(), 1, None);
    let expected = Expected { opcode: Opcode::ReadObj, destination: Destination::Arena(span) };
    connection.push(frame, expected, at(1));
    let since = |connection: &Connection| connection.stalled().pop().map(|stalled| stalled.since);
    assert_eq!(since(&connection), Some(at(1)));
    connection.flush(&arena, at(2)).unwrap();
    assert_eq!(since(&connection), Some(at(2)));
    let mut replies = Vec::new();
    peer.write_all(&header(1, Opcode::ReadObj, Status::Success, 512)).unwrap();
    wait(&connection, PollFlags::POLLIN);
    connection.receive(&arena, at(3), &mut replies).unwrap();
    assert_eq!(since(&connection), Some(at(3)));
    peer.write_all(&[7; 100]).unwrap();
    wait(&connection, PollFlags::POLLIN);
    connection.receive(&arena, at(4), &mut replies).unwrap();
    assert_eq!(since(&connection), Some(at(4)));
    peer.write_all(&[7; 412]).unwrap();
    while replies.is_empty() {
        wait(&connection, PollFlags::POLLIN);
        connection.receive(&arena, at(5), &mut replies).unwrap();
    }
    assert_eq!(since(&connection), None);
}
