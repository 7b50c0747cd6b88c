//! Reads, writes, flushes and seeks, as the kernel asks for them: cut where the volume ends,
//! and then requests like all others. What of a call is answered by the volume's size alone
//! never comes to the table. (Copies are in `copy`, holes in `clear`.)

use super::{Cut, DataPath, Parked};
use crate::inflight::{Kind, Request};
use crate::volumes::Volume;
use nix::errno::Errno;
use sheepfs::ipc::SeekTarget;

impl<R: Parked> DataPath<R> {
    /// Reads; short where the volume ends.
    pub fn read(&self, volume: &Volume, offset: u64, len: u32, reply: R) {
        let len = inside(volume.size(), offset, len);
        if len == 0 {
            return reply.done(&[]);
        }
        self.submit(request(Kind::Read, volume, offset, len), &[], Cut::Never, reply);
    }

    /// Writes; short where the volume ends, `ENOSPC` behind it, as a block device
    /// does. `cut`: when it may be cut for want of memory.
    pub fn write(&self, volume: &Volume, offset: u64, bytes: &[u8], cut: Cut, reply: R) {
        let wanted = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let len = inside(volume.size(), offset, wanted);
        match (len, wanted) {
            (0, 0) => reply.done(&[]),
            (0, _) => reply.fail(Errno::ENOSPC),
            _ => {
                let request = request(Kind::Write, volume, offset, len);
                self.submit(request, &bytes[..len as usize], cut, reply);
            }
        }
    }

    /// Makes everything durable that was answered before.
    pub fn flush(&self, volume: &Volume, reply: R) {
        self.submit(request(Kind::Flush, volume, 0, 0), &[], Cut::Never, reply);
    }

    /// Looks for data or for a hole, from inside the volume on.
    pub fn seek(&self, volume: &Volume, offset: u64, target: SeekTarget, reply: R) {
        self.submit(request(Kind::Seek(target), volume, offset, 0), &[], Cut::Never, reply);
    }
}

fn request(kind: Kind, volume: &Volume, offset: u64, len: u32) -> Request {
    Request { kind, volume: volume.id, offset, len, shift: volume.shift() }
}

/// How many of `len` bytes at `offset` lie inside a volume.
fn inside(size: u64, offset: u64, len: u32) -> u32 {
    let left = size.saturating_sub(offset);
    u32::try_from(left).map_or(len, |left| left.min(len))
}
