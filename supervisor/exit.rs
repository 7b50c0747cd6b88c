//! How the command ends: one enum of exit statuses, and one conversion to it
//! from everything that can go wrong.

use crate::background::BackgroundError;
use crate::candidates::ResolveError;
use crate::control::Refusal;
use crate::local::LocalError;
use crate::mount::{MountError, MountFault};
use crate::session::SessionError;
use crate::spawn::SpawnError;
use crate::state::StateError;
use nix::errno::Errno;
use sheepfs::ipc::message::{BUILD, LostReason};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use thiserror::Error;

/// The exit statuses, those of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// All went well.
    Ok = 0,
    /// The command line makes no sense.
    Usage = 64,
    /// A sheep, the cluster or the kernel's FUSE can't be reached now.
    Unavailable = 69,
    /// Something of our own broke.
    Internal = 70,
    /// The mount was left to a successor (`EX_TEMPFAIL`).
    Left = 75,
    /// The caller may not do that.
    NoPermission = 77,
    /// Something is not as the caller thinks: a name, a directory, a VDI.
    Configuration = 78,
}

impl Status {
    /// From the exit code of the process in the background.
    pub fn of_code(code: i32) -> Self {
        let known =
            [Self::Ok, Self::Usage, Self::Unavailable, Self::NoPermission, Self::Configuration];
        known.into_iter().find(|status| *status as i32 == code).unwrap_or(Self::Internal)
    }
}

impl Status {
    /// Of a process that was given descriptors by its manager: a status that keeps that
    /// from starting the next one would lose the mount behind them (hazard 13).
    pub fn with(self, descriptors: bool) -> Self {
        match self {
            Self::Usage | Self::Unavailable | Self::Configuration if descriptors => Self::Internal,
            status => status,
        }
    }
}

impl From<MountFault> for Status {
    fn from(fault: MountFault) -> Self {
        match fault {
            MountFault::Usage => Self::Usage,
            MountFault::Unavailable => Self::Unavailable,
            MountFault::Internal => Self::Internal,
            MountFault::NoPermission => Self::NoPermission,
        }
    }
}

/// Why the command failed.
#[derive(Debug, Error)]
pub enum Failed {
    /// Nothing that speaks the protocol at the sheep's address.
    #[error("cannot reach a sheep at {sheep}: {}", reason.words())]
    NoSheep {
        /// Where.
        sheep: SocketAddr,
        /// Why.
        reason: LostReason,
    },
    /// No address for the sheep's name.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Something the user wanted from the start can't be had.
    #[error("cannot {what}: {why}")]
    AtStart {
        /// What.
        what: String,
        /// Why.
        why: Refusal,
    },
    /// No worker.
    #[error("{0}")]
    Worker(SpawnError),
    /// The worker ended before it was connected.
    #[error("the worker ended at once; its last words are in the log")]
    WorkerEnded,
    /// The worker is of another build.
    #[error(
        "the worker is of another build: it is \"{0}\", this is \"{BUILD}\"; install both anew"
    )]
    OtherBuild(String),
    /// No minisheep.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// No process in the background.
    #[error(transparent)]
    Background(#[from] BackgroundError),
    /// The process in the background could not even say why.
    #[error("the process in the background was killed")]
    Killed,
    /// No mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// No session with the kernel.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// Stopped before there was anything to stop.
    #[error("stopped by a signal before the mount was ready")]
    Interrupted,
    /// A path can't be made absolute.
    #[error("cannot use the path {path}: {cause}")]
    Path {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// What the manager kept can't be told apart.
    #[error("cannot take what the service manager kept for this mount: {0}")]
    Inherited(io::Error),
    /// The state of a predecessor can't be taken over.
    #[error(
        "cannot take over the mount {point}: its state can't be used: {cause}; it is not served. `systemctl stop`, or the end of its keeper, gives it up"
    )]
    State {
        /// Where.
        point: PathBuf,
        /// Why.
        cause: StateError,
    },
    /// The mount of a predecessor is elsewhere.
    #[error("cannot take over: the mount that was kept is on {kept}, and {wanted} is asked for")]
    OtherPoint {
        /// Where it is.
        kept: PathBuf,
        /// Where it should be.
        wanted: PathBuf,
    },
    /// No memory for the state.
    #[error("cannot make the memory for the state: {0}")]
    NoState(io::Error),
    /// A worker of a predecessor does not die.
    #[error("cannot take over: a worker of the process before does not end: {0}")]
    Predecessor(io::Error),
    /// `--check-state` was given no state.
    #[error("this build can't take over the state on its standard input: {0}")]
    Unacceptable(#[from] StateError),
    /// Signals can't be received.
    #[error("cannot receive signals: {0}")]
    Signals(io::Error),
}

