//! The program minisheep, spoken to over its protocol.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking"
)]

#[path = "support/client.rs"]
mod client;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use client::{Client, LIMIT, Minisheep, count, extent, vdi_name};
use nix::sys::signal::Signal;
use proptest::prelude::*;
use sheepfs::wire::header::{ObjFields, VdiFields, flags};
use sheepfs::wire::name::{Generation, VdiRef, VdiTag};
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{ObjectId, Opcode, Request, RequestHeader, Status, VdiId};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A formatted minisheep on a new directory.
fn start(arguments: &[&str]) -> (TempDir, Minisheep) {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = ["--format"].iter().chain(arguments).copied().collect();
    let sheep = Minisheep::start(&dir.path().join("store"), &all);
    (dir, sheep)
}

fn snapshot(client: &mut Client, name: &str, tag: &str) -> VdiId {
    let old = client.find(name, Generation::Working).unwrap();
    let header = client.inode(old);
    client.status(&Request::write_tag(old, &VdiTag::new(tag).unwrap()), &[]);
    let new = NewVdi {
        size: header.vdi_size,
        base: old.get(),
        snapshot: true,
        block_size_shift: header.block_size_shift,
        ..NewVdi::default()
    };
    client.new_vdi(name, &new).expect("a snapshot")
}

fn clone(client: &mut Client, name: &str, base: VdiId) -> VdiId {
    let header = client.inode(base);
    let new = NewVdi { size: header.vdi_size, base: base.get(), ..NewVdi::default() };
    client.new_vdi(name, &new).expect("a clone")
}

/// Deletes as `dog` does: the index first.
fn delete(client: &mut Client, name: &str, generation: Generation) {
    let vid = client.find(name, generation.clone()).unwrap();
    let blocks = client.inode(vid).vdi_size.div_ceil(4 * MIB) as u32;
    for block in 0..blocks {
        if client.entry(vid, block) != 0 {
            assert_eq!(
                client.call_header(&index_write(vid, block, 1), &[0; 4]).0.status,
                Status::Success
            );
        }
    }
    let vdi = VdiRef { name: vdi_name(name), generation };
    assert_eq!(client.status(&Request::del_vdi(&vdi), &[]), Status::Success);
}

/// An index write of any entries.
fn index_write(vid: VdiId, first: u32, entries: u32) -> RequestHeader {
    let request = Request::write_index(vid, first, 1, vid).unwrap();
    RequestHeader { data_length: 4 * entries, ..request.header(9) }
}

fn exists(client: &mut Client, oid: ObjectId) -> bool {
    let header = RequestHeader::new(Opcode::Exist, 0, 0);
    let fields = ObjFields { oid: oid.raw(), ..Default::default() };
    client.call_header(&header.with_obj(&fields), &[]).0.status == Status::Success
}

/// Waits until `ready` says so.
fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !ready() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_was_written_is_read() {
    let (_dir, sheep) = start(&[]);
    let mut client = sheep.client();
    let vid = client.create_vdi("disk", 64 * MIB);
    assert_eq!(client.read(vid, 0, 0, 8), Err(Status::NoObj));
    assert_eq!(client.write(vid, 0, 0, b"early"), Status::NoObj);
    assert_eq!(client.create(vid, 3, 4094, b"across"), Status::Success);
    assert_eq!(client.write(vid, 3, 4096, b"XY"), Status::Success);
    assert_eq!(client.read(vid, 3, 4093, 8).unwrap(), b"\0acXYss\0");
    assert_eq!(client.read(vid, 3, 4 << 20, 0).unwrap(), b"");
    assert_eq!(client.entry(vid, 3), vid.get());
    assert_eq!(client.create(vid, 5, 0, b""), Status::Success);
    assert_eq!(client.read(vid, 5, 0, 4 << 20).unwrap(), vec![0; 4 << 20]);
    assert_eq!(sheep.all_bugs(), "");
}

#[test]
fn an_answered_write_survives_kill_9() {
    let (dir, mut sheep) = start(&[]);
    let mut client = sheep.client();
    let vid = client.create_vdi("disk", 64 * MIB);
    client.create(vid, 0, 0, b"first");
    let new = snapshot(&mut client, "disk", "t");
    assert_eq!(client.copy(new, 0, vid, 5, b" second"), Status::Success);
    delete_all_of_nothing(&mut client);
    sheep.kill();
    let again = Minisheep::start(&dir.path().join("store"), &[]);
    let mut client = again.client();
    assert_eq!(client.find("disk", Generation::Working), Ok(new));
    assert_eq!(client.find("disk", Generation::SnapId(1)), Ok(vid));
    assert_eq!(client.find("gone", Generation::Working), Err(Status::NoVdi));
    assert_eq!(client.read(new, 0, 0, 12).unwrap(), b"first second");
    assert_eq!(client.read(vid, 0, 0, 12).unwrap(), b"first\0\0\0\0\0\0\0");
}

