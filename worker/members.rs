//! When the cluster's node list is read again, pure.
//!
//! Each reply carries the epoch of the sheep that gave it, and the epoch counts
//! changes of the membership (protocol 1.7). So the list is read once at the
//! beginning and whenever the epoch is another: at once when that epoch is first heard
//! of, and then once a second until the list has it; and now and
//! then besides, since nothing is heard while nothing is asked, and who comes back to
//! the cluster is a candidate again.

use std::time::{Duration, Instant};

/// How often the list is read when that did not help.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it is read when nothing is heard.
const REFRESH: Duration = Duration::from_secs(10);

/// What is known of the list's age.
#[derive(Debug)]
pub struct Membership {
    /// The epoch that the sheep mentioned last.
    heard: u32,
    /// The epoch of the list that was read last.
    read: Option<u32>,
    asked: Option<Instant>,
    /// The epoch that was heard when it was asked for last.
    asked_for: u32,
    under_way: bool,
}

impl Membership {
    /// Nothing was read yet, of a cluster in that epoch.
    pub fn new(epoch: u32) -> Self {
        Self { heard: epoch, read: None, asked: None, asked_for: epoch, under_way: false }
    }

    /// A reply mentions that epoch. Refusals may say 0, which is none.
    pub fn note(&mut self, epoch: u32) {
        if epoch != 0 {
            self.heard = epoch;
        }
    }

    /// Another node's reply mentions that epoch.
    pub fn note_newer(&mut self, epoch: u32) {
        self.heard = self.heard.max(epoch);
    }

    /// Whether the list is to be read now; it is taken to be asked for then.
    pub fn ask(&mut self, now: Instant) -> bool {
        let due = self.next_deadline().is_some_and(|at| at.is_none_or(|at| at <= now));
        if due {
            self.asked = Some(now);
            self.asked_for = self.heard;
            self.under_way = true;
        }
        due
    }

    /// The list was read in that epoch, or could not be read. Whether that is news.
    pub fn answered(&mut self, epoch: Option<u32>) -> bool {
        self.under_way = false;
        let Some(epoch) = epoch else { return false };
        self.heard = epoch;
        self.read.replace(epoch) != Some(epoch)
    }

    /// When the list is to be read, `Some(None)` being at once.
    fn next_deadline(&self) -> Option<Option<Instant>> {
        let pause = match self.read {
            Some(read) if read == self.heard => REFRESH,
            // It is known no longer than that, and nothing may be asked directly until then.
            Some(_) if self.heard != self.asked_for => Duration::ZERO,
            Some(_) | None => INTERVAL,
        };
        (!self.under_way).then(|| self.asked.map(|asked| asked + pause))
    }

    /// When [`Self::ask`] has something to do that it has not now.
    pub fn wake_at(&self) -> Option<Instant> {
        self.next_deadline().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_at_first_and_when_the_epoch_changes() {
        let (mut membership, start) = (Membership::new(3), Instant::now());
        assert!(membership.ask(start));
        assert!(!membership.ask(start), "it is under way");
        assert!(membership.answered(Some(3)));
        membership.note(3);
        assert!(!membership.ask(start + INTERVAL));
        assert_eq!(membership.wake_at(), Some(start + REFRESH));
        membership.note(4);
        assert!(membership.ask(start + INTERVAL));
        assert!(membership.answered(Some(4)));
        assert!(membership.ask(start + INTERVAL + REFRESH));
        assert!(!membership.answered(Some(4)), "that is no news");
    }

    #[test]
    fn it_is_read_once_a_second_at_most() {
        let (mut membership, start) = (Membership::new(3), Instant::now());
        assert!(membership.ask(start));
        assert!(!membership.answered(None));
        assert!(!membership.ask(start + INTERVAL / 2));
        assert_eq!(membership.wake_at(), Some(start + INTERVAL));
        assert!(membership.ask(start + INTERVAL));
        assert!(membership.answered(Some(4)));
        membership.note(0);
        assert_eq!(membership.wake_at(), Some(start + INTERVAL + REFRESH));
    }

    #[test]
    fn a_new_epoch_is_looked_up_at_once_and_then_every_second() {
        let (mut membership, start) = (Membership::new(3), Instant::now());
        assert!(membership.ask(start));
        membership.answered(Some(3));
        membership.note_newer(9);
        assert!(membership.ask(start), "nothing is asked directly until then");
        membership.answered(Some(3));
        membership.note_newer(9);
        assert!(!membership.ask(start), "that did not help");
        assert!(membership.ask(start + INTERVAL));
        membership.answered(Some(3));
        membership.note_newer(10);
        assert!(membership.ask(start + INTERVAL));
    }
}