impl Failed {
    /// The exit status for it.
    pub fn status(&self) -> Status {
        match self {
            Self::NoSheep { .. } | Self::Resolve(_) | Self::Interrupted => Status::Unavailable,
            Self::AtStart { why, .. } => of_errno(why.errno()),
            Self::Mount(error) => error.fault().into(),
            Self::Local(LocalError::Ended { .. }) | Self::Path { .. } => Status::Configuration,
            Self::Worker(_)
            | Self::WorkerEnded
            | Self::OtherBuild(_)
            | Self::Local(LocalError::Start { .. })
            | Self::Background(_)
            | Self::Killed
            | Self::Session(_)
            | Self::Inherited(_)
            | Self::State { .. }
            | Self::OtherPoint { .. }
            | Self::NoState(_)
            | Self::Predecessor(_)
            | Self::Unacceptable(_)
            | Self::Signals(_) => Status::Internal,
        }
    }
}

fn of_errno(errno: Errno) -> Status {
    match errno {
        Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP => Status::Configuration,
        Errno::EPERM | Errno::EACCES => Status::NoPermission,
        _ => Status::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::ipc::Failure;

    fn status_of(why: Refusal) -> Status {
        Failed::AtStart { what: "attach disk".to_owned(), why }.status()
    }

    #[test]
    fn the_status_says_whether_trying_again_may_help() {
        assert_eq!(status_of(Failure::NoSuchVdi.into()), Status::Configuration);
        assert_eq!(status_of(Failure::Locked.into()), Status::Unavailable);
        assert_eq!(status_of(Failure::Unformatted.into()), Status::Unavailable);
        assert_eq!(status_of(Refusal::TimedOut), Status::Unavailable);
    }

    #[test]
    fn whoever_was_given_a_mount_never_says_that_trying_again_is_in_vain() {
        for status in [Status::Usage, Status::Unavailable, Status::Configuration] {
            assert_eq!(status.with(true), Status::Internal);
            assert_eq!(status.with(false), status);
        }
        assert_eq!((Status::Ok.with(true), Status::Left.with(true)), (Status::Ok, Status::Left));
    }

    #[test]
    fn the_status_of_the_background_is_passed_on() {
        for status in [Status::Ok, Status::Usage, Status::Unavailable, Status::Internal] {
            assert_eq!(Status::of_code(status as i32), status);
        }
        assert_eq!(Status::of_code(134), Status::Internal);
    }

    #[test]
    fn the_words_say_what_was_tried_and_what_happened() {
        let sheep = "10.0.0.1:7000".parse().unwrap();
        let failed = Failed::NoSheep { sheep, reason: LostReason::Refused };
        let words =
            "cannot reach a sheep at 10.0.0.1:7000: connection refused, no sheep listens there";
        assert_eq!(failed.to_string(), words);
        let failed = Failed::AtStart { what: "attach disk".into(), why: Failure::NoSuchVdi.into() };
        assert_eq!(failed.to_string(), "cannot attach disk: the cluster has no such VDI");
    }
}
