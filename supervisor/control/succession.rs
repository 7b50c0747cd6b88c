//! What the control loop leaves to a successor of this process, and how it goes on
//! where a predecessor was ended: as after the death of a worker, since the worker
//! died with that one.
//!
//! What was under way is either left to the kernel, which delivers the request for
//! it again, or goes on by itself: a volume that was to be detached still is. A lock
//! that was asked for, and of which no answer is known, is remembered as one that may
//! be ours.

use super::departed::Departed;
use super::life::Life;
use super::waits::{Gone, Work};
use super::{Control, Effect, Phase, Wishes};
use crate::settings::Shared;
use crate::state::{Clock, SavedControl, SavedVolume};
use crate::volumes::Volume;
use sheepfs::ipc::{Gateways, VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Control {
    /// What a successor must know.
    pub fn saved(&self) -> SavedControl {
        let volumes = self.volumes.all();
        let volumes = volumes
            .iter()
            .map(|volume| self.saved_volume(volume.id, &volume.name, volume.ino, volume.facts()));
        let detaching = self
            .waits
            .detaches()
            .map(|gone| self.saved_volume(gone.id, &gone.name, 0, gone.facts.clone()));
        let sent = self.waits.attaches().filter_map(|(id, name)| {
            self.lock_sent.get(&id).map(|gateways| (name.clone(), *gateways))
        });
        let left = self.locks_left.iter().map(|(name, gateways)| (name.clone(), *gateways));
        let (configured, members) = self.candidates.known();
        let (session, clock) = (self.last_session(), Clock::read());
        SavedControl {
            volumes: volumes.collect(),
            detaching: detaching.collect(),
            last_volume: self.last_volume,
            generation: self.generation,
            session,
            sheep: Some(self.candidates.current()),
            configured: configured.to_vec(),
            members: members.to_vec(),
            cluster: self.cluster,
            page_cache: self.shared.page_cache(),
            object_cache: self.cache_on,
            locks_left: left.chain(sent).collect(),
            left: self
                .recovery
                .departed
                .saved()
                .map(|(at, when)| (at, clock.number(when)))
                .collect(),
            attach: self.attach_wished.clone(),
            direct: self.direct.iter().copied().collect(),
            route: self.route,
            errands: self.saved_errands(),
            errands_held: self.watched().collect(),
        }
    }

    /// The worker whose requests may be on the wire, and where.
    fn last_session(&self) -> Option<(u64, SocketAddr)> {
        match self.life {
            Life::Connecting { generation, .. }
            | Life::Resuming { generation, .. }
            | Life::Serving { generation, .. }
            | Life::Draining { generation, .. } => Some((generation, self.candidates.current())),
            Life::Lost { generation, gateway, .. } => Some((generation, gateway?)),
            Life::Greeting { .. } | Life::BackingOff { .. } | Life::Stopped => None,
        }
    }

    fn saved_volume(
        &self,
        id: VolumeId,
        name: &VolumeName,
        ino: u64,
        facts: VolumeFacts,
    ) -> SavedVolume {
        SavedVolume {
            id,
            name: name.clone(),
            ino,
            facts,
            lock_sent: self.lock_sent.get(&id).copied(),
            locked_through: self.locked_through.get(&id).copied(),
            repairing: self.repairing.get(&id).copied(),
            replaced: self.replaced.contains(&id),
        }
    }

    /// Goes on where a predecessor was ended, with its volumes in the tree already
    /// ([`volumes_of`]). The sheep is the one that it used, unless `own_sheep`: then
    /// it can only be the one that was started by us.
    pub fn taking_over(
        shared: Arc<Shared>,
        wishes: Wishes,
        saved: SavedControl,
        (own_sheep, fence_time): (bool, Option<Duration>),
        now: Instant,
    ) -> Self {
        let session = saved.gateways().map(|(_, all)| all).unwrap_or_default();
        let mut control = Self::new(shared, wishes, now);
        control.phase = Phase::Running;
        control.generation = saved.generation;
        control.last_volume = saved.last_volume;
        control.cluster = saved.cluster;
        control.cache_on = saved.object_cache;
        control.route = saved.route;
        control.locks_left = saved.locks_left.into_iter().collect();
        if let Some(sheep) = saved.sheep.filter(|_| !own_sheep) {
            control.candidates.inherit(sheep, &saved.configured, &saved.members);
        }
        // What was wished for before, and is not there, was detached on purpose.
        control.attach_at_start.retain(|name| !saved.attach.contains(name));
        for volume in &saved.volumes {
            control.inherit_volume(volume);
            control.attach_at_start.retain(|name| *name != volume.name);
            if volume.replaced {
                control.effects.push(Effect::VolumeReplaced(volume.id));
            }
        }
        for volume in &saved.detaching {
            control.inherit_volume(volume);
            let SavedVolume { id, name, facts, .. } = volume.clone();
            control.begun_before.insert(name.clone());
            let gone = Gone { id, name, facts };
            let work = Work::Detach { gone, is_there: false, then: Vec::new() };
            control.waits.add(work, Vec::new(), now);
        }
        let held = (&saved.errands_held[..], &session[..]);
        control.inherit_errands(saved.errands, held, fence_time, now);
        let clock = Clock::read();
        let left = saved.left.iter().map(|(gateway, at)| (*gateway, clock.instant(*at)));
        control.inherit_loss(Departed::inherited(&session, left, now), now);
        control.publish();
        control
    }

    fn inherit_volume(&mut self, volume: &SavedVolume) {
        let SavedVolume { id, name, lock_sent, locked_through, repairing, replaced, .. } = volume;
        let keep = |gateways: &Option<Gateways>| gateways.map(|gateways| (*id, gateways));
        self.lock_sent.extend(keep(lock_sent));
        self.locked_through.extend(keep(locked_through));
        self.repairing.extend(repairing.map(|block| (*id, block)));
        if *replaced {
            self.replaced.insert(*id);
        }
        self.effects.push(Effect::VolumeAttached(*id, name.clone()));
    }
}

/// The volumes of a predecessor's tree.
pub fn volumes_of(saved: &SavedControl) -> impl Iterator<Item = Arc<Volume>> {
    saved.volumes.iter().map(|volume| Arc::new(Volume::restored(volume)))
}
