//! What `stat` says of everything in the tree. Pure: time is an argument.
//!
//! Control files have size 0 and are opened for direct I/O, like those of procfs,
//! and are never cached. A volume has the size of its VDI, and as many blocks as its
//! objects have, never fewer (the worker's `volume::extents` counts them): `tar -S`
//! and `cp --sparse` drop data where the blocks say 0.
//!
//! `st_blksize` is not the size of its objects: programs read and write in pieces of
//! that many bytes, and 4 MiB for each small read would be a bad bargain. Who must know
//! the size of the objects learns it from statfs(2), as the loop device does.

use crate::tree::Node;
use crate::volumes::Volume;
use fuser::{FileAttr, FileType, INodeNo};
use sheepfs::ipc::VolumeFacts;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel may believe a name: not at all, so that a volume is gone
/// from the moment it is detached, without an invalidation that could wait for
/// held requests (hazard 28).
pub const NAME_TTL: Duration = Duration::ZERO;
/// How long the kernel may believe a control file's attributes (hazard 37).
pub const CONTROL_TTL: Duration = Duration::ZERO;
/// How long the kernel may believe a volume's attributes, at most.
const VOLUME_TTL: Duration = Duration::from_secs(1);

/// How long the kernel may believe a volume's attributes. That there are no blocks it may
/// not: it would do so beyond the end of an asynchronous write that makes the first.
pub fn volume_ttl(volume: &Volume) -> Duration {
    if volume.stored_len() == 0 { Duration::ZERO } else { VOLUME_TTL }
}

/// How long the kernel may believe attributes in `vdi/tree/`, of which none ever changes.
pub const TREE_TTL: Duration = Duration::from_secs(1);

/// `st_blksize`: the unit that is written without being read before.
const BLKSIZE: u32 = 4096;
/// The unit of `st_blocks`.
const BLOCK_LEN: u64 = 512;
/// A volume's permission bits, unless the user asks for others.
const VOLUME_MODE: u16 = 0o600;
/// A snapshot's, and all that it can have.
const SNAPSHOT_MODE: u16 = 0o444;

/// Whose the files are, and who may use the volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Owner of the directories and control files: who mounted.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
    /// Owner of the volumes: `--uid`, else who mounted.
    pub volume_uid: u32,
    /// Their group: `--gid`, else that of who mounted.
    pub volume_gid: u32,
    /// Permission bits of the volumes: `--mode`.
    pub volume_mode: Option<u16>,
}

impl Look {
    /// Everything belongs to one user.
    pub fn of_user(uid: u32, gid: u32) -> Self {
        Self { uid, gid, volume_uid: uid, volume_gid: gid, volume_mode: None }
    }

    /// Of a directory or control file.
    pub fn of_node(&self, ino: u64, node: Node, now: SystemTime) -> FileAttr {
        self.of_made(ino, node.kind(), node.mode(), now)
    }

    /// Of a file or directory that is made when it is looked at.
    pub fn of_made(&self, ino: u64, kind: FileType, perm: u16, time: SystemTime) -> FileAttr {
        let nlink = if kind == FileType::Directory { 2 } else { 1 };
        FileAttr { kind, perm, nlink, uid: self.uid, gid: self.gid, ..blank(ino, time) }
    }

    /// Of a volume.
    pub fn of_volume(&self, volume: &Volume) -> FileAttr {
        let facts = volume.facts();
        FileAttr {
            size: facts.size,
            blocks: volume.stored_len().div_ceil(BLOCK_LEN),
            perm: self.mode_of(&facts),
            uid: self.volume_uid,
            gid: self.volume_gid,
            ..blank(volume.ino, time_of(facts.create_time))
        }
    }

    /// Set-user-id and its like never apply to a disk.
    fn mode_of(&self, facts: &VolumeFacts) -> u16 {
        match (facts.snapshot, self.volume_mode) {
            (false, mode) => mode.unwrap_or(VOLUME_MODE) & 0o777,
            (true, mode) => mode.unwrap_or(SNAPSHOT_MODE) & SNAPSHOT_MODE,
        }
    }
}

fn blank(ino: u64, time: SystemTime) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLKSIZE,
        flags: 0,
    }
}

/// Seconds << 32 | nanoseconds, as the inode has it (protocol 4.1); it comes from
/// outside, so the nanoseconds may be any number.
pub fn time_of(create_time: u64) -> SystemTime {
    let nanos = (create_time & 0xffff_ffff) % 1_000_000_000;
    UNIX_EPOCH + Duration::from_secs(create_time >> 32) + Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::ipc::{Labels, VolumeId};
    use sheepfs::wire::name::VolumeName;

    fn volume(size: u64, snapshot: bool) -> Volume {
        let facts = VolumeFacts {
            vid: 0x7c_2b25,
            size,
            create_time: 1_700_000_000 << 32 | 500_000_000,
            copies: 3,
            copy_policy: 0,
            block_size_shift: 22,
            snap_id: 1,
            snapshot,
            hyper: false,
            locked: false,
            labels: Labels::default(),
        };
        Volume::new(VolumeId(1), VolumeName::parse(b"alpha").unwrap(), facts)
    }

    #[test]
    fn a_volume_looks_fully_allocated_and_as_old_as_its_vdi() {
        let attr = Look::of_user(1000, 100).of_volume(&volume(1025, false));
        assert_eq!((attr.size, attr.blocks, attr.perm), (1025, 3, 0o600));
        assert_eq!((attr.uid, attr.gid, attr.ino.0), (1000, 100, 1 << 32 | 0x7c_2b25));
        let since = attr.mtime.duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(since, Duration::new(1_700_000_000, 500_000_000));
    }

    #[test]
    fn a_snapshot_can_be_read_only_whatever_the_mode() {
        let look = Look::of_user(0, 0);
        assert_eq!(look.of_volume(&volume(1, true)).perm, 0o444);
        let asked = Look { volume_mode: Some(0o4660), volume_uid: 7, ..look };
        assert_eq!(asked.of_volume(&volume(1, true)).perm, 0o440);
        let working = asked.of_volume(&volume(1, false));
        assert_eq!((working.perm, working.uid, working.gid), (0o660, 7, 0));
    }

    #[test]
    fn no_time_from_outside_is_too_much() {
        let _ = time_of(u64::MAX);
        assert_eq!(time_of(0), UNIX_EPOCH);
    }

    #[test]
    fn control_files_are_empty_to_stat_and_as_new_as_now() {
        let now = UNIX_EPOCH + Duration::from_secs(5);
        let attr = Look::of_user(1, 2).of_node(16, Node::of(16).unwrap(), now);
        assert_eq!((attr.size, attr.blocks, attr.perm, attr.nlink), (0, 0, 0o444, 1));
        assert_eq!((attr.uid, attr.gid, attr.mtime), (1, 2, now));
        let root = Look::of_user(1, 2).of_node(1, Node::of(1).unwrap(), now);
        assert_eq!((root.kind, root.perm, root.nlink), (FileType::Directory, 0o755, 2));
    }
}
