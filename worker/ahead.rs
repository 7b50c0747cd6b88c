//! What was read ahead of sequential readers: a few MiB, in pieces, until they ask.
//!
//! It obeys the rules of the object cache (hazard 7), by place in the volume rather
//! than by owner: a write that is about to be sent makes every piece that it touches
//! void, whether the piece is there or still under way; a piece that arrives void is
//! thrown away. A read looks here only when its turn in the object's queue has come, so
//! nothing that overlaps it is under way then. What a copy on write does changes no
//! content. All pieces of a volume go when it moves to another vid, fails or is
//! detached, and when nobody has asked for a while.

use sheepfs::ipc::{Arena, Span, VolumeId};
use sheepfs::wire::request::Extent;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Bytes, at most, all volumes together, with what is under way.
const BYTES_MAX: usize = 16 << 20;
/// The largest piece: large enough that requests are few, small enough that a reader
/// that meets one under way does not wait for long.
pub const PIECE_LEN_MAX: u32 = 512 << 10;
/// Buffers that are kept to be used again.
const SPARE_MAX: usize = 8;
/// How long pieces are kept that nobody asks for.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// Where a piece begins: volume, object, offset in it.
type Place = (VolumeId, u32, u32);

#[derive(Debug)]
enum State {
    UnderWay { void: bool },
    There(Vec<u8>),
}

#[derive(Debug)]
struct Piece {
    len: u32,
    state: State,
    /// Bytes that were asked for since.
    served: u32,
    /// When it was asked for.
    begun: Instant,
}

/// What is known of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    /// It was filled in.
    Filled,
    /// The rest of it is under way.
    UnderWay,
    /// It must be asked for.
    None,
}

/// All pieces.
#[derive(Debug, Default)]
pub struct Ahead {
    pieces: BTreeMap<Place, Piece>,
    bytes: usize,
    under_way: usize,
    /// Buffers of the largest pieces, to be used again.
    spare: Vec<Vec<u8>>,
    used_at: Option<Instant>,
}

impl Ahead {
    /// Requests under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// A piece will be asked for. `false`: it must not, since there is something of it
    /// already, or no room.
    pub fn begin(&mut self, volume: VolumeId, object: u32, extent: Extent, now: Instant) -> bool {
        let len = extent.len();
        let known = self.overlapping(volume, object, extent).next().is_some();
        if known || !self.make_room(len, now) {
            return false;
        }
        let state = State::UnderWay { void: false };
        let piece = Piece { len, state, served: 0, begun: now };
        self.pieces.insert((volume, object, extent.offset()), piece);
        self.bytes += len as usize;
        self.under_way += 1;
        self.used_at = Some(now);
        true
    }

    /// A piece has come, or, if there are no bytes, will not.
    pub fn finish(&mut self, volume: VolumeId, object: u32, offset: u32, bytes: Option<&[u8]>) {
        let place = (volume, object, offset);
        let Some(piece) = self.pieces.get_mut(&place) else { return };
        let State::UnderWay { void } = piece.state else { return };
        self.under_way -= 1;
        match bytes.filter(|bytes| !void && bytes.len() == piece.len as usize) {
            Some(bytes) => {
                let usual = piece.len == PIECE_LEN_MAX;
                let mut buffer = self.spare.pop_if(|_| usual).unwrap_or_default();
                buffer.clear();
                buffer.extend_from_slice(bytes);
                piece.state = State::There(buffer);
            }
            None => self.forget(place),
        }
    }

    /// Fills `span` when all of it is there.
    pub fn read(
        &mut self,
        (volume, object): (VolumeId, u32),
        extent: Extent,
        (span, arena): (Span, &Arena),
        now: Instant,
    ) -> Cover {
        let (mut at, end) = (extent.offset(), extent.offset() + extent.len());
        let mut all_there = true;
        for ((_, _, offset), piece) in self.overlapping(volume, object, extent) {
            let usable = match piece.state {
                State::UnderWay { void } => !void,
                State::There(_) => true,
            };
            if *offset > at || !usable {
                return Cover::None;
            }
            all_there &= matches!(piece.state, State::There(_));
            at = offset + piece.len;
        }
        if at < end || extent.is_empty() {
            return Cover::None;
        }
        self.used_at = Some(now);
        if !all_there {
            return Cover::UnderWay;
        }
        self.fill((volume, object), extent, span, arena);
        Cover::Filled
    }

