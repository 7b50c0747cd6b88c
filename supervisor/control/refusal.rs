//! Why something that a user asked for was not done: the errno for the program,
//! and the words for the log and `config/status`.

use nix::errno::Errno;
use sheepfs::ipc::Failure;
use sheepfs::wire::name::NameError;
use thiserror::Error;

/// Why not.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// What was written can't be a VDI's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What was written to a switch is neither 0 nor 1.
    #[error("0 or 1 is wanted")]
    Switch,
    /// The worker or the cluster said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The worker did not answer before the deadline.
    #[error("the cluster did not answer in time")]
    TimedOut,
    /// There is no connection to a sheep now.
    #[error("no sheep is connected")]
    NotConnected,
    /// The connection ended while it was under way.
    #[error("the connection to the sheep ended before it was done")]
    Interrupted,
    /// No volume of that name.
    #[error("no volume of that name is attached")]
    NotAttached,
    /// Somebody has the volume open.
    #[error("the volume is open; a loop device or a mounted image keeps it so")]
    Open,
    /// The volume is just being attached.
    #[error("the volume is being attached just now")]
    Attaching,
    /// The VDI is attached already, under another name.
    #[error("the VDI is attached already, under another name")]
    OtherName,
    /// What the worker said of the VDI can't be true.
    #[error("the worker's description of the VDI makes no sense")]
    BadFacts,
    /// What the worker said is no report, or not the one that was asked for.
    #[error("the worker's report makes no sense")]
    BadReport,
    /// Too much waits for the worker already.
    #[error("too many requests wait for the cluster already")]
    TooMany,
    /// The mount ends.
    #[error("sheepfs is stopping")]
    Stopping,
}

impl Refusal {
    /// The errno a program gets.
    pub fn errno(self) -> Errno {
        match self {
            Self::Name(_) | Self::Switch => Errno::EINVAL,
            Self::Failed(failure) => failure.errno(),
            Self::TimedOut => Errno::ETIMEDOUT,
            Self::NotConnected | Self::Interrupted => Errno::EHOSTUNREACH,
            Self::NotAttached => Errno::ENOENT,
            Self::Open | Self::Attaching | Self::OtherName => Errno::EBUSY,
            Self::BadFacts | Self::BadReport => Errno::EIO,
            Self::TooMany => Errno::EAGAIN,
            Self::Stopping => Errno::ESHUTDOWN,
        }
    }
}