/// A VDI that is made and deleted: it must stay deleted.
fn delete_all_of_nothing(client: &mut Client) {
    client.create_vdi("gone", MIB);
    delete(client, "gone", Generation::Working);
}

#[test]
fn what_was_answered_before_a_kill_in_the_middle_is_there_afterwards() {
    let (dir, mut sheep) = start(&["--create", "disk:2G"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    let mut sent = HashMap::new();
    for block in 0..200 {
        let request = Request::create(vid, block, extent(0, 8192));
        sent.insert(client.send(&request, &[block as u8; 8192]), block);
    }
    let mut answered: Vec<_> =
        (0..50).map(|_| sent[&client.receive().expect("alive").0.id]).collect();
    sheep.kill();
    while let Some((reply, _)) = client.receive() {
        answered.push(sent[&reply.id]);
    }
    let again = Minisheep::start(&dir.path().join("store"), &[]);
    let mut client = again.client();
    for block in answered {
        assert_eq!(client.read(vid, block, 0, 8192).unwrap(), [block as u8; 8192], "{block}");
    }
    let names = fs::read_dir(dir.path().join("store/objects")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.starts_with("tmp")), "halves are cleared away");
}

#[test]
fn a_snapshot_that_was_killed_half_way_never_happened() {
    let (dir, mut sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let old = client.find("disk", Generation::Working).unwrap();
    client.create(old, 0, 0, b"x");
    let new = snapshot(&mut client, "disk", "t");
    sheep.kill();
    // As it was between the two steps: the new inode is there, the old one not yet frozen.
    let inode = dir.path().join("store/objects").join(ObjectId::inode(old).to_string());
    let file = fs::OpenOptions::new().write(true).open(inode).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], 520).unwrap();
    let again = Minisheep::start(&dir.path().join("store"), &[]);
    let mut client = again.client();
    assert_eq!(client.find("disk", Generation::Working), Ok(old));
    assert!(!exists(&mut client, ObjectId::inode(new)));
    assert_eq!(client.write(old, 0, 0, b"y"), Status::Success);
    assert_eq!(snapshot(&mut client, "disk", "t"), new);
}

#[test]
fn a_hyper_volume_is_deleted_with_its_objects_and_safe_from_index_writes() {
    let (_dir, sheep) = start(&[]);
    let mut client = sheep.client();
    let header = Request::new_vdi(&vdi_name("hyper"), &NewVdi::default()).header(1);
    let fields = VdiFields { vdi_size: 1 << 50, store_policy: 1, ..VdiFields::default() };
    let (reply, _) = client.call_header(&header.with_vdi(&fields), &vdi_name("hyper").field());
    let vid = VdiId::new(reply.vdi().vdi_id).unwrap();
    assert_eq!(client.entry(vid, 0).to_le_bytes(), *b"tb\x01\0", "an empty leaf");
    assert_eq!(client.status(&Request::create(vid, 9, extent(0, 1)), b"x"), Status::Success);
    assert_eq!(client.call_header(&index_write(vid, 3, 1), &[0; 4]).0.status, Status::InvalidParms);
    assert_eq!(sheep.bugs("hyper_index"), 1);
    // An entry is for an object that is there, and goes with it.
    let leaf = |blocks: &[u32]| {
        let count = u32::try_from(blocks.len()).unwrap();
        let entries = blocks.iter().flat_map(|block| [*block, vid.get()]);
        let words = [count].into_iter().chain(entries);
        [b"tb\x01\0".to_vec(), words.flat_map(u32::to_le_bytes).collect()].concat()
    };
    let enter = |blocks| Request::write_tree_top(vid, &leaf(blocks)).unwrap();
    assert_eq!(client.status(&enter(&[9]), &[]), Status::Success);
    assert_eq!(sheep.bugs("index_before_object"), 0);
    assert_eq!(client.status(&enter(&[8, 9]), &[]), Status::Success);
    assert_eq!(sheep.bugs("index_before_object"), 1);
    assert_eq!(client.status(&Request::create(vid, 9, extent(0, 1)), b"y"), Status::Success);
    assert_eq!(sheep.bugs("create_over_own"), 1, "what was written there is lost");
    let fields = ObjFields { oid: ObjectId::data(vid, 9).raw(), ..ObjFields::default() };
    let header = RequestHeader::new(Opcode::DiscardObj, 0, 0).with_obj(&fields);
    assert_eq!(client.call_header(&header, &[]).0.status, Status::Success);
    assert!(!exists(&mut client, ObjectId::data(vid, 9)));
    assert_eq!(client.entry(vid, 5), 0, "its vid, behind the head, another entry, and its block");
    assert_eq!(client.status(&Request::create(vid, 9, extent(0, 1)), b"z"), Status::Success);
    assert_eq!(sheep.bugs("create_over_own"), 1);
    let vdi = VdiRef { name: vdi_name("hyper"), generation: Generation::Working };
    assert_eq!(client.status(&Request::del_vdi(&vdi), &[]), Status::Success);
    assert!(!exists(&mut client, ObjectId::data(vid, 9)));
    assert_eq!(client.find("hyper", Generation::Working), Err(Status::NoVdi));
}

