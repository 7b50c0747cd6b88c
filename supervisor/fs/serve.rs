//! The operations that do more than translate: what a number names, what an open
//! gives, where a line goes.

use super::SheepFs;
use crate::attr::{CONTROL_TTL, VOLUME_TTL};
use crate::events::Event;
use crate::status::Data;
use crate::texts::{CONTROL_OPEN, NO_TEXT};
use crate::tree::{self, File, Node, VOLUME_INO};
use crate::volumes::Volume;
use fuser::{Errno, FileAttr, FopenFlags, INodeNo, OpenAccMode, ReplyOpen, ReplyWrite};
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest line a control file takes. A VDI's name has 255 bytes at most, so
/// this leaves room for white space around it.
const LINE_LEN_MAX: usize = 4096;

/// What an inode number names.
pub enum Target {
    Node(Node),
    Volume(Arc<Volume>),
}

impl SheepFs {
    pub fn target(&self, ino: INodeNo) -> Option<Target> {
        match Node::of(ino.0) {
            Some(node) => Some(Target::Node(node)),
            None => self.shared.volumes().by_ino(ino.0).map(Target::Volume),
        }
    }

    pub fn volume(&self, ino: INodeNo) -> Option<Arc<Volume>> {
        self.shared.volumes().by_ino(ino.0)
    }

    pub fn attr(&self, ino: INodeNo, target: &Target) -> (Duration, FileAttr) {
        match target {
            Target::Node(node) => (CONTROL_TTL, self.look.of_node(ino.0, *node, SystemTime::now())),
            Target::Volume(volume) => (VOLUME_TTL, self.look.of_volume(volume)),
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

    pub fn open_volume(&self, volume: &Volume, writing: bool, reply: ReplyOpen) {
        if writing && volume.facts().snapshot {
            return reply.error(Errno::EROFS);
        }
        volume.opened();
        // Counted first, looked up again afterwards: a detach removes first and
        // counts afterwards, so one of both sees the other.
        if self.volume(INodeNo(volume.ino)).is_none_or(|found| found.id != volume.id) {
            if volume.closed() {
                self.events.tell(Event::Closed);
            }
            return reply.error(Errno::ENOENT);
        }
        let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        let cached = self.shared.page_cache();
        reply.opened(NO_TEXT, if cached { FopenFlags::empty() } else { direct });
    }

    pub fn open_file(&self, file: File, mode: OpenAccMode, reply: ReplyOpen) {
        let reading = mode != OpenAccMode::O_WRONLY;
        let writing = mode != OpenAccMode::O_RDONLY;
        if reading && !file.is_readable() || writing && file.writable().is_none() {
            return reply.error(Errno::EACCES);
        }
        match file {
            File::Report(file) => self.events.tell(Event::OpenReport { file, reply }),
            File::Local(file) if reading => {
                let (in_flight, counters) = (self.data.in_flight(), self.data.counters());
                let text = self.shared.text_of(file, &Data { in_flight, counters });
                reply.opened(self.texts.open(text), CONTROL_OPEN);
            }
            File::Local(_) | File::Mount | File::Unmount => reply.opened(NO_TEXT, CONTROL_OPEN),
        }
    }

    pub fn write_line(&self, file: File, bytes: &[u8], reply: ReplyWrite) {
        match file.writable() {
            None => reply.error(Errno::EACCES),
            Some(_) if bytes.len() > LINE_LEN_MAX => reply.error(Errno::EINVAL),
            Some(file) => {
                self.events.tell(Event::ControlWrite { file, bytes: bytes.to_vec(), reply });
            }
        }
    }
}
