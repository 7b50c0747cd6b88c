//! The messages between supervisor and worker.
//!
//! The types say who may say what: a [`ToWorker`] can't be sent by the worker.
//! Messages of the data path are small, under 64 bytes encoded; names and
//! reports make others longer. Everything that comes from the worker is an
//! allegation until the supervisor has checked it.

mod facts;
mod report;
mod search;

pub use facts::{
    Allocation, CacheUsage, ClusterFacts, Gateways, Labels, Locking, LostReason, QuietReason,
    SeekTarget, VolumeFacts,
};
pub use report::{Query, Report};
pub use search::Search;

use super::arena::RawSpan;
use super::errand::{Errand, Mark};
use super::failure::Failure;
use super::route::{Route, Routed};
use crate::wire::cluster::BlockUsage;
use crate::wire::name::VolumeName;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What a hello must say: both programs are of one build.
pub const BUILD: &str = concat!("sheepfs ", env!("CARGO_PKG_VERSION"));
/// The most bytes of a report that travel in one message.
pub const REPORT_CHUNK_LEN: usize = 16 << 10;
/// The most nodes of a cluster that are told of.
pub const MEMBERS_MAX: usize = 256;
/// The most gateways that are watched at once.
pub const WATCHED_MAX: usize = 128;
/// The most nodes that are avoided at once.
pub const AVOIDED_MAX: usize = 128;
/// The most allocations in one message.
pub const ALLOCATIONS_MAX: usize = 1024;

/// Names a request of the supervisor's; comes back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tag(pub u64);

/// Names an attached volume between the processes. The supervisor chooses it
/// and never uses it again within one worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeId(pub u32);

