//! Volumes outlive their worker: the next one attaches them again, under the same
//! ids, with the locks that are ours already. What comes back under a volume's
//! name must be the same VDI, or it is never shown (hazard 10).

use super::volume::{VOLUME_TIME, are_plausible};
use super::waits::Work;
use super::{Control, Refusal};
use crate::volumes::Volume;
use sheepfs::ipc::{Failure, ToWorker, VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::time::{Duration, Instant};

/// The pause before a volume is tried again that a new worker could not attach.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

impl Control {
    /// Asks the worker for the volumes that it does not have.
    pub(super) fn reattach(&mut self, now: Instant) {
        self.retry_at = None;
        for volume in self.volumes.all() {
            let wanted = self.absent.contains(&volume.id) && !self.replaced.contains(&volume.id);
            if wanted && !self.waits.reattaches(volume.id) {
                self.reattach_one(&volume, now);
            }
        }
    }

    fn reattach_one(&mut self, volume: &Volume, now: Instant) {
        let (id, name, facts) = (volume.id, volume.name.clone(), volume.facts());
        let held_lock = if facts.snapshot { 0 } else { facts.vid };
        let work = Work::Reattach { id, name: name.clone() };
        let tag = self.waits.add(work, Vec::new(), now + VOLUME_TIME);
        self.send(ToWorker::Attach { tag, volume: id, name, held_lock, continues: true });
    }

    /// A new worker has the volume; whether it is the same VDI still must be seen
    /// (hazard 10).
    pub(super) fn came_back(
        &mut self,
        id: VolumeId,
        name: VolumeName,
        facts: VolumeFacts,
        now: Instant,
    ) {
        let Some(volume) = self.volumes.by_id(id) else {
            return self.detach_now(id, name, Vec::new(), now);
        };
        if are_plausible(&facts) && is_same_vdi(&volume.facts(), &facts) {
            // The size that was announced stays, as on a block device.
            volume.set_facts(VolumeFacts { size: volume.size(), ..facts });
            self.absent.remove(&id);
            tracing::info!(%name, "attached again");
        } else {
            self.replaced.insert(id);
            self.note(&format!("attach {name} again"), &Failure::Replaced);
            self.detach_now(id, name, Vec::new(), now);
        }
    }

    pub(super) fn still_absent(
        &mut self,
        name: &VolumeName,
        outcome: Result<(), Failure>,
        now: Instant,
    ) {
        let why = outcome.err().unwrap_or(Failure::BadAnswer);
        let what = format!("attach {name} again");
        let words = format!("{what}: {why}");
        if self.shared.known().last_error.as_deref() != Some(&words) {
            self.note(&what, &why);
        }
        self.retry_at = Some(now + RETRY_PAUSE);
    }

    /// Somebody made a snapshot of a volume's VDI, and the worker followed.
    pub(super) fn moved(&mut self, id: VolumeId, facts: VolumeFacts) {
        let Some(volume) = self.volumes.by_id(id) else { return };
        let before = volume.facts();
        if are_plausible(&facts) && facts.size == before.size && facts.snapshot == before.snapshot {
            tracing::info!(name = %volume.name, from = before.vid, to = facts.vid, "followed the VDI to its new vid");
            volume.set_facts(facts);
        } else {
            self.note(&format!("follow {} to its new vid", volume.name), &Refusal::BadFacts);
        }
    }
}

/// Whether a VDI that came back under its name is the one that it was. A vid that
/// stays has one time of creation; each snapshot moves the name to a new vid and
/// counts one up, and the worker has made sure that it descends from the old one.
/// It may have grown meanwhile.
fn is_same_vdi(before: &VolumeFacts, after: &VolumeFacts) -> bool {
    let same_shape = before.size <= after.size && before.snapshot == after.snapshot;
    let same_vid = before.vid == after.vid && before.create_time == after.create_time;
    let next_vid = before.vid != after.vid && !after.snapshot && after.snap_id > before.snap_id;
    same_shape && (same_vid || next_vid)
}
