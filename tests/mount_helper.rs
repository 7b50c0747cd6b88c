//! `mount -t sheepfs`, lines of fstab, and `umount`, with the mount(8) of the system: it finds
//! `mount.sheepfs` in its directory, which is laid over the system's in a mount namespace of the
//! test's own.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses the part of the support that it needs")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/minisheep.rs"]
mod minisheep;
#[path = "support/mntns.rs"]
mod mntns;
#[path = "support/tools.rs"]
mod tools;
#[path = "support/wire.rs"]
mod wire;

use cluster::Cluster;
use mntns::{in_own_namespace, lay_over, mounts_at};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use tempfile::TempDir;
use tools::{Output, arg, output, run, start, wait_for};

const MIB: u64 = 1 << 20;
/// A user and group without rights.
const NOBODY: u32 = 65534;

/// A minisheep with a VDI `disk`, a directory to mount on, and a `mount.sheepfs` for mount(8).
struct Place {
    cluster: Cluster,
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let cluster = Cluster::mini();
        cluster.vdi("disk", 8 * MIB);
        let dir = tempfile::tempdir().unwrap();
        for name in ["sbin", "mount"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let place = Self { cluster, dir };
        symlink(env!("CARGO_BIN_EXE_sheepfs"), place.path("sbin/mount.sheepfs")).unwrap();
        lay_over(Path::new("/sbin"), &place.path("sbin"));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn point(&self) -> PathBuf {
        self.path("mount")
    }

    fn volume(&self) -> PathBuf {
        self.point().join("volume/disk")
    }

    /// Writes an fstab with a line for the mount.
    fn fstab(&self, options: &str) -> PathBuf {
        let (source, point) = (self.cluster.address(), self.point());
        let path = self.path("fstab");
        fs::write(&path, format!("{source} {} sheepfs {options} 0 0\n", point.display())).unwrap();
        path
    }

    /// Calls mount(8) with that type, those words, and this sheep and directory.
    fn mount(&self, words: &[&str]) -> Output {
        let mut command = Command::new("mount");
        command.args(["-t", "sheepfs"]).args(words);
        output(command.arg(self.cluster.address()).arg(self.point()))
    }

    fn is_mounted(&self) -> bool {
        !mounts_at(&self.point()).is_empty()
    }

    /// The processes that have the mount point in their command line.
    fn processes(&self) -> usize {
        let point = self.point();
        let is_about = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(arg(&point))
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(is_about)
            .count()
    }

    fn unmount_by(&self, command: &mut Command) {
        let output = output(command);
        assert!(output.status.success(), "{command:?}: {}", output.stderr);
        self.assert_ended();
    }

    fn assert_ended(&self) {
        assert!(!self.is_mounted());
        wait_for("the end of sheepfs", || self.processes() == 0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_mounted() {
            let _ = umount2(&self.point(), MntFlags::MNT_DETACH);
            assert!(thread::panicking(), "a test left its mount");
        }
    }
}

fn bind(from: &Path, to: &str) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

#[track_caller]
fn assert_ends(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", output.stderr);
    assert!(output.stderr.contains(words), "{:?} does not say {words:?}", output.stderr);
}

#[test]
fn a_line_of_fstab_mounts_once_and_umount_ends_it() {
    in_own_namespace(|| {
        let place = Place::new();
        let options = "pagecache,attach=\"disk\",mode=0640,_netdev,nofail,x-systemd.automount";
        let fstab = place.fstab(options);
        for words in ["successfully mounted", "already mounted"] {
            let said = run("mount", &["-T", arg(&fstab), "-a", "-v"]);
            assert!(said.contains(words), "{said}");
            let mounts = mounts_at(&place.point());
            assert_eq!(mounts.len(), 1, "{mounts:?}");
            let source = format!(" - fuse.sheepfs {} ", place.cluster.address());
            assert!(mounts[0].contains(&source), "{mounts:?}");
        }
        assert_eq!(fs::metadata(place.volume()).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(place.point().join("config/page_cache")).unwrap(), "1\n");
        assert!(place.processes() > 0);
        place.unmount_by(Command::new("umount").arg(place.point()));
        // Once more, now by the name that fstab gives it.
        run("mount", &["-T", arg(&fstab), arg(&place.point())]);
        assert!(place.is_mounted());
        place.unmount_by(Command::new("umount").args(["-a", "-t", "fuse.sheepfs"]));
    });
}

#[test]
fn a_mount_for_reading_cannot_be_written() {
    in_own_namespace(|| {
        let place = Place::new();
        assert_ends(&place.mount(&["-o", "ro,attach=disk"]), 0, "");
        let mounts = mounts_at(&place.point());
        assert!(mounts[0].contains(" ro,nosuid,nodev,noexec"), "{mounts:?}");
        assert_eq!(fs::read(place.volume()).unwrap().len() as u64, 8 * MIB);
        for name in ["volume/disk", "vdi/unmount"] {
            let error = File::options().write(true).open(place.point().join(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{name}");
        }
        place.unmount_by(Command::new("umount").arg(place.point()));
    });
}

#[test]
fn what_is_refused_has_the_exit_status_of_mount() {
    in_own_namespace(|| {
        let place = Place::new();
        assert_ends(&place.mount(&["-o", "pagecahe"]), 1, "unknown option \"pagecahe\"");
        assert_ends(&place.mount(&["-o", "mode=9"]), 1, "octal");
        assert_ends(&place.mount(&["-o", "attach=nothing"]), 32, "no such VDI");
        assert!(!place.is_mounted());
        // Ignored when asked to, and only then.
        assert_ends(&place.mount(&["-s", "-o", "pagecahe", "-v"]), 0, "sheepfs --address=");
        assert_ends(&place.mount(&[]), 32, "is a mount already");
        assert_ends(&place.mount(&["-o", "remount,ro"]), 1, "can't be changed in place");
        place.unmount_by(Command::new("umount").arg(place.point()));
        fs::remove_dir(place.point()).unwrap();
        assert_ends(
            &output(Command::new("mount.sheepfs").args(["h", arg(&place.point())])),
            32,
            "does not exist",
        );
    });
}

#[test]
fn a_fake_mount_checks_and_mounts_nothing() {
    in_own_namespace(|| {
        let place = Place::new();
        assert_ends(&place.mount(&["-f", "-o", "attach=nothing"]), 0, "");
        assert_ends(&place.mount(&["-f", "-o", "mode=9"]), 1, "octal");
        assert!(!place.is_mounted());
        assert_eq!(place.processes(), 0);
    });
}

/// `mount -N` leaves it to the helper to go there.
#[test]
fn a_mount_can_be_made_in_another_namespace() {
    in_own_namespace(|| {
        let place = Place::new();
        let mut other = start(
            Command::new("unshare")
                .args(["-m", "--propagation", "private", "cat"])
                .stdin(std::process::Stdio::piped()),
        );
        let pid = other.id().to_string();
        let is_there = || {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            name == "cat\n"
        };
        wait_for("the other namespace", is_there);
        assert_ends(&place.mount(&["-N", &pid]), 0, "");
        assert!(!place.is_mounted());
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert!(mounts.contains(arg(&place.point())), "{mounts}");
        place.unmount_by(Command::new("umount").args(["-N", &pid]).arg(place.point()));
        drop(other.stdin.take());
        assert!(other.wait().unwrap().success());
    });
}

/// With `user` in fstab: mount(8) gives up its rights before it calls the helper, and so
/// fusermount3 mounts; the source is fstab's just the same.
#[test]
fn a_user_may_mount_what_fstab_lets_him() {
    in_own_namespace(|| {
        let place = Place::new();
        // The programs must be where everybody may go.
        fs::set_permissions(place.dir.path(), Permissions::from_mode(0o755)).unwrap();
        for program in [env!("CARGO_BIN_EXE_sheepfs"), env!("CARGO_BIN_EXE_sheepfs-worker")] {
            let name = Path::new(program).file_name().unwrap().to_str().unwrap();
            fs::copy(program, place.path(name)).unwrap();
        }
        let link = place.path("sbin/mount.sheepfs");
        fs::remove_file(&link).unwrap();
        symlink(place.path("sheepfs"), &link).unwrap();
        lay_over(Path::new("/sbin"), &place.path("sbin"));
        chown(place.point(), Some(NOBODY), Some(NOBODY)).unwrap();
        let fstab = place.fstab("attach=disk,noauto,user");
        bind(&fstab, "/etc/fstab");
        // As udev makes it; containers often have it for root alone.
        let device = place.path("fuse");
        mknod(&device, SFlag::S_IFCHR, Mode::empty(), makedev(10, 229)).unwrap();
        fs::set_permissions(&device, Permissions::from_mode(0o666)).unwrap();
        bind(&device, "/dev/fuse");
        let as_nobody = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
            command.arg(place.point());
            command
        };
        assert_ends(&output(&mut as_nobody("mount")), 0, "");
        let mounts = mounts_at(&place.point());
        let source = format!(" - fuse.sheepfs {} ", place.cluster.address());
        assert!(mounts[0].contains(&source) && mounts[0].contains("user_id=65534"), "{mounts:?}");
        assert!(mounts[0].contains("nosuid,nodev,noexec"), "{mounts:?}");
        place.unmount_by(&mut as_nobody("umount"));
    });
}
