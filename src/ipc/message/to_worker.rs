//! What the supervisor says: what it wants done, and that something is written down, for
//! which the worker has waited.
//!
//! Each variant names its answer. A tag or number in it is the supervisor's own choice and
//! comes back as it is.

#[cfg(doc)]
use super::{ALLOCATIONS_MAX, AVOIDED_MAX, BUILD, FromWorker, WATCHED_MAX};
use super::{Allocation, Gateways, Locking, Query, Search, SeekTarget, Tag, VolumeFacts, VolumeId};
use crate::ipc::arena::RawSpan;
use crate::ipc::errand::{Errand, Mark};
#[cfg(doc)]
use crate::ipc::failure::Failure;
use crate::ipc::route::Route;
use crate::wire::name::VolumeName;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

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
