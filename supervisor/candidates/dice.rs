//! A little chance, so that many mounts that lose one sheep don't all turn to the
//! same next one at the same moment. Seeded from outside, so that a test can throw
//! the same numbers again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A generator after Marsaglia, "Xorshift RNGs" (2003); never for anything secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        // The generator stays at 0 for ever.
        Self(seed.max(1))
    }

    /// A seed that two processes and two starts don't share.
    pub fn of_this_process() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = since.as_secs() ^ u64::from(since.subsec_nanos()) << 32;
        Self::new(seed ^ u64::from(std::process::id()) << 16)
    }

    /// A number below `limit`; 0 when that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        // It is below `limit`, which came from a usize.
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    /// `time`, half of it more or less.
    pub fn about(&mut self, time: Duration) -> Duration {
        // 2^10 steps are fine enough to tell hosts apart.
        let step = u32::try_from(self.next() % 1024).unwrap_or(0);
        time / 2 + time * step / 1024
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faces_come_and_none_beyond() {
        let mut dice = Dice::new(7);
        let mut seen = [0; 6];
        (0..1000).for_each(|_| seen[dice.below(6)] += 1);
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
        assert_eq!((dice.below(1), dice.below(0)), (0, 0));
        assert_eq!(Dice::new(0), Dice::new(1));
    }

    #[test]
    fn a_time_is_spread_by_half_to_both_sides() {
        let mut dice = Dice::new(7);
        let second = Duration::from_secs(1);
        let times: Vec<_> = (0..1000).map(|_| dice.about(second)).collect();
        let (low, high) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*low >= second / 2 && *low < second * 6 / 10, "{low:?}");
        assert!(*high < second * 3 / 2 && *high > second * 14 / 10, "{high:?}");
    }
}