/// From the supervisor to the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Look whether a sheep would do, without a session. Only before a session,
    /// so of the spare worker. Answered by [`FromWorker::Checked`].
    Check {
        /// Comes back with the answer.
        tag: Tag,
        /// The sheep.
        sheep: SocketAddr,
    },
    /// Connect to that sheep. Answered by [`FromWorker::Connected`], or by
    /// [`FromWorker::Unreached`], after which another may be tried.
    Connect {
        /// [`BUILD`] of the supervisor.
        build: String,
        /// The sheep.
        sheep: SocketAddr,
        /// Bytes of object cache; 0 is off.
        cache_bytes: u64,
        /// How long a request may be on the wire without progress before the
        /// sheep is probed, in milliseconds.
        io_timeout_ms: u32,
        /// Number of this session; the upper byte of each request's id on the wire.
        generation: u64,
        /// Gateways on which requests of earlier workers may still run: each is
        /// watched until [`FromWorker::Quiet`]. At most [`WATCHED_MAX`].
        watch: Vec<SocketAddr>,
        /// Gateways of sessions that ended lately: while one of them is dead and the
        /// cluster does not know, changes wait. At most [`WATCHED_MAX`].
        left: Vec<SocketAddr>,
        /// Whom objects are asked of.
        route: Route,
        /// TCP connections at most, in all.
        connections_max: u32,
        /// Nodes that have lost changes lately, and are not asked directly for so many
        /// milliseconds. At most [`AVOIDED_MAX`].
        avoid: Vec<(SocketAddr, u32)>,
    },
    /// Find a VDI, lock it if it is a working one, and make it a volume.
    Attach {
        /// Answered by [`FromWorker::Attached`] or a failed [`FromWorker::Done`].
        tag: Tag,
        /// What it shall be called.
        volume: VolumeId,
        /// What the user wrote.
        name: VolumeName,
        /// The gateways through which earlier workers may have got this lock: they
        /// did not live to hear the answer, or could not release it. If one of these
        /// nodes turns out to hold the lock, it is ours; a second lock by ourselves
        /// is refused like anybody's (hazard 8).
        lock_sent: Gateways,
        /// What is done about the lock of a working VDI.
        locking: Locking,
    },
    /// Allocations of a volume that an earlier worker made, to be remembered by
    /// the [`ToWorker::Resume`] that follows. At most [`ALLOCATIONS_MAX`] a message.
    Remember {
        /// The volume.
        volume: VolumeId,
        /// The allocations.
        allocations: Vec<Allocation>,
    },
    /// Go on with a volume that an earlier worker had.
    Resume {
        /// Answered by [`FromWorker::Attached`] or a failed [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
        /// What the user wrote at the attach.
        name: VolumeName,
        /// What it was last. What is found must be that VDI, or descend from it
        /// (hazard 10).
        facts: VolumeFacts,
        /// As in [`ToWorker::Attach`], for the lock of the vid that follows after
        /// a snapshot. The lock of the present vid is ours if its facts say so.
        lock_sent: Gateways,
        /// The block whose index entry an earlier worker was repairing after a
        /// snapshot when it died: its reference counts may be missing.
        repairing: Option<u32>,
    },
    /// Finish what is under way on a volume, release its lock, forget it.
    Detach {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
    },
    /// Read into the arena.
    Read {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
        /// First byte, in the volume. The range lies inside the volume.
        offset: u64,
        /// Where to, and how much.
        span: RawSpan,
    },
    /// Write from the arena.
    Write {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
        /// First byte, in the volume. The range lies inside the volume.
        offset: u64,
        /// Where from, and how much.
        span: RawSpan,
        /// Whether an earlier worker may have begun with it: what that one wrote of the
        /// index may have reached some replicas only.
        again: bool,
    },
    /// Wait for all earlier writes to a volume, and flush.
    Flush {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
    },
    /// Ask the cluster something for a control file.
    Query {
        /// Answered by [`FromWorker::ReportChunk`]s or a failed
        /// [`FromWorker::Done`].
        tag: Tag,
        /// What.
        query: Query,
    },
    /// Resize the object cache; 0 turns it off and empties it.
    SetCache {
        /// Bytes.
        cache_bytes: u64,
    },
    /// One [`FromWorker::LockSent`], [`FromWorker::Repairing`] or
    /// [`FromWorker::Discarding`] is written down where it
    /// outlives the supervisor too.
    Noted,
    /// Log from now on what that filter lets through, in the syntax of
    /// `tracing-subscriber`. At most [`crate::logging::FILTER_LEN_MAX`] bytes.
    LogFilter {
        /// The filter.
        filter: String,
    },
    /// Are you alive? Answered by [`FromWorker::Pong`] at once, at any time.
    Ping {
        /// Comes back.
        number: u64,
    },
    /// Ask others for objects from now on.
    SetRoute {
        /// Whom.
        route: Route,
    },
    /// A [`FromWorker::Opened`] is written down where it outlives the supervisor too:
    /// requests for data may go to that node.
    MayUse {
        /// Which one.
        opening: u64,
    },
    /// Do something with a VDI besides reading and writing it.
    Manage {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// What.
        errand: Errand,
        /// What an earlier worker, which may have done all of it, was about to change.
        begun: Option<Mark>,
    },
    /// A [`FromWorker::Begun`] is written down where it outlives the supervisor too.
    GoOn {
        /// Which errand.
        tag: Tag,
    },
    /// Write zeros from the arena where something is; what is a hole stays one.
    Zero {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
        /// First byte, in the volume. The range lies inside the volume.
        offset: u64,
        /// Zeros, as many as are to be written.
        span: RawSpan,
        /// As in [`ToWorker::Write`].
        again: bool,
    },
    /// Take whole objects out of the cluster: those that lie in the range completely, and
    /// the volume's last one when the range ends with the volume. One that ends within an
    /// object otherwise fails with [`Failure::Grown`], and nothing is done.
    Discard {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
        /// First byte, in the volume. The range lies inside the volume.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Whether an earlier worker may have begun with it.
        again: bool,
    },
    /// Look VDIs up for the tree.
    Search {
        /// Answered as a [`ToWorker::Query`] is.
        tag: Tag,
        /// Which.
        search: Search,
    },
    /// Read from one volume and write to another, or elsewhere in the same. The ranges lie
    /// inside their volumes and don't overlap.
    Copy {
        /// Answered by [`FromWorker::Done`].
        tag: Tag,
        /// The volume to read.
        from: VolumeId,
        /// First byte, in that volume.
        at: u64,
        /// The volume to write.
        volume: VolumeId,
        /// First byte, in the volume.
        offset: u64,
        /// Bytes.
        len: u32,
        /// As in [`ToWorker::Write`].
        again: bool,
    },
    /// Look for data or for a hole.
    Seek {
        /// Answered by [`FromWorker::Sought`] and [`FromWorker::Done`].
        tag: Tag,
        /// The volume.
        volume: VolumeId,
        /// From here on, in the volume.
        offset: u64,
        /// What for.
        target: SeekTarget,
    },
}

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
    /// [`super::route::DIRECT_MAX`] are open at a time.
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