#[test]
fn a_directory_is_served_once() {
    let (dir, _sheep) = start(&[]);
    let mut command = Minisheep::command(&dir.path().join("store"));
    let output = command.args(["--port", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("used by another minisheep"));
}

#[test]
fn only_loopback_is_served() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0", "::", "192.0.2.1"] {
        let mut command = Minisheep::command(dir.path());
        let output = command.args(["--port", "0", "--address", address]).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{address}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("not a loopback address"));
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [&["--port", "65536"][..], &["--create", "x"], &["--create", "x:1Q"], &["-z"]]
    {
        let mut command = Minisheep::command(dir.path());
        assert_eq!(command.args(arguments).output().unwrap().status.code(), Some(64));
    }
    let unformatted =
        Minisheep::command(dir.path()).args(["--port", "0", "--create", "x:1M"]).output();
    assert_eq!(unformatted.unwrap().status.code(), Some(78));
}

#[test]
fn it_says_what_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Minisheep::command(dir.path())
        .args(["--port", "0", "--format", "--create", "disk:1M"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 9];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"minisheep");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("not a cluster"), "{said}");
    assert!(said.contains("minisheep: client bugs: 0"), "{said}");
}

#[test]
fn the_signal_to_stop_lets_what_runs_finish() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (_dir, mut sheep) = start(&[]);
        let mut client = sheep.client();
        let vid = client.create_vdi("disk", 64 * MIB);
        client.create(vid, 0, 0, b"old");
        sheep.control("delay ms=300 when=after opcode=write count=1");
        client.send(&Request::write(vid, 0, extent(0, 3)), b"new");
        wait_for("the write", || count(&sheep.control("fired"), "delay#1") == 1);
        sheep.signal(signal);
        assert_eq!(client.receive().unwrap().0.status, Status::Success);
        assert_eq!(sheep.wait().code(), Some(0));
    }
}

#[test]
fn shutdown_by_request_ends_the_program() {
    let (_dir, mut sheep) = start(&[]);
    let mut client = sheep.client();
    let header = RequestHeader::new(Opcode::Shutdown, 0, 0);
    assert_eq!(client.call_header(&header, &[]).0.status, Status::Success);
    assert_eq!(sheep.wait().code(), Some(0));
}

#[test]
fn before_it_is_formatted_it_waits_for_that() {
    let dir = tempfile::tempdir().unwrap();
    let sheep = Minisheep::start(&dir.path().join("store"), &[]);
    let mut client = sheep.client();
    assert_eq!(client.find("disk", Generation::Working), Err(Status::WaitForFormat));
    assert_eq!(client.status(&Request::stat_sheep(), &[]), Status::WaitForFormat);
    assert_eq!(client.status(&Request::stat_cluster(1, 1), &[]), Status::WaitForFormat);
    assert_eq!(client.status(&Request::cluster_info(), &[]), Status::Success);
    assert_eq!(client.status(&Request::get_node_list(), &[]), Status::Success);
    assert_eq!(client.status(&Request::make_fs(7 << 32, 2, 4, 0), &[]), Status::Success);
    let vid = client.create_vdi("disk", MIB);
    assert_eq!((client.inode(vid).nr_copies, client.inode(vid).block_size_shift), (2, 22));
}

#[test]
fn a_snapshot_freezes_and_a_copy_leaves_it_alone() {
    let (_dir, sheep) = start(&[]);
    let mut client = sheep.client();
    let old = client.create_vdi("disk", 64 * MIB);
    client.create(old, 0, 0, b"original");
    client.create(old, 1, 0, b"second");
    let new = snapshot(&mut client, "disk", "t");
    assert_eq!(client.write(old, 0, 0, b"x"), Status::Readonly);
    assert_eq!(client.status(&Request::create(old, 2, extent(0, 1)), b"x"), Status::Readonly);
    assert_eq!(client.find("disk", Generation::Tag(VdiTag::new("t").unwrap())), Ok(old));
    assert_eq!(client.find("disk", Generation::SnapId(2)), Err(Status::NoTag));
    assert_eq!((client.entry(new, 0), client.inode(new).snap_id), (old.get(), 2));
    assert_eq!(client.copy(new, 0, old, 2, b"XX"), Status::Success);
    assert_eq!(client.read(new, 0, 0, 8).unwrap(), b"orXXinal");
    assert_eq!(client.read(old, 0, 0, 8).unwrap(), b"original");
    assert_eq!(client.copy(new, 3, old, 0, b"x"), Status::NoObj);
    assert!(!exists(&mut client, ObjectId::data(new, 3)));
    assert_eq!(sheep.all_bugs(), "");
}

