//! What is parked while the worker works: the kernel's owned reply.

use crate::events::fuse_errno;
use fuser::{ReplyData, ReplyEmpty, ReplyWrite};
use nix::errno::Errno;

/// Somebody who waits for a request.
pub trait Parked: Send + 'static {
    /// It is done. `bytes` are those read or those written; none for a flush.
    fn done(self, bytes: &[u8]);
    /// It failed.
    fn fail(self, errno: Errno);
}

/// The kernel, waiting. Dropping one answers EIO.
#[derive(Debug)]
pub enum ParkedReply {
    /// For bytes.
    Read(ReplyData),
    /// For a number of bytes.
    Write(ReplyWrite),
    /// For a word.
    Flush(ReplyEmpty),
}

impl Parked for ParkedReply {
    fn done(self, bytes: &[u8]) {
        match self {
            Self::Read(reply) => reply.data(bytes),
            Self::Write(reply) => reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            Self::Flush(reply) => reply.ok(),
        }
    }

    fn fail(self, errno: Errno) {
        let errno = fuse_errno(errno);
        match self {
            Self::Read(reply) => reply.error(errno),
            Self::Write(reply) => reply.error(errno),
            Self::Flush(reply) => reply.error(errno),
        }
    }
}
