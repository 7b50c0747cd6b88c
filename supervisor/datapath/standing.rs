//! What others ask the data path: how it stands.

use super::{Counters, DataPath, KEPT_LEN_MAX};
use sheepfs::ipc::VolumeId;
use std::net::SocketAddr;
use std::time::Instant;

impl<R> DataPath<R> {
    /// How many requests wait for an answer, queued ones among them.
    pub fn in_flight(&self) -> usize {
        self.lock().table.len()
    }

    /// Whether nothing waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    /// How much the worker has begun and not ended: requests, also such that nobody
    /// waits for any more, and repairs of index entries.
    pub fn outstanding(&self) -> usize {
        let state = self.lock();
        state.outstanding + state.abandoned.len() + state.repairing.len()
    }

    /// Whether a write of that many bytes, were it to wait, could be cut.
    pub fn is_crowded(&self, len: usize) -> bool {
        self.lock().kept_len + len > KEPT_LEN_MAX
    }

    /// How it stands.
    pub fn counters(&self) -> Counters {
        self.lock().counters(Instant::now())
    }

    /// The gateways on which requests of lost workers may still run.
    pub fn watched(&self) -> Vec<SocketAddr> {
        self.lock().fences.gateways()
    }

    /// When [`DataPath::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().fences.deadline()
    }

    /// Whether changes to a volume may still run on an abandoned gateway.
    pub fn is_fenced(&self, volume: VolumeId) -> bool {
        self.lock().fences.any_of(volume)
    }
}