    fn fill(
        &mut self,
        (volume, object): (VolumeId, u32),
        extent: Extent,
        span: Span,
        arena: &Arena,
    ) {
        let (start, end) = (extent.offset(), extent.offset() + extent.len());
        let mut read_out = Vec::new();
        let first = self.first_overlapping(volume, object, start);
        for (place, piece) in self.pieces.range_mut(first..(volume, object, end)) {
            let State::There(bytes) = &piece.state else { continue };
            let from = start.max(place.2);
            let tail = bytes.get((from - place.2) as usize..).unwrap_or(&[]);
            arena.fill(span.part(from - start, piece.len), tail);
            piece.served += (place.2 + piece.len).min(end) - from;
            if piece.served >= piece.len {
                read_out.push(*place);
            }
        }
        // Each byte of it was asked for: a sequential reader does not come back.
        read_out.into_iter().for_each(|place| self.forget(place));
    }

    /// A write touches that range.
    pub fn void(&mut self, volume: VolumeId, object: u32, extent: Extent) {
        let touched: Vec<_> =
            self.overlapping(volume, object, extent).map(|(place, _)| *place).collect();
        touched.into_iter().for_each(|place| self.void_piece(place));
    }

    /// An object is made anew.
    pub fn void_object(&mut self, volume: VolumeId, object: u32) {
        let all = self.pieces.range((volume, object, 0)..=(volume, object, u32::MAX));
        let touched: Vec<_> = all.map(|(place, _)| *place).collect();
        touched.into_iter().for_each(|place| self.void_piece(place));
    }

    /// Nothing of a volume is good any more.
    pub fn drop_volume(&mut self, volume: VolumeId) {
        let all = self.pieces.range((volume, 0, 0)..=(volume, u32::MAX, u32::MAX));
        let touched: Vec<_> = all.map(|(place, _)| *place).collect();
        touched.into_iter().for_each(|place| self.void_piece(place));
    }

    /// Lets go of what nobody asks for.
    pub fn expire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            let idle: Vec<_> = self.pieces.keys().copied().collect();
            idle.into_iter().for_each(|place| self.void_piece(place));
            self.spare = Vec::new();
            self.used_at = None;
        }
    }

    /// When [`Self::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.used_at.map(|at| at + IDLE_TIME)
    }

    /// A piece under way stays, so that its end is known, and counted.
    fn void_piece(&mut self, place: Place) {
        match self.pieces.get_mut(&place).map(|piece| &mut piece.state) {
            Some(State::UnderWay { void }) => *void = true,
            Some(State::There(_)) => self.forget(place),
            None => {}
        }
    }

    fn forget(&mut self, place: Place) {
        if let Some(piece) = self.pieces.remove(&place) {
            self.bytes -= piece.len as usize;
            if let State::There(buffer) = piece.state
                && piece.len == PIECE_LEN_MAX
                && self.spare.len() < SPARE_MAX
            {
                self.spare.push(buffer);
            }
        }
    }

    /// Whether there is room for a piece so long. Only what nobody has come for gives way:
    /// of many readers' pieces the oldest are those that are wanted next.
    pub fn make_room(&mut self, len: u32, now: Instant) -> bool {
        while self.bytes + len as usize > BYTES_MAX {
            let left = |piece: &Piece| {
                matches!(piece.state, State::There(_)) && piece.begun + IDLE_TIME <= now
            };
            let left = self.pieces.iter().filter(|(_, piece)| left(piece));
            let Some(oldest) = left.min_by_key(|(_, piece)| piece.begun) else { return false };
            let oldest = *oldest.0;
            self.forget(oldest);
        }
        true
    }

    fn overlapping(
        &self,
        volume: VolumeId,
        object: u32,
        extent: Extent,
    ) -> impl Iterator<Item = (&Place, &Piece)> {
        let first = self.first_overlapping(volume, object, extent.offset());
        self.pieces.range(first..(volume, object, extent.offset() + extent.len()))
    }

    /// Where the first piece begins that reaches behind `start`, or `start`.
    fn first_overlapping(&self, volume: VolumeId, object: u32, start: u32) -> Place {
        let before = self.pieces.range((volume, object, 0)..=(volume, object, start)).next_back();
        let reaches = before.filter(|(place, piece)| place.2 + piece.len > start);
        reaches.map_or((volume, object, start), |(place, _)| *place)
    }
}

#[cfg(test)]
mod tests;
