//! When volumes count their objects (their `extents` module): a few at a time, and not
//! before it is certain what they would count.

use super::{Engine, Surroundings};
use crate::volume::Volume;

impl Engine {
    /// Nothing that an earlier worker has sent is carried out any more: what indexes say from
    /// now on changes by this worker's doing alone.
    pub fn orphans_are_over(&mut self, around: &mut Surroundings) {
        if !std::mem::replace(&mut self.orphans_over, true) {
            self.give_turns(around);
        }
    }

    /// Lets volumes count their objects, a few at a time.
    pub(super) fn give_turns(&mut self, around: &mut Surroundings) {
        if !self.orphans_over {
            return;
        }
        let volumes = &self.volumes;
        self.turns.keep(|id| volumes.get(&id).is_some_and(Volume::has_turn));
        while let Some(id) = self.turns.next() {
            self.deadlines.touch(id);
            let (mut io, volumes) = self.context(around);
            if let Some(volume) = volumes.get_mut(&id) {
                volume.take_turn(&mut io);
            }
        }
    }
}
