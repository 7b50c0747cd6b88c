//! Which bytes of a volume are being written: the ranges of all writes that a
//! worker was told of and that are not answered.
//!
//! A write that overlaps an unanswered one is not sent before that is answered. So
//! the ranges here never overlap, and whatever order a replay takes, now or after
//! another crash, ends in the same bytes (hazard 5). Ranges are widened to the
//! stripes of erasure-coded objects, of which two writes must not share one
//! (protocol 6.1); for the others that costs nothing worth telling apart. A discard's is
//! widened to the whole of its objects, since it removes all of each: the volume may grow
//! while its last, short object is discarded, and a write behind the old end would wait for
//! that in the worker, and pass for something that was on the wire when the worker dies.

use crate::inflight::{Kind, Request};
use sheepfs::ipc::{Tag, VolumeId};
use std::collections::BTreeMap;

/// The unit in which erasure-coded objects are written.
const STRIPE_LEN: u64 = 512;

/// The claimed ranges, by where each begins.
#[derive(Debug, Default)]
pub struct Claims {
    by_start: BTreeMap<(VolumeId, u64), (u64, Tag)>,
}

impl Claims {
    /// Claims the range of a write. It must be free, or this write's already.
    pub fn claim(&mut self, request: Request, tag: Tag) {
        let (start, end) = range(request);
        self.by_start.insert((request.volume, start), (end, tag));
    }

    /// Gives a write's range back, if it has it.
    pub fn give_back(&mut self, request: Request, tag: Tag) {
        let key = (request.volume, range(request).0);
        if self.by_start.get(&key).is_some_and(|(_, owner)| *owner == tag) {
            self.by_start.remove(&key);
        }
    }

    /// Another write that has a part of this one's range; `tag` is this one's, if
    /// it has one yet.
    pub fn in_the_way(&self, request: Request, tag: Option<Tag>) -> Option<Tag> {
        let (start, end) = range(request);
        let below = self.by_start.range((request.volume, 0)..(request.volume, end));
        // They don't overlap each other, so only the last of those that begin
        // before our end can reach into our range, unless it is our own.
        let mut reaching = below.rev().take_while(|(_, (their_end, _))| *their_end > start);
        reaching.find(|(_, (_, owner))| Some(*owner) != tag).map(|(_, (_, owner))| *owner)
    }
}

fn range(request: Request) -> (u64, u64) {
    let end = request.offset.saturating_add(u64::from(request.len));
    let unit = match request.kind {
        Kind::Discard => STRIPE_LEN.max(1 << request.shift),
        Kind::Read | Kind::Write | Kind::Flush | Kind::Zero | Kind::Copy { .. } | Kind::Seek(_) => {
            STRIPE_LEN
        }
    };
    (request.offset / unit * unit, end.div_ceil(unit).saturating_mul(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(volume: u32, offset: u64, len: u32) -> Request {
        Request { kind: Kind::Write, volume: VolumeId(volume), offset, len, shift: 22 }
    }

    #[test]
    fn a_shared_stripe_is_in_the_way_and_a_neighbour_is_not() {
        let mut claims = Claims::default();
        claims.claim(write(1, 1000, 100), Tag(1));
        assert_eq!(claims.in_the_way(write(1, 600, 10), Some(Tag(2))), Some(Tag(1)));
        assert_eq!(claims.in_the_way(write(1, 0, 4096), Some(Tag(2))), Some(Tag(1)));
        assert_eq!(claims.in_the_way(write(1, 1536, 10), Some(Tag(2))), None);
        assert_eq!(claims.in_the_way(write(1, 0, 512), Some(Tag(2))), None);
        assert_eq!(claims.in_the_way(write(2, 1000, 100), Some(Tag(2))), None);
        assert_eq!(claims.in_the_way(write(1, 1000, 100), Some(Tag(1))), None);
        claims.give_back(write(1, 1000, 100), Tag(2));
        assert_eq!(claims.in_the_way(write(1, 1000, 1), Some(Tag(2))), Some(Tag(1)));
        claims.give_back(write(1, 1000, 100), Tag(1));
        assert_eq!(claims.in_the_way(write(1, 1000, 1), Some(Tag(2))), None);
    }

    /// Whatever of its last object lies in the volume.
    #[test]
    fn a_discard_claims_all_of_its_objects() {
        let discard = Request { kind: Kind::Discard, ..write(1, 4 << 20, 1000) };
        let mut claims = Claims::default();
        claims.claim(discard, Tag(1));
        assert_eq!(claims.in_the_way(write(1, (8 << 20) - 1, 1), Some(Tag(2))), Some(Tag(1)));
        assert_eq!(claims.in_the_way(write(1, 8 << 20, 1), Some(Tag(2))), None);
        claims.give_back(discard, Tag(1));
        claims.claim(write(1, 7 << 20, 1), Tag(2));
        assert_eq!(claims.in_the_way(discard, Some(Tag(1))), Some(Tag(2)));
    }

    proptest! {
        /// Against a search through all of them.
        #[test]
        fn it_finds_what_a_search_finds(
            writes in proptest::collection::vec((0u64..40_000, 1u32..5_000, any::<bool>()), 1..100)
        ) {
            let mut claims = Claims::default();
            let mut model: Vec<(Request, Tag)> = Vec::new();
            for (number, (offset, len, ends_one)) in (0u64..).zip(writes) {
                let (new, tag) = (write(1, offset, len), Tag(number));
                let overlaps = |old: &Request| {
                    let (a, b) = (range(*old), range(new));
                    a.0 < b.1 && b.0 < a.1
                };
                let expected = model.iter().any(|(old, _)| overlaps(old));
                prop_assert_eq!(claims.in_the_way(new, Some(tag)).is_some(), expected);
                if !expected {
                    claims.claim(new, tag);
                    model.push((new, tag));
                } else if ends_one {
                    let (old, tag) = model.remove(0);
                    claims.give_back(old, tag);
                }
            }
        }
    }
}
