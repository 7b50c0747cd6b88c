//! What is not offered says so, and nothing says ENOSYS, which the kernel would
//! remember for the life of the mount (hazard 19).

use super::*;
use nix::errno::Errno as Error;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{PermissionsExt, chown};

fn errno<T>(result: io::Result<T>) -> Error {
    let error = result.map(drop).unwrap_err();
    Error::from_raw(error.raw_os_error().unwrap())
}

#[test]
fn names_cannot_be_made_changed_or_removed() {
    use std::fs::{create_dir, hard_link, remove_dir, remove_file, rename};
    use std::os::unix::fs::symlink;
    let rig = Rig::new();
    let (disk, new) = (rig.disk(), rig.path("volume/new"));
    assert_eq!(errno(File::create(&new)), Error::EPERM);
    assert_eq!(errno(create_dir(&new)), Error::EPERM);
    assert_eq!(errno(symlink("disk", &new)), Error::EPERM);
    assert_eq!(errno(hard_link(&disk, &new)), Error::EPERM);
    assert_eq!(errno(rename(&disk, &new)), Error::EPERM);
    assert_eq!(errno(rename(&disk, rig.path("volume/disk:old"))), Error::EPERM);
    assert_eq!(errno(remove_file(&disk)), Error::EPERM);
    assert_eq!(errno(remove_file(rig.path("cluster/info"))), Error::EPERM);
    assert_eq!(errno(remove_dir(rig.path("volume"))), Error::EPERM);
    let node = nix::sys::stat::mknod(&new, SFlag::S_IFREG, Mode::S_IRWXU, 0);
    assert_eq!(node, Err(Error::EPERM));
    assert!(disk.exists() && !new.exists());
}

#[test]
fn owner_and_mode_stay_and_times_can_be_set_to_no_effect() {
    let rig = Rig::new();
    let mode = |bits| std::fs::set_permissions(rig.disk(), PermissionsExt::from_mode(bits));
    mode(0o600).unwrap();
    assert_eq!(errno(mode(0o666)), Error::EPERM);
    chown(rig.disk(), Some(0), Some(0)).unwrap();
    assert_eq!(errno(chown(rig.disk(), Some(1), None)), Error::EPERM);
    let before = std::fs::metadata(rig.disk()).unwrap().modified().unwrap();
    rig.sh(
        "touch $M/volume/disk $M/vdi/mount; dd if=/dev/zero of=$M/volume/disk count=1 status=none",
    );
    assert_eq!(std::fs::metadata(rig.disk()).unwrap().modified().unwrap(), before);
}

#[test]
fn attributes_of_the_vdi_are_extended_attributes() {
    let rig = Rig::new();
    let script = "import os, sys
for name in sorted(os.listxattr(sys.argv[1])): print(name, os.getxattr(sys.argv[1], name).decode())";
    let python = |name: &str| rig.sh(&format!("python3 -c '{script}' $M/{name}"));
    assert_eq!(
        python("volume/disk:old"),
        "user.sheepdog.block_size 4194304\nuser.sheepdog.copies 2\n\
         user.sheepdog.created 1700000000\nuser.sheepdog.size 8390144\n\
         user.sheepdog.snapshot 1\nuser.sheepdog.vid 12\n"
    );
    assert_eq!(python("cluster/info"), "");
    let refused = "import errno, os, sys
for act in (lambda p: os.getxattr(p, 'user.other'), lambda p: os.setxattr(p, 'user.other', b'x'), lambda p: os.removexattr(p, 'user.sheepdog.vid')):
    try: act(sys.argv[1])
    except OSError as e: print(errno.errorcode[e.errno])";
    let output = rig.sh(&format!("python3 -c \"{refused}\" $M/volume/disk"));
    assert_eq!(output, "ENODATA\nEOPNOTSUPP\nEOPNOTSUPP\n".replace("EOPNOTSUPP", "ENOTSUP"));
}

#[test]
fn what_is_not_offered_says_so() {
    let rig = Rig::new();
    let disk = OpenOptions::new().read(true).write(true).open(rig.disk()).unwrap();
    for mode in [
        FallocateFlags::empty(),
        FallocateFlags::FALLOC_FL_KEEP_SIZE,
        FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
    ] {
        // Twice, since the kernel remembers some answers.
        for _ in 0..2 {
            let refused = nix::fcntl::fallocate(&disk, mode, 0, 4096);
            assert_eq!(refused, Err(Error::EOPNOTSUPP), "{mode:?}");
        }
    }
    let tmpfile =
        nix::fcntl::open(&rig.path("volume"), OFlag::O_TMPFILE | OFlag::O_RDWR, Mode::S_IRUSR);
    assert_eq!(tmpfile.map(drop), Err(Error::EOPNOTSUPP));
    nix::unistd::faccessat(
        nix::fcntl::AT_FDCWD,
        &rig.disk(),
        nix::unistd::AccessFlags::W_OK,
        AtFlags::AT_EACCESS,
    )
    .unwrap();
}

#[test]
fn the_kernel_does_by_itself_what_it_can() {
    use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let rig = Rig::new();
    let disk = OpenOptions::new().read(true).write(true).open(rig.disk()).unwrap();
    rig.sh("printf sheep | dd of=$M/volume/disk status=none conv=notrunc");
    let copy = "import os, sys
old, new = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_RDWR)
print(os.copy_file_range(old, new, 5, 0, 4096))";
    let copied = rig.sh(&format!("python3 -c '{copy}' $M/volume/disk:old $M/volume/disk"));
    assert_eq!(copied, "5\n");
    assert_eq!(
        rig.sh("dd if=$M/volume/disk bs=4096 skip=1 count=1 status=none | head -c 5"),
        "sheep"
    );
    let wanted = PollFlags::POLLIN | PollFlags::POLLOUT;
    let mut fds = [PollFd::new(disk.as_fd(), wanted)];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
    assert_eq!(fds[0].revents(), Some(wanted));
    let lock = nix::libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 1, l_pid: 0 };
    fcntl(&disk, FcntlArg::F_SETLK(&lock)).unwrap();
    let held = Flock::lock(disk, FlockArg::LockExclusiveNonblock).unwrap();
    let other = OpenOptions::new().read(true).open(rig.disk()).unwrap();
    assert!(Flock::lock(other, FlockArg::LockExclusiveNonblock).is_err());
    drop(held);
    File::open(rig.path("volume")).unwrap().sync_all().unwrap();
    rig.sh("sync -f $M/volume/disk; sync $M/volume/disk");
    assert_eq!(rig.sh("stty -F $M/volume/disk 2>&1 || true").lines().count(), 1);
}
