//! The mount itself: the check of the mount point, mount(2) or `fusermount3`, and
//! the end of it.
//!
//! The supervisor mounts by itself rather than through fuser, since it must own
//! the device and since an ordinary exit must not unmount. It never touches a
//! path below a mount of its own (hazard 26), nor a stale one that is in the way
//! (hazard 22): what is mounted where is read from mountinfo.

mod helper;
mod mountinfo;
mod point;
mod stale;

pub use point::MountPoint;

use crate::session::Handshake;
use crate::state::SavedMount;
use mountinfo::MountInfo;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The device of FUSE.
const DEVICE: &str = "/dev/fuse";
/// Four requests, so that there are some under way while one is consumed. Measured:
/// sequential buffered reads gain up to here and no further.
const READ_AHEAD_KIB: &str = "4096";
/// How mountinfo shows a mount of ours.
const FSTYPE: &str = "fuse.sheepfs";
/// The source, unless the mount comes from fstab. Does not start with /dev, or
/// systemd would unmount it as an orphan device (hazard 35).
pub const SOURCE: &str = "sheepfs";

/// Why there is no mount, or still one.
#[derive(Debug, Error)]
pub enum MountError {
    /// Nothing has that name.
    #[error("the mount point {0} does not exist; make it with mkdir")]
    Missing(PathBuf),
    /// Something else has that name.
    #[error("the mount point {0} is not a directory")]
    NotADirectory(PathBuf),
    /// It is in use.
    #[error("{point} is a mount already, of type {fstype}; unmount it first with umount")]
    AlreadyMounted {
        /// Where.
        point: PathBuf,
        /// What.
        fstype: String,
    },
    /// Files would be hidden.
    #[error("the mount point {0} is not empty; a mount would hide what is in it")]
    NotEmpty(PathBuf),
    /// The user may not get there or mount there.
    #[error("no permission to use {0} as a mount point")]
    NoPermission(PathBuf),
    /// FUSE is not in the kernel, or not in this container.
    #[error(
        "{DEVICE} is missing; load FUSE with `modprobe fuse`, or give the container the device"
    )]
    NoDevice,
    /// The device may not be opened.
    #[error("no permission to open {DEVICE}")]
    DeviceRefused,
    /// There is no helper to mount for a user who is not root.
    #[error("mounting as an ordinary user needs fusermount3; install the package fuse3")]
    NoHelper,
    /// The helper refused.
    #[error("fusermount3 did not mount or unmount {point}: {words}")]
    Helper {
        /// Where.
        point: PathBuf,
        /// What it said.
        words: String,
    },
    /// The system failed.
    #[error("{what} {path} failed: {cause}")]
    System {
        /// A verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// Whose fault an error is, in the classes of sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountFault {
    /// The command line's: another mount point is needed. 64.
    Usage,
    /// Something is not there that must be. 69.
    Unavailable,
    /// The system's. 70.
    Internal,
    /// A right is missing. 77.
    NoPermission,
}

impl MountError {
    /// The class, for the exit code.
    pub fn fault(&self) -> MountFault {
        match self {
            Self::Missing(_)
            | Self::NotADirectory(_)
            | Self::AlreadyMounted { .. }
            | Self::NotEmpty(_) => MountFault::Usage,
            Self::NoPermission(_) | Self::DeviceRefused => MountFault::NoPermission,
            Self::NoDevice | Self::NoHelper | Self::Helper { .. } => MountFault::Unavailable,
            Self::System { .. } => MountFault::Internal,
        }
    }

    /// The system's error, if it was one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::System { cause, .. } => cause.raw_os_error(),
            _ => None,
        }
    }

    fn system(what: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self::System { what, path: path.to_owned(), cause: cause.into() }
    }
}

/// What a mount shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// What mountinfo shows as its source: [`SOURCE`], or what fstab says.
    pub source: String,
    /// Whether other users may use it, as far as the modes let them.
    pub allow_other: bool,
    /// Whether nothing can be written through it, volumes nor control files.
    pub read_only: bool,
}

/// How a mount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// As it should.
    Clean,
    /// It was in use: nobody finds it any more, and it ends with its last user.
    Detached,
    /// Somebody else was first.
    Gone,
}

/// A mount of ours, and the device that serves it.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    info: MountInfo,
    by_helper: bool,
}

