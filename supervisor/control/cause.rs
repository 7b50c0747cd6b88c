//! Why a worker is replaced, and what follows from that.

use crate::candidates::Order;
use crate::settings::Swap;
use sheepfs::ipc::LostReason;
use std::net::SocketAddr;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its process ended by itself, or was killed by somebody else.
    WorkerDied,
    /// It did not answer us.
    WorkerSilent,
    /// It said that its sheep is gone.
    SheepLost(LostReason),
    /// It said that requests make no progress at its sheep, nor does a probe.
    SheepSilent,
    /// Another sheep is wished for.
    Failover,
    /// It said that a node that it asked directly is gone, and changes with it. Its sheep
    /// is as good as before, as far as is known: others may have died with that node.
    NodeLost(SocketAddr, LostReason),
}

/// What is done after the loss of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Which candidates come first. `None`: the one that was wished for.
    pub order: Option<Order>,
    /// Whether it speaks against going on at once, when it happens again and again.
    pub counts: bool,
}

impl Cause {
    /// What a worker's last word means.
    pub fn of(reason: LostReason) -> Self {
        match reason {
            LostReason::Silent => Self::SheepSilent,
            LostReason::Refused
            | LostReason::Unreachable
            | LostReason::Disconnected
            | LostReason::ShuttingDown
            | LostReason::NotASheep
            | LostReason::Behind => Self::SheepLost(reason),
        }
    }

    /// When only our own process failed, its sheep is as good as before, and so it is when
    /// a node besides is lost: that one is not asked directly for a while
    /// ([`super::avoided`]). Which of a session's gateways are dead does not follow from
    /// the cause: all are asked ([`super::departed`]). Behind a
    /// connection that broke may be a sheep that was started again: trying costs
    /// nothing, since a dead one refuses at once. One that is silent would cost
    /// the whole time-out again, and one that shuts down, or is cut off, does so for some time.
    pub fn next(self) -> Next {
        match self {
            Self::WorkerDied | Self::WorkerSilent => {
                Next { order: Some(Order::SameFirst), counts: false }
            }
            Self::SheepLost(
                LostReason::Disconnected
                | LostReason::Refused
                | LostReason::Unreachable
                | LostReason::NotASheep,
            ) => Next { order: Some(Order::SameFirst), counts: true },
            Self::SheepLost(LostReason::ShuttingDown | LostReason::Silent | LostReason::Behind)
            | Self::SheepSilent => Next { order: Some(Order::SameLast), counts: true },
            Self::Failover => Next { order: None, counts: false },
            Self::NodeLost(..) => Next { order: Some(Order::SameFirst), counts: true },
        }
    }

    /// Under which name it is counted.
    pub fn swap(self) -> Swap {
        match self {
            Self::WorkerDied => Swap::WorkerDied,
            Self::WorkerSilent => Swap::WorkerSilent,
            Self::SheepLost(_) => Swap::SheepLost,
            Self::SheepSilent => Swap::SheepSilent,
            Self::Failover => Swap::Failover,
            Self::NodeLost(_, LostReason::Silent) => Swap::SheepSilent,
            Self::NodeLost(..) => Swap::SheepLost,
        }
    }

    /// Which node is at fault, if it is not the sheep of the session.
    pub fn node(self) -> Option<SocketAddr> {
        match self {
            Self::NodeLost(node, _) => Some(node),
            Self::WorkerDied
            | Self::WorkerSilent
            | Self::SheepLost(_)
            | Self::SheepSilent
            | Self::Failover => None,
        }
    }

    /// For the log, as the whole of a clause.
    pub fn words(self) -> &'static str {
        match self {
            Self::WorkerDied => "the worker ended without a word",
            Self::WorkerSilent => "the worker does not answer",
            Self::SheepLost(reason) | Self::NodeLost(_, reason) => reason.words(),
            Self::SheepSilent => LostReason::Silent.words(),
            Self::Failover => "another sheep is wished for",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_sheep_comes_first_unless_it_is_the_one_at_fault() {
        let first = |cause: Cause| cause.next().order == Some(Order::SameFirst);
        assert!(first(Cause::WorkerDied) && first(Cause::WorkerSilent));
        assert!(first(Cause::of(LostReason::Disconnected)));
        assert!(!first(Cause::of(LostReason::ShuttingDown)));
        assert!(!first(Cause::of(LostReason::Behind)));
        assert!(!first(Cause::of(LostReason::Silent)));
        assert_eq!(Cause::of(LostReason::Silent), Cause::SheepSilent);
        assert_eq!(Cause::Failover.next().order, None);
    }
}