#[test]
fn objects_live_as_long_as_somebody_needs_them() {
    let working = Generation::Working;
    let first = || Generation::SnapId(1);
    let orders: [[(&str, Generation); 3]; 3] = [
        [("disk", working.clone()), ("copy", working.clone()), ("disk", first())],
        [("disk", first()), ("copy", working.clone()), ("disk", working.clone())],
        [("copy", working.clone()), ("disk", first()), ("disk", working)],
    ];
    for order in orders {
        let (dir, sheep) = start(&[]);
        let mut client = sheep.client();
        let old = client.create_vdi("disk", 16 * MIB);
        client.create(old, 0, 0, b"shared");
        snapshot(&mut client, "disk", "t");
        clone(&mut client, "copy", old);
        for (name, generation) in order {
            assert_eq!(client.read(old, 0, 0, 6).unwrap(), b"shared");
            delete(&mut client, name, generation);
        }
        assert_eq!(client.read(old, 0, 0, 6), Err(Status::NoObj));
        let left = fs::read_dir(dir.path().join("store/objects")).unwrap();
        let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let others: Vec<_> = names.filter(|name| !name.starts_with('8')).collect();
        assert!(others.is_empty(), "nothing but inodes is left: {others:?}");
    }
}

/// Three bytes are no entry, so nothing is done about its reference, as on a real sheep; then
/// the client does that itself, and in the end nothing is left.
#[test]
fn an_entry_alone_gives_no_reference_up() {
    let (dir, sheep) = start(&[]);
    let mut client = sheep.client();
    let old = client.create_vdi("disk", 16 * MIB);
    client.create(old, 0, 0, b"own");
    client.create(old, 1, 0, b"shared");
    let clear = |vid, block| Request::write_bare_entry(vid, block, None).unwrap();
    assert_eq!(client.status(&clear(old, 0), &[]), Status::Success);
    assert_eq!((client.entry(old, 0), client.read(old, 0, 0, 3).unwrap()), (0, b"own".to_vec()));
    assert_eq!(client.status(&Request::remove(old, 0), &[]), Status::Success);
    assert_eq!(client.status(&Request::remove(old, 0), &[]), Status::NoObj);
    let new = snapshot(&mut client, "disk", "t");
    client.status(&clear(new, 1), &[]);
    let grefs = client.call(&Request::read_grefs(new, 1, 1), &[]).1;
    assert_eq!(grefs, [1, 0, 0, 0, 0, 0, 0, 0], "its count is as it was");
    assert_eq!(client.status(&Request::drop_reference(old, 1, 1), &[]), Status::Success);
    // What was cleared in a snapshot can be put back, since that keeps its count.
    client.status(&clear(old, 1), &[]);
    let back = Request::write_bare_entry(old, 1, Some(old)).unwrap();
    assert_eq!(client.status(&back, &[]), Status::Success);
    assert_eq!(client.read(old, 1, 0, 6).unwrap(), b"shared");
    assert_eq!(sheep.all_bugs(), "");
    delete(&mut client, "disk", Generation::SnapId(1));
    assert_eq!(client.read(old, 1, 0, 6), Err(Status::NoObj), "that was the last reference");
    delete(&mut client, "disk", Generation::Working);
    let left = fs::read_dir(dir.path().join("store/objects")).unwrap();
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| !name.starts_with('8')).count(), 0);
}

#[test]
fn removals_of_what_is_needed_and_entries_set_alone_are_counted() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, b"x");
    client.status(&Request::remove(vid, 0), &[]);
    let alone = Request::write_bare_entry(vid, 1, Some(vid)).unwrap();
    client.status(&alone, &[]);
    assert_eq!((sheep.bugs("remove_needed"), sheep.bugs("index_shape")), (1, 1));
    let first = Request::drop_reference(vid, 0, 0);
    assert_eq!(client.status(&first, &[]), Status::InvalidParms);
}

