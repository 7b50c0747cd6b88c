//! What the supervisor and the worker say to each other.
//!
//! Two things are shared between the processes, both made by the supervisor and
//! inherited by the worker: a `SOCK_SEQPACKET` socketpair, where a datagram holds
//! whole messages, mostly one, and an arena, a piece of memory that holds the payload of reads
//! and writes. A message names a place in the arena; the bytes never travel.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`message`] | the messages, one type for each direction |
//! | [`failure`] | why something was not done, and its errno |
//! | [`errand`] | what may become of VDIs besides their data |
//! | [`channel`] | the socket, typed by direction |
//! | [`arena`] | the shared memory |
//! | [`route`] | whom requests for objects are sent to |
//! | [`slots`] | which parts of the arena are free; the supervisor's book |

pub mod arena;
pub mod channel;
pub mod errand;
pub mod failure;
pub mod inherited;
pub mod message;
pub mod route;
pub mod slots;

pub use arena::{Arena, RawSpan, Span};
pub use channel::{Channel, ChannelError, SupervisorEnd, WorkerEnd};
pub use errand::{Errand, Mark, NewShape};
pub use failure::Failure;
pub use message::{
    Allocation, CacheUsage, ClusterFacts, FromWorker, Gateways, Labels, Locking, LostReason, Query,
    QuietReason, Report, Search, SeekTarget, Tag, ToWorker, VolumeFacts, VolumeId,
};
pub use route::{Route, Routed};
pub use slots::Slots;
