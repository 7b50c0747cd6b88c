//! What the control loop is told: the one queue through which everything that
//! is not a volume's data reaches the one owner of control state.
//!
//! FUSE threads put the kernel's owned reply into an event and return at once;
//! the loop, or the answer it waits for, completes it (hazard 32).

use crate::attr::Look;
use crate::candidates::ResolveError;
use crate::fs::browse::Browse;
use crate::uniques::Noted;
use crate::volumes::Volume;
use fuser::{
    Errno, FileHandle, ReplyAttr, ReplyData, ReplyOpen, ReplyStatfs, ReplyWrite, RequestId,
};
use sheepfs::ipc::{FromWorker, Query, Search};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// A file of the tree that holds a report about the cluster.
pub type ReportFile = Query;

/// A file of the tree that takes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WritableFile {
    /// `vdi/mount`: attach.
    Mount,
    /// `vdi/unmount`: detach.
    Unmount,
    /// `config/page_cache`: 0 or 1.
    PageCache,
    /// `config/object_cache`: 0 or 1.
    ObjectCache,
    /// `config/route`: replica or gateway.
    Route,
    /// `config/sheep_info`: the sheep to fail over to.
    SheepInfo,
    /// What changes which VDIs there are.
    Life(LifeFile),
}

impl WritableFile {
    /// Where in the tree it is.
    pub fn path(self) -> &'static str {
        match self {
            Self::Mount => "vdi/mount",
            Self::Unmount => "vdi/unmount",
            Self::PageCache => "config/page_cache",
            Self::ObjectCache => "config/object_cache",
            Self::Route => "config/route",
            Self::SheepInfo => "config/sheep_info",
            Self::Life(LifeFile::Create) => "vdi/create",
            Self::Life(LifeFile::Delete) => "vdi/delete",
            Self::Life(LifeFile::Snapshot) => "vdi/snapshot",
            Self::Life(LifeFile::Clone) => "vdi/clone",
            Self::Life(LifeFile::Rollback) => "vdi/rollback",
            Self::Life(LifeFile::Resize) => "vdi/resize",
        }
    }
}

/// A file of `vdi/` that changes which VDIs there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LifeFile {
    /// `vdi/create`
    Create,
    /// `vdi/delete`
    Delete,
    /// `vdi/snapshot`
    Snapshot,
    /// `vdi/clone`
    Clone,
    /// `vdi/rollback`
    Rollback,
    /// `vdi/resize`
    Resize,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Somebody opened a file whose text the cluster must be asked for. The text
    /// is put into [`crate::texts::Texts`] and the open answered with its handle.
    OpenReport {
        /// Which.
        file: ReportFile,
        /// The handle that it gets.
        handle: FileHandle,
        /// To be dropped with the answer.
        noted: Noted,
        /// Completed with the handle, or an errno within five seconds.
        reply: ReplyOpen,
    },
    /// Somebody reads from such a file that was opened under a predecessor of this
    /// process.
    ReadReport {
        /// Which.
        file: ReportFile,
        /// Its handle, which is to get a text.
        handle: FileHandle,
        /// Which of its bytes.
        range: Range<u64>,
        /// To be dropped with the answer.
        noted: Noted,
        /// Completed with a part of the text.
        reply: ReplyData,
    },
    /// Somebody looks at the tree of VDIs.
    Browse {
        /// What must be found out.
        search: Search,
        /// Whether it must be as it is now.
        is_afresh: bool,
        /// Completed with what was found.
        browse: Box<Browse>,
        /// To be dropped with the answer.
        noted: Noted,
    },
    /// Somebody wrote to a control file.
    ControlWrite {
        /// Which.
        file: WritableFile,
        /// What, as it came.
        bytes: Vec<u8>,
        /// The kernel's number of the request.
        request: RequestId,
        /// To be dropped with the answer.
        noted: Noted,
        /// Completed with the length of `bytes`, or an errno.
        reply: ReplyWrite,
    },
    /// Somebody truncates a volume to more than it has.
    Grow {
        /// Which.
        volume: Arc<Volume>,
        /// Bytes.
        size: u64,
        /// The kernel's number of the request.
        request: RequestId,
        /// To be dropped with the answer.
        noted: Noted,
        /// Completed with its attributes, which follow from whose it is.
        reply: ReplyAttr,
        /// That.
        look: Look,
    },
    /// Somebody asked for the space of the file system.
    StatFs {
        /// Of a volume: log2 of the size of its objects.
        unit: Option<u8>,
        /// To be dropped with the answer.
        noted: Noted,
        /// Completed with the cluster's space.
        reply: ReplyStatfs,
    },
    /// The worker of that generation said something that is not the answer to a
    /// read, write or flush.
    Worker {
        /// Which worker: answers of an earlier one are dropped.
        generation: u64,
        /// What it said.
        message: FromWorker,
    },
    /// The channel to the worker of that generation ended, or it said nonsense.
    /// The process may live still, so it must be killed.
    WorkerBroken {
        /// Which worker.
        generation: u64,
        /// Whether it said what no worker of this build says.
        nonsense: bool,
    },
    /// The process of that generation is dead, and everything that it said before
    /// was passed on. Comes once.
    WorkerGone {
        /// Which worker.
        generation: u64,
    },
    /// A host's name was looked up for the control loop.
    Resolved {
        /// Which question.
        number: u64,
        /// Its addresses.
        found: Result<Vec<SocketAddr>, ResolveError>,
    },
    /// A volume was closed that nobody has open now.
    Closed,
    /// The kernel ended the session: somebody unmounted.
    Unmounted,
    /// A signal asks to unmount and stop.
    Stop,
    /// A signal asks to open the log anew.
    Hangup,
    /// A signal asks to leave the mount to a successor.
    Leave,
    /// A signal asks to go on as the program that is installed now.
    Upgrade,
    /// Whether that program accepts the state.
    UpgradeChecked(bool),
}

/// The way into the control loop, for any thread.
#[derive(Clone, Debug)]
pub struct Events(pub Sender<Event>);

impl Events {
    /// Tells the loop. When it has ended, the event's reply is answered EIO by
    /// being dropped, which is right then: nothing can serve it any more.
    pub fn tell(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

/// The kernel's error for one of ours.
pub fn fuse_errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_i32(errno as i32)
}
