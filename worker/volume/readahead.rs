//! Reading ahead of sequential readers, when that is in nobody's way.
//!
//! What [`super::streams`] wants is asked for in pieces, which [`crate::ahead`] keeps
//! until the reader comes. Nothing waits for it but reads that would ask for the same:
//! neither a detach nor a reload, since a piece that comes late is thrown away.

use super::index;
use super::objects::State;
use super::{Io, Phase, Volume, Wait};
use crate::ahead::{Cover, PIECE_LEN_MAX};
use crate::cache::Piece;
use crate::engine::Waiter;
use crate::verdict::Verdict;
use sheepfs::ipc::Span;
use sheepfs::wire::request::Extent;
use sheepfs::wire::{Request, VdiId};
use std::ops::Range;

/// Bytes that a volume's readers may have under way by themselves for reading ahead to
/// pay: with more the wire is busy already.
const OWN_DEPTH_MAX: u64 = 1 << 20;
/// By what part the depth that is remembered falls with each read.
const DEPTH_DECAY: u64 = 16;
/// Requests of anybody that may be under way: reading ahead is for idle wires.
const REQUESTS_MAX: usize = 16;
/// Pieces under way at once, of all volumes.
const PIECES_MAX: usize = 8;

impl Volume {
    /// A read's turn has come; what is there of it?
    pub(super) fn read_ahead(
        &self,
        (owner, object): (VdiId, u32),
        extent: Extent,
        span: Span,
        io: &mut Io,
    ) -> Cover {
        let cover = io.ahead.read((self.id, object), extent, (span, io.arena), io.now);
        if cover == Cover::Filled {
            io.cache.learn(self.id, &Piece { owner, object, extent }, span, io.arena);
        }
        cover
    }

    /// Asks for a range that a reader will ask for soon, as far as that is wise. `len` is
    /// how much it asks for at a time.
    pub(super) fn ask_ahead(&mut self, wanted: Range<u64>, len: u32, io: &mut Io) {
        let others = io.waiters.len().saturating_sub(io.ahead.under_way());
        // A deep reader has little under way for a moment, when answers come together.
        let own = self.ops.len() as u64 * u64::from(len);
        self.depth = own.max(self.depth - self.depth / DEPTH_DECAY);
        if !matches!(self.phase, Phase::Serving)
            || self.detaching.is_some()
            || self.depth > OWN_DEPTH_MAX
            || others > REQUESTS_MAX
        {
            return;
        }
        let mut at = wanted.start;
        let end = wanted.end.min(self.header.vdi_size);
        while at < end
            && io.ahead.under_way() < PIECES_MAX
            && io.ahead.make_room(PIECE_LEN_MAX, io.now)
        {
            let Some(next) = self.ask_piece(at, end, io) else { break };
            at = next;
        }
        if at > wanted.start {
            self.streams.note_ahead(at);
        }
    }

    /// Asks for one piece, unless it is a hole, cached, or being written; gives where the
    /// next begins. `None`: not now.
    fn ask_piece(&mut self, at: u64, end: u64, io: &mut Io) -> Option<u64> {
        let shift = self.header.block_size_shift;
        let object = u32::try_from(at >> shift).ok()?;
        let inside = at & ((1 << shift) - 1);
        let len = (end - at).min((1 << shift) - inside).min(u64::from(PIECE_LEN_MAX));
        let extent = Extent::new(u32::try_from(inside).ok()?, u32::try_from(len).ok()?, shift)?;
        let owner = index::owner(self.index.get(object)?);
        let written = self.objects.get(&object).is_some_and(|queue| queue.has_writes());
        if let Some(owner) = owner.filter(|_| !written)
            && io.cache.may_use(self.id, owner)
            && !io.cache.holds(&Piece { owner, object, extent })
            && io.ahead.begin(self.id, object, extent, io.now)
        {
            let wait = Wait::Ahead(object, extent.offset());
            let request = Request::read(owner, object, extent);
            io.send_of(request, None, self.holders(), Waiter::Volume(self.id, wait));
        }
        Some(at + len)
    }

    /// A piece has come, or won't: who waited for it has another look.
    pub(super) fn piece_replied(
        &mut self,
        (object, offset): (u32, u32),
        verdict: Verdict,
        bytes: &[u8],
        io: &mut Io,
    ) {
        let bytes = (verdict == Verdict::Done).then_some(bytes);
        io.ahead.finish(self.id, object, offset, bytes);
        if let Some(queue) = self.objects.get_mut(&object) {
            queue.wake(State::Awaiting);
        }
        self.pump(object, io);
    }
}
