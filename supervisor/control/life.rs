//! The life of the worker that has, or is to have, a sheep, and of its spare.
//!
//! ```text
//!                         ┌───── there is a spare: no process is started ─────┐
//!                         │                                                   │
//!             ┌─ Greeting ┴─ hello ──> Connecting ── connected ──> Resuming   │
//!             │      ^                   ^  │  ^                   volumes    │
//!             │      │        unreached: │  │  └──────────┐          │        │
//!             │  no spare     the next one  │ round       │          v        │
//!             │      │                      v in vain     │       Serving     │
//!             │      └──────────────── BackingOff         │          │ wish   │
//!             │                             ^             │          v        │
//!             v                             │             │      Draining     │
//!            Lost ── its process is gone ───┴─────────────┴──────────┼────────┘
//!             ^                                                      │
//!             └──── died, silent, sheep lost; drained ───────────────┘
//! ```
//!
//! A worker that was given an address and is not wanted any more is killed, and
//! nothing goes on before its process is known to be gone: two that may write
//! never live at once (hazard 4). The spare never had an address, so it may be
//! there at any time.

use super::heartbeat::Heartbeat;
use crate::settings::{SpareState, WorkerState};
use std::net::SocketAddr;
use std::time::Instant;

/// Where the worker in use is in its life. Each state carries what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its process was started and has not said hello.
    Greeting {
        /// Which worker.
        generation: u64,
        /// When it is too late for a hello.
        deadline: Instant,
    },
    /// It was told a sheep's address.
    Connecting {
        /// Which worker.
        generation: u64,
        /// When it is too late for an answer.
        deadline: Instant,
    },
    /// Its sheep answers; it was told of the volumes.
    Resuming {
        /// Which worker.
        generation: u64,
        /// When data flows without those that are missing.
        until: Instant,
    },
    /// Data flows.
    Serving {
        /// Which worker.
        generation: u64,
        /// Since when.
        since: Instant,
    },
    /// It is to be replaced: what it was told goes on, nothing new goes to it.
    Draining {
        /// Which worker.
        generation: u64,
        /// Since when data flowed.
        since: Instant,
        /// When it is replaced, drained or not.
        until: Instant,
    },
    /// It was killed. Its process may live still.
    Lost {
        /// Which worker.
        generation: u64,
        /// Where requests of it may still run, if it had a session.
        gateway: Option<SocketAddr>,
        /// What comes when it is gone.
        then: Then,
    },
    /// All candidates were tried in vain.
    BackingOff {
        /// When the next round begins.
        until: Instant,
        /// The worker that tried the last one, if it lives.
        worker: Option<u64>,
    },
    /// There is no worker and will be none.
    Stopped,
}

/// What comes when a lost worker is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The present candidate is tried at once.
    Try,
    /// There is a pause before.
    Pause,
}

impl Life {
    /// The worker that has an address, or is to get the next one.
    pub fn worker(self) -> Option<u64> {
        match self {
            Self::Greeting { generation, .. }
            | Self::Connecting { generation, .. }
            | Self::Resuming { generation, .. }
            | Self::Serving { generation, .. }
            | Self::Draining { generation, .. }
            | Self::Lost { generation, .. } => Some(generation),
            Self::BackingOff { worker, .. } => worker,
            Self::Stopped => None,
        }
    }

    /// Whether there is a session: the worker can be asked something.
    pub fn is_connected(self) -> bool {
        self.session().is_some()
    }

    /// The worker that has a session.
    pub fn session(self) -> Option<u64> {
        match self {
            Self::Resuming { generation, .. }
            | Self::Serving { generation, .. }
            | Self::Draining { generation, .. } => Some(generation),
            Self::Greeting { .. }
            | Self::Connecting { .. }
            | Self::Lost { .. }
            | Self::BackingOff { .. }
            | Self::Stopped => None,
        }
    }

    /// Since when data has flowed.
    pub fn serving_since(self) -> Option<Instant> {
        match self {
            Self::Serving { since, .. } | Self::Draining { since, .. } => Some(since),
            Self::Greeting { .. }
            | Self::Connecting { .. }
            | Self::Resuming { .. }
            | Self::Lost { .. }
            | Self::BackingOff { .. }
            | Self::Stopped => None,
        }
    }

    /// Whether it has said hello and must answer when asked.
    pub fn must_answer(self) -> bool {
        match self {
            Self::Connecting { .. }
            | Self::Resuming { .. }
            | Self::Serving { .. }
            | Self::Draining { .. } => true,
            Self::BackingOff { worker, .. } => worker.is_some(),
            Self::Greeting { .. } | Self::Lost { .. } | Self::Stopped => false,
        }
    }

    /// When something must happen.
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Greeting { deadline, .. } | Self::Connecting { deadline, .. } => Some(deadline),
            Self::Resuming { until, .. }
            | Self::Draining { until, .. }
            | Self::BackingOff { until, .. } => Some(until),
            Self::Serving { .. } | Self::Lost { .. } | Self::Stopped => None,
        }
    }

    /// As `config/status` shows it.
    pub fn shown(self) -> WorkerState {
        match self {
            Self::Greeting { .. } | Self::Connecting { .. } | Self::Resuming { .. } => {
                WorkerState::Starting
            }
            Self::Serving { .. } => WorkerState::Serving,
            Self::Draining { .. } => WorkerState::Draining,
            Self::Lost { .. } => WorkerState::Lost,
            Self::BackingOff { .. } => WorkerState::BackingOff,
            Self::Stopped => WorkerState::Stopped,
        }
    }
}

/// The worker that waits to take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// There is none, and none is started before that time.
    None {
        /// When one may be started.
        not_before: Instant,
    },
    /// Its process was started and has not said hello.
    Starting {
        /// Which.
        generation: u64,
        /// When it is too late for a hello.
        deadline: Instant,
    },
    /// It only waits for an address.
    Ready {
        /// Which.
        generation: u64,
        /// Whether it lives.
        beat: Heartbeat,
    },
    /// It was killed. Its process may live still.
    Ending {
        /// Which.
        generation: u64,
    },
}

impl Spare {
    /// Its process.
    pub fn worker(self) -> Option<u64> {
        match self {
            Self::None { .. } => None,
            Self::Starting { generation, .. }
            | Self::Ready { generation, .. }
            | Self::Ending { generation } => Some(generation),
        }
    }

    /// When something must happen, if one is wanted.
    pub fn deadline(self, wanted: bool) -> Option<Instant> {
        match self {
            Self::None { not_before } => Some(not_before).filter(|_| wanted),
            Self::Starting { deadline, .. } => Some(deadline),
            Self::Ready { beat, .. } => Some(beat.deadline()),
            Self::Ending { .. } => None,
        }
    }

    /// As `config/status` shows it.
    pub fn shown(self) -> SpareState {
        match self {
            Self::None { .. } | Self::Ending { .. } => SpareState::None,
            Self::Starting { .. } => SpareState::Starting,
            Self::Ready { .. } => SpareState::Ready,
        }
    }
}
