//! Gateways in front of a minisheep pass for the nodes of a cluster.

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

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use client::{Client, Minisheep, extent, vdi_name};
use gateway::{Behind, Gateway};
use nix::sys::signal::Signal;
use sheepfs::minisheep::gateway::Notice;
use sheepfs::wire::cluster::decode_nodes;
use sheepfs::wire::cluster::{ClusterInfo, EpochRecord, Lock, Node, VDI_STATE_LEN, VdiState};
use sheepfs::wire::name::{Generation, VdiRef};
use sheepfs::wire::{Opcode, Request, RequestHeader, Status, VdiId};
use tempfile::TempDir;
use tools::wait_for;

const MIB: u64 = 1 << 20;

impl Behind for Minisheep {
    fn listens_on(&self) -> SocketAddr {
        self.address
    }
}

/// A formatted minisheep with a VDI, and gateways in front of it.
fn cluster<const N: usize>(arguments: &[&str]) -> (TempDir, Minisheep, [Gateway; N]) {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> =
        ["--format", "--create", "disk:64M"].iter().chain(arguments).copied().collect();
    let sheep = Minisheep::start(&dir.path().join("store"), &all);
    let gateways = std::array::from_fn(|_| Gateway::start(&sheep));
    (dir, sheep, gateways)
}

fn client(gateway: &Gateway) -> Client {
    Client::connect(gateway.address().parse().unwrap())
}

fn disk(client: &mut Client) -> VdiId {
    client.find("disk", Generation::Working).unwrap()
}

/// The epoch of a node's replies.
fn epoch(client: &mut Client) -> u32 {
    client.call(&Request::get_cluster_default(), &[]).0.epoch
}

/// What a node says of the membership, in both ways.
fn membership(client: &mut Client) -> (u32, Vec<Node>) {
    let (reply, bytes) = client.call(&Request::get_node_list(), &[]);
    let nodes = decode_nodes(&bytes, reply.node().nr_nodes).unwrap();
    let (reply, bytes) = client.call(&Request::cluster_info(), &[]);
    let info = ClusterInfo::decode(&bytes).unwrap();
    assert_eq!((info.epoch, &info.nodes), (reply.epoch, &nodes));
    (reply.epoch, nodes)
}

fn ports(nodes: &[Node]) -> Vec<u16> {
    nodes.iter().map(|node| node.id.port).collect()
}

fn port(gateway: &Gateway) -> u16 {
    gateway.address().parse::<SocketAddr>().unwrap().port()
}