#[test]
fn locks_lock_only_where_the_cluster_has_them() {
    let vdi = VdiRef { name: vdi_name("disk"), generation: Generation::Working };
    let (_dir, sheep) = start(&["--lock", "--create", "disk:1M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    assert_eq!(client.status(&Request::lock_vdi(&vdi), &[]), Status::Success);
    assert_eq!(client.status(&Request::lock_vdi(&vdi), &[]), Status::VdiLocked);
    drop(client);
    let mut other = sheep.client();
    assert_eq!(other.status(&Request::lock_vdi(&vdi), &[]), Status::VdiLocked);
    assert_eq!(other.status(&Request::release_vdi(vid), &[]), Status::Success);
    assert_eq!(other.status(&Request::lock_vdi(&vdi), &[]), Status::Success);
    let (_dir, sheep) = start(&["--create", "disk:1M"]);
    let mut client = sheep.client();
    assert_eq!(client.status(&Request::lock_vdi(&vdi), &[]), Status::Success);
    assert_eq!(client.status(&Request::lock_vdi(&vdi), &[]), Status::Success);
}

#[test]
fn pipelined_requests_overtake_each_other() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, &[7; 4096]);
    sheep.control("delay ms=600000 opcode=read count=1");
    let ids: Vec<_> =
        (0..64).map(|_| client.send(&Request::read(vid, 0, extent(0, 4096)), &[])).collect();
    let mut answers = Vec::new();
    for left in (0..ids.len()).rev() {
        let (reply, payload) = client.receive().unwrap();
        assert_eq!((reply.status, payload), (Status::Success, vec![7; 4096]));
        answers.push(reply.id);
        if left == 1 {
            assert_eq!(sheep.control("hurry"), "ok\n");
        }
    }
    assert_ne!(answers, ids, "the delayed one came late");
    answers.sort_unstable();
    assert_eq!(answers, ids);
}

#[test]
fn what_kills_a_real_sheep_is_refused_and_counted() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, &[1; 512]);
    let write = Request::write(vid, 0, extent(0, 512)).header(1);
    let read = Request::read(vid, 0, extent(0, 512)).header(1);
    let info = Request::cluster_info().header(1);
    let nodes = Request::get_node_list().header(1);
    let new = Request::new_vdi(&vdi_name("x"), &NewVdi::default()).header(1);
    let cow = Request::create_from(vid, 1, vid, extent(0, 512)).header(1);
    let mut beyond = cow.obj();
    beyond.offset = 4 << 20;
    let cases = [
        ("opcode", RequestHeader { opcode: 0xff, ..read }, 0),
        ("write_flag", RequestHeader { flags: 0, ..write }, 0),
        ("write_flag", RequestHeader { flags: flags::WRITE, ..read }, 512),
        ("buffer_length", RequestHeader { data_length: 491_567, ..info }, 0),
        ("buffer_length", RequestHeader { data_length: 0, ..nodes }, 0),
        ("buffer_length", RequestHeader { opcode: 0xb1, data_length: 8, ..info }, 0),
        ("buffer_length", RequestHeader::new(Opcode::Stat, 0, 119), 0),
        ("buffer_length", RequestHeader::new(Opcode::StatRecovery, 0, 23), 0),
        ("buffer_length", RequestHeader::new(Opcode::GetVdiAttr, flags::WRITE, 100), 100),
        ("cluster_payload", RequestHeader { data_length: 128 << 10, ..new }, 128 << 10),
        ("cow_bounds", cow.with_obj(&beyond), 512),
        ("recovery_flag", RequestHeader { flags: flags::WRITE | 0x80, ..write }, 512),
    ];
    for (rule, header, len) in cases {
        let before = sheep.bugs(rule);
        let (reply, payload) = client.call_header(&header, &vec![0; len]);
        assert_eq!((reply.status, payload.len()), (Status::InvalidParms, 0), "{rule} {header:?}");
        assert_eq!(sheep.bugs(rule), before + 1, "{rule} {header:?}");
    }
    assert_eq!(client.read(vid, 0, 0, 512).unwrap(), [1; 512], "nothing was written");
}

#[test]
fn clients_rules_are_counted_while_they_are_served() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, &[1; 512]);
    let write = Request::write(vid, 0, extent(0, 512)).header(1);
    let copies = ObjFields { copies: 1, ..write.obj() };
    let far = ObjFields { offset: 4 << 20, ..write.obj() };
    let behind = Request::create(vid, 16, extent(0, 512)).header(1);
    let mut reserved = write;
    reserved.union[18] = 1;
    let unready = Request::write_index(vid, 5, 1, vid).unwrap().header(1);
    let cases: [(&str, RequestHeader, Vec<u8>); 8] = [
        ("copies", write.with_obj(&copies), vec![2; 512]),
        ("reserved", reserved, vec![2; 512]),
        ("flags", RequestHeader { flags: flags::WRITE | 8, ..write }, vec![2; 512]),
        ("object_bounds", write.with_obj(&far), vec![2; 512]),
        ("vdi_bounds", behind, vec![2; 512]),
        ("create_over_own", Request::create(vid, 0, extent(0, 4)).header(1), vec![2; 4]),
        ("index_before_object", unready, vid.get().to_le_bytes().to_vec()),
        ("index_empty", index_write(vid, 7, 1), vec![0; 4]),
    ];
    for (rule, header, payload) in cases {
        let before = sheep.bugs(rule);
        let (reply, _) = client.call_header(&header, &payload);
        assert_eq!(reply.status, Status::Success, "{rule}");
        assert_eq!(sheep.bugs(rule), before + 1, "{rule}: {}", sheep.all_bugs());
    }
    assert_eq!(
        client.call_header(&RequestHeader { version: 3, ..write }, &[2; 512]).0.status,
        Status::VerMismatch
    );
    assert_eq!(sheep.bugs("version"), 1);
    sheep.control("clear-bugs");
    assert_eq!(sheep.all_bugs(), "");
}

