//! `vdi/tree/`: every VDI of the cluster and its snapshots, as directories of small files.

use crate::MIB;
use crate::cluster::Cluster;
use crate::control::errno;
use crate::mount::Mount;
use crate::tools::{arg, run};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use sheepfs::wire::name::{Generation, VdiName, VdiRef, VdiTag};
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

fn names(mount: &Mount, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(mount.path(dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn fact(mount: &Mount, path: &str) -> String {
    mount.read(&format!("vdi/tree/{path}")).trim_end_matches('\n').to_owned()
}

const FACTS: [&str; 11] = [
    "block_size_shift",
    "copies",
    "created",
    "frozen",
    "id",
    "parent",
    "shared",
    "size",
    "tag",
    "used",
    "vid",
];

#[test]
fn a_vdi_and_its_snapshots_show_what_dog_lists() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let first = cluster.wire().vid(&disk);
    mount.open(&disk).write_all_at(&[7; 512], 5 * MIB).unwrap();
    cluster.snapshot(&disk, "before");
    mount.open(&disk).write_all_at(&[7; 512], 0).unwrap();
    assert!(names(&mount, "vdi/tree").contains(&disk));
    let mut inside = FACTS.map(str::to_owned).to_vec();
    assert_eq!(names(&mount, &format!("vdi/tree/{disk}/1")), inside);
    inside.insert(0, "1".to_owned());
    assert_eq!(names(&mount, &format!("vdi/tree/{disk}")), inside);
    let [working, snapshot] =
        ["", "/1"].map(|below| FACTS.map(|name| fact(&mount, &format!("{disk}{below}/{name}"))));
    let second = cluster.wire().vid(&disk);
    // One after the other, so that each is looked up when the other was just found.
    for _ in 0..3 {
        assert_eq!(fact(&mount, &format!("{disk}/1/id")), "1");
        assert_eq!(fact(&mount, &format!("{disk}/id")), "0");
    }
    let made = &working[2];
    assert!(made.starts_with("20") && made.len() == "2026-11-22 01:32:34 +0100".len(), "{made}");
    let object = (4 * MIB).to_string();
    let size = (12 * MIB).to_string();
    let copies = &working[1];
    let expected = [
        "22",
        copies,
        made,
        "",
        "0",
        &format!("{first} {disk}:1"),
        &object,
        &size,
        "",
        &object,
        &second.to_string(),
    ];
    assert_eq!(working, expected);
    assert!(!snapshot[3].is_empty(), "when it became one");
    let expected = [
        "22",
        copies,
        &snapshot[2],
        &snapshot[3],
        "1",
        "",
        "0",
        &size,
        "before",
        &object,
        &first.to_string(),
    ];
    assert_eq!(snapshot, expected);
}

/// Nothing is kept of what a file said.
#[test]
fn a_file_says_what_is_so_when_it_is_opened() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let used = || fact(&mount, &format!("{disk}/used"));
    assert_eq!(used(), "0");
    mount.open(&disk).write_all_at(&[7; 512], 0).unwrap();
    assert_eq!(used(), (4 * MIB).to_string());
}

#[test]
fn what_is_made_is_there_and_what_is_deleted_vanishes() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    let disk = cluster.unique("gone");
    let dir = mount.path(&format!("vdi/tree/{disk}"));
    assert!(!dir.exists());
    let mut wire = cluster.wire();
    wire.new_vdi(&disk, &NewVdi { size: MIB, ..NewVdi::default() });
    assert!(dir.is_dir(), "that something is not there is never remembered");
    wire.snapshot(&disk, "one");
    let name = VdiName::new(&disk).unwrap();
    let of = |generation| VdiRef { name: name.clone(), generation };
    wire.delete(&of(Generation::Working));
    // What was found may be believed for ten seconds.
    crate::tools::wait_for("only the snapshot", || {
        names(&mount, &format!("vdi/tree/{disk}")) == ["1"]
    });
    assert_eq!(fact(&mount, &format!("{disk}/1/tag")), "one");
    assert!(!dir.join("size").exists());
    wire.delete(&of(Generation::Tag(VdiTag::new("one").unwrap())));
    crate::tools::wait_for("nothing of it", || !dir.exists());
    assert!(!names(&mount, "vdi/tree").contains(&disk));
}

