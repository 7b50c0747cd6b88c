//! Where tests may step in.
//!
//! Every request asks the server's [`Hooks`] twice: before it is carried out and before it is
//! answered. In normal use they are [`NoHooks`], which lets everything pass; the control socket
//! brings others ([`super::faults`]).

use std::fmt::Debug;
use std::thread;
use std::time::Duration;

use super::sheep::Sheep;
use crate::wire::{RequestHeader, Status};

/// A time to let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub time: Duration,
    /// Which end of delays on request would be too early for this one; the hooks' business.
    pub since: u64,
}

/// What becomes of a request that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It is carried out.
    Go,
    /// It is carried out so much later, even if its connection is gone by then.
    Delay(Delay),
    /// Its connection is closed instead.
    Drop,
    /// It is answered so instead.
    Answer(Status),
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It is sent.
    Send,
    /// It is sent so much later.
    Delay(Delay),
    /// Its connection is closed instead.
    Drop,
    /// It is sent after the next answer on its connection, or after so long.
    Swap(Duration),
}

/// Something that may step in.
pub trait Hooks: Debug + Send + Sync {
    /// Whether any request may be touched; while not, short cuts may be taken.
    fn are_active(&self) -> bool {
        false
    }

    /// A request was received.
    fn before(&self, _sheep: &Sheep, _request: &RequestHeader) -> Before {
        Before::Go
    }

    /// A request was carried out.
    fn after(&self, _request: &RequestHeader) -> After {
        After::Send
    }

    /// Lets the time of a delay pass.
    fn pass(&self, delay: Delay) {
        thread::sleep(delay.time);
    }

    /// So many references are about to be given up: how long to put that off.
    fn put_off_reclaim(&self, _references: usize) -> Option<Delay> {
        None
    }
}

/// Nothing steps in.
#[derive(Clone, Copy, Debug)]
pub struct NoHooks;

impl Hooks for NoHooks {}
