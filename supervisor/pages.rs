//! What the kernel's page cache may hold of a volume, decided at each open.
//!
//! **One way at a time.** The kernel keeps a direct write and cached pages of the same
//! file coherent only up to a moment: it drops the pages before it sends the write, and
//! what a reader fetches between the two stays. So a volume is opened as it is open
//! already, and `config/page_cache` takes hold of it when nobody has it open.
//!
//! **Nothing older than the attachment.** Pages outlive a close, and so a detach, after
//! which others may write to the VDI. They are dropped by the kernel itself, in the call
//! of whoever opens, when the answer to an open does not say `FOPEN_KEEP_CACHE`. That is
//! said only once a request has come through an open that did drop them: until then
//! nobody can tell whether the kernel has got so far. So no thread of ours waits for the
//! lock of a page, as one that sends an invalidation does (hazard 28); killed there, it
//! could not die before somebody answers the request that holds the page. One is sent
//! only for a VDI in whose place there is another one, since all its requests are answered
//! at once, with an error.

use std::sync::atomic::{AtomicBool, Ordering};

/// How an open is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Past the page cache; what is in it goes.
    Direct,
    /// With the page cache; what is in it goes.
    Fresh,
    /// With what is in the page cache.
    Kept,
}

/// Of one volume, as long as it is attached.
#[derive(Debug, Default)]
pub struct Pages {
    /// Whether those who have it open use the page cache.
    cached: AtomicBool,
    /// Whether what is there was read since the attach, or since it was open the other way.
    settled: AtomicBool,
    /// Whether something was changed since that the kernel knows nothing of.
    outdated: AtomicBool,
}

impl Pages {
    /// It is opened; the first one to do so gets what is `wanted`. To be called by one
    /// thread at a time.
    pub fn open(&self, is_first: bool, wanted: bool) -> Opened {
        if is_first {
            self.cached.store(wanted, Ordering::Release);
        }
        if self.outdated.swap(false, Ordering::AcqRel) {
            self.settled.store(false, Ordering::Release);
        }
        if !self.is_cached() {
            // A mapping fills the page cache all the same.
            self.settled.store(false, Ordering::Release);
            Opened::Direct
        } else if self.settled.load(Ordering::Acquire) {
            Opened::Kept
        } else {
            Opened::Fresh
        }
    }

    /// Something was changed for which the kernel drops no pages, as by a copy that failed
    /// after a part of it was written. They go with the next open.
    pub fn outdate(&self) {
        self.outdated.store(true, Ordering::Release);
    }

    /// A request came from somebody who has it open, so that open is over.
    pub fn used(&self) {
        if self.is_cached() && !self.settled.load(Ordering::Relaxed) {
            self.settled.store(true, Ordering::Release);
        }
    }

    /// Whether those who have it open use the page cache.
    pub fn is_cached(&self) -> bool {
        self.cached.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_once_an_open_that_dropped_them_is_over() {
        let pages = Pages::default();
        assert_eq!(pages.open(true, true), Opened::Fresh);
        assert_eq!(pages.open(false, true), Opened::Fresh);
        pages.used();
        assert_eq!(pages.open(false, true), Opened::Kept);
        assert_eq!(pages.open(true, true), Opened::Kept);
    }

    #[test]
    fn a_volume_is_opened_as_it_is_open_already() {
        let pages = Pages::default();
        assert_eq!(pages.open(true, false), Opened::Direct);
        assert_eq!(pages.open(false, true), Opened::Direct);
        assert_eq!(pages.open(true, true), Opened::Fresh);
        pages.used();
        assert_eq!(pages.open(false, false), Opened::Kept);
    }

    #[test]
    fn what_a_failed_copy_may_have_changed_goes_with_the_next_open() {
        let pages = Pages::default();
        pages.open(true, true);
        pages.used();
        pages.outdate();
        pages.used();
        assert_eq!(pages.open(false, true), Opened::Fresh);
        pages.used();
        assert_eq!(pages.open(false, true), Opened::Kept);
    }

    #[test]
    fn what_was_mapped_past_the_page_cache_is_not_kept() {
        let pages = Pages::default();
        pages.open(true, true);
        pages.used();
        assert_eq!(pages.open(true, false), Opened::Direct);
        pages.used();
        assert_eq!(pages.open(true, true), Opened::Fresh);
    }
}
