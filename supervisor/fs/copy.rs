//! `copy_file_range(2)` between volumes, and within one.
//!
//! The kernel waits for the answer with the destination's inode locked, so that direct
//! writes to it wait too: one answer is for 16 MiB at most, and whoever copies asks again.
//! Afterwards it drops the destination's cached pages itself. It has sent what was dirty
//! there before, and looked at whether the ranges overlap and the files are open for it.
//!
//! Where this answers EOPNOTSUPP, the kernel copies by reading and writing.

use super::SheepFs;
use crate::datapath::ParkedReply;
use crate::volumes::Volume;
use fuser::{Errno, INodeNo, ReplyWrite, Request};
use std::sync::Arc;

/// Bytes of an answer.
const LEN_MAX: u64 = 16 << 20;
/// Objects of an answer: each of them may be fenced, and a record names so many.
const OBJECTS_MAX: u64 = 1024;

impl SheepFs {
    pub(super) fn copy(
        &self,
        req: &Request,
        (ino_in, offset_in): (INodeNo, u64),
        (ino_out, offset_out): (INodeNo, u64),
        len: u64,
        reply: ReplyWrite,
    ) {
        let (Some(from), Some(to)) = (self.volume(ino_in), self.volume(ino_out)) else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        match step((&from, offset_in), (&to, offset_out), len) {
            Ok(0) => reply.written(0),
            Ok(len) => {
                from.pages.used();
                to.pages.used();
                let noted = self.uniques.note(req.unique());
                let parked = ParkedReply::Copy(reply, len, Arc::clone(&to), noted);
                self.data.copy((&from, offset_in), (&to, offset_out), len, parked);
            }
            Err(errno) => reply.error(errno),
        }
    }
}

/// How much of a copy is done for one answer.
fn step(
    (from, offset_in): (&Volume, u64),
    (to, offset_out): (&Volume, u64),
    len: u64,
) -> Result<u32, Errno> {
    if to.facts().snapshot {
        return Err(Errno::EROFS);
    }
    let there = from.size().saturating_sub(offset_in).min(len);
    let overlap = offset_in < offset_out.saturating_add(there)
        && offset_out < offset_in.saturating_add(there);
    if from.id == to.id && overlap {
        return Err(Errno::EINVAL);
    }
    let room = to.size().saturating_sub(offset_out);
    if there > 0 && room == 0 {
        return Err(Errno::ENOSPC);
    }
    let len = there.min(room).min(LEN_MAX).min(OBJECTS_MAX << to.shift());
    Ok(u32::try_from(len).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::volume;

    const MIB: u64 = 1 << 20;

    #[test]
    fn an_answer_is_short_where_a_volume_ends_and_at_16_mib() {
        let (from, to) = (volume(1, "from", 100 * MIB, true), volume(2, "to", 64 * MIB, false));
        let step = |at, offset, len| step((&from, at), (&to, offset), len).map_err(|e| e.code());
        assert_eq!(step(3, 5, 1000), Ok(1000));
        assert_eq!(step(0, 0, 0x7fff_f000), Ok(16 << 20));
        assert_eq!(step(100 * MIB - 7, 0, u64::MAX), Ok(7));
        assert_eq!(step(0, 64 * MIB - 7, MIB), Ok(7));
        assert_eq!(step(100 * MIB, 0, MIB), Ok(0));
        assert_eq!(step(u64::MAX, 0, MIB), Ok(0));
        assert_eq!(step(0, 64 * MIB, MIB), Err(Errno::ENOSPC.code()));
        assert_eq!(step(0, 0, 0), Ok(0));
    }

    #[test]
    fn what_overlaps_or_can_not_be_written_is_refused() {
        let disk = volume(1, "disk", 100 * MIB, false);
        let snapshot = volume(2, "disk:1", 100 * MIB, true);
        let within = |at, offset| step((&disk, at), (&disk, offset), MIB).map_err(|e| e.code());
        assert_eq!(within(0, MIB), Ok(1 << 20));
        assert_eq!(within(MIB, 0), Ok(1 << 20));
        for (at, offset) in [(0, 0), (0, MIB - 1), (MIB - 1, 0)] {
            assert_eq!(within(at, offset), Err(Errno::EINVAL.code()));
        }
        let refused = step((&disk, 0), (&snapshot, 0), MIB).unwrap_err();
        assert_eq!(refused.code(), Errno::EROFS.code());
    }
}
