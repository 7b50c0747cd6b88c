//! `fallocate(2)` on a volume: holes and zeros, as on a block device.
//!
//! A hole that is punched and a range that is zeroed become the same: whole objects go from
//! the cluster, and the rest is written as zeros. Nothing can be allocated beforehand, so
//! that is not offered: `posix_fallocate(3)` then writes.

use super::SheepFs;
use crate::datapath::ParkedReply;
use crate::volumes::Volume;
use fuser::{Errno, INodeNo, ReplyEmpty, Request};
use nix::libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE};
use std::ops::Range;

const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = FALLOC_FL_ZERO_RANGE;
const ZERO_INSIDE: i32 = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

impl SheepFs {
    pub(super) fn allocate(
        &self,
        req: &Request,
        ino: INodeNo,
        (offset, len, mode): (u64, u64, i32),
        reply: ReplyEmpty,
    ) {
        let Some(volume) = self.volume(ino) else { return reply.error(Errno::EOPNOTSUPP) };
        match range(&volume, offset, len, mode) {
            Ok(range) => {
                volume.pages.used();
                let reply = ParkedReply::Flush(reply, self.uniques.note(req.unique()));
                self.data.clear(&volume, range, reply);
            }
            Err(errno) => reply.error(errno),
        }
    }
}

/// What is to be cleared.
fn range(volume: &Volume, offset: u64, len: u64, mode: i32) -> Result<Range<u64>, Errno> {
    let end = offset.checked_add(len).filter(|_| len > 0).ok_or(Errno::EINVAL)?;
    match mode {
        PUNCH | ZERO_INSIDE | ZERO if volume.facts().snapshot => Err(Errno::EROFS),
        PUNCH | ZERO_INSIDE => Ok(offset..end),
        // It would grow, which it can't.
        ZERO if end > volume.size() => Err(Errno::EINVAL),
        ZERO => Ok(offset..end),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::volume;

    #[test]
    fn holes_and_zeros_are_offered_and_nothing_else() {
        let disk = volume(1, "disk", 1 << 20, false);
        assert_eq!(range(&disk, 0, 2 << 20, PUNCH).unwrap(), 0..2 << 20);
        assert_eq!(range(&disk, 512, 10, ZERO).unwrap(), 512..522);
        assert_eq!(range(&disk, 0, 1, ZERO_INSIDE).unwrap(), 0..1);
        assert_eq!(range(&disk, 512, 1 << 20, ZERO).unwrap_err().code(), Errno::EINVAL.code());
        assert_eq!(range(&disk, u64::MAX, 2, PUNCH).unwrap_err().code(), Errno::EINVAL.code());
        for mode in [0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, 8, 0x20] {
            let refused = range(&disk, 0, 1, mode).unwrap_err();
            assert_eq!(refused.code(), Errno::EOPNOTSUPP.code(), "{mode:#x}");
        }
        let snapshot = volume(2, "disk:1", 1 << 20, true);
        assert_eq!(range(&snapshot, 0, 1, PUNCH).unwrap_err().code(), Errno::EROFS.code());
    }
}
