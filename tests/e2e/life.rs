//! VDIs made, copied, taken back, resized and deleted through the files of `vdi/`.

use crate::MIB;
use crate::cluster::Cluster;
use crate::control::errno;
use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::wire::{snapshot_ref, working_ref};
use nix::errno::Errno;
use sheepfs::wire::Status;
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::VdiRef;
use sheepfs::wire::request::NewVdi;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Writes a line to one of the files; the errno, if it was refused.
pub fn write(mount: &Mount, file: &str, line: &str) -> Option<Errno> {
    errno(mount.write(&format!("vdi/{file}"), format!("{line}\n").as_bytes()))
}

/// As [`write`], and it must be done.
pub fn done(mount: &Mount, file: &str, line: &str) {
    assert_eq!(write(mount, file, line), None, "{file}: {line}\n{}", mount.log());
}

fn header(cluster: &Cluster, vdi: &VdiRef) -> InodeHeader {
    let mut wire = cluster.wire();
    let vid = wire.look_up(vdi);
    wire.header(vid)
}

/// The lines of vdi/list that are about that name.
fn listed(mount: &Mount, name: &str) -> Vec<String> {
    let list = mount.read("vdi/list");
    let is_named = |line: &&str| line.split_whitespace().any(|word| word == name);
    list.lines().filter(is_named).map(str::to_owned).collect()
}

#[test]
fn a_vdi_is_made_as_was_asked_and_listed_at_once() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    let (plain, odd) = (cluster.unique("plain"), cluster.unique("with two spaces"));
    done(&mount, "create", &format!("{plain} 5M"));
    cluster.note(working_ref(&plain));
    assert_eq!(listed(&mount, &plain).len(), 1);
    done(&mount, "create", &format!("{odd}  12345678 copies=1 block_size_shift=20"));
    cluster.note(working_ref(&odd));
    let made = header(&cluster, &working_ref(&odd));
    assert_eq!((made.vdi_size, made.nr_copies, made.block_size_shift), (12_345_678, 1, 20));
    mount.attach(&plain);
    mount.open(&plain).write_all_at(b"data", 4 * MIB).unwrap();
    assert_eq!(&fs::read(mount.volume(&plain)).unwrap()[4 << 20..][..4], b"data");
}

#[test]
fn an_erasure_code_can_be_asked_for() {
    let cluster = Cluster::mini();
    let mount = Mount::start(&cluster, &[]);
    done(&mount, "create", "coded 8M copies=4:2");
    let made = header(&cluster, &working_ref("coded"));
    assert_eq!((made.nr_copies, made.copy_policy), (6, 0x22));
}

#[test]
fn each_cause_has_its_errno_and_the_log_says_it() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    cluster.snapshot(&disk, "s");
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    for (file, line, why) in [
        ("create", disk.clone(), Errno::EINVAL),
        ("create", format!("{disk} much"), Errno::EINVAL),
        ("create", format!("{disk} 1G copies=99"), Errno::EINVAL),
        ("create", format!("{disk} 1G"), Errno::EEXIST),
        ("create", "large-one 5T".to_owned(), Errno::EFBIG),
        ("delete", String::new(), Errno::EINVAL),
        ("delete", "no-such-vdi".to_owned(), Errno::ENOENT),
        ("delete", format!("{disk}:none"), Errno::ENOENT),
        ("delete", disk.clone(), Errno::EBUSY),
        ("snapshot", disk.clone(), Errno::EINVAL),
        ("snapshot", format!("{disk} 7"), Errno::EINVAL),
        ("snapshot", format!("{disk} s"), Errno::EEXIST),
        ("snapshot", "no-such-vdi s".to_owned(), Errno::ENOENT),
        ("clone", format!("{disk} copy"), Errno::EINVAL),
        ("clone", format!("{disk}:none copy"), Errno::ENOENT),
        ("clone", format!("{disk}:s {disk}"), Errno::EEXIST),
        ("rollback", disk.clone(), Errno::EINVAL),
        ("rollback", format!("{disk}:s"), Errno::EBUSY),
        ("rollback", "no-such-vdi:s".to_owned(), Errno::ENOENT),
        ("resize", format!("{disk} 7M"), Errno::EPERM),
        ("resize", format!("{disk} 5T"), Errno::EFBIG),
        ("resize", "no-such-vdi 5T".to_owned(), Errno::ENOENT),
    ] {
        assert_eq!(write(&mount, file, &line), Some(why), "{file}: {line}");
        let said = mount.status("last_error").unwrap_or_default();
        assert!(mount.log().contains(&said) && said.contains(": "), "{file}: {line}: {said}");
    }
    let before = header(&cluster, &working_ref(&disk));
    assert_eq!((before.vdi_size, before.tag.len()), (8 * MIB, 0), "something was done");
    assert_eq!(errno(fs::read(mount.path("vdi/create"))), Some(Errno::EACCES));
}

