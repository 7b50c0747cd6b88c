//! Where tests may step in.
//!
//! Every request asks its process's [`Hooks`] twice: before it is carried out, or forwarded by a
//! gateway, and before it is answered. In normal use they are [`NoHooks`], which lets everything
//! pass; the control socket brings others ([`super::faults`]).

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

/// What can be held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A request that was read.
    Request,
    /// The answer to one that was carried out.
    Reply,
}

/// What becomes of something that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Goes,
    /// It is forgotten, as if it had never been.
    Forgotten,
}

/// Something held back, to be told its fate.
pub type Held = Box<dyn FnOnce(Fate) + Send>;

/// What becomes of a request that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It is carried out.
    Go,
    /// It is carried out so much later, even if its connection is gone by then.
    Delay(Delay),
    /// It is held in this place, see [`Hooks::hold`], even if its connection is gone by then.
    Hold(u64),
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
    /// It is held in this place, see [`Hooks::hold`].
    Hold(u64),
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

    /// A request was received; `sheep` is who carries it out, if that is this process.
    fn before(&self, _sheep: Option<&Sheep>, _request: &RequestHeader) -> Before {
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

    /// Holds something in the place it was given, until somebody decides.
    fn hold(&self, _place: u64, held: Held) {
        held(Fate::Goes);
    }

    /// The process ends: nobody waits any longer, and what is held is forgotten.
    fn let_go(&self) {}

    /// So many references are about to be given up: how long to put that off.
    fn put_off_reclaim(&self, _references: usize) -> Option<Delay> {
        None
    }
}

/// Nothing steps in.
#[derive(Clone, Copy, Debug)]
pub struct NoHooks;

impl Hooks for NoHooks {}
