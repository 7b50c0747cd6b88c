//! The kernel's replies that wait for the control loop.

use super::{Answer, Totals};
use crate::events::fuse_errno;
use crate::texts::{CONTROL_OPEN, Texts};
use fuser::{Errno, ReplyOpen, ReplyStatfs, ReplyWrite};

/// The unit in which `df` is told the space.
const STATFS_BLOCK_LEN: u32 = 4096;
/// The longest name of a file in the tree, that of a volume.
const NAME_LEN_MAX: u32 = 255;

/// A reply that waits for the control loop.
#[derive(Debug)]
pub enum Parked {
    /// Of an open of a report.
    Open(ReplyOpen),
    /// Of a write of that many bytes.
    Write(ReplyWrite, u32),
    /// Of a question for the cluster's space.
    Space(ReplyStatfs),
}

impl Parked {
    /// Answers the kernel. A text is kept in `texts` until its file is closed.
    pub fn complete(self, answer: Answer, texts: &Texts) {
        match (self, answer) {
            (Self::Open(reply), Answer::Text(text)) => reply.opened(texts.open(text), CONTROL_OPEN),
            (Self::Write(reply, len), Answer::Done) => reply.written(len),
            (Self::Space(reply), Answer::Space(totals)) => answer_space(reply, totals),
            (parked, Answer::Refused(errno)) => parked.refuse(fuse_errno(errno)),
            (parked, Answer::Done | Answer::Text(_) | Answer::Space(_)) => {
                parked.refuse(Errno::EIO);
            }
        }
    }

    fn refuse(self, errno: Errno) {
        match self {
            Self::Open(reply) => reply.error(errno),
            Self::Write(reply, _) => reply.error(errno),
            Self::Space(reply) => reply.error(errno),
        }
    }
}

fn answer_space(reply: ReplyStatfs, totals: Totals) {
    let block = u64::from(STATFS_BLOCK_LEN);
    let (blocks, free) = (totals.size / block, totals.free.min(totals.size) / block);
    reply.statfs(blocks, free, free, 0, 0, STATFS_BLOCK_LEN, NAME_LEN_MAX, STATFS_BLOCK_LEN);
}