/// The lock tells who else has it; whoever has none is safe from nobody.
#[test]
fn what_another_client_has_locked_stays() {
    let cluster = Cluster::Mini(Minisheep::start(&["--format", "--lock"]));
    let disk = cluster.vdi("disk", MIB);
    cluster.snapshot(&disk, "s");
    assert_eq!(cluster.wire().lock(&disk), Status::Success);
    let mount = Mount::start(&cluster, &[]);
    assert_eq!(write(&mount, "delete", &disk), Some(Errno::EBUSY));
    assert_eq!(write(&mount, "rollback", "disk:s"), Some(Errno::EBUSY));
    let vid = cluster.wire().vid(&disk);
    cluster.wire().release(vid);
    done(&mount, "rollback", "disk:s");
    done(&mount, "delete", &disk);
}

/// Snapshot, clone and rollback hold what the VDI held.
#[test]
fn what_was_taken_is_what_is_copied_and_put_back() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    let copy = cluster.unique("copy");
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    file.write_all_at(&[1; 9000], 4 * MIB - 100).unwrap();
    done(&mount, "snapshot", &format!("{disk} one"));
    cluster.note(snapshot_ref(&disk, "one"));
    file.write_all_at(&[2; 5000], 4 * MIB).unwrap();
    file.write_all_at(&[3; 10], 9 * MIB).unwrap();
    done(&mount, "clone", &format!("{disk}:one {copy}"));
    cluster.note(working_ref(&copy));
    let mut wanted = vec![0; 12 << 20];
    wanted[(4 << 20) - 100..][..9000].fill(1);
    assert!(cluster.content(&copy) == wanted);
    drop(file);
    mount.detach(&disk);
    done(&mount, "rollback", &format!("{disk}:one"));
    assert!(cluster.content(&disk) == wanted);
    mount.attach(&disk);
    mount.open(&disk).write_all_at(&[4; 10], 0).unwrap();
    assert!(cluster.content(&copy) == wanted);
    // By its number it is the same one.
    mount.detach(&disk);
    done(&mount, "rollback", &format!("{disk}:1"));
    assert!(cluster.content(&disk) == wanted);
}

/// Of a VDI that is deleted with all that came of it nothing is left.
#[test]
fn deleting_gives_the_space_back() {
    let cluster = Cluster::mini();
    let mount = Mount::start(&cluster, &[]);
    done(&mount, "create", "disk 600M block_size_shift=20");
    mount.attach("disk");
    let write = |value: u8| {
        let file = mount.open("disk");
        for block in (0..600).step_by(3) {
            file.write_all_at(&[value; 100], block * MIB).unwrap();
        }
    };
    write(1);
    done(&mount, "snapshot", "disk one");
    write(2);
    done(&mount, "clone", "disk:one copy");
    mount.detach("disk");
    for line in ["disk:one", "copy", "disk"] {
        done(&mount, "delete", line);
    }
    assert_eq!(mount.read("vdi/list").lines().count(), 1, "only the head of the table");
}

