//! Copies from volume to volume, cut into pieces. Pure.
//!
//! A piece is read into memory of this process, and then written from there; where the
//! source has a hole, it is only written, as zeros that leave a hole in the destination
//! alone. To the volumes these are reads and writes like all others, under names of their
//! own, which never leave the worker: what is said of a piece is said of its copy. So they
//! wait for what overlaps them, create objects in order, and are remembered and cached as
//! others are. A piece has no object for itself while it waits for another, so copies can't
//! wait for each other in a circle.
//!
//! A copy has [`PIECES_MAX`] pieces under way, and all of them together [`BUFFERS`] that
//! take memory. Each in its turn gets what is free.
//!
//! One that is repeated writes zeros also where both volumes have holes: what an earlier
//! worker, which had found data, has entered in the index may be known to some nodes only.

use sheepfs::ipc::{Arena, Failure, FromWorker, Span, Tag, VolumeId};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Bytes of a piece, and what its borders are multiples of in the source, so that it never
/// crosses those of objects of usual size.
const PIECE_LEN: u32 = 1 << 20;
/// Pieces of one copy that are under way at once.
const PIECES_MAX: usize = 4;
/// Pieces with bytes that are under way at once.
const BUFFERS: u32 = 8;
/// Set in the names of pieces. The supervisor does not get so far (its tags count up from
/// 0, and those of its control loop have the highest bit besides).
const PIECE_TAG: u64 = 1 << 62;

/// What is to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Which request.
    pub tag: Tag,
    /// The volume to read.
    pub from: VolumeId,
    /// First byte, in that volume.
    pub at: u64,
    /// The volume to write.
    pub volume: VolumeId,
    /// First byte, in the volume.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// Whether an earlier worker may have begun with it.
    pub again: bool,
}

/// A place in a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The volume.
    pub volume: VolumeId,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

/// What a piece needs next.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its name.
    pub tag: Tag,
    /// Where.
    pub place: Place,
    /// Where its bytes are, or go.
    pub span: Span,
    /// What is done.
    pub what: What,
}

/// What is done with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is read.
    Read,
    /// It is written.
    Write {
        /// As in [`Order`].
        again: bool,
        /// Whether it is zeros, and leaves holes alone.
        sparse: bool,
    },
}

#[derive(Debug)]
struct CopyRun {
    order: Order,
    /// Bytes of which pieces were made.
    begun: u32,
    under_way: usize,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Piece {
    copy: Tag,
    source: Place,
    target: Place,
    /// Where its bytes are; `None` for a hole.
    buffer: Option<Span>,
    is_read: bool,
}

/// All copies under way.
#[derive(Debug)]
pub struct Copies {
    copies: BTreeMap<Tag, CopyRun>,
    pieces: HashMap<Tag, Piece>,
    /// Copies of which not all is begun, in the order in which they get a piece.
    turns: VecDeque<Tag>,
    /// Memory that is free.
    buffers: Vec<Span>,
    /// Memory that is never written.
    zeros: Option<Span>,
    next: u64,
    piece_len: u32,
}

impl Default for Copies {
    fn default() -> Self {
        Self {
            copies: BTreeMap::new(),
            pieces: HashMap::new(),
            turns: VecDeque::new(),
            buffers: Vec::new(),
            zeros: None,
            next: 0,
            piece_len: PIECE_LEN,
        }
    }
}

impl Copies {
    /// Makes shorter pieces.
    #[cfg(test)]
    pub fn with_pieces_of(piece_len: u32) -> Self {
        Self { piece_len, ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.copies.is_empty()
    }

    /// Takes a copy.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn begin(&mut self, order: Order, arena: &Arena) -> Result<(), Failure> {
        if self.zeros.is_none() {
            let all = (BUFFERS + 1) * self.piece_len;
            let annex = arena.annex(all).map_err(|_| Failure::NoMemory)?;
            let part = |number| annex.part(number * self.piece_len, self.piece_len);
            self.zeros = Some(part(0));
            self.buffers = (1..=BUFFERS).map(part).collect();
        }
        let copy = CopyRun { order, begun: 0, under_way: 0, failure: None };
        self.copies.insert(order.tag, copy);
        self.turns.push_back(order.tag);
        Ok(())
    }

