//! What the data path leaves to a successor of this process, and goes on with.
//!
//! Requests themselves are the kernel's, which delivers them again. They wait for the
//! fences that the death of the worker has left: what the worker had said of them and
//! nobody had read is not known, so none of them counts as a mere repetition.

use super::DataPath;
use crate::fence::Object;
use crate::state::SavedFences;
use sheepfs::ipc::VolumeId;
use sheepfs::wire::name::VolumeName;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longer than the kernel's queue takes to be read when all is delivered again. A write
/// that is taken for one of those costs one more index update at most.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(30);

impl<R> DataPath<R> {
    /// Goes on where a predecessor of this process was ended. `session` is its last
    /// worker that had an address, and all its gateways; `repairing` are objects whose index
    /// entries that one was at.
    pub fn take_over(
        &self,
        fences: &[SavedFences],
        session: Option<(u64, Vec<SocketAddr>)>,
        repairing: &[Object],
        now: Instant,
    ) {
        let mut state = self.lock();
        state.fences.restore(fences);
        state.unsure_until = Some(now + DELIVERY_TIME_MAX);
        let strange = state.told.others_than(session.as_ref().map(|(generation, _)| *generation));
        if strange > 0 {
            tracing::debug!(
                requests = strange,
                "the process before had told workers of requests that are fenced already"
            );
        }
        if let Some((generation, gateways)) = session {
            let told = state.told.left_by(generation);
            for object in told.iter().chain(repairing) {
                state.fences.add(*object, &gateways, generation, now);
            }
        }
    }

    /// Volumes with fences, for a successor.
    pub fn fenced_names(&self) -> Vec<(VolumeName, VolumeId)> {
        let state = self.lock();
        let fenced = state.names.iter().filter(|(_, volume)| state.fences.any_of(**volume));
        fenced.map(|(name, volume)| (name.clone(), *volume)).collect()
    }

    /// The fences, for a successor.
    pub fn saved_fences(&self) -> Vec<SavedFences> {
        self.lock().fences.saved()
    }
}