#[test]
fn an_index_write_that_repeats_inherited_entries_is_counted() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let old = client.find("disk", Generation::Working).unwrap();
    for block in 0..3 {
        client.create(old, block, 0, b"x");
    }
    let new = snapshot(&mut client, "disk", "t");
    for block in [0, 2] {
        let request = Request::create_from(new, block, old, extent(0, 1));
        assert_eq!(client.status(&request, b"y"), Status::Success);
    }
    let entries: Vec<u8> = [new, old, new].iter().flat_map(|vid| vid.get().to_le_bytes()).collect();
    client.call_header(&index_write(new, 0, 3), &entries);
    assert_eq!(sheep.all_bugs(), "index_inherited=1");
    // An index update that is sent again repeats own entries, and that is right.
    client.set_entry(new, 0, new);
    assert_eq!(sheep.all_bugs(), "index_inherited=1");
}

#[test]
fn changes_that_must_not_be_at_once_are_counted() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, &[1; 4096]);
    sheep.control("pause");
    let requests = [
        (Request::write(vid, 0, extent(0, 512)), "neighbours are fine"),
        (Request::write(vid, 0, extent(512, 512)), "neighbours are fine"),
        (Request::write(vid, 0, extent(511, 2)), "overlaps both"),
        (Request::create(vid, 1, extent(0, 4)), "the first create"),
        (Request::create(vid, 1, extent(8, 4)), "the second create"),
        (Request::write(vid, 1, extent(16, 4)), "a write into the create"),
    ];
    for (request, _) in &requests {
        client.send(request, &vec![2; request.payload_len() as usize]);
    }
    let received = || {
        let stats = sheep.control("stats");
        count(&stats, "WriteObj") + count(&stats, "CreateAndWriteObj")
    };
    // Two set block 0 up.
    wait_for("all requests to arrive", || received() == 2 + requests.len() as u64);
    assert_eq!(sheep.all_bugs(), "concurrent_create=2 overlap=1");
    sheep.control("resume");
    for _ in &requests {
        assert!(client.receive().is_some());
    }
    assert_eq!(client.write(vid, 0, 0, &[3; 4096]), Status::Success);
    assert_eq!(sheep.all_bugs(), "concurrent_create=2 overlap=1", "what was answered is over");
}

#[test]
fn an_abandoned_connections_changes_are_not_held_against_its_client() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut first = sheep.client();
    let vid = first.find("disk", Generation::Working).unwrap();
    first.create(vid, 0, 0, &[1; 4096]);
    sheep.control("delay ms=600000 opcode=write count=1");
    first.send(&Request::write(vid, 0, extent(0, 512)), &[2; 512]);
    wait_for("the write", || count(&sheep.control("fired"), "delay#1") == 1);
    drop(first);
    let mut second = sheep.client();
    wait_for("the old connection's end to be seen", || {
        sheep.control("clear-bugs");
        assert_eq!(second.write(vid, 0, 0, &[3; 512]), Status::Success);
        sheep.all_bugs().is_empty()
    });
    sheep.control("hurry");
    // What the gateway has read it does, although nobody waits for it (protocol 17.6).
    wait_for("the late write", || second.read(vid, 0, 0, 512).unwrap() == [2; 512]);
}

#[test]
fn a_malformed_frame_costs_its_connection_and_nothing_else() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut good = sheep.client();
    let vid = good.find("disk", Generation::Working).unwrap();
    good.create(vid, 0, 0, b"x");
    let half = Request::write(vid, 0, extent(0, 512)).header(1).encode();
    for bytes in [&half[..47], &half[..], &[&half[..], &[0; 511][..]].concat()] {
        let mut bad = sheep.client();
        bad.send_raw(bytes);
        bad.finish();
        assert!(bad.receive().is_none());
    }
    let mut bad = sheep.client();
    let huge = RequestHeader { data_length: u32::MAX, ..RequestHeader::decode(&half) };
    bad.send_header(&huge, &[]);
    assert!(bad.receive().is_none());
    wait_for("all to be counted", || sheep.bugs("frame") == 4);
    assert_eq!(good.read(vid, 0, 0, 1).unwrap(), b"x");
}