/// A directory is its VDI's, whatever the name means by now.
#[test]
fn who_stands_in_a_directory_over_a_snapshot_still_stands_there() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    let path = mount.path(&format!("vdi/tree/{disk}"));
    let before = fs::metadata(&path).unwrap().ino();
    let first = cluster.wire().vid(&disk);
    assert_eq!(before, 3 << 32 | u64::from(first.get()));
    let dir = File::open(&path).unwrap();
    let below =
        |name: &str| format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    let second = cluster.snapshot(&disk, "one");
    crate::tools::wait_for("the new number", || {
        fs::metadata(&path).unwrap().ino() == 3 << 32 | u64::from(second.get())
    });
    assert_eq!(fs::read_to_string(below("vid")).unwrap().trim_end(), first.to_string());
    assert_eq!(fs::read_to_string(below("1/tag")).unwrap(), "one\n");
    // One file, by both ways.
    let twice = [below("vid"), mount.path(&format!("vdi/tree/{disk}/1/vid")).display().to_string()];
    assert_eq!(fs::metadata(&twice[0]).unwrap().ino(), fs::metadata(&twice[1]).unwrap().ino());
}

/// Protocol 4.1: a name is bytes, and other clients ask nobody what may be one.
#[test]
fn any_name_is_shown_so_that_it_can_be_reached() {
    let cluster = Cluster::mini();
    let plain = cluster.vdi("disk", MIB);
    let vid = cluster.wire().new_vdi_of_bytes(b"a/%", MIB);
    let mount = Mount::start(&cluster, &[]);
    // Looked up by itself, and then again in the list.
    assert_eq!(fact(&mount, "a%2F%25/vid"), vid.to_string());
    assert_eq!(names(&mount, "vdi/tree"), ["a%2F%25", &plain]);
    assert_eq!(fact(&mount, "a%2F%25/vid"), vid.to_string());
    assert_eq!(errno(fs::metadata(mount.path("vdi/tree/a%2f%25"))), Some(Errno::ENOENT));
}

#[test]
fn nothing_in_it_can_be_changed() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    let file = mount.path(&format!("vdi/tree/{disk}/size"));
    assert_eq!(errno(File::options().write(true).open(&file)), Some(Errno::EACCES));
    assert_eq!(errno(fs::remove_file(&file)), Some(Errno::EPERM));
    assert_eq!(errno(fs::create_dir(mount.path("vdi/tree/new"))), Some(Errno::EPERM));
    assert_eq!(errno(fs::read_dir(&file)), Some(Errno::ENOTDIR));
    let (dir, file) = (fs::metadata(file.parent().unwrap()).unwrap(), fs::metadata(&file).unwrap());
    assert_eq!((dir.mode() & 0o7777, file.mode() & 0o7777, file.len()), (0o555, 0o444, 0));
    assert_eq!(
        dir.mtime(),
        i64::try_from(cluster.wire().header(cluster.wire().vid(&disk)).create_time >> 32).unwrap()
    );
}

#[test]
fn ordinary_programs_find_their_way() {
    let cluster = Cluster::mini();
    for disk in ["one", "two"] {
        cluster.vdi(disk, MIB);
        cluster.snapshot(disk, "before");
    }
    let mount = Mount::start(&cluster, &[]);
    let tree = mount.path("vdi/tree");
    let found = run("find", &[arg(&tree), "-type", "f", "-name", "tag"]);
    assert_eq!(found.lines().count(), 4, "{found}");
    let tagged = run("grep", &["-rl", "before", arg(&tree)]);
    assert_eq!(tagged.lines().count(), 2, "{tagged}");
    assert_eq!(run("ls", &[arg(&tree)]).split_whitespace().collect::<Vec<_>>(), ["one", "two"]);
}

/// Nothing but what is in the tree waits for the cluster, and that not for ever.
#[test]
fn a_dead_sheep_blocks_only_what_must_ask_it() {
    let cluster = Cluster::mini();
    cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    let mut opened = File::open(mount.path("vdi/tree/disk/size")).unwrap();
    let sheep = cluster.minisheep();
    sheep.signal(Signal::SIGSTOP);
    let mut text = String::new();
    opened.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{MIB}\n"), "a text that was made is there");
    let vdi = names(&mount, "vdi");
    assert!(vdi.len() == 10 && vdi.contains(&"tree".to_owned()), "{vdi:?}");
    assert!(fs::metadata(mount.path("vdi/tree")).unwrap().is_dir());
    let error = errno(fs::metadata(mount.path("vdi/tree/other")));
    let waited = [Some(Errno::ETIMEDOUT), Some(Errno::EHOSTUNREACH)];
    assert!(waited.contains(&error), "{error:?}");
    let words = mount.status("last_error").unwrap();
    println!("{words}");
    sheep.signal(Signal::SIGCONT);
    crate::tools::wait_for("the sheep", || mount.path("vdi/tree/disk/size").exists());
}
