//! A volume as a file: its bounds, its attributes, what it refuses.

use crate::cluster::Cluster;
use crate::control::errno;
use crate::mount::Mount;
use crate::tools::{arg, output, run, wait_for};
use crate::{KIB, MIB};
use nix::errno::Errno;
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;

/// Not a whole number of blocks, nor of pages, nor of sectors.
const ODD: u64 = 5 * MIB + 777;

fn odd_volume(cluster: &Cluster) -> String {
    cluster.vdi("odd", ODD)
}

#[test]
fn it_has_the_vdis_size_and_the_blocks_that_are_stored() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let found = fs::metadata(mount.volume(&disk)).unwrap();
    assert!(found.is_file());
    assert_eq!(found.len(), ODD);
    let vid = cluster.wire().vid(&disk);
    assert_eq!(found.ino() & 0xff_ffff, u64::from(vid.get()));
    let file = mount.open(&disk);
    let du = || run("du", &["-B1", arg(&mount.volume(&disk))]);
    for (written, stored) in [(0, 4 * MIB), (4 * MIB, ODD.div_ceil(512) * 512)] {
        file.write_all_at(b"x", written).unwrap();
        wait_for("its objects to be counted", || du().starts_with(&format!("{stored}\t")));
    }
}

#[test]
fn reads_end_where_the_volume_does() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    for options in [&[][..], &["-k"]] {
        let mount = Mount::with_volume(&cluster, &disk, options);
        let file = mount.open(&disk);
        let mut room = [1; 100];
        assert_eq!(file.read_at(&mut room, ODD - 10).unwrap(), 10);
        assert_eq!(room[..11], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        for offset in [ODD, ODD + 1, ODD + MIB, 1 << 50] {
            assert_eq!(file.read_at(&mut room, offset).unwrap(), 0, "{offset}");
        }
        assert_eq!(fs::read(mount.volume(&disk)).unwrap(), vec![0; ODD as usize]);
    }
}

#[test]
fn writes_end_where_the_volume_does() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    for options in [&[][..], &["-k"]] {
        let mount = Mount::with_volume(&cluster, &disk, options);
        let file = mount.open(&disk);
        assert_eq!(file.write_at(&[7; 100], ODD - 10).unwrap(), 10);
        for offset in [ODD, ODD + 1, ODD + MIB, 1 << 50] {
            assert_eq!(errno(file.write_at(b"x", offset)), Some(Errno::ENOSPC), "{offset}");
        }
        assert_eq!(fs::metadata(mount.volume(&disk)).unwrap().len(), ODD);
        let mut appending = OpenOptions::new().append(true).open(mount.volume(&disk)).unwrap();
        assert_eq!(errno(appending.write(b"x")), Some(Errno::ENOSPC));
        drop((file, appending));
        mount.reattach(&disk);
        let tail = &fs::read(mount.volume(&disk)).unwrap()[ODD as usize - 11..];
        assert_eq!(tail, [0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        mount.open(&disk).write_all_at(&[0; 10], ODD - 10).unwrap();
    }
}

#[test]
fn the_end_is_found_by_seeking() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let mut file = mount.open(&disk);
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), ODD);
    assert_eq!(file.seek(SeekFrom::End(-5)).unwrap(), ODD - 5);
}

#[test]
fn truncation_to_less_changes_nothing_or_is_refused() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    for options in [&[][..], &["-k"]] {
        let mount = Mount::with_volume(&cluster, &disk, options);
        let path = mount.volume(&disk);
        let file = mount.open(&disk);
        file.write_all_at(b"kept", 1000).unwrap();
        file.set_len(0).unwrap();
        file.set_len(ODD).unwrap();
        drop(OpenOptions::new().write(true).truncate(true).open(&path).unwrap());
        for size in [1, ODD - 1] {
            assert_eq!(errno(file.set_len(size)), Some(Errno::EPERM), "{size}");
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), ODD);
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), ODD as usize);
        assert_eq!(&content[1000..1004], b"kept");
    }
}

/// What programs do with a file they overwrite: all of it goes through `O_TRUNC`.
#[test]
fn programs_that_truncate_write_into_the_volume() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let (path, source) = (mount.volume(&disk), mount.scratch().join("source"));
    fs::write(&source, "from a file").unwrap();
    run("cp", &[arg(&source), arg(&path)]);
    assert_eq!(&fs::read(&path).unwrap()[..11], b"from a file");
    run("dd", &["status=none", &format!("if={}", arg(&source)), &format!("of={}", arg(&path))]);
    run("bash", &["-c", &format!("echo shell > {}", arg(&path))]);
    assert_eq!(&fs::read(&path).unwrap()[..11], b"shell\n file");
    assert_eq!(fs::metadata(&path).unwrap().len(), ODD);
}

