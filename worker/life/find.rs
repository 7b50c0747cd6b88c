//! Finding what a user wrote, which may mean several things: in order, the first one that
//! there is.

use super::{Action, Answer};
use sheepfs::ipc::Failure;
use sheepfs::wire::name::VdiRef;
use sheepfs::wire::{Request, VdiId};
use std::collections::VecDeque;

/// A search.
#[derive(Debug)]
pub struct Find {
    meanings: VecDeque<VdiRef>,
    missing: Failure,
}

impl Find {
    /// Any of these.
    pub fn new(meanings: Vec<VdiRef>) -> Self {
        Self { meanings: meanings.into(), missing: Failure::NoSuchVdi }
    }

    /// Asks for the next meaning.
    pub fn ask(&self) -> Result<Action, Failure> {
        let next = self.meanings.front().ok_or(self.missing)?;
        Ok(Action::Ask(Request::get_vdi_info(next)))
    }

    /// Takes the answer: what was found, and its vid. `None`: the next meaning is to be
    /// asked for.
    pub fn heard(&mut self, answer: &Answer) -> Result<Option<(VdiRef, VdiId)>, Failure> {
        if answer.is_missing() {
            self.missing = answer.failure();
            self.meanings.pop_front();
            return Ok(None);
        }
        let vid = answer.found()?;
        Ok(self.meanings.pop_front().map(|found| (found, vid)))
    }
}