    /// The next piece that can begin. `is_hole` says of a place whether that is known to
    /// be one, with nothing under way there.
    pub fn next(&mut self, is_hole: impl Fn(Place) -> bool) -> Option<Step> {
        for _ in 0..self.turns.len() {
            let tag = self.turns.pop_front()?;
            let Some(copy) = self.copies.get_mut(&tag) else { continue };
            if copy.is_begun() {
                continue;
            }
            self.turns.push_back(tag);
            if copy.under_way >= PIECES_MAX {
                continue;
            }
            let (source, target) = copy.next_piece(self.piece_len);
            let buffer = if is_hole(source) {
                None
            } else if let Some(buffer) = self.buffers.pop() {
                Some(buffer)
            } else {
                continue;
            };
            copy.begun += source.len;
            copy.under_way += 1;
            let piece = Piece { copy: tag, source, target, buffer, is_read: buffer.is_none() };
            self.next += 1;
            let name = Tag(PIECE_TAG | self.next);
            self.pieces.insert(name, piece);
            return self.step(name);
        }
        None
    }

    fn step(&self, name: Tag) -> Option<Step> {
        let piece = self.pieces.get(&name)?;
        let again = self.copies.get(&piece.copy)?.order.again;
        let (place, what) = if piece.is_read {
            let sparse = piece.buffer.is_none() && !again;
            (piece.target, What::Write { again, sparse })
        } else {
            (piece.source, What::Read)
        };
        let span = piece.buffer.or(self.zeros)?.part(0, place.len);
        Some(Step { tag: name, place, span, what })
    }

    /// Takes the ends of pieces out of what the volumes say, and lets the rest that is said
    /// of pieces be said of their copies.
    pub fn hear(&self, out: &mut Vec<FromWorker>) -> Vec<(Tag, Result<(), Failure>)> {
        let mut ended = Vec::new();
        out.retain_mut(|message| {
            match message {
                FromWorker::Done { tag, outcome } if self.pieces.contains_key(tag) => {
                    ended.push((*tag, *outcome));
                    return false;
                }
                FromWorker::Creating { tag, .. } | FromWorker::Growing { tag } => {
                    *tag = self.pieces.get(tag).map_or(*tag, |piece| piece.copy);
                }
                _ => {}
            }
            true
        });
        ended
    }

    /// A read or a write of a piece is over. Gives what is next for it, and says when its
    /// copy is through.
    pub fn ended(
        &mut self,
        name: Tag,
        outcome: Result<(), Failure>,
        is_hole: impl Fn(Place) -> bool,
        out: &mut Vec<FromWorker>,
    ) -> Option<Step> {
        let piece = self.pieces.get_mut(&name)?;
        let copy = self.copies.get_mut(&piece.copy)?;
        copy.failure = copy.failure.or(outcome.err());
        if !piece.is_read && copy.failure.is_none() {
            piece.is_read = true;
            if is_hole(piece.source) {
                self.buffers.extend(piece.buffer.take());
            }
            return self.step(name);
        }
        copy.under_way -= 1;
        if copy.under_way == 0 && copy.is_begun() {
            let outcome = copy.failure.map_or(Ok(()), Err);
            out.push(FromWorker::Done { tag: piece.copy, outcome });
            self.copies.remove(&piece.copy);
        }
        self.buffers.extend(piece.buffer.take());
        self.pieces.remove(&name);
        None
    }
}

impl CopyRun {
    /// Whether no more pieces of it will begin.
    fn is_begun(&self) -> bool {
        self.failure.is_some() || self.begun == self.order.len
    }

    fn next_piece(&self, piece_len: u32) -> (Place, Place) {
        let Order { from, at, volume, offset, len, .. } = self.order;
        let at = at + u64::from(self.begun);
        let grid = u64::from(piece_len);
        let to_border = u32::try_from(grid - at % grid).unwrap_or(piece_len);
        let len = to_border.min(len - self.begun);
        let source = Place { volume: from, offset: at, len };
        let target = Place { volume, offset: offset + u64::from(self.begun), len };
        (source, target)
    }
}

#[cfg(test)]
mod tests;