#[test]
fn faults_happen_as_asked_and_say_so() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, b"old");
    assert_eq!(sheep.control("status code=0x19 opcode=write count=2 skip=1"), "ok status#1\n");
    let results: Vec<_> = (0..4).map(|_| client.write(vid, 0, 0, b"new")).collect();
    assert_eq!(results, [Status::Success, Status::Halt, Status::Halt, Status::Success]);
    assert_eq!(count(&sheep.control("fired"), "status#1"), 2);
    sheep.control("drop before opcode=write count=1");
    client.send(&Request::write(vid, 0, extent(0, 3)), b"1st");
    assert!(client.receive().is_none());
    let mut client = sheep.client();
    assert_eq!(client.read(vid, 0, 0, 3).unwrap(), b"new");
    sheep.control("drop after opcode=write count=1");
    client.send(&Request::write(vid, 0, extent(0, 3)), b"2nd");
    assert!(client.receive().is_none());
    let mut client = sheep.client();
    assert_eq!(client.read(vid, 0, 0, 3).unwrap(), b"2nd");
    assert_eq!(sheep.control("fired"), "status#1 2\ndrop#2 1\ndrop#3 1\n");
    assert_eq!(sheep.control("clear"), "ok\n");
    assert_eq!(sheep.control("fired"), "");
    assert_eq!(sheep.control("explode"), "error: no such command: explode\n");
}

#[test]
fn answers_can_be_reordered() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, b"x");
    sheep.control("reorder ms=10000 opcode=read count=1");
    let first = client.send(&Request::read(vid, 0, extent(0, 1)), &[]);
    wait_for("the first to be held", || count(&sheep.control("fired"), "reorder#1") == 1);
    let second = client.send(&Request::read(vid, 0, extent(0, 1)), &[]);
    let order = [client.receive().unwrap().0.id, client.receive().unwrap().0.id];
    assert_eq!(order, [second, first]);
    sheep.control("clear");
    sheep.control("reorder ms=5 opcode=read count=1");
    assert_eq!(client.read(vid, 0, 0, 1).unwrap(), b"x", "one alone comes after its limit");
}

#[test]
fn a_snapshot_can_come_at_a_given_moment() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let old = client.find("disk", Generation::Working).unwrap();
    client.create(old, 0, 0, b"x");
    sheep.control("snapshot disk t after=2");
    let results: Vec<_> = (0..3).map(|_| client.write(old, 0, 0, b"y")).collect();
    assert_eq!(results, [Status::Success, Status::Success, Status::Readonly]);
    assert_eq!(count(&sheep.control("fired"), "snapshot#1"), 1);
    let new = client.find("disk", Generation::Working).unwrap();
    assert_eq!(client.find("disk", Generation::Tag(VdiTag::new("t").unwrap())), Ok(old));
    assert_eq!(client.entry(new, 0), old.get());
}

#[test]
fn a_snapshot_can_lose_the_last_index_entries() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let old = client.find("disk", Generation::Working).unwrap();
    sheep.control("snapshot disk t after=2 lose=1");
    client.create(old, 0, 0, b"kept");
    client.create(old, 1, 0, b"lost");
    assert_eq!(client.write(old, 0, 0, b"x"), Status::Readonly);
    let new = client.find("disk", Generation::Working).unwrap();
    assert_eq!([client.entry(new, 0), client.entry(new, 1)], [old.get(), 0]);
    assert_eq!([client.entry(old, 0), client.entry(old, 1)], [old.get(), 0]);
    assert_eq!(client.read(old, 1, 0, 4).unwrap(), b"lost", "the object is still there");
}

#[test]
fn late_reclaim_takes_an_object_that_was_made_again() {
    let (_dir, sheep) = start(&["--create", "disk:64M"]);
    let mut client = sheep.client();
    let vid = client.find("disk", Generation::Working).unwrap();
    client.create(vid, 0, 0, b"old");
    sheep.control("late-reclaim ms=600000");
    assert_eq!(client.call_header(&index_write(vid, 0, 1), &[0; 4]).0.status, Status::Success);
    assert_eq!(client.create(vid, 0, 0, b"new"), Status::Success);
    assert_eq!(count(&sheep.control("fired"), "late-reclaim#1"), 1);
    assert_eq!(client.read(vid, 0, 0, 3).unwrap(), b"new");
    sheep.control("hurry");
    wait_for("the new object to vanish", || client.read(vid, 0, 0, 3) == Err(Status::NoObj));
}

#[test]
fn pausing_holds_everything_until_it_resumes() {
    let (_dir, sheep) = start(&[]);
    let mut client = sheep.client();
    sheep.control("pause");
    let id = client.send(&Request::get_cluster_default(), &[]);
    wait_for("the request to arrive", || count(&sheep.control("stats"), "GetClusterDefault") == 1);
    sheep.control("resume");
    assert_eq!(client.receive().unwrap().0.id, id);
}

