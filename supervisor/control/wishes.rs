//! What the user asked for, and the state that a mount starts with. A successor's begins so
//! too, and is then told what its predecessor has left ([`super::succession`]).

use super::life::{Life, Spare};
use super::outage::{OnOutage, Outage};
use super::{
    Control, Heartbeat, Phase, Totals, failover, heartbeat, manage, poison, recover, waits,
};
use crate::candidates::Candidates;
use crate::settings::Shared;
use sheepfs::ipc::{Locking, Route};
use sheepfs::wire::name::VolumeName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the user asked for.
#[derive(Debug)]
pub struct Wishes {
    /// The sheep.
    pub candidates: Candidates,
    /// Volumes to attach before the mount is ready.
    pub attach: Vec<VolumeName>,
    /// Bytes of object cache when it is on.
    pub cache_len: u64,
    /// Whether it is on at first.
    pub cache_on: bool,
    /// How long a request may be on the wire without progress.
    pub io_timeout: Duration,
    /// Whom objects are asked of at first.
    pub route: Route,
    /// What becomes of requests while no sheep serves.
    pub on_outage: OnOutage,
    /// What an attach does about the cluster's lock.
    pub locking: Locking,
}

impl Control {
    /// At the very start; the first effect comes with the first [`Input::Tick`](super::Input::Tick).
    pub fn new(shared: Arc<Shared>, wishes: Wishes, now: Instant) -> Self {
        let attach: BTreeSet<VolumeName> = wishes.attach.into_iter().collect();
        let allocations = Arc::clone(shared.allocations());
        Self {
            volumes: Arc::clone(shared.volumes()),
            shared,
            candidates: wishes.candidates,
            phase: Phase::Starting { to_attach: attach.len() },
            attach_wished: attach.iter().cloned().collect(),
            attach_at_start: attach.into_iter().collect(),
            cache_len: wishes.cache_len,
            cache_on: wishes.cache_on,
            io_timeout: wishes.io_timeout,
            route: wishes.route,
            direct: BTreeSet::new(),
            locking: wishes.locking,
            life: Life::BackingOff { until: now, worker: None },
            beat: Heartbeat::new(heartbeat::EVERY_ACTIVE, now),
            spare: Spare::None { not_before: now },
            generation: 0,
            recovery: recover::Recovery::default(),
            guard: poison::Guard::default(),
            outage: Outage::new(wishes.on_outage),
            wishes: failover::Queue::default(),
            cluster: None,
            due: None,
            waits: waits::Waits::default(),
            last_volume: 0,
            absent: BTreeMap::new(),
            retry_at: None,
            replaced: BTreeSet::new(),
            allocations,
            lock_sent: BTreeMap::new(),
            locks_left: BTreeMap::new(),
            locked_through: BTreeMap::new(),
            repairing: BTreeMap::new(),
            fenced_until: None,
            begun_before: BTreeSet::new(),
            closing: Vec::new(),
            held: manage::Held::default(),
            totals: Totals::default(),
            effects: Vec::new(),
        }
    }
}
