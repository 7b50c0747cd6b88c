//! The kernel's numbers of requests that were read and not answered, for kernels that
//! can't deliver them again (before Linux 6.9): there a successor can only fail them,
//! since nobody would ever answer them otherwise.
//!
//! Where the kernel delivers them again nothing is recorded.

use crate::state::Slab;
use fuser::RequestId;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The recorded numbers.
#[derive(Debug, Default)]
pub struct Uniques {
    records: OnceLock<Mutex<Slab<1>>>,
}

/// One number, recorded for as long as this lives: to be dropped when the request is
/// answered.
#[derive(Debug, Default)]
pub struct Noted(Option<(Arc<Uniques>, usize)>);

impl Uniques {
    /// From now on numbers are recorded there.
    pub fn record(&self, records: Slab<1>) {
        // Only the first time counts, and there is only one.
        let _ = self.records.set(Mutex::new(records));
    }

    /// A request was read, and its answer will take some time.
    pub fn note(self: &Arc<Self>, RequestId(number): RequestId) -> Noted {
        let Some(records) = self.records.get() else { return Noted(None) };
        let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
        // Without room it is as with those that are answered at once.
        Noted(records.add([number]).map(|place| (Arc::clone(self), place)))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some((uniques, place)) = self.0.take()
            && let Some(records) = uniques.records.get()
        {
            records.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
        }
    }
}

/// Those that a predecessor left, and their neighbours: what it answers at once it does
/// not record, and may have been at. A number that is no unanswered request's is
/// nobody's, and failing it does nothing.
pub fn left(records: &mut Slab<1>) -> Vec<u64> {
    /// The kernel counts them in steps of two.
    const STEP: u64 = 2;
    /// More than there are threads that read.
    const NEIGHBOURS: u64 = 64;
    let all = records.records().all();
    let mut numbers: Vec<u64> = Vec::new();
    for (place, [number]) in all {
        let around = number.saturating_sub(NEIGHBOURS * STEP)..=number + NEIGHBOURS * STEP;
        numbers.extend(around.step_by(2));
        records.remove(place);
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    #[test]
    fn what_is_not_answered_is_left_with_its_neighbours() {
        let state = State::create().unwrap();
        let uniques = Arc::new(Uniques::default());
        drop(uniques.note(RequestId(2)));
        uniques.record(state.uniques());
        let (answered, waiting) = (uniques.note(RequestId(1000)), uniques.note(RequestId(5000)));
        drop(answered);
        let numbers = left(&mut state.uniques());
        assert!(numbers.contains(&5000) && numbers.contains(&5002) && !numbers.contains(&1000));
        assert!(numbers.iter().all(|number| number % 2 == 0));
        drop(waiting);
        assert!(left(&mut state.uniques()).is_empty());
    }
}
