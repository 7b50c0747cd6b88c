//! What the snapshot holds: everything that a successor must know and can't ask
//! anybody for. Plain data; what each part means is said where it is used.
//!
//! Times are milliseconds since the machine was started ([`super::Clock`]).

use crate::session::Handshake;
use crate::settings::Swaps;
use serde::{Deserialize, Serialize};
use sheepfs::ipc::{Errand, Gateways, Mark, Route, VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::net::SocketAddr;
use std::path::PathBuf;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The mount; `None` until it is there.
    pub mount: Option<SavedMount>,
    /// The control loop's.
    pub control: SavedControl,
    /// Fences.
    pub fences: Vec<SavedFences>,
    /// Volumes with fences, by name: a VDI that is attached again goes on under them.
    pub names: Vec<(VolumeName, VolumeId)>,
    /// Processes that may hold a connection to a sheep, and a minisheep of our own.
    pub workers: Vec<SavedProcess>,
    /// Answers that were given to control writes lately, by the kernel's number.
    pub answered: Vec<(u64, i32)>,
    /// How often a successor took over.
    pub takeovers: u64,
    /// How often a worker was replaced.
    pub swaps: Swaps,
}

/// The mount, and what was agreed with the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedMount {
    /// Where.
    pub point: PathBuf,
    /// The kernel's number of the mount.
    pub id: u64,
    /// Its device number.
    pub device: String,
    /// Whether `fusermount3` made it.
    pub by_helper: bool,
    /// What was agreed with the kernel.
    pub handshake: Handshake,
}

/// The control loop's part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedControl {
    /// The volumes of the tree.
    pub volumes: Vec<SavedVolume>,
    /// Volumes that are out of the tree, and whose locks are to be released.
    pub detaching: Vec<SavedVolume>,
    /// The newest volume's number.
    pub last_volume: u32,
    /// The newest worker's number.
    pub generation: u64,
    /// The worker that was told an address, and which.
    pub session: Option<(u64, SocketAddr)>,
    /// The sheep in use, or tried.
    pub sheep: Option<SocketAddr>,
    /// Addresses that the user wished for.
    pub configured: Vec<SocketAddr>,
    /// The cluster's nodes.
    pub members: Vec<SocketAddr>,
    /// When the cluster was formatted.
    pub cluster: Option<u64>,
    /// Whether volumes use the kernel's page cache.
    pub page_cache: bool,
    /// Whether the worker caches objects.
    pub object_cache: bool,
    /// The gateways of sessions that were lost lately, and when that was.
    pub left: Vec<(SocketAddr, u64)>,
    /// What was to be attached at the start.
    pub attach: Vec<VolumeName>,
    /// Locks that may be ours without a volume.
    pub locks_left: Vec<(VolumeName, Gateways)>,
    /// The gateways, besides its sheep, that the session may have sent changes to.
    pub direct: Vec<SocketAddr>,
    /// Whom objects are asked of.
    pub route: Route,
    /// Errands that have begun: the kernel's number of the request, what, and what it changes.
    pub errands: Vec<(u64, Errand, Mark)>,
    /// Gateways where requests of errands may still be under way.
    pub errands_held: Vec<SocketAddr>,
}

impl SavedControl {
    /// The worker that may have requests on the wire, and all gateways where they may be.
    pub fn gateways(&self) -> Option<(u64, Vec<SocketAddr>)> {
        let (generation, sheep) = self.session?;
        Some((generation, std::iter::once(sheep).chain(self.direct.iter().copied()).collect()))
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedVolume {
    /// Its number between the processes.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// Its inode number.
    pub ino: u64,
    /// What it was last.
    pub facts: VolumeFacts,
    /// Gateways through which a lock was asked for, of which no answer is known.
    pub lock_sent: Option<Gateways>,
    /// Gateways through which its lock was ever asked for.
    pub locked_through: Option<Gateways>,
    /// The block whose index entry is being repaired.
    pub repairing: Option<u32>,
    /// Whether its VDI is another now.
    pub replaced: bool,
}

/// The fences that one lost worker has left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedFences {
    /// Which worker.
    pub generation: u64,
    /// Where its orphans may run.
    pub gateways: Vec<SocketAddr>,
    /// Since when.
    pub since: u64,
    /// What they may change: volume and block.
    pub objects: Vec<(VolumeId, u32)>,
}

/// A process that is not to be confused with a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedProcess {
    /// Its number.
    pub pid: i32,
    /// When it was started, as proc_pid_stat(5) has it.
    pub started: u64,
}
