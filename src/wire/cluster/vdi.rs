//! What a node remembers of each VDI, locks above all: the answer to GET_VDI_COPIES
//! (protocol 12.7, 13).

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::node::{NodeId, RawNodeId};
use super::{LayoutError, exactly};

/// Bytes of one record.
pub const VDI_STATE_LEN: usize = 1428;
/// The most nodes that can share a lock.
pub const PARTICIPANTS_MAX: usize = 31;

/// Who holds a VDI. Owners are nodes, not clients (protocol 13.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// Nobody.
    Unlocked,
    /// A client of this node.
    Locked(NodeId),
    /// Clients of these nodes together (protocol 13.5).
    Shared(Vec<(NodeId, ShareState)>),
}

/// What a sharer's node knows of the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShareState {
    /// It has changed it.
    Modified = 1,
    /// It has read it.
    Shared = 2,
    /// Somebody else changed it since.
    Invalidated = 3,
}

impl ShareState {
    fn from_wire(value: u32) -> Result<Self, LayoutError> {
        match value {
            1 => Ok(Self::Modified),
            2 => Ok(Self::Shared),
            3 => Ok(Self::Invalidated),
            found => Err(LayoutError::Value { what: "the state of a lock's participant", found }),
        }
    }
}

/// What a node remembers of one VDI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdiState {
    /// The VDI.
    pub vid: u32,
    /// Replicas, or data and parity strips.
    pub nr_copies: u8,
    /// It is a snapshot.
    pub snapshot: bool,
    /// It was deleted.
    pub deleted: bool,
    /// Its erasure code, 0 = none.
    pub copy_policy: u8,
    /// Log2 of its object size.
    pub block_size_shift: u8,
    /// The vid it was made from, or 0.
    pub parent_vid: u32,
    /// Who holds it.
    pub lock: Lock,
}

impl VdiState {
    /// Reads the payload of GET_VDI_COPIES.
    ///
    /// # Errors
    /// [`LayoutError`] when the payload is not a whole number of records, or a record has an
    /// unknown lock state or too many participants.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, LayoutError> {
        bytes.chunks(VDI_STATE_LEN).map(Self::decode).collect()
    }

    /// Reads one record.
    ///
    /// # Errors
    /// As [`VdiState::decode_all`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        let raw = exactly::<RawState>("the state of a VDI", bytes)?;
        Ok(Self {
            vid: raw.vid.get(),
            nr_copies: raw.nr_copies,
            snapshot: raw.snapshot != 0,
            deleted: raw.deleted != 0,
            copy_policy: raw.copy_policy,
            block_size_shift: raw.block_size_shift,
            parent_vid: raw.parent_vid.get(),
            lock: raw.lock()?,
        })
    }

    /// The 1428 bytes of this record; participants beyond [`PARTICIPANTS_MAX`] are left out.
    #[must_use]
    pub fn encode(&self) -> [u8; VDI_STATE_LEN] {
        let mut raw = RawState::new_zeroed();
        raw.vid = U32::new(self.vid);
        raw.nr_copies = self.nr_copies;
        raw.snapshot = self.snapshot.into();
        raw.deleted = self.deleted.into();
        raw.copy_policy = self.copy_policy;
        raw.block_size_shift = self.block_size_shift;
        raw.parent_vid = U32::new(self.parent_vid);
        raw.set_lock(&self.lock);
        zerocopy::transmute!(raw)
    }
}

/// The layout of protocol 12.7.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawState {
    vid: U32,
    nr_copies: u8,
    snapshot: u8,
    deleted: u8,
    copy_policy: u8,
    block_size_shift: u8,
    pad: [u8; 3],
    parent_vid: U32,
    lock_state: U32,
    owner: RawNodeId,
    nr_participants: U32,
    states: [U32; PARTICIPANTS_MAX],
    participants: [RawNodeId; PARTICIPANTS_MAX],
}

const _: () = assert!(size_of::<RawState>() == VDI_STATE_LEN);

const UNLOCKED: u32 = 1;
const LOCKED: u32 = 2;
const SHARED: u32 = 3;

impl RawState {
    fn lock(&self) -> Result<Lock, LayoutError> {
        match self.lock_state.get() {
            UNLOCKED => Ok(Lock::Unlocked),
            LOCKED => Ok(Lock::Locked(self.owner.into())),
            SHARED => self.sharers().map(Lock::Shared),
            found => Err(LayoutError::Value { what: "the state of a lock", found }),
        }
    }

    fn sharers(&self) -> Result<Vec<(NodeId, ShareState)>, LayoutError> {
        let found = self.nr_participants.get();
        let count = usize::try_from(found).ok().filter(|n| *n <= PARTICIPANTS_MAX);
        let count = count.ok_or(LayoutError::Count {
            what: "a shared lock",
            most: PARTICIPANTS_MAX,
            found: found.into(),
        })?;
        let sharers = self.participants.iter().zip(&self.states).take(count);
        sharers
            .map(|(id, state)| Ok((NodeId::from(*id), ShareState::from_wire(state.get())?)))
            .collect()
    }

    fn set_lock(&mut self, lock: &Lock) {
        match lock {
            Lock::Unlocked => self.lock_state = U32::new(UNLOCKED),
            Lock::Locked(owner) => {
                self.lock_state = U32::new(LOCKED);
                self.owner = (*owner).into();
            }
            Lock::Shared(sharers) => self.set_sharers(sharers),
        }
    }

    fn set_sharers(&mut self, sharers: &[(NodeId, ShareState)]) {
        self.lock_state = U32::new(SHARED);
        let places = self.participants.iter_mut().zip(&mut self.states);
        for ((id, state), (raw_id, raw_state)) in sharers.iter().zip(places) {
            *raw_id = (*id).into();
            *raw_state = U32::new(*state as u32);
            self.nr_participants += 1;
        }
    }
}
