//! How a range that is to be cleared is cut into steps. Pure.
//!
//! The kernel may ask for a whole disk at once, and waits for one answer. A step is what
//! one message asks of a worker, what a fence covers and what a successor repeats: some
//! whole objects to be discarded, or a piece of one that is written as zeros.

use crate::inflight::{Kind, Request};

/// Objects of a step, so that it takes a moment and not minutes.
const OBJECTS_MAX: u64 = 64;
/// Bytes of a step with several objects; a length must fit in 32 bits.
const DISCARD_LEN_MAX: u64 = 1 << 30;
/// Bytes of zeros of a step: what the kernel writes at once.
const ZERO_LEN_MAX: u64 = 1 << 20;

/// What is left of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    at: u64,
    end: u64,
    /// Of the volume, whose last object may be short.
    size: u64,
    /// Whether a worker of an earlier process may have begun with any of it.
    pub again: bool,
}

impl Rest {
    /// All of a range, which ends within the volume.
    pub fn new(at: u64, end: u64, size: u64) -> Self {
        Self { at, end, size, again: false }
    }

    /// A discard up to the volume's end, which was not its end any more when the worker was
    /// told: what is not a whole object is written as zeros, wherever the end is now.
    pub fn of_grown(discard: Request, again: bool) -> Self {
        let end = discard.offset.saturating_add(u64::from(discard.len));
        Self { at: discard.offset, end, size: u64::MAX, again }
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.at >= self.end
    }

    /// The next step.
    pub fn next(&mut self, shift: u8) -> Option<(Kind, u64, u32)> {
        if self.is_over() {
            return None;
        }
        let (at, object_len) = (self.at, 1u64 << shift);
        let begin = at >> shift << shift;
        let object_end = begin.saturating_add(object_len).min(self.size);
        let (kind, stop) = if begin == at && object_end <= self.end {
            let whole = if self.end == self.size { self.end } else { self.end >> shift << shift };
            let objects = (DISCARD_LEN_MAX >> shift).clamp(1, OBJECTS_MAX);
            (Kind::Discard, whole.min(at.saturating_add(objects << shift)))
        } else {
            (Kind::Zero, object_end.min(self.end).min(at.saturating_add(ZERO_LEN_MAX)))
        };
        self.at = stop;
        Some((kind, at, u32::try_from(stop - at).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps(range: (u64, u64), size: u64, shift: u8) -> Vec<(Kind, u64, u32)> {
        let mut rest = Rest::new(range.0, range.1, size);
        std::iter::from_fn(|| rest.next(shift)).collect()
    }

    #[test]
    fn edges_are_zeros_and_the_rest_are_objects() {
        let (zero, discard) = (Kind::Zero, Kind::Discard);
        assert_eq!(
            steps((100, 3 * 4096 + 1), 1 << 20, 12),
            [(zero, 100, 3996), (discard, 4096, 8192), (zero, 12_288, 1)]
        );
        assert_eq!(steps((5000, 5001), 1 << 20, 12), [(zero, 5000, 1)]);
        // The last object is short, and whole.
        assert_eq!(steps((4096, 5000), 5000, 12), [(discard, 4096, 904)]);
        assert_eq!(steps((4096, 4999), 5000, 12), [(zero, 4096, 903)]);
    }

    #[test]
    fn the_last_object_of_a_volume_that_grew_is_not_whole() {
        let volume = sheepfs::ipc::VolumeId(1);
        let (offset, len, shift) = (4096, 5000, 12);
        let discard = Request { kind: Kind::Discard, volume, offset, len, shift };
        let mut rest = Rest::of_grown(discard, true);
        assert!(rest.again);
        let steps: Vec<_> = std::iter::from_fn(|| rest.next(shift)).collect();
        assert_eq!(steps, [(Kind::Discard, 4096, 4096), (Kind::Zero, 8192, 904)]);
    }

    #[test]
    fn steps_are_short_and_objects_of_any_size_are_whole() {
        let large = steps((0, 1 << 40), 1 << 40, 22);
        assert_eq!((large.len(), large[1]), (4096, (Kind::Discard, 256 << 20, 256 << 20)));
        let huge = steps((0, 5 << 31), 5 << 31, 31);
        assert!(huge.iter().all(|step| (step.0, step.2) == (Kind::Discard, 1 << 31)), "{huge:?}");
        assert_eq!(steps((1, 3 << 20), 1 << 30, 22).len(), 3);
    }

    proptest! {
        #[test]
        fn steps_cover_the_range_once_and_cut_no_object(
            (a, b, size) in (0u64..200_000, 0u64..200_000, 1u64..200_000), shift in 9u8..16,
        ) {
            let (at, end) = (a.min(b).min(size), a.max(b).min(size));
            let mut next = at;
            for (kind, offset, len) in steps((at, end), size, shift) {
                prop_assert_eq!(offset, next);
                prop_assert!(len > 0);
                next += u64::from(len);
                let object = 1u64 << shift;
                let whole = offset % object == 0 && (next % object == 0 || next == size);
                prop_assert_eq!(kind == Kind::Discard, whole);
            }
            prop_assert_eq!(next, end);
        }
    }
}
