//! Whether a lock that is refused is our own: an earlier worker may have sent the
//! request and not have lived to hear the answer. A second lock by ourselves is
//! refused like anybody's, and the owner of a lock is a node (protocol 13.3). So
//! when a node through which we asked holds it, it is ours.

use crate::verdict::{Verdict, on_object};
use sheepfs::ipc::Gateways;
use sheepfs::wire::cluster::{Lock, VdiState};
use sheepfs::wire::request::VDI_STATES_MAX;
use sheepfs::wire::{Request, Status, VdiId};
use std::net::SocketAddr;

/// Room for so many VDIs at first, as `dog` has it (protocol 12.7).
const RECORDS_FIRST: u32 = 512;

/// A search for the owner of a lock.
#[derive(Clone, Copy, Debug)]
pub struct OwnerSearch {
    gateways: Gateways,
    vid: VdiId,
    records: u32,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The question must be asked again, with more room.
    MoreRoom,
    /// The question must be asked again later.
    Later,
    /// The gateway through which we asked.
    Ours,
    /// Nobody by now: the lock may be asked for again.
    Nobody,
    /// That other node alone.
    Node(SocketAddr),
    /// Several nodes share it, or the cluster does not say.
    Other,
    /// The sheep is going.
    SheepGone,
}

impl OwnerSearch {
    /// Who holds the lock of `vid`: is it one of these?
    pub fn new(gateways: Gateways, vid: VdiId) -> Self {
        Self { gateways, vid, records: RECORDS_FIRST }
    }

    /// The question.
    pub fn question(&self) -> Request {
        Request::get_vdi_copies(self.records)
    }

    /// The VDI.
    pub fn vid(&self) -> VdiId {
        self.vid
    }

    /// Takes an answer.
    pub fn hear(&mut self, status: Status, bytes: &[u8]) -> Owner {
        if status == Status::BufferSmall && self.records < VDI_STATES_MAX {
            self.records *= 2;
            return Owner::MoreRoom;
        }
        match on_object(status) {
            Verdict::Done => self.find(bytes),
            Verdict::Retry => Owner::Later,
            Verdict::SheepGone => Owner::SheepGone,
            Verdict::Reload | Verdict::Recheck | Verdict::Fail(_) => Owner::Other,
        }
    }

    fn find(&self, bytes: &[u8]) -> Owner {
        let states = VdiState::decode_all(bytes).unwrap_or_default();
        let state = states.into_iter().find(|state| state.vid == self.vid.get());
        match state.map(|state| state.lock) {
            Some(Lock::Locked(owner)) if self.gateways.contains(owner.socket_addr()) => Owner::Ours,
            Some(Lock::Locked(owner)) => Owner::Node(owner.socket_addr()),
            Some(Lock::Shared(_)) => Owner::Other,
            Some(Lock::Unlocked) | None => Owner::Nobody,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::wire::cluster::{NodeId, ShareState};

    fn states(lock: Lock) -> Vec<u8> {
        let state = |vid, lock| VdiState {
            vid,
            nr_copies: 1,
            snapshot: false,
            deleted: false,
            copy_policy: 0,
            block_size_shift: 22,
            parent_vid: 0,
            lock,
        };
        [state(5, Lock::Unlocked).encode(), state(7, lock).encode()].concat()
    }

    #[test]
    fn the_lock_of_the_gateway_that_was_asked_is_ours() {
        let gateway = SocketAddr::from(([10, 0, 0, 1], 7000));
        let other = SocketAddr::from(([10, 0, 0, 1], 7001));
        let mut search =
            OwnerSearch::new(Gateways::default().with(gateway), VdiId::new(7).unwrap());
        let mut hear = |lock| search.hear(Status::Success, &states(lock));
        assert_eq!(hear(Lock::Locked(NodeId::new(gateway))), Owner::Ours);
        assert_eq!(hear(Lock::Locked(NodeId::new(other))), Owner::Node(other));
        let shared = vec![(NodeId::new(gateway), ShareState::Modified)];
        assert_eq!(hear(Lock::Shared(shared)), Owner::Other);
        assert_eq!(hear(Lock::Unlocked), Owner::Nobody);
    }

    #[test]
    fn room_grows_until_all_vdis_fit() {
        let gateway = SocketAddr::from(([10, 0, 0, 1], 7000));
        let mut search =
            OwnerSearch::new(Gateways::default().with(gateway), VdiId::new(7).unwrap());
        let first = search.question();
        assert_eq!(search.hear(Status::BufferSmall, &[]), Owner::MoreRoom);
        assert_eq!(search.question().reply_len_max(), 2 * first.reply_len_max());
        while search.hear(Status::BufferSmall, &[]) == Owner::MoreRoom {}
        assert_eq!(search.records, VDI_STATES_MAX);
    }
}
