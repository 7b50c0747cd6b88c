//! The kernel's replies that wait for the control loop.

use super::{Answer, Totals};
use crate::attr::{Look, volume_ttl};
use crate::events::fuse_errno;
use crate::fs::browse::Browse;
use crate::texts::{CONTROL_OPEN, Texts, slice};
use crate::volumes::Volume;
use fuser::{
    Errno, FileHandle, ReplyAttr, ReplyData, ReplyOpen, ReplyStatfs, ReplyWrite, RequestId,
};
use std::ops::Range;
use std::sync::Arc;

/// The unit in which the space is told, log2. For a volume it is the size of its
/// objects: the loop device takes it for the granularity of discards, when a volume is
/// set up as one. Both of the sizes that statvfs(3) has are that unit, since programs
/// differ in which of them they multiply by.
const STATFS_SHIFT: u8 = 12;
/// The longest name of a file in the tree, that of a volume.
const NAME_LEN_MAX: u32 = 255;

/// A reply that waits for the control loop.
#[derive(Debug)]
pub enum Parked {
    /// Of an open of a report, which gets that handle.
    Open(ReplyOpen, FileHandle),
    /// Of a read of those bytes of a report that was opened before.
    Read(ReplyData, FileHandle, Range<u64>),
    /// Of a write of that many bytes, and the kernel's number of it.
    Write(ReplyWrite, u32, RequestId),
    /// Of a look at the tree of VDIs.
    Browse(Box<Browse>),
    /// Of a change of a volume's size; whose it is.
    Grow(ReplyAttr, Arc<Volume>, Look),
    /// Of a question for the cluster's space, in units of that size, log2.
    Space(ReplyStatfs, Option<u8>),
}

impl Parked {
    /// Answers the kernel. A text is kept in `texts` until its file is closed.
    pub fn complete(self, answer: Answer, texts: &Texts) {
        match (self, answer) {
            (Self::Open(reply, handle), Answer::Text(text)) => {
                texts.open(handle, text);
                reply.opened(handle, CONTROL_OPEN);
            }
            (Self::Read(reply, handle, range), Answer::Text(text)) => {
                reply.data(slice(&texts.open(handle, text), range));
            }
            (Self::Write(reply, len, _), Answer::Done) => reply.written(len),
            (Self::Grow(reply, volume, look), Answer::Done) => {
                reply.attr(&volume_ttl(&volume), &look.of_volume(&volume));
            }
            (Self::Browse(browse), Answer::Census(census)) => browse.complete(&census, texts),
            (Self::Space(reply, unit), Answer::Space(totals)) => answer_space(reply, unit, totals),
            (parked, Answer::Refused(errno)) => parked.refuse(fuse_errno(errno)),
            (parked, Answer::Done | Answer::Text(_) | Answer::Space(_) | Answer::Census(_)) => {
                parked.refuse(Errno::EIO);
            }
        }
    }

    fn refuse(self, errno: Errno) {
        match self {
            Self::Open(reply, _) => reply.error(errno),
            Self::Read(reply, ..) => reply.error(errno),
            Self::Write(reply, ..) => reply.error(errno),
            Self::Grow(reply, ..) => reply.error(errno),
            Self::Browse(browse) => browse.refuse(errno),
            Self::Space(reply, _) => reply.error(errno),
        }
    }
}

fn answer_space(reply: ReplyStatfs, unit: Option<u8>, totals: Totals) {
    let unit = 1_u32.checked_shl(unit.unwrap_or(STATFS_SHIFT).into()).unwrap_or(1 << STATFS_SHIFT);
    let units = |bytes: u64| bytes / u64::from(unit);
    let (blocks, free) = (units(totals.size), units(totals.free.min(totals.size)));
    reply.statfs(blocks, free, free, 0, 0, unit, NAME_LEN_MAX, unit);
}
