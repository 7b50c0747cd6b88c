//! What the worker says: answers, news of the cluster and of the volumes, and what it is
//! about to do that a successor must know of.
//!
//! All of it is an allegation until the supervisor has checked it. Where a variant says
//! "before", the order is a promise: what follows relies on the supervisor having heard it,
//! or on having been told that it is written down.

use super::{
    Allocation, CacheUsage, ClusterFacts, LostReason, QuietReason, Tag, VolumeFacts, VolumeId,
};
#[cfg(doc)]
use super::{BUILD, MEMBERS_MAX, REPORT_CHUNK_LEN, Report, ToWorker};
use crate::ipc::errand::Mark;
use crate::ipc::failure::Failure;
#[cfg(doc)]
use crate::ipc::route::DIRECT_MAX;
use crate::ipc::route::Routed;
use crate::wire::cluster::BlockUsage;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// From the worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The first message: ready for a [`ToWorker::Connect`].
    Hello {
        /// [`BUILD`] of the worker.
        build: String,
    },
    /// The answer to [`ToWorker::Check`].
    Checked {
        /// The check.
        tag: Tag,
        /// The cluster, when a session there would work.
        outcome: Result<ClusterFacts, LostReason>,
    },
    /// The sheep answers; requests may come.
    Connected {
        /// Its cluster.
        cluster: ClusterFacts,
    },
    /// There is no session, since the sheep does not answer. Another
    /// [`ToWorker::Connect`] may follow.
    Unreached {
        /// Why.
        reason: LostReason,
    },
    /// The sheep of the session is gone, or a node that was asked directly and has not
    /// answered all changes; the worker ends after this.
    Lost {
        /// Why.
        reason: LostReason,
        /// Which one.
        node: SocketAddr,
    },
    /// The cluster's nodes, after connecting and whenever its epoch changes.
    Members {
        /// The epoch.
        epoch: u32,
        /// Where nodes can be reached, at most [`MEMBERS_MAX`] of them.
        nodes: Vec<SocketAddr>,
    },
    /// No request of any earlier worker runs on a watched gateway any more. May
    /// come before [`FromWorker::Connected`].
    Quiet {
        /// The gateway.
        gateway: SocketAddr,
        /// How that is known.
        how: QuietReason,
    },
    /// The answer to [`ToWorker::Ping`].
    Pong {
        /// As asked.
        number: u64,
    },
    /// That write is about to create an object. Said before the create leaves for
    /// the sheep, so that it is known when the worker dies at once.
    Creating {
        /// The write.
        tag: Tag,
        /// The object's number in its volume.
        block: u32,
    },
    /// An index entry that a snapshot lost is about to be written again. Said before
    /// that leaves for the sheep, which waits for [`ToWorker::Noted`]: until the volume
    /// has [`FromWorker::Moved`], the entry's object is one that a late copy of the
    /// request may change.
    Repairing {
        /// The volume.
        volume: VolumeId,
        /// The block.
        block: u32,
    },
    /// An index entry was written, or, soon after a [`ToWorker::Resume`], one was found
    /// that an earlier worker may have written in its last moment, unheard. Said before
    /// any write that relies on it is done.
    Allocated {
        /// The volume.
        volume: VolumeId,
        /// The entry. `owner` 0: it is to be forgotten, whatever was said of it.
        allocation: Allocation,
    },
    /// The header of a volume was seen unchanged: allocations older than any
    /// snapshot takes are safe (protocol 7.4).
    HeaderSeen {
        /// The volume.
        volume: VolumeId,
        /// How long ago the header was asked for, in milliseconds.
        age_ms: u32,
    },
    /// A lock request is about to leave for the sheep in use. Said before it does,
    /// which waits for [`ToWorker::Noted`].
    LockSent {
        /// The volume.
        volume: VolumeId,
    },
    /// A request is over. For reads and writes all bytes of the span are done.
    Done {
        /// The request.
        tag: Tag,
        /// How it went.
        outcome: Result<(), Failure>,
    },
    /// A volume can be used.
    Attached {
        /// The request.
        tag: Tag,
        /// What it is.
        facts: VolumeFacts,
    },
    /// A volume changed its vid, since somebody made a snapshot of it.
    Moved {
        /// The volume.
        volume: VolumeId,
        /// What it is now.
        facts: VolumeFacts,
    },
    /// A piece of an encoded [`Report`], in order. An empty one that is not the
    /// last only says that the worker goes on.
    ReportChunk {
        /// The request.
        tag: Tag,
        /// Whether it is the last piece.
        last: bool,
        /// At most [`REPORT_CHUNK_LEN`] bytes.
        bytes: Vec<u8>,
    },
    /// How the object cache fares, at most once a second and only when that has changed.
    CacheUse {
        /// Since this worker began.
        usage: CacheUsage,
    },
    /// Requests for data, changes too, are about to go to that node of the cluster
    /// directly. They wait for [`ToWorker::MayUse`]. At most
    /// [`DIRECT_MAX`] are open at a time.
    Opened {
        /// The node.
        node: SocketAddr,
        /// Comes back with the answer.
        opening: u64,
    },
    /// Nothing of this session is outstanding there any more, and nothing will go there
    /// until it is opened again.
    Closed {
        /// The node.
        node: SocketAddr,
    },
    /// Entries of the index are about to be cleared, after it was said that their blocks
    /// are no allocations any more. That waits for [`ToWorker::Noted`].
    Discarding {
        /// The volume.
        volume: VolumeId,
    },
    /// How requests were sent; said with a [`FromWorker::Pong`] when that has changed.
    Routed {
        /// So.
        routed: Routed,
    },
    /// An errand is about to change something, and waits for [`ToWorker::GoOn`].
    Begun {
        /// Which errand.
        tag: Tag,
        /// What it changes.
        mark: Mark,
    },
    /// A volume has grown.
    Grown {
        /// The volume.
        volume: VolumeId,
        /// Bytes.
        size: u64,
    },
    /// That write or discard is about to change the index tree of its hyper volume. Said
    /// before its object is created, or written, or taken out: until the request is over, a
    /// late copy of what the change sends could undo what others enter (hazard 52).
    Growing {
        /// The request.
        tag: Tag,
    },
    /// Where a seek has ended. Said before its [`FromWorker::Done`].
    Sought {
        /// The request.
        tag: Tag,
        /// At or behind where it began. `None`: there is no data any more.
        offset: Option<u64>,
    },
    /// How many objects a volume has. Said before any write that made one is done.
    Stored {
        /// The volume.
        volume: VolumeId,
        /// Grows with each such message about a volume.
        number: u64,
        /// Its own objects and those that it has inherited. `None`: they are not counted.
        usage: Option<BlockUsage>,
    },
}
