//! A home that does not know of an epoch that other nodes know of.
//!
//! Nodes hear of a change of the membership one after the other, and one that is cut off
//! does not hear of it. What was written through a node that knows may lie where the new
//! epoch has it, and no more on one that does not know, which would serve what it has: so
//! what such a node reads is not believed. Nodes that are asked directly give way to home
//! then ([`crate::routing`]); home itself is asked again a little later, and is given up
//! when it does not come to know.
//!
//! Within a session no change was given out as done in an epoch that home did not know
//! ([`crate::routing`]); but an earlier session's home may have known more than this one's.
//! A node that is alone with a newer epoch is not believed for as long as it takes until
//! home is given up ([`crate::routing::Epochs`]): that takes several, so that one broken
//! node ends no session.
//!
//! With one gateway this can't be: what it has answered itself is never newer than it.

use crate::frame::Reply;
use sheepfs::ipc::LostReason;
use sheepfs::wire::{Opcode, Status};
use std::time::{Duration, Instant};
use tracing::debug;

/// Longer than it takes until all nodes of a cluster have heard of a change.
pub const BEHIND_MAX: Duration = Duration::from_secs(5);

/// What is known of that.
#[derive(Debug, Default)]
pub struct Behind {
    /// Of an answer in an old epoch, with only such answers after it: the first, the last.
    seen: Option<[Instant; 2]>,
}

impl Behind {
    /// Takes an answer of home's, when `newest` is the newest epoch heard of. An object
    /// that was read in an older one becomes one that is to be read again.
    ///
    /// # Errors
    /// Home is behind for too long.
    pub fn judge(
        &mut self,
        reply: &mut Reply,
        newest: u32,
        now: Instant,
    ) -> Result<(), LostReason> {
        let epoch = reply.header.epoch;
        if epoch >= newest {
            self.seen = None;
        }
        let is_read = reply.header.opcode == Opcode::ReadObj.code() && reply.status.is_success();
        if epoch == 0 || epoch >= newest || !is_read {
            return Ok(());
        }
        debug!(epoch, newest, "the sheep is behind its cluster: an object is to be read again");
        reply.status = Status::NetworkError;
        reply.bytes.clear();
        // Answers that are far apart don't say that it was behind all the time.
        let recent = self.seen.filter(|[_, last]| now.duration_since(*last) < BEHIND_MAX);
        let [first, _] = recent.unwrap_or([now; 2]);
        self.seen = Some([first, now]);
        if now.duration_since(first) < BEHIND_MAX { Ok(()) } else { Err(LostReason::Behind) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::wire::header::{ReplyHeader, RequestHeader};

    fn read(epoch: u32) -> Reply {
        let request = RequestHeader::new(Opcode::ReadObj, 0, 4);
        Reply::new(ReplyHeader::new(&request, epoch, Status::Success, 4), vec![1; 4])
    }

    /// Whether it is to be read again, or that home is lost.
    fn verdict(behind: &mut Behind, epoch: u32, now: Instant) -> Result<bool, LostReason> {
        let mut reply = read(epoch);
        behind.judge(&mut reply, 9, now).map(|()| reply.status == Status::NetworkError)
    }

    #[test]
    fn what_was_read_in_an_old_epoch_is_read_again() {
        let (mut behind, now) = (Behind::default(), Instant::now());
        let verdicts = [8, 9, 10, 0].map(|epoch| verdict(&mut behind, epoch, now));
        assert_eq!(verdicts, [Ok(true), Ok(false), Ok(false), Ok(false)]);
        let mut refused = read(8);
        refused.status = Status::NoObj;
        behind.judge(&mut refused, 9, now).unwrap();
        assert_eq!(refused.status, Status::NoObj, "that is no old data");
    }

    #[test]
    fn one_that_does_not_catch_up_is_lost() {
        let (mut behind, start) = (Behind::default(), Instant::now());
        let mut at = |ms, epoch| verdict(&mut behind, epoch, start + Duration::from_millis(ms));
        assert_eq!([at(0, 8), at(4_000, 8), at(4_100, 9)], [Ok(true), Ok(true), Ok(false)]);
        assert_eq!([at(5_100, 8), at(60_000, 8)], [Ok(true), Ok(true)], "it was asked nothing");
        assert_eq!([at(64_000, 8), at(65_000, 8)], [Ok(true), Err(LostReason::Behind)]);
    }
}