/// A grown volume has its new size under files that are open.
#[test]
fn a_volume_grows_under_open_files() {
    let cluster = Cluster::start();
    for options in [&[][..], &["-k"]] {
        let disk = cluster.vdi(&format!("disk{}", options.len()), 5 * MIB);
        let mount = Mount::with_volume(&cluster, &disk, options);
        let file = mount.open(&disk);
        file.write_all_at(b"before", 0).unwrap();
        let size = || file.metadata().unwrap().size();
        assert_eq!(size(), 5 * MIB);
        done(&mount, "resize", &format!("{disk} 9M"));
        crate::tools::wait_for("the new size", || size() == 9 * MIB);
        file.write_all_at(b"behind", 8 * MIB).unwrap();
        file.set_len(12 * MIB).unwrap();
        assert_eq!(size(), 12 * MIB);
        file.write_all_at(b"end", 12 * MIB - 3).unwrap();
        assert_eq!(header(&cluster, &working_ref(&disk)).vdi_size, 12 * MIB);
        for size in [1, 9 * MIB] {
            assert_eq!(errno(file.set_len(size)), Some(Errno::EPERM), "{size}");
        }
        assert_eq!(errno(file.set_len(5 << 40)), Some(Errno::EFBIG));
        // The snapshot that follows has it too.
        done(&mount, "snapshot", &format!("{disk} large"));
        cluster.note(snapshot_ref(&disk, "large"));
        file.write_all_at(b"later", 0).unwrap();
        drop(file);
        mount.reattach(&disk);
        let content = fs::read(mount.volume(&disk)).unwrap();
        assert_eq!(content.len(), 12 << 20);
        assert_eq!((&content[..5], &content[8 << 20..][..6]), (&b"later"[..], &b"behind"[..]));
        assert_eq!(&content[content.len() - 3..], b"end");
    }
}

#[test]
fn a_volume_that_is_no_volume_here_grows_too() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    done(&mount, "resize", &format!("{disk} 3M"));
    done(&mount, "resize", &format!("{disk} 3M"));
    mount.attach(&disk);
    assert_eq!(fs::metadata(mount.volume(&disk)).unwrap().len(), 3 * MIB);
}

/// Whoever makes a snapshot may have looked at the VDI before it grew, as `dog` does.
#[test]
fn a_snapshot_that_knows_the_old_size_does_not_undo_the_new_one() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 5 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    file.write_all_at(b"before", 0).unwrap();
    let (old, mut wire) = (cluster.wire().vid(&disk), cluster.wire());
    done(&mount, "resize", "disk 9M");
    let late = NewVdi { size: 5 * MIB, base: old.get(), snapshot: true, ..NewVdi::default() };
    let new = wire.new_vdi(&disk, &late);
    assert_eq!(wire.header(new).vdi_size, 5 * MIB);
    file.write_all_at(b"behind", 8 * MIB).unwrap();
    assert_eq!(wire.header(new).vdi_size, 9 * MIB);
    drop(file);
    mount.reattach(&disk);
    assert_eq!(&fs::read(mount.volume(&disk)).unwrap()[8 << 20..][..6], b"behind");
}

/// The lock goes with the VDI to its new vid, and back at the detach.
#[test]
fn a_snapshot_by_ourselves_keeps_the_lock() {
    let cluster = Cluster::Mini(Minisheep::start(&["--format", "--lock"]));
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    for tag in ["one", "two"] {
        done(&mount, "snapshot", &format!("{disk} {tag}"));
        mount.open(&disk).write_all_at(b"after", 0).unwrap();
        assert_eq!(cluster.wire().lock(&disk), Status::VdiLocked);
    }
    mount.detach(&disk);
    assert_eq!(cluster.wire().lock(&disk), Status::Success);
}

/// A cluster that has no room says so, and the VDI it refused is not there.
#[test]
fn a_refusal_by_the_cluster_is_told() {
    let cluster = Cluster::mini();
    cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    let refused = |code: Status, opcode: &str| {
        cluster.minisheep().fault(&format!("status code={:#x} opcode={opcode}", code.code()))
    };
    for (code, why) in [
        (Status::FullVdi, Errno::ENOSPC),
        (Status::VdiWrite, Errno::EIO),
        (Status::Halt, Errno::EAGAIN),
    ] {
        let fault = refused(code, "new_vdi");
        assert_eq!(write(&mount, "create", "new 1M"), Some(why), "{code:?}");
        assert_eq!(write(&mount, "snapshot", "disk s"), Some(why), "{code:?}");
        assert_eq!(cluster.minisheep().fired(&fault), 2);
        cluster.minisheep().control("clear");
        assert!(listed(&mount, "new").is_empty());
        assert!(header(&cluster, &working_ref("disk")).tag.is_empty(), "its tag was left");
    }
    done(&mount, "create", "new 1M");
}
