//! The operations that do more than translate: what a number names, what an open
//! gives, where a line goes.

use super::{SheepFs, setattr};
use crate::attr::{CONTROL_TTL, volume_ttl};
use crate::events::Event;
use crate::handles::handle_of;
use crate::pages::Opened;
use crate::settings::LocalFile;
use crate::status::Data;
use crate::texts::{self, CONTROL_OPEN, NO_TEXT};
use crate::tree::{self, File, Node, VOLUME_INO};
use crate::vdi_tree::Place;
use crate::volumes::Volume;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, INodeNo, OpenAccMode, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyOpen, ReplyWrite, Request,
};
use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest line a control file takes. A VDI's name has 255 bytes at most, so
/// this leaves room for white space around it.
const LINE_LEN_MAX: usize = 4096;

/// Volumes that one part of a listing shows at most; the kernel asks for parts of a few KiB.
const LIST_MAX: usize = 256;

/// What an inode number names.
pub enum Target {
    Node(Node),
    /// In the tree of VDIs, where it may be or not.
    Place(Place),
    Volume(Arc<Volume>),
}

impl Target {
    pub fn is_directory(&self) -> bool {
        match self {
            Self::Node(node) => node.kind() == FileType::Directory,
            Self::Place(place) => place.kind() == FileType::Directory,
            Self::Volume(_) => false,
        }
    }
}

impl SheepFs {
    pub fn target(&self, ino: INodeNo) -> Option<Target> {
        match Node::of(ino.0) {
            Some(node) => Some(Target::Node(node)),
            None => match Place::of(ino.0) {
                Some(place) => Some(Target::Place(place)),
                None => self.shared.volumes().by_ino(ino.0).map(Target::Volume),
            },
        }
    }

    pub fn volume(&self, ino: INodeNo) -> Option<Arc<Volume>> {
        self.shared.volumes().by_ino(ino.0)
    }

    pub fn attr(&self, ino: INodeNo, target: &Target) -> (Duration, FileAttr) {
        match target {
            Target::Node(node) => (CONTROL_TTL, self.look.of_node(ino.0, *node, SystemTime::now())),
            Target::Place(place) => (CONTROL_TTL, self.look.of_place_now(*place)),
            Target::Volume(volume) => (volume_ttl(volume), self.look.of_volume(volume)),
        }
    }

    pub fn find(&self, parent: INodeNo, name: &OsStr) -> Option<INodeNo> {
        let name = name.to_str()?;
        let ino = match parent.0 {
            VOLUME_INO => self.shared.volumes().by_name(name)?.ino,
            parent => tree::lookup(parent, name)?,
        };
        Some(INodeNo(ino))
    }

    /// Sets what can be set; see [`setattr`].
    pub fn change(&self, req: &Request, ino: INodeNo, change: setattr::Change, reply: ReplyAttr) {
        let Some(target) = self.target(ino) else { return reply.error(Errno::ENOENT) };
        let (ttl, attr) = self.attr(ino, &target);
        let sizing = match &target {
            Target::Node(_) | Target::Place(_) => setattr::Sizing::Any,
            Target::Volume(volume) if volume.facts().snapshot => setattr::Sizing::ReadOnly,
            Target::Volume(_) => setattr::Sizing::Grows,
        };
        match (change.check(&attr, sizing), target) {
            (Ok(Some(size)), Target::Volume(volume)) => {
                let (request, look) = (req.unique(), self.look);
                let noted = self.uniques.note(request);
                self.events.tell(Event::Grow { volume, size, request, noted, reply, look });
            }
            (Ok(_), _) => reply.attr(&ttl, &attr),
            (Err(errno), _) => reply.error(errno),
        }
    }

    /// Lists a directory behind that cookie, as much as the reply holds.
    pub fn list(&self, ino: INodeNo, offset: u64, mut reply: ReplyDirectory) {
        let volumes = match ino.0 {
            VOLUME_INO => self.shared.volumes().behind(offset, LIST_MAX),
            _ => Vec::new(),
        };
        let volumes = volumes.iter().map(|volume| (volume.ino, volume.name.as_str().to_owned()));
        let Some(entries) = tree::entries(ino.0, volumes, offset) else {
            return reply.error(Errno::ENOTDIR);
        };
        for entry in entries {
            if reply.add(INodeNo(entry.ino), entry.cookie, entry.kind, entry.name) {
                break;
            }
        }
        reply.ok();
    }

