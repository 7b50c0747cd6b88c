//! How reads and writes come in: checked, cut into parts at object borders and queued at
//! their objects; and how they are answered when all their parts are done.

use super::objects::{Kind, Part, PartId};
use super::{Io, Phase, Volume};
use sheepfs::ipc::{Failure, Span, Tag};
use sheepfs::wire::request::{Extent, TRANSFER_LEN_MAX};
use std::collections::BTreeSet;

/// A request of the supervisor's, in parts.
#[derive(Debug)]
pub struct Op {
    /// How many of them are not done.
    pub parts_left: usize,
    /// Why the first failed that did.
    pub failure: Option<Failure>,
    /// Its place among the writes, for flushes.
    pub write: Option<u64>,
    /// Whether an earlier worker may have begun with it.
    pub again: bool,
    /// Whether it writes nothing where a hole is.
    pub sparse: bool,
}

/// A read or a write, without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Which.
    pub tag: Tag,
    /// Read or write.
    pub kind: Kind,
    /// First byte, in the volume.
    pub offset: u64,
    /// Whether an earlier worker may have begun with it.
    pub again: bool,
    /// Whether it writes zeros, and nothing where a hole is.
    pub sparse: bool,
}

impl Volume {
    /// Takes a read or a write.
    pub fn submit(&mut self, transfer: Transfer, span: Span, io: &mut Io) {
        let Transfer { tag, kind, offset, .. } = transfer;
        let end = offset.checked_add(u64::from(span.len()));
        if end.is_none_or(|end| end > self.header.vdi_size) {
            return io.done(tag, Err(Failure::OutOfBounds));
        }
        if let Some(failure) = self.refusal(kind) {
            return io.done(tag, Err(failure));
        }
        self.recent.note_use();
        let len = u64::from(span.len());
        let ahead = (kind == Kind::Read).then(|| self.streams.note(offset, len)).flatten();
        if kind == Kind::Read && self.read_cached(offset, span, io) {
            io.done(tag, Ok(()));
        } else {
            self.queue(transfer, span, io);
        }
        if let Some(wanted) = ahead {
            self.ask_ahead(wanted, span.len(), io);
        }
    }

    fn queue(&mut self, transfer: Transfer, span: Span, io: &mut Io) {
        let Transfer { tag, kind, offset, again, sparse } = transfer;
        let objects = self.split(tag, kind, offset, span);
        let write = kind.is_change().then(|| self.barriers.begin_write());
        self.ops.insert(tag, Op { parts_left: objects.len(), failure: None, write, again, sparse });
        if objects.is_empty() {
            return self.finish_op(tag, io);
        }
        for object in objects.iter().map(|(object, _)| *object).collect::<BTreeSet<_>>() {
            self.pump(object, io);
        }
    }

    pub(super) fn refusal(&self, kind: Kind) -> Option<Failure> {
        match self.phase {
            Phase::Failed(failure) => Some(failure),
            _ if kind.is_change() && self.header.is_snapshot() => Some(Failure::ReadOnly),
            Phase::Serving | Phase::Resting | Phase::Draining | Phase::Reloading(_) => None,
        }
    }

    /// Cuts a range at object borders and queues the parts.
    fn split(&mut self, tag: Tag, kind: Kind, offset: u64, span: Span) -> Vec<(u32, PartId)> {
        let shift = self.header.block_size_shift;
        let mut done = 0;
        let mut parts = Vec::with_capacity(1);
        while done < span.len() {
            let at = offset + u64::from(done);
            let inside = at & ((1 << shift) - 1);
            let left = ((1u64 << shift) - inside)
                .min(u64::from((span.len() - done).min(TRANSFER_LEN_MAX)));
            let (Ok(object), Ok(inside), Ok(len)) =
                (u32::try_from(at >> shift), u32::try_from(inside), u32::try_from(left))
            else {
                break;
            };
            let Some(extent) = Extent::new(inside, len, shift) else { break };
            let id = self.take_part_id();
            self.queue_part(object, Part::new(id, tag, kind, extent, span.part(done, len)));
            parts.push((object, id));
            done += len;
        }
        parts
    }

    pub(super) fn take_part_id(&mut self) -> PartId {
        self.next_part += 1;
        PartId(self.next_part)
    }

    pub(super) fn queue_part(&mut self, object: u32, part: Part) {
        self.objects.entry(object).or_default().push(part);
    }

    pub(super) fn finish_op(&mut self, tag: Tag, io: &mut Io) {
        let Some(op) = self.ops.remove(&tag) else { return };
        self.discards.remove(&tag);
        io.done(tag, op.failure.map_or(Ok(()), Err));
        if let Some(write) = op.write {
            self.barriers.end_write(write);
            self.send_flushes(io);
        }
    }
}
