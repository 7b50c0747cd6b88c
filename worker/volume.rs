//! An attached volume: its requests, cut into parts by object, and everything
//! that must be true when one of them is answered.
//!
//! A part runs when its index entry is known and nothing before it stands in the
//! way ([`objects`]). What it then sends follows from the entry (protocol 8.3):
//!
//! ```text
//!            entry 0            entry = own         entry = another vid
//!  read      zeros, at once     READ own            READ that vid's object
//!  write     CREATE, then       WRITE own           CREATE from that object,
//!            index update                           then index update
//! ```
//!
//! The index entry is set only after the create was answered, and the write is
//! answered only after the index entry was (protocol 8.4). A READONLY answer
//! means that somebody made a snapshot: the volume drains what is on the wire,
//! finds its new vid and goes on ([`reload`]); nobody above notices.

mod cached;
mod detach;
mod discard;
mod extents;
pub mod flush;
mod hole;
pub mod index;
mod intake;
pub mod objects;
mod pages;
mod parts;
mod readahead;
pub mod recent;
pub mod reload;
mod replies;
mod rest;
mod streams;
mod stripe;
mod timers;
pub mod tree;
mod updates;

use crate::context::Context;
use crate::engine::Waiter;
use discard::Discard;
use extents::Extents;
use flush::Barriers;
use index::{Index, Updates};
use intake::Op;
pub use intake::Transfer;
use objects::{ObjectQueue, PartId, State};
use recent::{Allocation, Recent};
use reload::Reload;
pub use replies::Wait;
use sheepfs::ipc::{Failure, Gateways, Labels, Tag, VolumeFacts, VolumeId};
use sheepfs::wire::VdiId;
use sheepfs::wire::btree::Limits;
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::VdiName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use streams::Streams;
use tree::TreeIndex;

/// How long a part waits when the cluster asks for patience (HALT, recovery).
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// How often in a row the volume's own questions may be refused for a reason that
/// waiting hardly heals, such as one bad answer of one disk.
const REFUSALS_MAX: u32 = 150;

/// What the worker's engine passes to a volume with each step.
pub type Io<'a> = Context<'a, Waiter>;

/// Whether parts may run.
#[derive(Debug)]
enum Phase {
    Serving,
    /// An errand wants nothing to be under way.
    Resting,
    /// The vid became a snapshot; what is on the wire is waited for.
    Draining,
    /// The new vid is being found.
    Reloading(Box<Reload>),
    /// The VDI is gone or lost to another client.
    Failed(Failure),
}

/// What an earlier worker left of a volume.
#[derive(Debug, Default)]
pub struct Former {
    /// What it allocated lately.
    pub allocations: Vec<Allocation>,
    /// Through whom it asked for the lock of a newer vid.
    pub lock_sent: Gateways,
    /// The block whose index entry it was repairing.
    pub repairing: Option<u32>,
    /// Whether the vid became a snapshot since.
    pub became_snapshot: bool,
}

/// An attached volume.
#[derive(Debug)]
pub struct Volume {
    id: VolumeId,
    name: VdiName,
    header: InodeHeader,
    own: VdiId,
    locked: Option<VdiId>,
    index: Index,
    /// Of a hyper volume: how pages are found, and entries written.
    tree: Option<Box<TreeIndex>>,
    updates: Updates,
    updates_delayed: Option<Instant>,
    objects: BTreeMap<u32, ObjectQueue>,
    ops: BTreeMap<Tag, Op>,
    discards: BTreeMap<Tag, Discard>,
    barriers: Barriers,
    recent: Recent,
    streams: Streams,
    extents: Extents,
    /// Bytes that its readers had under way by themselves lately.
    depth: u64,
    /// The gateway through which an earlier worker asked for the next vid's lock.
    lock_sent: Gateways,
    repairing: Option<u32>,
    /// Blocks whose entries, ours already, were written again.
    rewritten: BTreeSet<u32>,
    /// Blocks whose entries could not be written, or only somewhere.
    unsure: BTreeSet<u32>,
    /// How often in a row a page of the index was refused.
    refusals: u32,
    phase: Phase,
    /// Whether it is to rest as soon as it can.
    pausing: bool,
    detaching: Option<Tag>,
    /// Whether the header was looked at for the detach.
    looked: bool,
    next_part: u64,
    on_wire: usize,
}

impl Volume {
    /// A volume that was found, locked if `locked` says so, and checked.
    pub fn new(
        id: VolumeId,
        name: VdiName,
        own: VdiId,
        header: InodeHeader,
        locked: Option<VdiId>,
        now: Instant,
    ) -> Self {
        let hyper = header.is_hyper();
        Self {
            id,
            name,
            header,
            own,
            locked,
            index: Index::default(),
            tree: hyper.then(|| Box::new(TreeIndex::new(Limits::REAL))),
            updates: Updates::default(),
            updates_delayed: None,
            objects: BTreeMap::new(),
            ops: BTreeMap::new(),
            discards: BTreeMap::new(),
            barriers: Barriers::default(),
            recent: if hyper { Recent::off(now) } else { Recent::new(now) },
            streams: Streams::default(),
            extents: Extents::default(),
            depth: 0,
            lock_sent: Gateways::default(),
            repairing: None,
            rewritten: BTreeSet::new(),
            unsure: BTreeSet::new(),
            refusals: 0,
            phase: Phase::Serving,
            pausing: false,
            detaching: None,
            looked: false,
            next_part: 0,
            on_wire: 0,
        }
    }

    /// The volume as an earlier worker left it.
    pub fn resumed(mut self, former: Former, now: Instant) -> Self {
        self.recent.inherit(former.allocations, now);
        self.lock_sent = former.lock_sent;
        self.repairing = former.repairing;
        if former.became_snapshot {
            self.phase = Phase::Draining;
        }
        self
    }

    /// The supervisor was told of it: what does not wait for requests begins.
    pub fn begin(&mut self, io: &mut Io) {
        self.claim(io);
        self.say_stored(io);
        self.settle(io);
    }

    /// What the supervisor is told of it.
    pub fn facts(&self) -> VolumeFacts {
        VolumeFacts {
            vid: self.own.get(),
            size: self.header.vdi_size,
            create_time: self.header.create_time,
            copies: self.header.nr_copies,
            copy_policy: self.header.copy_policy,
            block_size_shift: self.header.block_size_shift,
            snap_id: self.header.snap_id,
            snapshot: self.header.is_snapshot(),
            hyper: self.header.is_hyper(),
            locked: self.locked.is_some(),
            labels: Labels {
                name: self.header.name.clone(),
                tag: self.header.tag.clone(),
                parent: self.header.parent_vdi_id,
            },
        }
    }

    fn state_of(&self, object: u32, part: PartId) -> Option<State> {
        self.objects.get(&object)?.state_of(part)
    }

    fn failure(&self) -> Option<Failure> {
        match self.phase {
            Phase::Failed(failure) => Some(failure),
            Phase::Serving | Phase::Resting | Phase::Draining | Phase::Reloading(_) => None,
        }
    }
}
