//! The FUSE adapter: translates the kernel's requests for the tree into lookups,
//! requests of the data path and events of the control loop. Nothing here waits;
//! whatever takes time parks the kernel's owned reply and returns.
//!
//! No operation answers ENOSYS: the kernel would remember that for the life of
//! the mount, and so across upgrades (hazard 19). What is not offered answers
//! EOPNOTSUPP, what the tree forbids EPERM.
//!
//! The kernel checks permissions itself (`default_permissions`), but lets root
//! past them. A control file is nevertheless only opened for what its mode says.

pub mod browse;
mod copy;
mod fallocate;
pub mod init;
mod lseek;
mod origin;
mod serve;
mod setattr;
mod xattr;

use crate::attr::{Look, NAME_TTL};
use crate::datapath::{DataPath, ParkedReply};
use crate::events::{Event, Events};
use crate::handles::Handles;
use crate::settings::Shared;
use crate::texts::{NO_TEXT, Texts};
use crate::tree::Node;
use crate::uniques::Uniques;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use serve::Target;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// The file system.
#[derive(Debug)]
pub struct SheepFs {
    /// What the control loop knows.
    pub shared: Arc<Shared>,
    /// Where reads, writes and flushes go.
    pub data: Arc<DataPath<ParkedReply>>,
    /// The texts of open control files.
    pub texts: Arc<Texts>,
    /// The open files of volumes.
    pub handles: Arc<Handles>,
    /// Requests in flight, where a successor can only fail them.
    pub uniques: Arc<Uniques>,
    /// Where everything else goes.
    pub events: Events,
    /// Whose the files are.
    pub look: Look,
}

/// Every operation for which fuser would answer ENOSYS, and some more.
impl Filesystem for SheepFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        init::negotiate(config);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if Self::is_browsed(parent) {
            return self.browse_name(req, parent, name, reply);
        }
        let found = self.find(parent, name).and_then(|ino| Some((ino, self.target(ino)?)));
        let Some((ino, target)) = found else { return reply.error(Errno::ENOENT) };
        let (ttl, attr) = self.attr(ino, &target);
        reply.entry_with_ttls(&ttl, &NAME_TTL, &attr, Generation(0));
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let Some(target) = self.target(ino) else { return reply.error(Errno::ENOENT) };
        if let Target::Place(place) = target {
            return self.browse_attr(req, place, reply);
        }
        let (ttl, attr) = self.attr(ino, &target);
        reply.attr(&ttl, &attr);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.change(req, ino, setattr::Change { mode, uid, gid, size }, reply);
    }

    fn readlink(&self, _req: &Request, _ino: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn mknod(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _req: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn symlink(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _link_name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _newparent: INodeNo,
        _newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EPERM);
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mode = flags.acc_mode();
        match self.target(ino) {
            None => reply.error(Errno::ENOENT),
            Some(Target::Node(Node::Dir(_))) => reply.error(Errno::EISDIR),
            Some(Target::Node(Node::File(file))) => self.open_file(req, file, mode, reply),
            Some(Target::Place(place)) => self.browse_open(req, place, mode, reply),
            Some(Target::Volume(volume)) => {
                self.open_volume(req, &volume, mode != OpenAccMode::O_RDONLY, reply);
            }
        }
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.target(ino) {
            None => reply.error(Errno::EIO),
            Some(Target::Node(Node::Dir(_))) => reply.error(Errno::EISDIR),
            Some(Target::Node(Node::File(file))) => {
                self.read_file(req, file, fh, offset..offset + u64::from(size), reply);
            }
            Some(Target::Place(place)) => {
                self.browse_read(req, place, fh, offset..offset + u64::from(size), reply);
            }
            Some(Target::Volume(volume)) => {
                volume.pages.used();
                self.data.read(
                    &volume,
                    offset,
                    size,
                    ParkedReply::Read(reply, self.uniques.note(req.unique())),
                );
            }
        }
    }

    /// To a control file each write is one line, wherever the file's position is:
    /// `{ echo a; echo b; } > vdi/mount` and `echo b >> vdi/mount` are two.
    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.target(ino) {
            None => reply.error(Errno::EIO),
            Some(Target::Node(Node::Dir(_))) => reply.error(Errno::EISDIR),
            Some(Target::Node(Node::File(file))) => self.write_line(req, file, data, reply),
            Some(Target::Place(_)) => reply.error(Errno::EACCES),
            Some(Target::Volume(volume)) => {
                volume.pages.used();
                let cut = self.cut(write_flags, flags, req.pid(), data.len());
                self.data.write(
                    &volume,
                    offset,
                    data,
                    cut,
                    ParkedReply::Write(reply, self.uniques.note(req.unique())),
                );
            }
        }
    }

    /// Comes with each `close`; nothing is kept back here that could be flushed.
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

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        if let Some(volume) = self.volume(ino) {
            volume.pages.used();
        }
        match self.handles.close(fh) {
            Some(true) => self.events.tell(Event::Closed),
            Some(false) => {}
            None => self.texts.close(fh),
        }
        reply.ok();
    }

    fn fsync(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        match self.target(ino) {
            None => reply.error(Errno::EIO),
            Some(Target::Node(_) | Target::Place(_)) => reply.ok(),
            Some(Target::Volume(volume)) => {
                self.data.flush(&volume, ParkedReply::Flush(reply, self.uniques.note(req.unique())))
            }
        }
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.target(ino).is_some_and(|target| target.is_directory()) {
            reply.opened(NO_TEXT, FopenFlags::empty());
        } else {
            reply.error(Errno::ENOTDIR);
        }
    }

    fn readdir(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        if Self::is_browsed(ino) {
            return self.browse_list(req, ino, offset, reply);
        }
        self.list(ino, offset, reply);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn statfs(&self, req: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let unit = self.volume(ino).map(|volume| volume.shift());
        self.events.tell(Event::StatFs { unit, noted: self.uniques.note(req.unique()), reply });
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.volume(ino).and_then(|volume| xattr::value(&volume, name)) {
            Some(value) => xattr::answer(&value, size, reply),
            None => reply.error(Errno::ENODATA),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.volume(ino).map(|volume| xattr::names(&volume)).unwrap_or_default();
        xattr::answer(&names, size, reply);
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }

    /// Never asked, since the kernel checks permissions itself.
    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EPERM);
    }

    /// Never asked: locks are the kernel's own, since INIT did not ask for them.
    fn getlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    /// As `getlk`.
    fn setlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _size: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// A regular file is always ready; an error would show as `EPOLLERR`.
    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let ready = PollEvents::POLLIN
            | PollEvents::POLLOUT
            | PollEvents::POLLRDNORM
            | PollEvents::POLLWRNORM;
        reply.poll(events & ready);
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.allocate(req, ino, (offset, length, mode), reply);
    }

    fn lseek(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.seek(req, ino, offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        self.copy(req, (ino_in, offset_in), (ino_out, offset_out), len, reply);
    }
}

#[cfg(test)]
mod tests;
