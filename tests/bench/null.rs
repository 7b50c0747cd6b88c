//! A file system of one file that does nothing: reads are zeros from memory, writes are thrown
//! away, both answered by the thread that reads them. With the settings of sheepfs it shows what
//! FUSE itself allows. The benchmark serves it in a process of its own, which is this program
//! again, so that its processor time can be told from the client's.

use crate::results::Failure;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL, WriteFlags,
};
use nix::mount::{MntFlags, umount2};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// The name of the file.
pub const FILE: &str = "null";
/// The kernel may remember all that is said here.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
const FILE_INO: INodeNo = INodeNo(2);
/// These as in sheepfs (`supervisor/fs/init.rs`).
const REQUEST_LEN_MAX: u32 = 1 << 20;
const BACKGROUND_MAX: u16 = 96;
const CONGESTED_AT: u16 = 72;
/// sheepfs has one; here, where a request is no work, two answer more.
const THREADS: usize = 2;
const WANTED: InitFlags = InitFlags::FUSE_ASYNC_DIO
    .union(InitFlags::FUSE_PARALLEL_DIROPS)
    .union(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP)
    .union(InitFlags::FUSE_HANDLE_KILLPRIV_V2);

/// The file system.
#[derive(Debug)]
struct Null {
    bytes: u64,
    zeros: Vec<u8>,
}

/// Serves it on `point` until it is unmounted, which a SIGTERM does as well: that comes when the
/// benchmark dies, and a mount without a server must not stay.
pub fn serve(point: &Path, bytes: u64) -> Result<(), Failure> {
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("sheepfs-bench-null".to_owned()), MountOption::DefaultPermissions];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    let zeros = vec![0; REQUEST_LEN_MAX as usize];
    let (mut signals, mounted) = (Signals::new([SIGTERM])?, point.to_owned());
    thread::spawn(move || {
        for _ in signals.forever() {
            if let Err(errno) = umount2(&mounted, MntFlags::MNT_DETACH) {
                eprintln!("bench: {}: {errno}", mounted.display());
            }
        }
    });
    Ok(fuser::mount(Null { bytes, zeros }, point, &config)?)
}

impl Null {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let file = ino == FILE_INO;
        let size = if file { self.bytes } else { 0 };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if file { FileType::RegularFile } else { FileType::Directory },
            perm: if file { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Null {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // None of these can fail: the flags are offered, the numbers are in range.
        let _ = config.add_capabilities(WANTED.intersection(config.capabilities()));
        let _ = config.set_max_write(REQUEST_LEN_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.set_congestion_threshold(CONGESTED_AT);
        Ok(())
    }

    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&FOR_EVER, &self.attr(FILE_INO), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attr(ino));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        reply.data(&self.zeros[..left.min(size as usize).min(self.zeros.len())]);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.written(u32::try_from(data.len()).unwrap_or_default());
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}
