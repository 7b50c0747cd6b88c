//! What goes into the control loop and what comes out of it.

use crate::candidates::ResolveError;
use crate::census::Census;
use crate::control::poison::{Death, Exit};
use crate::control::waits::Caller;
use crate::datapath::Pace;
use crate::events::{ReportFile, WritableFile};
use crate::exit::Failed;
use crate::spawn::SpawnError;
use nix::errno::Errno;
use sheepfs::address::SheepAddress;
use sheepfs::ipc::{FromWorker, QuietReason, Route, Search, Tag, ToWorker, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::net::SocketAddr;
use std::sync::Arc;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// Nothing; the time may have come for something.
    Tick,
    /// The worker of that generation could not be started.
    NotStarted(u64, SpawnError),
    /// The worker of that generation said something.
    Worker(u64, FromWorker),
    /// The channel to the worker of that generation ended, or it said nonsense.
    WorkerBroken {
        /// Which worker.
        generation: u64,
        /// Whether it said nonsense.
        nonsense: bool,
    },
    /// The process of that generation is gone, and ended like that.
    WorkerGone(u64, Exit),
    /// The answer to [`Effect::DataLost`]: what the dead worker had been told and
    /// had not answered.
    Unanswered(Death, Vec<Tag>),
    /// While [`crate::control::Control::awaits_drain`]: the worker has answered all it was told.
    DataDrained,
    /// The answer to [`Effect::Resolve`].
    Resolved(u64, Result<Vec<SocketAddr>, ResolveError>),
    /// A report is wanted.
    Open(Caller, ReportFile),
    /// Somebody wrote that to a control file, with the kernel's number of the request.
    Write(Caller, (WritableFile, u64), Vec<u8>),
    /// Somebody truncates the volume of that name to more bytes than it has, with the kernel's
    /// number of the request.
    Grow(Caller, (VolumeName, u64), u64),
    /// The space of the cluster is wanted.
    Space(Caller),
    /// VDIs are wanted, as they are now if the last says so.
    Search(Caller, Search, bool),
    /// [`Effect::Mount`] went well.
    Mounted,
    /// [`Effect::Mount`] did not.
    NotMounted(Failed),
    /// Nothing is in flight, and an unmounting that was begun is over.
    Drained,
    /// A program closed a volume.
    Closed,
    /// The kernel ended the session.
    Unmounted,
    /// A signal came.
    Stop,
    /// The mount is to be left as it is.
    Leave(Leave),
    /// While [`crate::control::Control::awaits_leave`]: the worker has answered all it
    /// was told.
    Quiesced,
}

/// When a successor must know what follows from something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing that it must know follows.
    Nothing,
    /// When there is nothing else to do: until then it would find out by itself.
    Later,
    /// Before anything is done about it.
    Now,
}

impl Input {
    /// When a successor must know of it. That a volume came back it finds out by taking
    /// it up itself; what has no effects, or others, is a new one.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Tick
            | Self::Worker(
                _,
                FromWorker::Pong { .. }
                | FromWorker::HeaderSeen { .. }
                | FromWorker::CacheUse { .. }
                | FromWorker::Routed { .. }
                | FromWorker::ReportChunk { .. }
                | FromWorker::Stored { .. },
            )
            | Self::Search(..) => Weight::Nothing,
            Self::Worker(_, FromWorker::Attached { .. }) => Weight::Later,
            _ => Weight::Now,
        }
    }
}

/// To whom a mount is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// To a process that the manager will start.
    ToSuccessor,
    /// To this process, as the program that is installed now.
    ToUpgrade,
}

/// What must be done.
#[derive(Debug)]
pub enum Effect {
    /// Start a worker, of that generation.
    StartWorker(u64),
    /// Tell the worker of that generation.
    Send(u64, ToWorker),
    /// Tell the worker of that generation to connect, and what to watch.
    Connect {
        /// Which worker.
        generation: u64,
        /// The sheep.
        sheep: SocketAddr,
        /// Bytes of object cache; 0 is off.
        cache_bytes: u64,
        /// The other gateways of sessions that were lost lately.
        left: Vec<SocketAddr>,
        /// Whom objects are asked of.
        route: Route,
        /// Nodes that are not to be asked directly, for so many milliseconds.
        avoid: Vec<(SocketAddr, u32)>,
    },
    /// Let data through to the worker of that generation; what is outstanding
    /// first.
    ConnectData {
        /// Which worker.
        generation: u64,
        /// How it gets what is outstanding.
        pace: Pace,
    },
    /// Let nothing new through to the worker.
    HoldData,
    /// Let it through again.
    ReleaseData,
    /// Kill the process of that generation.
    KillWorker(u64),
    /// That worker is dead: its data waits for the next one. Answered by
    /// [`Input::Unanswered`].
    DataLost {
        /// Which worker.
        generation: u64,
        /// Where its requests may still run: its sheep first.
        gateways: Vec<SocketAddr>,
        /// How it died; comes back.
        death: Death,
    },
    /// Nothing that workers before that generation sent runs on a gateway.
    Quiet {
        /// Who says so.
        generation: u64,
        /// The gateway.
        gateway: SocketAddr,
        /// How that is known.
        how: QuietReason,
    },
    /// A volume is new.
    VolumeAttached(VolumeId, VolumeName),
    /// Whether requests of a volume must wait, since the worker does not have it.
    VolumeAbsent(VolumeId, bool),
    /// That volume has another size.
    VolumeGrown(VolumeId),
    /// A control write for which nobody waits is answered so, if it is delivered again.
    Answered {
        /// The kernel's number of it.
        number: u64,
        /// 0: it is done.
        errno: i32,
    },
    /// Requests of that volume fail: its VDI is another one.
    VolumeReplaced(VolumeId),
    /// That request kills workers: it fails.
    Poison(Tag),
    /// Everything that waits fails, and so does all that is new.
    FailData,
    /// Whether all that is new fails.
    RefuseNew(bool),
    /// Look up a host. Answered by [`Input::Resolved`].
    Resolve {
        /// Comes back.
        number: u64,
        /// The host.
        address: SheepAddress,
        /// The port to go with it.
        port: u16,
    },
    /// Complete what a program waits for.
    Answer(u64, Answer),
    /// Mount, and say that everything is ready.
    Mount,
    /// Begin to unmount.
    Unmount,
    /// Let the workers end by themselves, leave the loop with that result.
    End(Result<(), Failed>),
    /// Let the workers end by themselves, and leave the mount and all that waits.
    Leave(Leave),
}

impl Effect {
    /// When a successor must know of what led to it.
    pub fn weight(&self) -> Weight {
        match self {
            Self::Send(_, ToWorker::Ping { .. } | ToWorker::Search { .. })
            | Self::Answer(_, Answer::Census(_)) => Weight::Nothing,
            Self::VolumeAbsent(_, false) => Weight::Later,
            _ => Weight::Now,
        }
    }
}

/// What a program gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The write to the control file is done.
    Done,
    /// The text of the file it opened.
    Text(Vec<u8>),
    /// The cluster's space.
    Space(Totals),
    /// VDIs.
    Census(Arc<Census>),
    /// An error.
    Refused(Errno),
}

/// The space of the cluster, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All.
    pub size: u64,
    /// What is free.
    pub free: u64,
}
