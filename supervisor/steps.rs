//! How a range that is to be cleared is cut into steps. Pure.
//!
//! The kernel may ask for a whole disk at once, and waits for one answer. A step is what
//! one message asks of a worker, what a fence covers and what a successor repeats: some
//! whole objects to be discarded, or a piece of one that is written as zeros. Where much
//! is left to be discarded, a seek for data comes first, and what is a hole before that is
//! left out: a large disk that is mostly empty takes the time of its data.

use crate::inflight::{Kind, Request, Sought};
use sheepfs::ipc::SeekTarget;

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
    /// Whether a worker of an earlier process may have begun with any of it. Then nothing is
    /// left out: what looks like a hole may still have to go.
    pub again: bool,
    /// Whether a seek went to where it is.
    looked: bool,
}

impl Rest {
    /// All of a range, which ends within the volume.
    pub fn new(at: u64, end: u64, size: u64) -> Self {
        Self { at, end, size, again: false, looked: false }
    }

    /// A discard up to the volume's end, which was not its end any more when the worker was
    /// told: what is not a whole object is written as zeros, wherever the end is now.
    pub fn of_grown(discard: Request, again: bool) -> Self {
        let end = discard.offset.saturating_add(u64::from(discard.len));
        Self { at: discard.offset, end, size: u64::MAX, again, looked: false }
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
            let objects = (DISCARD_LEN_MAX >> shift).clamp(1, OBJECTS_MAX);
            let (whole, stop) = (self.whole(shift), at.saturating_add(objects << shift));
            if stop < whole && !self.again && !self.looked {
                self.looked = true;
                return Some((Kind::Seek(SeekTarget::Data), at, 0));
            }
            (Kind::Discard, whole.min(stop))
        } else {
            (Kind::Zero, object_end.min(self.end).min(at.saturating_add(ZERO_LEN_MAX)))
        };
        (self.at, self.looked) = (stop, false);
        Some((kind, at, u32::try_from(stop - at).unwrap_or(u32::MAX)))
    }

    /// Where its last whole object ends.
    fn whole(&self, shift: u8) -> u64 {
        if self.end == self.size { self.end } else { self.end >> shift << shift }
    }

    /// Leaves out what the seek has found to be a hole.
    pub fn leave_out(&mut self, shift: u8, sought: Sought) {
        let whole = self.whole(shift);
        let data = match sought {
            Sought::Unsaid => self.at,
            Sought::Nowhere => whole,
            Sought::At(offset) => (offset >> shift << shift).min(whole),
        };
        if !self.again {
            self.at = self.at.max(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEEK: Kind = Kind::Seek(SeekTarget::Data);

    fn all_steps(range: (u64, u64), size: u64, shift: u8) -> Vec<(Kind, u64, u32)> {
        let mut rest = Rest::new(range.0, range.1, size);
        std::iter::from_fn(|| rest.next(shift)).collect()
    }

    /// Without the seeks.
    fn steps(range: (u64, u64), size: u64, shift: u8) -> Vec<(Kind, u64, u32)> {
        let mut steps = all_steps(range, size, shift);
        steps.retain(|step| step.0 != SEEK);
        steps
    }

    #[test]
    fn what_is_a_hole_is_left_out() {
        let (object, shift) = (1u64 << 22, 22);
        let of = |kind, at: u64, len: u32| Some((kind, at * object, len << shift));
        let mut rest = Rest::new(0, 1 << 40, 1 << 40);
        assert_eq!(rest.next(shift), of(SEEK, 0, 0));
        rest.leave_out(shift, Sought::At(1000 * object + 7));
        assert_eq!(rest.next(shift), of(Kind::Discard, 1000, 64));
        assert_eq!(rest.next(shift), of(SEEK, 1064, 0));
        // There is some where it is.
        rest.leave_out(shift, Sought::At(1064 * object));
        assert_eq!(rest.next(shift), of(Kind::Discard, 1064, 64));
        assert_eq!(rest.next(shift), of(SEEK, 1128, 0));
        // It could not be looked for.
        rest.leave_out(shift, Sought::Unsaid);
        assert_eq!(rest.next(shift), of(Kind::Discard, 1128, 64));
        assert_eq!(rest.next(shift), of(SEEK, 1192, 0));
        rest.leave_out(shift, Sought::Nowhere);
        assert!(rest.is_over());
    }

    #[test]
    fn what_is_no_whole_object_is_zeroed_wherever_data_is() {
        let (object, shift) = (1u64 << 22, 22);
        for sought in [Sought::Nowhere, Sought::At(150 * object)] {
            let mut rest = Rest::new(0, 100 * object + 5, 200 * object);
            assert_eq!(rest.next(shift), Some((SEEK, 0, 0)));
            rest.leave_out(shift, sought);
            assert_eq!(rest.next(shift), Some((Kind::Zero, 100 * object, 5)));
            assert!(rest.is_over());
        }
    }

    #[test]
    fn nothing_is_left_out_of_what_may_have_begun() {
        let mut rest = Rest::new(0, 1 << 40, 1 << 40);
        rest.again = true;
        assert_eq!(rest.next(22), Some((Kind::Discard, 0, 256 << 20)));
        let mut rest = Rest::new(0, 1 << 40, 1 << 40);
        assert_eq!(rest.next(22), Some((SEEK, 0, 0)));
        rest.again = true;
        rest.leave_out(22, Sought::Nowhere);
        assert_eq!(rest.next(22), Some((Kind::Discard, 0, 256 << 20)));
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
