//! The kernel's page cache: what it keeps, and when that must go.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::{Mount, pid_of};
use crate::tools::{start, wait_for};
use crate::wire::working_ref;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

const LEN: usize = 1 << 20;
const READERS: usize = 8;
/// Starts a program where /sys can only be read; in a mount namespace of its own.
const READ_ONLY_SYS: &str = "mount -o remount,bind,ro /sys; exec \"$0\" \"$@\"";

fn read(path: &Path) -> Vec<u8> {
    let mut content = vec![0xee; LEN];
    File::open(path).unwrap().read_exact_at(&mut content, 0).unwrap();
    content
}

/// Fails unless all of it is of that byte.
fn assert_all(content: &[u8], byte: u8) {
    let wrong = content.iter().filter(|found| **found != byte).count();
    assert_eq!(wrong, 0, "of {} bytes, the first is {}, not {byte}", content.len(), content[0]);
}

/// How many reads of objects something takes.
fn reads(cluster: &Cluster, of: impl FnOnce()) -> u64 {
    let before = cluster.minisheep().served("ReadObj");
    of();
    cluster.minisheep().served("ReadObj") - before
}

/// What was read stays in the page cache when it is closed, for who opens next. Counted at a
/// minisheep.
#[test]
fn pages_are_kept_from_one_open_to_the_next() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["-k"]);
    let path = mount.volume(&disk);
    mount.open(&disk).write_all_at(&[1; LEN], 0).unwrap();
    mount.reattach(&disk);
    assert!(reads(&cluster, || assert_all(&read(&path), 1)) > 0, "attached, it is read anew");
    assert_eq!(reads(&cluster, || assert_all(&read(&path), 1)), 0);
    mount.open(&disk).write_all_at(&[2; LEN / 2], 0).unwrap();
    let content = || {
        let content = read(&path);
        assert_all(&content[..LEN / 2], 2);
        assert_all(&content[LEN / 2..], 1);
    };
    assert_eq!(reads(&cluster, content), 0);
}

/// What was cached before a volume was detached is never seen when it is attached again: others
/// may have written meanwhile. Many open at once, none may find what another open is just about
/// to drop; and who knows the file from before is no exception.
#[test]
fn nothing_is_seen_that_was_cached_before_the_attach() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["-k"]);
    let other = Mount::start(&cluster, &[]);
    let path = mount.volume(&disk);
    for round in 1..=20_u8 {
        let known = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(&path);
        let known = known.unwrap();
        assert_all(&read(&path), round - 1);
        mount.detach(&disk);
        other.attach(&disk);
        other.open(&disk).write_all_at(&[round; LEN], 0).unwrap();
        other.detach(&disk);
        mount.attach(&disk);
        let known_path = format!("/proc/self/fd/{}", known.as_raw_fd());
        thread::scope(|scope| {
            for reader in 0..READERS {
                let path = if reader % 2 == 0 { &path } else { Path::new(&known_path) };
                scope.spawn(move || assert_all(&read(path), round));
            }
        });
    }
}

/// Another VDI that has got the name is another file.
#[test]
fn another_vdi_of_the_name_shares_no_pages() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["-k"]);
    let path = mount.volume(&disk);
    mount.open(&disk).write_all_at(&[1; LEN], 0).unwrap();
    assert_all(&read(&path), 1);
    mount.detach(&disk);
    let mut wire = cluster.wire();
    wire.delete(&working_ref(&disk));
    wire.new_vdi(&disk, &NewVdi { size: 8 * MIB, ..NewVdi::default() });
    mount.attach(&disk);
    assert_all(&read(&path), 0);
}

/// A VDI that is another one now is an error, also where the one that was is in the page cache,
/// as soon as that is found out.
#[test]
fn nothing_is_read_from_the_page_cache_of_a_vdi_that_is_another_one_now() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["-k"]);
    let file = mount.open(&disk);
    file.write_all_at(&[1; LEN], 0).unwrap();
    let mut room = [0xee; 4096];
    let mut read = || file.read_exact_at(&mut room, 0).map(|()| assert_all(&room, 1));
    let mut wire = cluster.wire();
    wire.delete(&working_ref(&disk));
    wire.new_vdi(&disk, &NewVdi { size: 8 * MIB, ..NewVdi::default() });
    read().expect("nobody has looked yet whose VDI it is");
    kill(mount.worker(), Signal::SIGKILL).unwrap();
    let mut error = None;
    wait_for("an error", || {
        error = read().err();
        error.is_some()
    });
    assert_eq!(error.unwrap().raw_os_error(), Some(nix::libc::EIO));
}

/// `config/page_cache` takes hold of a volume when nobody has it open: until then all have it
/// open in the same way. Counted at a minisheep.
#[test]
fn a_volume_that_is_open_is_opened_in_the_same_way() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let path = mount.volume(&disk);
    let reads_again = || {
        assert_all(&read(&path), 1);
        reads(&cluster, || assert_all(&read(&path), 1))
    };
    let direct = mount.open(&disk);
    direct.write_all_at(&[1; LEN], 0).unwrap();
    mount.write("config/page_cache", b"1").unwrap();
    assert_eq!(mount.read("config/page_cache"), "1\n");
    assert!(reads_again() > 0, "somebody has it open past the page cache");
    drop(direct);
    wait_for("the volume to be closed", || reads_again() == 0);
    let cached = mount.open(&disk);
    mount.write("config/page_cache", b"0").unwrap();
    assert_eq!(reads_again(), 0, "somebody has it open in the page cache");
    drop(cached);
    wait_for("the volume to be closed", || reads_again() > 0);
}

/// Where the read-ahead may not be set, as in many containers, all works without, and `-k` says so
/// once. Without `-k` there is nothing to say.
#[test]
fn a_read_ahead_that_may_not_be_set_is_said_and_no_hindrance() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    for (options, times) in [(&["-k"][..], 1), (&[], 0)] {
        let dir = tempfile::tempdir().unwrap();
        let (point, log) = (dir.path().join("mount"), dir.path().join("log"));
        fs::create_dir(&point).unwrap();
        let mut sheepfs = start(
            Command::new("setpriv")
                .args(["--pdeathsig", "TERM", "unshare", "--mount", "sh", "-ec", READ_ONLY_SYS])
                .args([env!("CARGO_BIN_EXE_sheepfs"), "-f", "--address", cluster.address()])
                .args(["--attach", &disk])
                .args(options)
                .arg(&point)
                .stderr(File::create(&log).unwrap()),
        );
        let log = || fs::read_to_string(&log).unwrap();
        wait_for("the mount", || log().contains(" mounted point="));
        let root = PathBuf::from(format!("/proc/{}/root", sheepfs.id()));
        let volume = root.join(point.strip_prefix("/").unwrap()).join("volume").join(&disk);
        assert_all(&read(&volume), 0);
        kill(pid_of(&sheepfs), Signal::SIGTERM).unwrap();
        assert!(sheepfs.wait().unwrap().success(), "{}", log());
        let said = log().matches("the kernel reads ahead less").count();
        assert_eq!(said, times, "with {options:?}: {}", log());
    }
}
