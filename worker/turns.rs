//! Whose turn it is to do something that nobody waits for, so that thousands of volumes
//! that are attached at once do not all do it at once.

use sheepfs::ipc::VolumeId;
use std::collections::{BTreeSet, VecDeque};

/// So many do it at a time.
const RUNNING_MAX: usize = 2;

/// Volumes that want their turn, and those that have it.
#[derive(Debug, Default)]
pub struct Turns {
    waiting: VecDeque<VolumeId>,
    running: BTreeSet<VolumeId>,
}

impl Turns {
    /// One more wants its turn.
    pub fn wish(&mut self, volume: VolumeId) {
        self.waiting.push_back(volume);
    }

    /// The next one that has it, if there is room.
    pub fn next(&mut self) -> Option<VolumeId> {
        if self.running.len() >= RUNNING_MAX {
            return None;
        }
        let volume = self.waiting.pop_front()?;
        self.running.insert(volume);
        Some(volume)
    }

    /// Takes it from those that are done.
    pub fn keep(&mut self, goes_on: impl Fn(VolumeId) -> bool) {
        self.running.retain(|volume| goes_on(*volume));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_have_their_turn_and_all_come_to_it() {
        let mut turns = Turns::default();
        (0..5).for_each(|volume| turns.wish(VolumeId(volume)));
        let taken: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
        assert_eq!(taken, [VolumeId(0), VolumeId(1)]);
        turns.keep(|volume| volume == VolumeId(1));
        assert_eq!((turns.next(), turns.next()), (Some(VolumeId(2)), None));
        turns.keep(|_| false);
        assert_eq!(std::iter::from_fn(|| turns.next()).count(), 2);
    }
}
