//! The beginning: whether there is a mount to be taken over, and whether that can be.
//!
//! Nothing is asked of the kernel, and no worker of the predecessor is ended, before what
//! it left is known to be of use.

use crate::exit::Failed;
use crate::mount::{Mount, MountPoint};
use crate::notify::Inherited;
use crate::predecessor;
use crate::state::{Saved, SavedMount, State, StateError};
use nix::unistd::dup;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What a predecessor left, all of it usable.
#[derive(Debug)]
pub struct Estate {
    /// Its memory.
    pub state: State,
    /// What is in it, but for the mount.
    pub saved: Saved,
    /// Its mount.
    pub legacy: Legacy,
}

/// The mount of a predecessor, and all that serves it.
#[derive(Debug)]
pub struct Legacy {
    /// The mount.
    pub mount: Mount,
    /// What was saved of it.
    pub saved: SavedMount,
    /// The device that serves it.
    pub device: OwnedFd,
}

/// What the manager kept, for the mount point that the user wrote, and the workers of
/// the predecessor buried. `None`: there is no mount any more, or yet.
///
/// # Errors
/// When there is a mount, and this build can't go on with it.
pub fn estate(inherited: Inherited, wanted: &Path) -> Result<Option<Estate>, Failed> {
    let (device, state) = match inherited {
        Inherited { device: Some(device), state: Some(state) } => (device, state),
        Inherited { device: None, state: None } => return Ok(None),
        Inherited { .. } => {
            tracing::warn!("the process before ended before its mount was complete");
            return Ok(None);
        }
    };
    let refused = |cause| Failed::State { point: wanted.to_owned(), cause };
    let (state, mut saved) = State::open(state).map_err(refused)?;
    let Some(mounted) = saved.mount.take() else { return Ok(None) };
    refuse_other(&mounted, wanted)?;
    let Some(mount) = Mount::adopt(&mounted)? else {
        tracing::warn!(point = %mounted.point.display(), "the mount that was kept is gone; mounting afresh");
        return Ok(None);
    };
    mounted.handshake.check()?;
    predecessor::bury(&saved.workers).map_err(Failed::Predecessor)?;
    Ok(Some(Estate { state, saved, legacy: Legacy { mount, saved: mounted, device } }))
}

fn refuse_other(mounted: &SavedMount, wanted: &Path) -> Result<(), Failed> {
    let kept = MountPoint::of_predecessor(mounted.point.clone());
    if kept.is_meant_by(wanted)? {
        return Ok(());
    }
    Err(Failed::OtherPoint { kept: mounted.point.clone(), wanted: wanted.to_owned() })
}

/// `--check-state`: whether this build could go on with the state on stdin.
///
/// # Errors
/// When it could not.
pub fn check_state() -> Result<(), Failed> {
    let stdin = dup(io::stdin()).map_err(|errno| StateError::from(io::Error::from(errno)))?;
    let (_, saved) = State::open(stdin)?;
    match saved.mount {
        Some(mounted) => Ok(mounted.handshake.check()?),
        None => Ok(()),
    }
}