/// Word 0 of STAT.
fn active(client: &mut Client) -> u64 {
    let (_, bytes) = client.call_header(&RequestHeader::new(Opcode::Stat, 0, 120), &[]);
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

#[test]
fn what_goes_in_through_one_gateway_comes_out_of_the_other() {
    let (_dir, sheep, [one, other]) = cluster(&[]);
    let (mut writer, mut reader) = (client(&one), client(&other));
    let vid = disk(&mut writer);
    let block: Vec<u8> = (0..4 * MIB).map(|byte| (byte / 7) as u8).collect();
    assert_eq!(writer.create(vid, 0, 0, &block), Status::Success);
    assert_eq!(reader.read(vid, 0, 0, 4 << 20).unwrap(), block);
    let mut open: BTreeSet<u32> = (0..200)
        .map(|number| writer.send(&Request::write(vid, 0, extent(number * 512, 512)), &[9; 512]))
        .collect();
    while !open.is_empty() {
        let (reply, _) = writer.receive().unwrap();
        assert!(reply.status == Status::Success && open.remove(&reply.id));
    }
    assert_eq!(reader.read(vid, 0, 0, 200 * 512).unwrap(), [9; 200 * 512]);
    assert_eq!(sheep.all_bugs(), "");
    assert_eq!((one.served("WriteObj"), other.served("WriteObj")), (201, 0));
}

#[test]
fn each_coming_and_going_is_an_epoch() {
    let (_dir, sheep, [mut one, mut other]) = cluster(&[]);
    let (mut direct, mut through) = (sheep.client(), client(&other));
    let mut both = [port(&one), port(&other)];
    both.sort_unstable();
    let (now, nodes) = membership(&mut through);
    assert_eq!((now, ports(&nodes)), (3, both.to_vec()), "the minisheep is no node");
    let zones: BTreeSet<_> = nodes.iter().map(|node| node.zone).collect();
    assert_eq!(zones.len(), 2);
    assert_eq!(membership(&mut direct), (now, nodes));
    one.kill();
    wait_for("the dead one to be missed", || epoch(&mut through) == 4);
    assert_eq!(ports(&membership(&mut through).1), [port(&other)]);
    one.restart();
    assert_eq!(membership(&mut client(&one)), membership(&mut through));
    assert_eq!(ports(&membership(&mut through).1), both);
    other.freeze();
    assert_eq!((membership(&mut direct).0, ports(&membership(&mut direct).1)), (5, both.to_vec()));
    other.thaw();
    let history = history(&mut through, 10, 2);
    let told: Vec<_> = history.iter().map(|past| (past.epoch, past.nodes.len())).collect();
    assert_eq!(told, [(5, 2), (4, 1), (3, 2), (2, 1), (1, 1)]);
    assert_eq!(ports(&history[4].nodes), [sheep.address.port()]);
    assert!(history.is_sorted_by(|newer, older| newer.time >= older.time));
    assert_eq!((history[0].nr_copies, history[1].nr_copies), (1, 0), "told once");
    one.kill();
    other.kill();
    wait_for("nobody to be left", || epoch(&mut direct) == 7);
    assert_eq!(membership(&mut direct).1, []);
}

/// STAT_CLUSTER with room for so many records and nodes.
fn history(client: &mut Client, records: u32, nodes: u32) -> Vec<EpochRecord> {
    let (reply, bytes) = client.call(&Request::stat_cluster(records, nodes), &[]);
    assert_eq!(reply.status, Status::Success);
    EpochRecord::decode_all(&bytes, nodes).unwrap()
}

#[test]
fn the_history_is_told_as_far_as_there_is_room() {
    let (_dir, sheep, [_one, _other]) = cluster(&[]);
    let mut direct = sheep.client();
    assert_eq!(history(&mut direct, 2, 2).len(), 2);
    let newest = &history(&mut direct, 1, 0)[0];
    assert_eq!((newest.epoch, newest.time, newest.nodes.len()), (3, 0, 0));
    assert_eq!(direct.status(&Request::stat_cluster(3, 1), &[]), Status::BufferSmall);
}

#[test]
fn a_lock_is_the_gateways_and_outlives_it() {
    let (_dir, _sheep, [mut one, other]) = cluster(&["--lock"]);
    let vdi = VdiRef { name: vdi_name("disk"), generation: Generation::Working };
    let lock = Request::lock_vdi(&vdi);
    let (mut holder, mut rival) = (client(&one), client(&other));
    let vid = disk(&mut holder);
    assert_eq!(holder.status(&lock, &[]), Status::Success);
    assert_eq!(owner(&mut rival, vid).map(|id| id.to_string()), Some(one.address().to_owned()));
    one.kill();
    assert_eq!(rival.status(&lock, &[]), Status::VdiLocked);
    one.restart();
    assert_eq!(client(&one).status(&lock, &[]), Status::VdiLocked, "not even for that node");
    assert_eq!(rival.status(&Request::release_vdi(vid), &[]), Status::Success);
    assert_eq!(rival.status(&lock, &[]), Status::Success);
    assert_eq!(owner(&mut rival, vid).map(|id| id.to_string()), Some(other.address().to_owned()));
}

fn owner(client: &mut Client, vid: VdiId) -> Option<sheepfs::wire::cluster::NodeId> {
    let header = RequestHeader::new(Opcode::GetVdiCopies, 0, 16 * VDI_STATE_LEN as u32);
    let (_, bytes) = client.call_header(&header, &[]);
    let states = bytes.chunks_exact(VDI_STATE_LEN).map(|state| VdiState::decode(state).unwrap());
    match states.into_iter().find(|state| state.vid == vid.get()).unwrap().lock {
        Lock::Locked(id) => Some(id),
        _ => None,
    }
}

/// Hazard 1: the test proves that it can be made here, so that others can prove it is handled.
#[test]
fn a_frozen_gateways_write_comes_after_newer_ones() {
    let (_dir, sheep, [one, other]) = cluster(&[]);
    let mut first = client(&one).in_life(1);
    let vid = disk(&mut first);
    first.create(vid, 0, 0, b"base");
    let fault = one.fault("hold kind=data opcode=write count=1");
    first.send(&Request::write(vid, 0, extent(0, 4)), b"old!");
    wait_for("the write to be read", || one.held() == 1);
    assert_eq!((one.fired(&fault), active(&mut client(&one))), (1, 1));
    one.freeze();
    first.reset();
    let mut second = client(&other).in_life(2);
    assert_eq!(second.write(vid, 0, 0, b"old!"), Status::Success, "the replay");
    assert_eq!(second.write(vid, 0, 0, b"new!"), Status::Success);
    one.thaw();
    assert_eq!((one.held(), active(&mut client(&one))), (1, 1));
    assert_eq!(second.read(vid, 0, 0, 4).unwrap(), b"new!");
    one.control("release");
    wait_for("the stale write", || second.read(vid, 0, 0, 4).unwrap() == b"old!");
    assert_eq!((one.held(), active(&mut client(&one))), (0, 0));
    assert_eq!(sheep.all_bugs(), "", "it is no client's bug");
}

#[test]
fn what_a_gateway_had_not_read_is_lost_by_a_reset_and_only_by_that() {
    let (_dir, _sheep, [one, other]) = cluster(&[]);
    let mut reader = client(&other);
    let vid = disk(&mut reader);
    reader.create(vid, 0, 0, b"base");
    for (reset, found) in [(true, b"base"), (false, b"late")] {
        let mut writer = client(&one);
        disk(&mut writer);
        one.freeze();
        writer.send(&Request::write(vid, 0, extent(0, 4)), b"late");
        if reset {
            writer.reset()
        } else {
            drop(writer)
        }
        one.thaw();
        wait_for("the client's threads to end", || one.threads() == 0);
        assert_eq!(one.served("WriteObj"), u64::from(!reset));
        assert_eq!(&reader.read(vid, 0, 0, 4).unwrap(), found);
    }
}

#[test]
fn a_killed_gateway_takes_along_only_what_it_did_not_forward() {
    let (_dir, sheep, [mut one, other]) = cluster(&[]);
    let (mut writer, mut reader) = (client(&one), client(&other));
    let vid = disk(&mut writer);
    writer.create(vid, 0, 0, b"........");
    one.fault("hold kind=data count=1");
    writer.send(&Request::write(vid, 0, extent(0, 4)), b"lost");
    wait_for("the first write to be held", || one.held() == 1);
    sheep.control("hold kind=data opcode=write");
    writer.send(&Request::write(vid, 0, extent(4, 4)), b"done");
    wait_for("the second to be forwarded", || sheep.control("held").starts_with("requests 1"));
    one.kill();
    assert!(writer.receive().is_none());
    sheep.control("clear");
    sheep.control("release");
    assert_eq!(reader.read(vid, 0, 0, 8).unwrap(), b"....done");
    assert_eq!(sheep.all_bugs(), "");
}

#[test]
fn held_replies_are_to_requests_that_were_carried_out() {
    let (_dir, _sheep, [one, other]) = cluster(&[]);
    let (mut writer, mut reader) = (client(&one), client(&other));
    let vid = disk(&mut writer);
    writer.create(vid, 0, 0, b"base");
    let fault = one.fault("hold_reply kind=data opcode=write");
    let id = writer.send(&Request::write(vid, 0, extent(0, 4)), b"1st!");
    wait_for("the reply to be held", || one.held_replies() == 1);
    assert_eq!((one.held(), active(&mut client(&one))), (0, 1));
    assert_eq!(reader.read(vid, 0, 0, 4).unwrap(), b"1st!");
    one.control("release");
    assert_eq!(writer.receive().unwrap().0.id, id);
    writer.send(&Request::write(vid, 0, extent(0, 4)), b"2nd!");
    wait_for("the next one too", || one.held_replies() == 1);
    writer.reset();
    one.control("drop");
    assert_eq!((one.held_replies(), one.fired(&fault)), (0, 2));
    assert_eq!(
        (active(&mut client(&one)), reader.read(vid, 0, 0, 4).unwrap()),
        (0, b"2nd!".to_vec())
    );
}

#[test]
fn each_gateway_counts_what_is_active_on_it() {
    let (_dir, sheep, [one, other]) = cluster(&[]);
    let mut writer = client(&one);
    let vid = disk(&mut writer);
    writer.create(vid, 0, 0, &[0; 1024]);
    let (mut on_one, mut on_other) = (client(&one), client(&other));
    assert_eq!(active(&mut on_one), 0);
    one.fault("hold opcode=write kind=data");
    one.fault("hold opcode=read kind=data count=1");
    writer.send(&Request::write(vid, 0, extent(0, 4)), b"held");
    writer.send(&Request::read(vid, 0, extent(512, 4)), &[]);
    wait_for("both to be held", || one.held() == 2);
    assert_eq!([active(&mut on_one), active(&mut on_other)], [2, 0]);
    assert_eq!(active(&mut sheep.client()), 0, "nothing was forwarded");
    one.control("drop");
    assert_eq!((active(&mut on_one), one.held()), (0, 0));
    assert_eq!(client(&other).read(vid, 0, 0, 4).unwrap(), [0; 4], "forgotten");
}

#[test]
fn a_gateways_faults_are_its_own() {
    let (_dir, _sheep, [one, other]) = cluster(&[]);
    let (mut bad, mut good) = (client(&one), client(&other));
    let vid = disk(&mut bad);
    good.create(vid, 0, 0, b"base");
    one.fault("status code=0x19 opcode=write count=1");
    one.fault("drop after opcode=write count=1");
    assert_eq!(bad.write(vid, 0, 0, b"1st!"), Status::Halt);
    bad.send(&Request::write(vid, 0, extent(0, 4)), b"2nd!");
    assert!(bad.receive().is_none());
    assert_eq!(good.read(vid, 0, 0, 4).unwrap(), b"2nd!");
    for line in ["bugs", "clear-bugs", "late-reclaim", "snapshot disk t", "linger", "bury"] {
        assert!(one.try_control(line).starts_with("error: only the minisheep"), "{line}");
    }
}

#[test]
fn rules_are_counted_through_gateways_too() {
    let (_dir, sheep, [one, _other]) = cluster(&[]);
    let mut client_of_one = client(&one);
    let vid = disk(&mut client_of_one);
    let wrong = RequestHeader { opcode: 0xff, ..Request::read(vid, 0, extent(0, 1)).header(1) };
    assert_eq!(client_of_one.call_header(&wrong, &[]).0.status, Status::InvalidParms);
    assert_eq!(sheep.bugs("opcode"), 1);
    client_of_one.send_raw(&[0; 47]);
    client_of_one.finish();
    assert!(client_of_one.receive().is_none());
    wait_for("half a request to be counted", || sheep.bugs("frame") == 1);
    // A gateway that dies while it forwards leaves half a request too, which is nobody's bug.
    let mut dying = sheep.client();
    dying.send_header(&Notice::Client(([127, 0, 0, 1], 1).into()).header(), &[]);
    dying.send_raw(&[0; 47]);
    dying.finish();
    assert!(dying.receive().is_none());
    assert_eq!(sheep.bugs("frame"), 1);
}

#[test]
fn only_a_whole_notice_makes_a_member() {
    let (_dir, sheep, [one]) = cluster(&[]);
    let notice = Notice::Member(([127, 0, 0, 1], 1).into()).header();
    let stranger = RequestHeader { union: [0; 32], ..notice };
    assert_eq!(sheep.client().call_header(&stranger, &[]).0.status, Status::InvalidParms);
    let mut impostor = client(&one);
    impostor.send_header(&notice, &[]);
    assert!(impostor.receive().is_none(), "a gateway passes none on");
    assert_eq!(ports(&membership(&mut sheep.client()).1), [port(&one)]);
    assert_eq!(sheep.all_bugs(), "");
}

#[test]
fn a_gateway_ends_in_order_with_its_minisheep_or_by_signal() {
    let (_dir, mut sheep, [mut one, mut other]) = cluster(&[]);
    let mut writer = client(&one);
    let vid = disk(&mut writer);
    writer.create(vid, 0, 0, b"base");
    one.fault("hold");
    one.fault("hold_reply");
    writer.send(&Request::write(vid, 0, extent(0, 4)), b"held");
    wait_for("the write to be held", || one.held() == 1);
    one.control("pause");
    writer.send(&Request::read(vid, 0, extent(0, 4)), &[]);
    wait_for("a read to wait too", || one.served("ReadObj") == 1);
    one.signal(Signal::SIGTERM);
    assert!(one.wait().success());
    let shutdown = RequestHeader::new(Opcode::Shutdown, 0, 0);
    assert_eq!(client(&other).call_header(&shutdown, &[]).0.status, Status::Success);
    assert_eq!(sheep.wait().code(), Some(0));
    assert!(other.wait().success());
}

#[test]
fn a_gateway_needs_a_minisheep_on_loopback_and_no_directory() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 64, "<DIR>"),
        (&["--gateway-of", "7000"], 64, "--gateway-of"),
        (&["--gateway-of", "127.0.0.1:7000", "dir"], 64, "cannot be used with"),
        (&["--gateway-of", "127.0.0.1:7000", "--format"], 64, "cannot be used with"),
        (&["--gateway-of", "192.0.2.1:7000"], 64, "not a loopback address"),
        (&["--port", "0", "--gateway-of", &closed], 69, "is it running?"),
    ];
    for (arguments, code, words) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minisheep"));
        let output = command.args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
