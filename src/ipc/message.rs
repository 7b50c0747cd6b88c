//! The messages between supervisor and worker.
//!
//! The types say who may say what: a [`ToWorker`] can't be sent by the worker.
//! Messages of the data path are small, under 64 bytes encoded; names and
//! reports make others longer. Everything that comes from the worker is an
//! allegation until the supervisor has checked it.
//!
//! - `to_worker` and `from_worker` have the messages of one direction each.
//! - `facts` has what they tell of: clusters, volumes, gateways.
//! - `report` and `search` have the questions of control files and of the tree of VDIs.

mod facts;
mod from_worker;
mod report;
mod search;
mod to_worker;

pub use facts::{
    Allocation, CacheUsage, ClusterFacts, Gateways, Labels, Locking, LostReason, QuietReason,
    SeekTarget, VolumeFacts,
};
pub use from_worker::FromWorker;
pub use report::{Query, Report};
pub use search::Search;
pub use to_worker::ToWorker;

use serde::{Deserialize, Serialize};

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
