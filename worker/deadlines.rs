//! When which volume wants a time step, so that a turn costs nothing for those that
//! don't: of a thousand attached volumes most are idle.
//!
//! A volume that was given something to do is only marked; when it wants to be woken is
//! asked once in a turn, however much it was given.

use sheepfs::ipc::VolumeId;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// The time steps that volumes wait for.
#[derive(Debug, Default)]
pub struct Deadlines {
    by_time: BTreeSet<(Instant, VolumeId)>,
    of: HashMap<VolumeId, Instant>,
    touched: BTreeSet<VolumeId>,
}

impl Deadlines {
    /// That volume may want another time step than before.
    pub fn touch(&mut self, id: VolumeId) {
        self.touched.insert(id);
    }

    /// Asks those that were touched; `wish` says what one wants, if it is there.
    pub fn settle(&mut self, wish: impl Fn(VolumeId) -> Option<Instant>) {
        for id in std::mem::take(&mut self.touched) {
            self.set(id, wish(id));
        }
    }

    fn set(&mut self, id: VolumeId, wish: Option<Instant>) {
        let before = match wish {
            Some(at) => self.of.insert(id, at),
            None => self.of.remove(&id),
        };
        if before == wish {
            return;
        }
        self.by_time.extend(wish.map(|at| (at, id)));
        if let Some(before) = before {
            self.by_time.remove(&(before, id));
        }
    }

    /// Volumes whose time has come, once nothing is touched. They count as touched then.
    pub fn due(&mut self, now: Instant) -> Vec<VolumeId> {
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
        let due: Vec<VolumeId> = due.collect();
        self.touched.extend(&due);
        due
    }

    /// The earliest; `wish` as for [`Self::settle`].
    pub fn next(&self, wish: impl Fn(VolumeId) -> Option<Instant>) -> Option<Instant> {
        let known = self.by_time.iter().find(|(_, id)| !self.touched.contains(id));
        let asked = self.touched.iter().filter_map(|id| wish(*id)).min();
        known.map(|(at, _)| *at).into_iter().chain(asked).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_who_was_touched_is_asked_and_only_who_is_due_is_woken() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::default();
        let nobody = |id| panic!("{id:?} was not touched");
        for id in [1, 2, 3, 1] {
            deadlines.touch(VolumeId(id));
        }
        deadlines.settle(|id| (id.0 != 2).then(|| at(10 * u64::from(id.0))));
        assert_eq!(deadlines.next(nobody), Some(at(10)));
        assert_eq!(deadlines.due(at(9)), []);
        assert_eq!(deadlines.due(at(10)), [VolumeId(1)]);
        let asked = std::cell::RefCell::new(Vec::new());
        deadlines.settle(|id| {
            asked.borrow_mut().push(id.0);
            Some(at(40))
        });
        assert_eq!(asked.take(), [1]);
        assert_eq!(deadlines.next(nobody), Some(at(30)));
        assert_eq!(deadlines.due(at(50)), [VolumeId(3), VolumeId(1)]);
        assert_eq!(deadlines.next(|id| (id.0 == 1).then_some(at(60))), Some(at(60)));
        deadlines.settle(|_| None);
        assert_eq!(deadlines.next(nobody), None);
    }
}
