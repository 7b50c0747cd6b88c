//! What is held back until a test lets it go.
//!
//! Whoever holds something takes a place first, while the fault that wants it is looked at, and
//! fills it then. So what was counted as held is let go by the next decision, even when that
//! comes between the two.

use std::collections::BTreeMap;
use std::fmt;

use crate::minisheep::hooks::{Fate, Held, Side};

/// The places, in the order in which they were taken.
#[derive(Debug, Default)]
pub struct Places {
    next: u64,
    taken: BTreeMap<u64, Place>,
    /// Decided before they were filled.
    decided: BTreeMap<u64, Fate>,
}

struct Place {
    side: Side,
    held: Option<Held>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.side, if self.held.is_some() { "filled" } else { "empty" })
    }
}

impl Places {
    /// Takes a place.
    pub fn take(&mut self, side: Side) -> u64 {
        self.next += 1;
        self.taken.insert(self.next, Place { side, held: None });
        self.next
    }

    /// Fills it; gives back what is decided already.
    pub fn fill(&mut self, place: u64, held: Held) -> Option<(Held, Fate)> {
        if let Some(fate) = self.decided.remove(&place) {
            return Some((held, fate));
        }
        match self.taken.get_mut(&place) {
            Some(place) => {
                place.held = Some(held);
                None
            }
            None => Some((held, Fate::Goes)),
        }
    }

    /// Decides on all that is held, and gives it back in order.
    #[must_use]
    pub fn decide(&mut self, fate: Fate) -> Vec<Held> {
        let mut filled = Vec::new();
        for (number, place) in std::mem::take(&mut self.taken) {
            match place.held {
                Some(held) => filled.push(held),
                None => drop(self.decided.insert(number, fate)),
            }
        }
        filled
    }

    /// How many requests or replies are held.
    #[must_use]
    pub fn count(&self, side: Side) -> u64 {
        self.taken.values().map(|place| u64::from(place.side == side)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn all_that_has_a_place_goes_in_order_and_as_decided() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let held = |number: u32| -> Held {
            let told = Arc::clone(&told);
            Box::new(move |fate| told.lock().unwrap().push((number, fate)))
        };
        let mut places = Places::default();
        let numbers = [Side::Request, Side::Request, Side::Reply].map(|side| places.take(side));
        assert_eq!((places.count(Side::Request), places.count(Side::Reply)), (2, 1));
        assert!(places.fill(numbers[1], held(1)).is_none());
        assert!(places.fill(numbers[0], held(0)).is_none());
        places.decide(Fate::Goes).into_iter().for_each(|held| held(Fate::Goes));
        assert_eq!(*told.lock().unwrap(), [(0, Fate::Goes), (1, Fate::Goes)]);
        assert_eq!((places.count(Side::Request), places.count(Side::Reply)), (0, 0));
        assert!(places.decide(Fate::Forgotten).is_empty());
        let (late, fate) = places.fill(numbers[2], held(2)).unwrap();
        assert_eq!(fate, Fate::Goes, "decided before it came");
        late(fate);
        assert_eq!(told.lock().unwrap().len(), 3);
    }
}
