//! Real mounts, which nobody serves: what must be known of them is known without
//! touching them.

use super::*;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::fs::canonicalize;
use tempfile::TempDir;

fn options() -> MountOptions {
    MountOptions { source: SOURCE.to_owned(), allow_other: false, read_only: false }
}

fn mounted() -> (TempDir, Mount, OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    let point = MountPoint::check(dir.path()).unwrap();
    let (mount, device) = Mount::new(&point, &options()).unwrap();
    (dir, mount, device)
}

#[test]
fn a_mount_comes_as_it_was_asked_for_and_goes_once() {
    let (dir, mount, device) = mounted();
    assert_eq!(
        mount.point(),
        canonicalize(dir.path().parent().unwrap()).unwrap().join(dir.path().file_name().unwrap())
    );
    assert_eq!((mount.info.fstype.as_str(), mount.info.source.as_str()), (FSTYPE, SOURCE));
    let flags = FdFlag::from_bits_truncate(fcntl(&device, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    let again = MountPoint::check(dir.path()).unwrap_err();
    assert!(matches!(&again, MountError::AlreadyMounted { fstype, .. } if fstype == FSTYPE));
    assert_eq!(again.fault(), MountFault::Usage);
    assert_eq!(mount.unmount().unwrap(), Unmounted::Clean);
    assert_eq!(mount.unmount().unwrap(), Unmounted::Gone);
    MountPoint::check(dir.path()).unwrap();
}

#[test]
fn a_mount_that_nobody_serves_is_detached_and_one_that_hangs_is_not() {
    let (dir, mount, device) = mounted();
    let held = MountPoint::check(dir.path());
    assert!(matches!(held, Err(MountError::AlreadyMounted { .. })), "its device is open");
    drop(device);
    assert!(std::fs::metadata(dir.path()).is_err(), "it is not stale");
    MountPoint::check(dir.path()).unwrap();
    assert_eq!(mount.unmount().unwrap(), Unmounted::Gone);
}

#[test]
fn a_mount_in_use_is_detached_and_another_ones_is_left_alone() {
    let (dir, mount, _device) = mounted();
    let above = open_device().unwrap();
    mount_directly(mount.point(), &above, &options()).unwrap();
    assert_eq!(mount.unmount().unwrap(), Unmounted::Gone, "another mount is on top");
    assert_eq!(unmount_directly(mount.point()).unwrap(), Unmounted::Clean);
    let held =
        nix::fcntl::open(dir.path(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    assert_eq!(mount.unmount().unwrap(), Unmounted::Detached);
    drop(held);
    MountPoint::check(dir.path()).unwrap();
}

#[test]
fn the_helper_mounts_and_unmounts_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let point = MountPoint::check(dir.path()).unwrap();
    let device = helper::mount(point.path(), &options()).unwrap();
    let info = mountinfo::find(point.path()).unwrap().unwrap();
    assert_eq!((info.fstype.as_str(), info.source.as_str()), (FSTYPE, SOURCE));
    let flags = FdFlag::from_bits_truncate(fcntl(&device, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    assert_eq!(helper::unmount(point.path()).unwrap(), Unmounted::Clean);
    let refused = helper::unmount(point.path()).unwrap_err();
    assert!(matches!(&refused, MountError::Helper { words, .. } if !words.is_empty()));
    assert_eq!(refused.fault(), MountFault::Unavailable);
}