    pub fn open_volume(&self, req: &Request, volume: &Volume, writing: bool, reply: ReplyOpen) {
        let handle = handle_of(req.unique());
        if writing && volume.facts().snapshot {
            return reply.error(Errno::EROFS);
        }
        let Ok(opened) = self.handles.open(handle, volume, self.shared.page_cache()) else {
            return reply.error(Errno::ENFILE);
        };
        // Counted first, looked up again afterwards: a detach removes first and
        // counts afterwards, so one of both sees the other.
        if self.volume(INodeNo(volume.ino)).is_none_or(|found| found.id != volume.id) {
            if self.handles.close(handle) == Some(true) {
                self.events.tell(Event::Closed);
            }
            return reply.error(Errno::ENOENT);
        }
        // A close has nothing to wait for: a program that is started closes what it must
        // not inherit, also while nobody serves the mount.
        let direct = FopenFlags::FOPEN_DIRECT_IO
            | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
            | FopenFlags::FOPEN_NOFLUSH;
        let flags = match opened {
            Opened::Direct => direct,
            Opened::Fresh => FopenFlags::empty(),
            Opened::Kept => FopenFlags::FOPEN_KEEP_CACHE,
        };
        reply.opened(handle, flags);
    }

    pub fn open_file(&self, req: &Request, file: File, mode: OpenAccMode, reply: ReplyOpen) {
        let handle = handle_of(req.unique());
        let reading = mode != OpenAccMode::O_WRONLY;
        let writing = mode != OpenAccMode::O_RDONLY;
        if reading && !file.is_readable() || writing && file.writable().is_none() {
            return reply.error(Errno::EACCES);
        }
        match file {
            File::Report(file) => {
                let noted = self.uniques.note(req.unique());
                self.events.tell(Event::OpenReport { file, handle, noted, reply });
            }
            File::Local(file) if reading => {
                self.texts.open(handle, self.text_of(file));
                reply.opened(handle, CONTROL_OPEN);
            }
            File::Local(_) | File::Mount | File::Unmount | File::Life(_) => {
                reply.opened(NO_TEXT, CONTROL_OPEN);
            }
        }
    }

    /// A handle of ours has its text. One that a predecessor gave gets a new one.
    pub fn read_file(
        &self,
        req: &Request,
        file: File,
        handle: FileHandle,
        range: Range<u64>,
        reply: ReplyData,
    ) {
        if let Some(text) = self.texts.get(handle) {
            return reply.data(texts::slice(&text, range));
        }
        match file {
            File::Local(file) => {
                let text = self.texts.open(handle, self.text_of(file));
                reply.data(texts::slice(&text, range));
            }
            File::Report(file) => {
                let noted = self.uniques.note(req.unique());
                self.events.tell(Event::ReadReport { file, handle, range, noted, reply });
            }
            File::Mount | File::Unmount | File::Life(_) => reply.error(Errno::EACCES),
        }
    }

    fn text_of(&self, file: LocalFile) -> Vec<u8> {
        let (in_flight, counters) = (self.data.in_flight(), self.data.counters());
        self.shared.text_of(file, &Data { in_flight, counters })
    }

    pub fn write_line(&self, req: &Request, file: File, bytes: &[u8], reply: ReplyWrite) {
        match file.writable() {
            None => reply.error(Errno::EACCES),
            Some(file) if bytes.len() > LINE_LEN_MAX => {
                let (path, len) = (file.path(), bytes.len());
                let why = format!("write {len} bytes to {path}: a line has at most {LINE_LEN_MAX}");
                tracing::warn!(errno = Errno::EINVAL.code(), "{why}");
                self.shared.known().last_error = Some(why);
                reply.error(Errno::EINVAL);
            }
            Some(file) => {
                let (bytes, request) = (bytes.to_vec(), req.unique());
                let noted = self.uniques.note(request);
                self.events.tell(Event::ControlWrite { file, bytes, request, noted, reply });
            }
        }
    }
}
