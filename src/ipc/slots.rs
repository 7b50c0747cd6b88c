//! Which parts of the arena are free: the supervisor's book of slots.
//!
//! A slot is a run of pages that holds the payload of one request. Requests are
//! of 512 bytes to 1 MiB, so runs of one to 256 pages are cut from one map, by
//! first fit. The order of requests is kept by whoever asks: when the next one
//! finds no room, it and all behind it wait, so a large request is never
//! starved by small ones. Pure bookkeeping; the memory itself is [`super::arena`].

use super::arena::RawSpan;

/// The unit of allocation: one page of the machines sheepfs runs on.
pub const PAGE_LEN: u32 = 4096;

/// The book: a bit for each page, set when it is taken.
#[derive(Debug)]
pub struct Slots {
    taken: Vec<bool>,
    free: usize,
    /// Pages below this one are likely taken.
    hint: usize,
}

impl Slots {
    /// A book for an arena of that many bytes, rounded down to pages.
    #[must_use]
    pub fn new(arena_len: u32) -> Self {
        let pages = (arena_len / PAGE_LEN) as usize;
        Self { taken: vec![false; pages], free: pages, hint: 0 }
    }

    /// Takes a slot for `len` bytes. `None` when no run of pages is free.
    pub fn take(&mut self, len: u32) -> Option<RawSpan> {
        let pages = pages_of(len);
        if pages > self.free {
            return None;
        }
        let first = self.find(self.hint, pages).or_else(|| self.find(0, pages))?;
        self.taken[first..first + pages].fill(true);
        self.free -= pages;
        self.hint = first + pages;
        let offset = u32::try_from(first).ok()? * PAGE_LEN;
        Some(RawSpan { offset, len })
    }

    /// Gives a slot back.
    ///
    /// # Panics
    /// When it was not taken: the book would be worth nothing after that.
    pub fn give_back(&mut self, span: RawSpan) {
        let first = (span.offset / PAGE_LEN) as usize;
        let run = &mut self.taken[first..first + pages_of(span.len)];
        assert!(run.iter().all(|taken| *taken), "a slot was given back that was not taken");
        run.fill(false);
        self.free += pages_of(span.len);
        self.hint = self.hint.min(first);
    }

    /// Whether nothing is taken.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.free == self.taken.len()
    }

    /// The first run of `pages` free pages at or behind `from`.
    fn find(&self, from: usize, pages: usize) -> Option<usize> {
        let mut start = from;
        while start + pages <= self.taken.len() {
            let run = &self.taken[start..start + pages];
            match run.iter().rposition(|taken| *taken) {
                None => return Some(start),
                Some(last) => start += last + 1,
            }
        }
        None
    }
}

fn pages_of(len: u32) -> usize {
    len.max(1).div_ceil(PAGE_LEN) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_book_gives_nothing_until_something_comes_back() {
        let mut slots = Slots::new(3 * PAGE_LEN);
        let first = slots.take(1).unwrap();
        let second = slots.take(2 * PAGE_LEN).unwrap();
        assert_eq!((first.offset, second.offset), (0, PAGE_LEN));
        assert_eq!(slots.take(1), None);
        slots.give_back(first);
        assert_eq!(slots.take(PAGE_LEN + 1), None);
        assert_eq!(slots.take(PAGE_LEN).unwrap().offset, 0);
    }

    #[test]
    #[should_panic(expected = "not taken")]
    fn a_slot_comes_back_once() {
        let mut slots = Slots::new(PAGE_LEN);
        let slot = slots.take(1).unwrap();
        slots.give_back(slot);
        slots.give_back(slot);
    }

    proptest! {
        #[test]
        fn slots_never_overlap(steps in proptest::collection::vec((1u32..300_000, any::<prop::sample::Index>()), 1..200)) {
            let mut slots = Slots::new(1 << 20);
            let mut held: Vec<RawSpan> = Vec::new();
            for (len, which) in steps {
                match slots.take(len) {
                    Some(span) => {
                        let end = span.offset + span.len;
                        prop_assert!(end <= 1 << 20);
                        prop_assert!(held.iter().all(|h| h.offset + h.len <= span.offset || end <= h.offset));
                        held.push(span);
                    }
                    None if held.is_empty() => prop_assert!(len > 1 << 20),
                    None => slots.give_back(held.swap_remove(which.index(held.len()))),
                }
            }
            for span in held { slots.give_back(span); }
            prop_assert!(slots.is_idle());
        }
    }
}
