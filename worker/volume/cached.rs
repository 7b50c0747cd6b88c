//! What a volume keeps in the object cache and takes from it; why that is right is in
//! [`crate::cache`].

use super::index;
use super::objects::{Kind, Part, State};
use super::{Io, Phase, Volume};
use crate::ahead::Cover;
use crate::cache::Piece;
use sheepfs::ipc::Span;
use sheepfs::wire::VdiId;
use sheepfs::wire::request::Extent;

impl Volume {
    /// Nobody else may use what is cached of a VDI that this volume writes to.
    pub(super) fn claim(&self, io: &mut Io) {
        if !self.header.is_snapshot() {
            io.cache.claim(self.id, self.own);
        }
    }

    /// Answers a read from the cache. Nothing is queued for that, so it is for reads
    /// within one object that no write waits for or is under way on.
    pub(super) fn read_cached(&self, offset: u64, span: Span, io: &mut Io) -> bool {
        let shift = self.header.block_size_shift;
        let inside = offset & ((1 << shift) - 1);
        let (Ok(object), Ok(inside)) = (u32::try_from(offset >> shift), u32::try_from(inside))
        else {
            return false;
        };
        let Some(extent) = Extent::new(inside, span.len(), shift) else { return false };
        let Some(owner) = self.index.get(object).and_then(index::owner) else { return false };
        let written = self.objects.get(&object).is_some_and(|queue| queue.has_writes());
        matches!(self.phase, Phase::Serving)
            && !written
            && self.known((owner, object), extent, span, io) == Cover::Filled
    }

    /// A read's turn has come: nothing that overlaps it is under way. What is known of it
    /// without asking?
    pub(super) fn known(
        &self,
        (owner, object): (VdiId, u32),
        extent: Extent,
        span: Span,
        io: &mut Io,
    ) -> Cover {
        if io.cache.read(self.id, &Piece { owner, object, extent }, span, io.arena) {
            return Cover::Filled;
        }
        self.read_ahead((owner, object), extent, span, io)
    }

    /// A part is about to be sent, in that state, to `owner`'s object.
    pub(super) fn note_sending(
        &mut self,
        object: u32,
        part: &Part,
        (owner, state): (VdiId, State),
        io: &mut Io,
    ) {
        match (part.kind, state) {
            (Kind::Read, _) => io.cache.note_miss(),
            (Kind::Write, State::Creating) => {
                io.cache.forget_object(owner, object, self.header.block_size_shift);
                io.ahead.void_object(self.id, object);
            }
            (Kind::Write | Kind::Discard, _) => {
                io.cache.forget(&Piece { owner, object, extent: part.extent });
                io.ahead.void(self.id, object, part.extent);
            }
        }
        let learns = io.cache.may_learn(self.id, owner).then_some(owner);
        if let Some(part) = self.objects.get_mut(&object).and_then(|queue| queue.get_mut(part.id)) {
            part.learns = learns;
        }
    }

    /// A part was done with success. One that was sent once and then done without asking, since
    /// it turned out to be a hole, says nothing of the object that it was sent to.
    pub(super) fn learn(&self, object: u32, part: &Part, io: &mut Io) {
        let was_asked = matches!(part.state, State::Running | State::Creating);
        let serves = self.failure().is_none();
        if let Some(owner) = part.learns.filter(|_| serves && was_asked) {
            let piece = Piece { owner, object, extent: part.extent };
            io.cache.learn(self.id, &piece, part.span, io.arena);
        }
    }
}
