//! A worker for tests: the other end of the channel and of the arena, over a disk
//! that is a `Vec<u8>`. It answers when it is told to, so it can be silent, slow,
//! or a liar.

use crate::link::Link;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sheepfs::ipc::{
    Arena, ChannelError, Failure, FromWorker, Labels, RawSpan, SeekTarget, Tag, ToWorker,
    VolumeFacts, VolumeId, WorkerEnd, channel,
};
use sheepfs::wire::name::VolumeName;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Longer than anything here takes on a busy machine; its end fails a test.
const DEADLINE_MS: u16 = 60_000;
/// The size of an object of [`volume`].
const OBJECT_LEN: usize = 4 << 20;

/// The other end of a link.
#[derive(Debug)]
pub struct FakeWorker {
    end: WorkerEnd,
    arena: Arena,
    /// Stands for the process: the supervisor holds the other end for its pidfd, and
    /// sees it end with this.
    _life: OwnedFd,
    /// What is on the one disk that all volumes share.
    pub disk: Vec<u8>,
}

/// A link and its other end.
pub fn link(generation: u64, arena_len: u32, disk_len: usize) -> (Arc<Link>, FakeWorker) {
    let (ours, theirs) = channel::pair().unwrap();
    let arena = Arena::create(arena_len).unwrap();
    let shared = Arena::from_fd(arena.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let (pidfd, life) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let link = Arc::new(Link::new(generation, ours, arena, pidfd).unwrap());
    let end = WorkerEnd::from_fd(theirs);
    (link, FakeWorker { end, arena: shared, _life: life, disk: vec![0; disk_len] })
}

/// A volume of that size.
pub fn volume(id: u32, name: &str, size: u64, snapshot: bool) -> Arc<crate::volumes::Volume> {
    let facts = VolumeFacts {
        vid: 0x10 + id,
        size,
        create_time: 1_700_000_000 << 32,
        copies: 2,
        copy_policy: 0,
        block_size_shift: 22,
        snap_id: 1,
        snapshot,
        hyper: false,
        locked: !snapshot,
        labels: Labels::default(),
    };
    let name = VolumeName::parse(name.as_bytes()).unwrap();
    Arc::new(crate::volumes::Volume::new(VolumeId(id), name, facts))
}

impl FakeWorker {
    /// The next message. `None`: the supervisor let go of the link.
    pub fn next(&self) -> Option<ToWorker> {
        loop {
            match self.end.receive() {
                Ok(Some(message)) => return Some(message),
                Ok(None) => self.wait(PollFlags::POLLIN),
                Err(ChannelError::Closed) => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Says something.
    pub fn say(&self, message: FromWorker) {
        loop {
            match self.end.send(&message) {
                Ok(true) | Err(ChannelError::Closed) => return,
                Ok(false) => self.wait(PollFlags::POLLOUT),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Says that a request is over.
    pub fn done(&self, tag: Tag, outcome: Result<(), Failure>) {
        self.say(FromWorker::Done { tag, outcome });
    }

    /// Does what a message asks for and says so.
    pub fn serve(&mut self, message: ToWorker) {
        match message {
            ToWorker::Read { tag, offset, span, .. } => {
                let from = usize::try_from(offset).unwrap();
                let bytes = &self.disk[from..from + span.len as usize];
                self.arena.fill(self.arena.check(span).unwrap(), bytes);
                self.done(tag, Ok(()));
            }
            ToWorker::Write { tag, offset, span, .. }
            | ToWorker::Zero { tag, offset, span, .. } => {
                let from = usize::try_from(offset).unwrap();
                let bytes = self.arena.bytes(self.arena.check(span).unwrap());
                self.disk[from..from + bytes.len()].copy_from_slice(bytes);
                self.done(tag, Ok(()));
            }
            ToWorker::Discard { tag, offset, len, .. } => {
                let from = usize::try_from(offset).unwrap();
                self.disk[from..from + len as usize].fill(0);
                self.done(tag, Ok(()));
            }
            ToWorker::Copy { tag, at, offset, len, .. } => {
                let (from, to) = (usize::try_from(at).unwrap(), usize::try_from(offset).unwrap());
                self.disk.copy_within(from..from + len as usize, to);
                self.done(tag, Ok(()));
            }
            ToWorker::Flush { tag, .. } => self.done(tag, Ok(())),
            ToWorker::Seek { tag, offset, target, .. } => {
                self.say(FromWorker::Sought { tag, offset: self.seek(offset, target) });
                self.done(tag, Ok(()));
            }
            other => panic!("the data path does not say {other:?}"),
        }
    }

    /// Objects that hold nothing but zeros are holes.
    fn seek(&self, offset: u64, target: SeekTarget) -> Option<u64> {
        let objects = (0u64..).step_by(OBJECT_LEN).zip(self.disk.chunks(OBJECT_LEN));
        let behind = objects.filter(|(start, _)| start + OBJECT_LEN as u64 > offset);
        let data = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
        let wanted = |bytes| data(bytes) == (target == SeekTarget::Data);
        let found =
            behind.filter(|(_, bytes)| wanted(bytes)).map(|(start, _)| start.max(offset)).next();
        match target {
            SeekTarget::Data => found,
            SeekTarget::Hole => found.or(Some(self.disk.len() as u64)),
        }
    }

    /// Serves until the supervisor lets go; returns itself, with the disk.
    pub fn serve_all(mut self) -> JoinHandle<Self> {
        std::thread::spawn(move || {
            while let Some(message) = self.next() {
                self.serve(message);
            }
            self
        })
    }

    fn wait(&self, what: PollFlags) {
        let mut fds = [PollFd::new(self.end.as_fd(), what)];
        let ready = poll(&mut fds, PollTimeout::from(DEADLINE_MS)).unwrap();
        assert!(ready > 0, "the supervisor said nothing for a minute");
    }
}

/// The tag, and the span of a read or write.
pub fn tag_of(message: &ToWorker) -> (Tag, Option<RawSpan>) {
    match message {
        ToWorker::Read { tag, span, .. } | ToWorker::Write { tag, span, .. } => (*tag, Some(*span)),
        ToWorker::Zero { tag, span, .. } => (*tag, Some(*span)),
        ToWorker::Flush { tag, .. }
        | ToWorker::Discard { tag, .. }
        | ToWorker::Copy { tag, .. }
        | ToWorker::Seek { tag, .. } => (*tag, None),
        other => panic!("the data path does not say {other:?}"),
    }
}