#[test]
fn the_tree_cannot_be_changed() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let path = mount.volume(&disk);
    let new = mount.path("volume/new");
    let refused = Some(Errno::EPERM);
    for dir in ["volume", "", "vdi"] {
        assert_eq!(errno(File::create_new(mount.path(dir).join("new"))), refused);
        assert_eq!(errno(fs::create_dir(mount.path(dir).join("new"))), refused);
    }
    assert_eq!(errno(fs::remove_file(&path)), refused);
    assert_eq!(errno(fs::remove_file(mount.path("vdi/mount"))), refused);
    assert_eq!(errno(fs::remove_dir(mount.path("volume"))), refused);
    assert_eq!(errno(fs::rename(&path, &new)), refused);
    assert_eq!(errno(fs::hard_link(&path, &new)), refused);
    assert_eq!(errno(std::os::unix::fs::symlink("x", &new)), refused);
    assert!(path.exists() && !new.exists());
}

fn attribute(path: &std::path::Path, name: &str) -> String {
    let name = format!("user.sheepdog.{name}");
    run("getfattr", &["--absolute-names", "--only-values", "-n", &name, arg(path)])
}

#[test]
fn extended_attributes_say_what_the_vdi_is() {
    let cluster = Cluster::start();
    let new = NewVdi { size: ODD, block_size_shift: 20, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let old = cluster.wire().vid(&disk);
    let vid = cluster.snapshot(&disk, "before");
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let copies = cluster.wire().header(vid).nr_copies.to_string();
    let path = mount.volume(&disk);
    assert_eq!(attribute(&path, "vid"), format!("{:x}", vid.get()));
    assert_eq!(attribute(&path, "copies"), copies);
    assert_eq!(attribute(&path, "block_size"), "1048576");
    assert_eq!(attribute(&path, "snapshot"), "0");
    let snapshot = format!("{disk}:before");
    mount.attach(&snapshot);
    assert_eq!(attribute(&mount.volume(&snapshot), "vid"), format!("{:x}", old.get()));
    assert_eq!(attribute(&mount.volume(&snapshot), "snapshot"), "1");
    let all = run("getfattr", &["--absolute-names", "-d", arg(&path)]);
    // The working VDI has no tag, and what it holds may not be counted yet.
    let count = all.lines().filter(|line| line.starts_with("user.sheepdog.")).count();
    assert!((8..=10).contains(&count), "{all}");
}

#[test]
fn extended_attributes_cannot_be_set() {
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let path = mount.volume(&disk);
    for arguments in [["-n", "user.mine", "-v", "1"], ["-x", "user.sheepdog.vid", "-h", "-h"]] {
        let result = output(Command::new("setfattr").args(arguments).arg(&path));
        assert!(!result.status.success());
        assert!(!result.stderr.contains("not implemented"), "{}", result.stderr);
    }
    assert_eq!(attribute(&path, "snapshot"), "0");
}

/// Opening for direct I/O works, with lengths and offsets that a disk would not take.
#[test]
fn direct_io_needs_no_alignment() {
    const O_DIRECT: i32 = nix::fcntl::OFlag::O_DIRECT.bits();
    let cluster = Cluster::start();
    let disk = odd_volume(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let mut options = OpenOptions::new();
    let path = mount.volume(&disk);
    let file = options.read(true).write(true).custom_flags(O_DIRECT).open(path).unwrap();
    file.write_all_at(b"anywhere", 4 * MIB - 3).unwrap();
    let mut room = [0; 8];
    file.read_exact_at(&mut room, 4 * MIB - 3).unwrap();
    assert_eq!(&room, b"anywhere");
}

#[test]
fn all_who_have_it_open_see_the_same_whenever_the_page_cache_is_switched() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let before = mount.open(&disk);
    mount.write("config/page_cache", b"1").unwrap();
    let after = mount.open(&disk);
    for round in 0..50_u8 {
        let at = u64::from(round) * 37 * KIB + 5;
        let (writer, reader) = if round % 2 == 0 { (&before, &after) } else { (&after, &before) };
        let mut room = [0; 3000];
        reader.read_exact_at(&mut room, at).unwrap();
        writer.write_all_at(&[round; 3000], at).unwrap();
        writer.sync_all().unwrap();
        reader.read_exact_at(&mut room, at).unwrap();
        assert_eq!(room, [round; 3000], "round {round}");
    }
}
