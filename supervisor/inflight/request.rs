//! A request of the kernel's: what is to be done, with which bytes, and how a worker is told
//! of it.
//!
//! What else depends on its kind is asked here and nowhere else: whether it changes the
//! volume, makes objects, has bytes, needs a slot.

use sheepfs::ipc::{Arena, RawSpan, SeekTarget, Span, Tag, ToWorker, VolumeId};
use std::sync::Arc;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes into the slot.
    Read,
    /// Bytes out of the slot.
    Write,
    /// Everything earlier made durable; has no slot.
    Flush,
    /// Zeros out of the slot, where something is.
    Zero,
    /// Whole objects away. Its slot is only the place of its record.
    Discard,
    /// Bytes of a volume, maybe the same one, by the worker itself. Its slot is only the
    /// place of its record.
    Copy {
        /// Where they come from.
        from: VolumeId,
        /// The first of them, in that volume.
        at: u64,
    },
    /// Where the next data or hole begins; has no slot.
    Seek(SeekTarget),
}

/// A request of the kernel's, cut to the volume's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What.
    pub kind: Kind,
    /// Where.
    pub volume: VolumeId,
    /// First byte, in the volume.
    pub offset: u64,
    /// Bytes; 0 for a flush or a seek only.
    pub len: u32,
    /// log2 of the size of the volume's objects.
    pub shift: u8,
}

impl Request {
    /// What the worker is told. `again`: an earlier worker may have begun with it.
    pub fn message(self, tag: Tag, slot: Option<Slot>, again: bool) -> ToWorker {
        let Self { kind, volume, offset, .. } = self;
        match (kind, slot) {
            (Kind::Read, Some(Slot { raw: span, .. })) => {
                ToWorker::Read { tag, volume, offset, span }
            }
            (Kind::Write, Some(Slot { raw: span, .. })) => {
                ToWorker::Write { tag, volume, offset, span, again }
            }
            (Kind::Zero, Some(Slot { raw: span, .. })) => {
                ToWorker::Zero { tag, volume, offset, span, again }
            }
            (Kind::Discard, Some(_)) => {
                ToWorker::Discard { tag, volume, offset, len: self.len, again }
            }
            (Kind::Copy { from, at }, Some(_)) => {
                ToWorker::Copy { tag, from, at, volume, offset, len: self.len, again }
            }
            (Kind::Seek(target), _) => ToWorker::Seek { tag, volume, offset, target },
            (Kind::Flush, _) | (_, None) => ToWorker::Flush { tag, volume },
        }
    }

    /// Whether it changes the volume.
    pub fn is_write(self) -> bool {
        self.makes_objects() || self.kind == Kind::Discard
    }

    /// Whether it may make objects.
    pub fn makes_objects(self) -> bool {
        self.has_payload() || self.source().is_some()
    }

    /// The volume that it reads, besides the one that it changes.
    pub fn source(self) -> Option<VolumeId> {
        match self.kind {
            Kind::Copy { from, .. } => Some(from),
            Kind::Read | Kind::Write | Kind::Flush | Kind::Zero | Kind::Discard | Kind::Seek(_) => {
                None
            }
        }
    }

    /// Whether it is of that volume in any way.
    pub fn concerns(self, volume: VolumeId) -> bool {
        self.volume == volume || self.source() == Some(volume)
    }

    /// Whether it has bytes to be written.
    pub fn has_payload(self) -> bool {
        matches!(self.kind, Kind::Write | Kind::Zero)
    }

    /// Bytes of its slot.
    pub fn slot_len(self) -> u32 {
        match self.kind {
            Kind::Read | Kind::Write | Kind::Zero => self.len,
            Kind::Discard | Kind::Copy { .. } => 1,
            Kind::Flush | Kind::Seek(_) => 0,
        }
    }
}

/// A leased part of the arena, as the book of slots and as the arena know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// For messages and for the book.
    pub raw: RawSpan,
    /// For the arena.
    pub span: Span,
}

/// The bytes of a write that is not in a live worker's arena.
#[derive(Clone, Debug)]
pub enum Payload {
    /// There are none: a read, a flush, or a write whose bytes are on their way
    /// into a slot, or there.
    None,
    /// A copy of our own.
    Kept(Vec<u8>),
    /// Where a worker's death left them; nobody else can touch them any more.
    Left(Arc<Arena>, Span),
}

impl Payload {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Kept(bytes) => bytes,
            Self::Left(arena, span) => arena.bytes(*span),
        }
    }

    /// Memory of our own that it takes.
    pub fn kept_len(&self) -> usize {
        match self {
            Self::Kept(bytes) => bytes.len(),
            Self::None | Self::Left(..) => 0,
        }
    }
}
