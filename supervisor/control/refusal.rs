//! Why something that a user asked for was not done: the errno for the program,
//! and the words for the log and `config/status`.

use super::line::LineError;
use nix::errno::Errno;
use sheepfs::address::AddressError;
use sheepfs::ipc::route::NoRoute;
use sheepfs::ipc::{Failure, LostReason};
use sheepfs::wire::name::NameError;
use std::time::Duration;
use thiserror::Error;

/// A check that took so long had no answer, rather than a quick "no route".
const ROUTE_TIME: Duration = Duration::from_millis(2500);

/// Why not.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// What was written can't be a VDI's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What was written to a switch is neither 0 nor 1.
    #[error("0 or 1 is wanted")]
    Switch,
    /// What was written names no route.
    #[error(transparent)]
    Route(#[from] NoRoute),
    /// What was written is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The resolver knows no such host, or did not answer.
    #[error("the host's name cannot be looked up")]
    NoHost,
    /// Nobody listens there.
    #[error("{}", LostReason::Refused.words())]
    SheepRefused,
    /// No way leads there.
    #[error("{}", LostReason::Unreachable.words())]
    NoRoute,
    /// Nobody answers there, or no session came about in time.
    #[error("the sheep did not answer in time")]
    SheepTimedOut,
    /// What answers there is something else.
    #[error("{}", LostReason::NotASheep.words())]
    NotASheep,
    /// Its cluster was never formatted.
    #[error("that sheep's cluster is not formatted; `dog cluster format` does that")]
    NotFormatted,
    /// Its cluster waits for nodes, or is going down.
    #[error("that sheep's cluster does not serve; it waits for nodes, or shuts down")]
    NotRunning,
    /// It belongs to another cluster.
    #[error("that sheep belongs to another cluster than the one in use")]
    OtherCluster,
    /// The worker or the cluster said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The worker did not answer before the deadline.
    #[error("the cluster did not answer in time")]
    TimedOut,
    /// There is no connection to a sheep now.
    #[error("no sheep is connected")]
    NotConnected,
    /// Worker after worker broke down while it was under way.
    #[error("the worker broke down again and again before it was done")]
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
    /// The same, and something was changed already.
    #[error(
        "the worker broke down again and again in the middle of it; vdi/list shows what there is"
    )]
    HalfDone,
    /// The time of those who wait is up, and something was changed already.
    #[error("the cluster did not do it in time; it goes on, and the log will say how it ended")]
    GoesOn,
    /// The mount is over, and something was changed already.
    #[error("sheepfs ends in the middle of it; `dog vdi list` shows what there is")]
    LeftHalfDone,
    /// What was written to a file of `vdi/` means nothing.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The VDI is being deleted, or put back to a snapshot.
    #[error("the VDI is being deleted or rolled back just now")]
    Going,
    /// The mount ends.
    #[error("sheepfs is stopping")]
    Stopping,
}

impl Refusal {
    /// The errno a program gets.
    pub fn errno(self) -> Errno {
        match self {
            Self::Name(_)
            | Self::Line(_)
            | Self::Switch
            | Self::Route(_)
            | Self::Address(_)
            | Self::NotASheep
            | Self::NotFormatted => Errno::EINVAL,
            Self::SheepRefused => Errno::ECONNREFUSED,
            Self::NoHost | Self::NoRoute | Self::NotRunning => Errno::EHOSTUNREACH,
            Self::OtherCluster => Errno::EXDEV,
            Self::Failed(failure) => failure.errno(),
            Self::TimedOut | Self::SheepTimedOut | Self::GoesOn => Errno::ETIMEDOUT,
            Self::NotConnected | Self::Interrupted => Errno::EHOSTUNREACH,
            Self::NotAttached => Errno::ENOENT,
            Self::Open | Self::Attaching | Self::OtherName | Self::Going => Errno::EBUSY,
            Self::BadFacts | Self::BadReport | Self::HalfDone | Self::LeftHalfDone => Errno::EIO,
            Self::TooMany => Errno::EAGAIN,
            Self::Stopping => Errno::ESHUTDOWN,
        }
    }

    /// Why there is no session with a sheep, which it took so long to find out.
    pub fn of_sheep(reason: LostReason, took: Duration) -> Self {
        match reason {
            LostReason::Refused => Self::SheepRefused,
            LostReason::Unreachable if took < ROUTE_TIME => Self::NoRoute,
            LostReason::Unreachable | LostReason::Silent => Self::SheepTimedOut,
            LostReason::Disconnected => Self::NoRoute,
            LostReason::ShuttingDown | LostReason::Behind => Self::NotRunning,
            LostReason::NotASheep => Self::NotASheep,
        }
    }
}
