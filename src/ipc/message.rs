//! The messages between supervisor and worker.
//!
//! The types say who may say what: a [`ToWorker`] can't be sent by the worker.
//! Messages of the data path are small, under 64 bytes encoded; names and
//! reports make others longer. Everything that comes from the worker is an
//! allegation until the supervisor has checked it.

use super::arena::RawSpan;
use super::failure::Failure;
use super::route::{Route, Routed};
use crate::text::report::{ClusterReport, NodeReport, SpaceReport, VdiReport};
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
        /// Whether a lock that another holds is released and taken (hazard 51).
        steal: bool,
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
        /// a snapshot. The lock of the present vid is ours in any case.
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
    /// One [`FromWorker::LockSent`] or [`FromWorker::Repairing`] is written down where it
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
    /// How requests were sent; said with a [`FromWorker::Pong`] when that has changed.
    Routed {
        /// So.
        routed: Routed,
    },
}

/// How the object cache fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUsage {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that went to the cluster while it was on.
    pub misses: u64,
    /// Bytes of blocks in it.
    pub bytes: u64,
}

/// A few gateways: those through which a lock was asked for, the newest four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateways([Option<SocketAddr>; 4]);

impl Gateways {
    /// One more; the oldest goes when there are too many.
    #[must_use]
    pub fn with(self, gateway: SocketAddr) -> Self {
        if self.contains(gateway) {
            return self;
        }
        let [first, second, third, _] = self.0;
        Self([Some(gateway), first, second, third])
    }

    /// Whether that one is among them.
    #[must_use]
    pub fn contains(self, gateway: SocketAddr) -> bool {
        self.0.contains(&Some(gateway))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// An index entry that was written lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The block.
    pub block: u32,
    /// The vid that owns its object, a raw number.
    pub owner: u32,
}

/// What is known of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// When it was formatted, seconds << 32 | nanoseconds: its identity. 0: never.
    pub ctime: u64,
    /// Its epoch.
    pub epoch: u32,
    /// Whether it serves: formatted, and not waiting for nodes.
    pub running: bool,
    /// Whether it gives vids of deleted VDIs to new ones (`dog cluster format -R`).
    pub recycles_vids: bool,
    /// Whether it places objects by disks, in a way that clients can't compute.
    pub disk_mode: bool,
}

/// How it is known that nothing of ours runs on a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum QuietReason {
    /// It answered that no request is active.
    Drained,
    /// Its process is gone: connections are refused.
    Gone,
    /// It is no member of the cluster any more.
    NotMember,
}

/// Why a worker has no sheep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostReason {
    /// Nobody listens there.
    Refused,
    /// No route, no answer, or no answer in time.
    Unreachable,
    /// It was connected, and the connection broke.
    Disconnected,
    /// A request made no progress for the I/O time-out, and a probe on a fresh
    /// connection got no answer.
    Silent,
    /// It said that it, or the cluster, is shutting down.
    ShuttingDown,
    /// It does not speak the protocol.
    NotASheep,
    /// Other nodes of its cluster know of a newer epoch, and it does not come to know.
    Behind,
}

impl LostReason {
    /// In words, to follow the sheep's address and a colon.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Refused => "connection refused, no sheep listens there",
            Self::Unreachable => "no answer from that address",
            Self::Disconnected => "the connection broke",
            Self::Silent => "requests make no progress, and a new connection gets no answer",
            Self::ShuttingDown => "the sheep is shutting down",
            Self::NotASheep => "what listens there does not speak the Sheepdog protocol",
            Self::Behind => "the sheep is cut off: its cluster has gone on without it",
        }
    }
}

/// What an attached volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFacts {
    /// Its vid, a raw number.
    pub vid: u32,
    /// Bytes.
    pub size: u64,
    /// When the VDI was made, seconds << 32 | nanoseconds.
    pub create_time: u64,
    /// Replicas, or data and parity strips together.
    pub copies: u8,
    /// 0 replicated, else erasure coded.
    pub copy_policy: u8,
    /// log2 of the size of its objects.
    pub block_size_shift: u8,
    /// Number in the chain of its name.
    pub snap_id: u32,
    /// Whether it is a snapshot, and so read-only.
    pub snapshot: bool,
}

/// What a control file asks of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Query {
    /// For `cluster/info`.
    Cluster,
    /// For `node/list`.
    Nodes,
    /// For `node/info`.
    Space,
    /// For `vdi/list`.
    Vdis,
    /// For `statfs`: the sums only, which cost one request for each node.
    Totals,
}

/// The answer to a [`Query`]; travels encoded, in pieces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// Of [`Query::Cluster`].
    Cluster(ClusterReport),
    /// Of [`Query::Nodes`].
    Nodes(NodeReport),
    /// Of [`Query::Space`].
    Space(SpaceReport),
    /// Of [`Query::Vdis`].
    Vdis(Vec<VdiReport>),
    /// Of [`Query::Totals`].
    Totals {
        /// Bytes in all.
        size: u64,
        /// Bytes free.
        free: u64,
    },
}

impl Report {
    /// Encodes the report, to be cut into pieces.
    ///
    /// # Errors
    /// None that a report's types can cause; bincode's signature has one.
    pub fn encode(&self) -> Result<Vec<u8>, bincode::error::EncodeError> {
        bincode::serde::encode_to_vec(self, bincode::config::standard())
    }

    /// Decodes a report that came from a worker.
    ///
    /// # Errors
    /// When the bytes are not one whole report.
    pub fn decode(bytes: &[u8]) -> Result<Self, bincode::error::DecodeError> {
        let config = bincode::config::standard().with_limit::<{ 256 << 20 }>();
        let (report, used) = bincode::serde::decode_from_slice(bytes, config)?;
        if used == bytes.len() {
            Ok(report)
        } else {
            Err(bincode::error::DecodeError::Other("bytes follow the report"))
        }
    }
}
