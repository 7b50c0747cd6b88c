//! Seeks for data and for holes (lseek(2)).
//!
//! The worker finds out, from the index; a seek waits for it as a read does. The kernel
//! holds the file's lock meanwhile, so that writes through this mount wait for the seek,
//! but for asynchronous ones. It does not look at its own page cache: pages that were
//! written through a shared mapping and are not yet written back may be said to be a hole.

use super::SheepFs;
use crate::datapath::ParkedReply;
use fuser::{Errno, INodeNo, ReplyLseek, Request};
use nix::libc::{SEEK_DATA, SEEK_HOLE};
use sheepfs::ipc::SeekTarget;

impl SheepFs {
    /// Looks for data or for a hole.
    pub fn seek(&self, req: &Request, ino: INodeNo, offset: i64, whence: i32, reply: ReplyLseek) {
        let volume = self.volume(ino);
        let size = volume.as_ref().map_or(0, |volume| volume.size());
        match (asked(size, offset, whence), volume) {
            (Ok((offset, target)), Some(volume)) => {
                let reply = ParkedReply::Seek(reply, self.uniques.note(req.unique()));
                self.data.seek(&volume, offset, target, reply);
            }
            // A control file has no size.
            (Ok(_), None) => reply.error(Errno::ENXIO),
            (Err(errno), _) => reply.error(errno),
        }
    }
}

/// What is looked for in a file of that size, and from where on.
fn asked(size: u64, offset: i64, whence: i32) -> Result<(u64, SeekTarget), Errno> {
    let target = match whence {
        SEEK_DATA => SeekTarget::Data,
        SEEK_HOLE => SeekTarget::Hole,
        _ => return Err(Errno::EINVAL),
    };
    let offset = u64::try_from(offset).ok().filter(|offset| *offset < size);
    offset.map(|offset| (offset, target)).ok_or(Errno::ENXIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_nothing_outside() {
        assert_eq!(asked(100, 5, SEEK_DATA), Ok((5, SeekTarget::Data)));
        assert_eq!(asked(100, 99, SEEK_HOLE), Ok((99, SeekTarget::Hole)));
        assert_eq!(asked(100, 100, SEEK_DATA), Err(Errno::ENXIO));
        assert_eq!(asked(100, 100, SEEK_HOLE), Err(Errno::ENXIO));
        assert_eq!(asked(100, -1, SEEK_HOLE), Err(Errno::ENXIO));
        assert_eq!(asked(0, 0, SEEK_DATA), Err(Errno::ENXIO));
        assert_eq!(asked(100, 0, 99), Err(Errno::EINVAL));
    }
}
