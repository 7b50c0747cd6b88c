//! How many pages of indexes the worker keeps, of all volumes together.
//!
//! A page that is dropped is read again when one of its blocks is touched, so this is
//! about memory only. The pages stand in a circle, as on a clock: one that was used since
//! the hand passed it stays for another round, and so does one that its volume can't do
//! without ([`crate::volume::Volume::drop_page`]). Each answer moves the hand by a step or
//! two, so a request costs the same however many pages there are. While more pages are
//! needed at once than there is room for, there are more.

use sheepfs::ipc::VolumeId;
use std::collections::VecDeque;

/// Pages at most: 8 MiB, a quarter of what a worker may have besides its cache. They
/// cover 8 TiB of usual VDIs.
pub const PAGES_MAX: usize = 2048;
/// Pages that are looked at when an answer has come: one may have brought one page.
const STEPS: usize = 2;

/// What a volume says of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not there any more.
    Gone,
    /// It stays.
    Stays,
}

/// The pages that were read, of all volumes.
#[derive(Debug)]
pub struct IndexPages {
    circle: VecDeque<(VolumeId, u32)>,
    limit: usize,
}

impl IndexPages {
    /// None yet; `limit` is how many may stay.
    pub fn new(limit: usize) -> Self {
        Self { circle: VecDeque::new(), limit }
    }

    /// A page was read.
    pub fn note(&mut self, volume: VolumeId, page: u32) {
        self.circle.push_back((volume, page));
    }

    /// Drops pages that are too many, as far as `drop_page` lets them go.
    pub fn sweep(&mut self, mut drop_page: impl FnMut(VolumeId, u32) -> Fate) {
        for _ in 0..STEPS {
            if self.circle.len() <= self.limit {
                return;
            }
            let Some((volume, page)) = self.circle.pop_front() else { return };
            if drop_page(volume, page) == Fate::Stays {
                self.circle.push_back((volume, page));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Brings pages 0 to 99 of a volume, of which some stay as long as they like.
    fn left_of_a_hundred(limit: usize, stays: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut pages = IndexPages::new(limit);
        let mut there = BTreeMap::new();
        for page in 0..100 {
            pages.note(VolumeId(1), page);
            there.insert(page, true);
            pages.sweep(|_, page| {
                let used = std::mem::replace(there.get_mut(&page).unwrap(), false);
                if used || stays(page) {
                    return Fate::Stays;
                }
                there.remove(&page);
                Fate::Gone
            });
        }
        there.into_keys().collect()
    }

    #[test]
    fn no_more_stay_than_have_room() {
        assert_eq!(left_of_a_hundred(100, |_| false).len(), 100);
        // Each page has its second chance, so the hand may be a round behind.
        let left = left_of_a_hundred(10, |_| false);
        assert!(left.len() <= 21, "{left:?}");
    }

    #[test]
    fn those_that_are_needed_stay_though_they_are_too_many() {
        let left = left_of_a_hundred(10, |page| page < 40);
        assert!((0..40).all(|page| left.contains(&page)), "{left:?}");
        assert_eq!(left_of_a_hundred(10, |_| true).len(), 100);
    }
}