impl Mount {
    /// Mounts. The device is to be given to [`crate::session::Session::start`];
    /// until then everything that touches the mount point waits.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn new(point: &MountPoint, options: &MountOptions) -> Result<(Self, OwnedFd), MountError> {
        let by_helper = !geteuid().is_root();
        // The helper opens the device by itself, with this user's rights.
        let device = open_device()?;
        let device = if by_helper {
            helper::mount(point.path(), options)?
        } else {
            mount_directly(point.path(), &device, options)?;
            device
        };
        let point = point.path().to_owned();
        match mountinfo::find(&point)? {
            Some(info) => Ok((Self { point, info, by_helper }, device)),
            None => Err(MountError::system("finding the new mount", &point, Errno::ENOENT)),
        }
    }

    /// The mount of a predecessor of this process. `None`: it is not there any more,
    /// and what was kept for us serves nobody (hazard 14).
    ///
    /// # Errors
    /// When nobody can tell.
    pub fn adopt(saved: &SavedMount) -> Result<Option<Self>, MountError> {
        let found = mountinfo::find(&saved.point)?;
        let is_ours = |info: &MountInfo| info.id == saved.id && info.device == saved.device;
        Ok(found.filter(is_ours).map(|info| Self {
            point: saved.point.clone(),
            info,
            by_helper: saved.by_helper,
        }))
    }

    /// What a successor needs to find it.
    pub fn saved(&self, handshake: Handshake) -> SavedMount {
        let MountInfo { id, device, .. } = self.info.clone();
        let (point, by_helper) = (self.point.clone(), self.by_helper);
        SavedMount { point, id, device, by_helper, handshake }
    }

    /// Where it is.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Lets the kernel read ahead further. fuser refuses more than the kernel's own
    /// 128 KiB, so this is asked of the device behind the mount, after the handshake,
    /// which would set it back.
    ///
    /// # Errors
    /// When that may not be set here, which only costs speed.
    pub fn raise_read_ahead(&self) -> Result<(), MountError> {
        let knob = format!("/sys/class/bdi/{}/read_ahead_kb", self.info.device);
        std::fs::write(&knob, READ_AHEAD_KIB)
            .map_err(|cause| MountError::system("setting", Path::new(&knob), cause))
    }

    /// Unmounts. A mount in use is detached, so that this process can end without
    /// leaving a dead mount behind. Never touches a mount that has taken its place.
    ///
    /// # Errors
    /// When it is still mounted.
    pub fn unmount(&self) -> Result<Unmounted, MountError> {
        if mountinfo::find(&self.point)?.is_none_or(|info| info.id != self.info.id) {
            return Ok(Unmounted::Gone);
        }
        if self.by_helper { helper::unmount(&self.point) } else { unmount_directly(&self.point) }
    }
}

fn open_device() -> Result<OwnedFd, MountError> {
    open(DEVICE, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => MountError::NoDevice,
        Errno::EACCES | Errno::EPERM => MountError::DeviceRefused,
        errno => MountError::system("opening", Path::new(DEVICE), errno),
    })
}

fn mount_directly(
    point: &Path,
    device: &OwnedFd,
    options: &MountOptions,
) -> Result<(), MountError> {
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        geteuid(),
        getegid(),
        if options.allow_other { ",allow_other" } else { "" },
    );
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    flags.set(MsFlags::MS_RDONLY, options.read_only);
    let source = Some(options.source.as_str());
    match mount(source, point, Some(FSTYPE), flags, Some(data.as_str())) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM | Errno::EACCES) => Err(MountError::NoPermission(point.to_owned())),
        Err(Errno::ENODEV) => Err(MountError::NoDevice),
        Err(errno) => Err(MountError::system("mounting on", point, errno)),
    }
}

/// Takes a mount out of the tree, whoever uses it.
fn detach(point: &Path) -> Result<(), MountError> {
    if !geteuid().is_root() {
        return helper::unmount(point).map(drop);
    }
    umount2(point, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
        .map_err(|errno| MountError::system("detaching", point, errno))
}

fn unmount_directly(point: &Path) -> Result<Unmounted, MountError> {
    match umount2(point, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => return Ok(Unmounted::Clean),
        Err(Errno::EINVAL | Errno::ENOENT) => return Ok(Unmounted::Gone),
        Err(Errno::EBUSY) => {}
        Err(errno) => return Err(MountError::system("unmounting", point, errno)),
    }
    detach(point).map(|()| Unmounted::Detached)
}

#[cfg(test)]
mod tests;
