//! The nodes that a worker asks for objects directly, besides the sheep of its session:
//! all of them are gateways of the session, and changes may be lost at each.

use super::cause::Cause;
use super::life::Life;
use super::{Answer, Caller, Control};
use sheepfs::ipc::route::DIRECT_MAX;
use sheepfs::ipc::{LostReason, Route, ToWorker};
use std::net::SocketAddr;
use std::time::Instant;

impl Control {
    /// Requests for data are about to go to a node. It is in the state before the worker
    /// hears that they may.
    pub(super) fn opened(&mut self, node: SocketAddr, opening: u64) {
        if self.direct.len() >= DIRECT_MAX as usize {
            return tracing::error!(%node, "the worker asks more nodes directly than it may");
        }
        self.direct.insert(node);
        self.send(ToWorker::MayUse { opening });
    }

    /// A worker says that its sheep is gone, or a node that it asked directly.
    pub(super) fn gateway_lost(&mut self, node: SocketAddr, reason: LostReason, now: Instant) {
        if !self.direct.contains(&node) || node == self.candidates.current() {
            return self.lose(Cause::of(reason), now);
        }
        if !matches!(self.life, Life::Lost { .. }) {
            self.recovery.avoided.failed(node, now);
        }
        self.lose(Cause::NodeLost(node, reason), now);
    }

    /// Where requests of a session that is over may still run, its sheep first.
    pub(super) fn take_gateways(&mut self, sheep: Option<SocketAddr>) -> Vec<SocketAddr> {
        let direct = std::mem::take(&mut self.direct);
        self.shared.known().routed = Default::default();
        sheep.into_iter().chain(direct.into_iter().filter(|node| Some(*node) != sheep)).collect()
    }

    /// Whom objects are asked of from now on.
    pub(super) fn set_route(&mut self, route: Route, caller: Caller) {
        if self.route != route {
            tracing::info!(%route, "objects are asked for in another way");
            self.route = route;
            self.shared.known().route = route;
            self.send(ToWorker::SetRoute { route });
        }
        self.answer(caller, Answer::Done);
    }
}