#[test]
fn large_blocks_and_copies_of_them_stay_sparse() {
    let (dir, sheep) = start(&["--block-size-shift", "31", "--create", "disk:64G"]);
    let mut client = sheep.client();
    let old = client.find("disk", Generation::Working).unwrap();
    let far = sheepfs::wire::request::Extent::new((2 << 30) - 4096, 4096, 31).unwrap();
    let near = sheepfs::wire::request::Extent::new(0, 5, 31).unwrap();
    assert_eq!(client.status(&Request::create(old, 7, far), &[9; 4096]), Status::Success);
    client.set_entry(old, 7, old);
    let new = snapshot(&mut client, "disk", "t");
    assert_eq!(client.status(&Request::create_from(new, 7, old, near), b"start"), Status::Success);
    client.set_entry(new, 7, new);
    let (_, bytes) = client.call(&Request::read(new, 7, far), &[]);
    assert_eq!(bytes, [9; 4096]);
    let (_, bytes) = client.call(&Request::read(new, 7, near), &[]);
    assert_eq!(bytes, b"start");
    use std::os::unix::fs::MetadataExt;
    let objects = fs::read_dir(dir.path().join("store/objects")).unwrap();
    let blocks: u64 = objects.map(|entry| entry.unwrap().metadata().unwrap().blocks()).sum();
    assert!(blocks * 512 < MIB, "{} bytes on disk", blocks * 512);
    assert_eq!(sheep.all_bugs(), "");
}

/// One step of the model test.
#[derive(Clone, Debug)]
enum Step {
    Write { block: u32, offset: u32, byte: u8, len: u32 },
    Discard { block: u32 },
    Snapshot,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0_u32..4, 0_u32..5000, any::<u8>(), 1_u32..5000);
    prop_oneof![
        8 => write.prop_map(|(block, offset, byte, len)| Step::Write { block, offset, byte, len }),
        1 => (0_u32..4).prop_map(|block| Step::Discard { block }),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Restart),
    ]
}

/// What all generations should hold: blocks of 10,000 bytes.
type Model = BTreeMap<(u32, u32), Vec<u8>>;

fn write_as_a_client_does(client: &mut Client, vid: VdiId, block: u32, offset: u32, bytes: &[u8]) {
    let done = match client.entry(vid, block) {
        0 => client.create(vid, block, offset, bytes),
        own if own == vid.get() => client.write(vid, block, offset, bytes),
        base => client.copy(vid, block, VdiId::new(base).unwrap(), offset, bytes),
    };
    assert_eq!(done, Status::Success);
}

fn compare(client: &mut Client, vids: &[VdiId], model: &Model) {
    for (vid, block) in vids.iter().flat_map(|vid| (0..4).map(move |block| (*vid, block))) {
        let found = match VdiId::new(client.entry(vid, block)) {
            None => vec![0; 10_000],
            Some(owner) => client.read(owner, block, 0, 10_000).expect("an indexed object"),
        };
        let zeros = vec![0; 10_000];
        let wanted = model.get(&(vid.get(), block)).unwrap_or(&zeros);
        assert!(found == *wanted, "vid {vid} block {block}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// A client that writes, discards and takes snapshots finds in every generation what a map
    /// of byte vectors says, also after the server was killed.
    #[test]
    fn all_generations_hold_what_a_model_says(steps in prop::collection::vec(step(), 1..40)) {
        let (dir, mut sheep) = start(&["--create", "disk:16M"]);
        let mut client = sheep.client();
        let mut vids = vec![client.find("disk", Generation::Working).unwrap()];
        let mut model = Model::new();
        for step in steps {
            let vid = *vids.last().unwrap();
            match step {
                Step::Write { block, offset, byte, len } => {
                    let bytes = vec![byte; len as usize];
                    write_as_a_client_does(&mut client, vid, block, offset, &bytes);
                    let all = model.entry((vid.get(), block)).or_insert_with(|| vec![0; 10_000]);
                    all[offset as usize..(offset + len) as usize].copy_from_slice(&bytes);
                }
                Step::Discard { block } => {
                    let header = RequestHeader::new(Opcode::DiscardObj, 0, 0);
                    let oid = ObjectId::data(vid, block).raw();
                    let fields = ObjFields { oid, ..Default::default() };
                    let (reply, _) = client.call_header(&header.with_obj(&fields), &[]);
                    prop_assert_eq!(reply.status, Status::Success);
                    model.remove(&(vid.get(), block));
                }
                Step::Snapshot => {
                    let new = snapshot(&mut client, "disk", "t");
                    for block in 0..4 {
                        if let Some(bytes) = model.get(&(vid.get(), block)).cloned() {
                            model.insert((new.get(), block), bytes);
                        }
                    }
                    vids.push(new);
                }
                Step::Restart => {
                    prop_assert_eq!(sheep.all_bugs(), "");
                    sheep.kill();
                    sheep = Minisheep::start(&dir.path().join("store"), &[]);
                    client = sheep.client();
                }
            }
        }
        compare(&mut client, &vids, &model);
        prop_assert_eq!(sheep.all_bugs(), "");
    }
}
