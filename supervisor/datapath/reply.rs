//! What is parked while the worker works: the kernel's owned reply.

use crate::events::fuse_errno;
use crate::uniques::Noted;
use crate::volumes::Volume;
use fuser::{ReplyData, ReplyEmpty, ReplyLseek, ReplyWrite};
use nix::errno::Errno;
use std::sync::Arc;

/// Somebody who waits for a request.
pub trait Parked: Send + 'static {
    /// It is done. `bytes` are those read or those written; none for a flush.
    fn done(self, bytes: &[u8]);
    /// A seek has ended there.
    fn sought(self, offset: u64);
    /// It failed.
    fn fail(self, errno: Errno);
}

/// The kernel, waiting. Dropping one answers EIO.
#[derive(Debug)]
pub enum ParkedReply {
    /// For bytes.
    Read(ReplyData, Noted),
    /// For a number of bytes.
    Write(ReplyWrite, Noted),
    /// For a word.
    Flush(ReplyEmpty, Noted),
    /// For that number of bytes, copied to that volume.
    Copy(ReplyWrite, u32, Arc<Volume>, Noted),
    /// For a place.
    Seek(ReplyLseek, Noted),
}

impl Parked for ParkedReply {
    fn done(self, bytes: &[u8]) {
        match self {
            Self::Read(reply, _noted) => reply.data(bytes),
            Self::Write(reply, _noted) => {
                reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            }
            Self::Flush(reply, _noted) => reply.ok(),
            Self::Copy(reply, len, _, _noted) => reply.written(len),
            Self::Seek(reply, _noted) => reply.error(fuse_errno(Errno::EIO)),
        }
    }

    fn sought(self, offset: u64) {
        match (self, i64::try_from(offset)) {
            (Self::Seek(reply, _noted), Ok(offset)) => reply.offset(offset),
            (parked, _) => parked.fail(Errno::EIO),
        }
    }

    fn fail(self, errno: Errno) {
        let errno = fuse_errno(errno);
        match self {
            Self::Read(reply, _noted) => reply.error(errno),
            Self::Write(reply, _noted) => reply.error(errno),
            Self::Flush(reply, _noted) => reply.error(errno),
            Self::Copy(reply, _, volume, _noted) => {
                volume.pages.outdate();
                reply.error(errno);
            }
            Self::Seek(reply, _noted) => reply.error(errno),
        }
    }
}
