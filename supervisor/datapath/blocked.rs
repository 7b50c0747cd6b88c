//! Who waits for what, of those that could not even queue.
//!
//! They hold nobody else up: what is not in their way overtakes them.

use crate::fence::Object;
use sheepfs::ipc::{Tag, VolumeId};
use std::collections::BTreeMap;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// The answer to another write, which it overlaps.
    Write(Tag),
    /// The fences of an object.
    Fence(Object),
    /// A volume that the worker does not have yet.
    Volume(VolumeId),
}

/// All that wait so, by what for.
#[derive(Debug, Default)]
pub struct Blocked {
    waiting: BTreeMap<Blocker, Vec<Tag>>,
    len: usize,
}

impl Blocked {
    /// One more waits.
    pub fn add(&mut self, blocker: Blocker, tag: Tag) {
        self.waiting.entry(blocker).or_default().push(tag);
        self.len += 1;
    }

    /// What they waited for is over: takes them out, in the order they came.
    pub fn wake(&mut self, blocker: Blocker) -> Vec<Tag> {
        let woken = self.waiting.remove(&blocker).unwrap_or_default();
        self.len -= woken.len();
        woken
    }

    /// One does not wait any more.
    pub fn remove(&mut self, tag: Tag) {
        self.waiting.retain(|_, tags| {
            let before = tags.len();
            tags.retain(|waiting| *waiting != tag);
            self.len -= before - tags.len();
            !tags.is_empty()
        });
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }
}
