//! What goes to the cluster for a volume, and to whom each reply goes.

use super::detach::released;
use super::discard::Question;
use super::index::Update;
use super::objects::PartId;
use super::{Io, Volume};
use crate::engine::Waiter;
use crate::verdict::{Verdict, on_object};
use sheepfs::ipc::{Span, Tag};
use sheepfs::wire::{Request, Status};
use std::time::Instant;

/// What a reply is for.
#[derive(Clone, Debug)]
pub enum Wait {
    /// A part's read, write or create.
    Part(u32, PartId),
    /// What lies behind a part in its erasure-coded stripe.
    StripeRest(u32, PartId),
    /// A part's index entry, read again.
    Recheck(u32, PartId),
    /// Whether the cluster recovers, since a part's object is absent.
    Recovery(u32, PartId),
    /// A piece that is read ahead, at that offset of that object.
    Ahead(u32, u32),
    /// The header, since that entry is another now: is it still our VDI's?
    Confirm(u32, PartId, u32),
    /// A page of the index.
    Page(u32),
    /// The header, to see whether that page was still our VDI's.
    PageHeader(u32, Box<[u8]>),
    /// A stretch of the index, for seeks and the count: that load of it.
    Stretch(u32),
    /// The header, to see whether that stretch was still our VDI's.
    StretchHeader(u32),
    /// An index update.
    Update(Update),
    /// A piece of the tree, for that lookup.
    Lookup(u32),
    /// What a change of the tree waits for.
    Tree,
    /// A flush.
    Flush(Tag),
    /// The header, to see whether the VDI is still what it was.
    Header(Instant),
    /// A step of a reload.
    Reload,
    /// The release of the lock at the end.
    Release(Tag),
    /// A step of a discard.
    Discard(Tag, Question),
}

impl Volume {
    pub(super) fn send(&mut self, request: Request, span: Option<Span>, wait: Wait, io: &mut Io) {
        self.on_wire += 1;
        io.send_of(request, span, self.holders(), Waiter::Volume(self.id, wait));
    }

    /// How many nodes hold each object whole. An erasure-coded one is on many nodes in
    /// pieces, none of which knows more than any other node.
    pub(super) fn holders(&self) -> u8 {
        if self.header.copy_policy == 0 { self.header.nr_copies } else { 0 }
    }

    /// A reply came. `true`: the sheep says that it is going.
    #[must_use]
    pub fn reply(
        &mut self,
        wait: Wait,
        status: Status,
        bytes: &[u8],
        vid: u32,
        io: &mut Io,
    ) -> bool {
        if !matches!(wait, Wait::Ahead(..)) {
            self.on_wire -= 1;
        }
        let verdict = on_object(status);
        if verdict == Verdict::SheepGone {
            return true;
        }
        let verdict = self.ruling(&wait, verdict);
        match wait {
            Wait::Part(object, part) => self.part_replied(object, part, verdict, io),
            Wait::StripeRest(object, part) => self.rest_replied(object, part, verdict, bytes, io),
            Wait::Recheck(object, part) => self.rechecked(object, part, verdict, bytes, io),
            Wait::Recovery(object, part) => {
                self.recovery_replied(object, part, (verdict, bytes), io);
            }
            Wait::Confirm(object, part, entry) => {
                self.confirmed(object, part, entry, (verdict, bytes), io);
            }
            Wait::Ahead(object, offset) => {
                self.piece_replied((object, offset), verdict, bytes, io);
            }
            Wait::Page(page) => self.page_replied(page, verdict, bytes, io),
            Wait::PageHeader(page, entries) => {
                self.page_confirmed(page, &entries, (verdict, bytes), io);
            }
            Wait::Stretch(number) => self.stretch_replied(number, verdict, bytes, io),
            Wait::StretchHeader(number) => self.stretch_confirmed(number, verdict, bytes, io),
            Wait::Update(update) => self.update_replied(&update, verdict, io),
            Wait::Lookup(id) => self.lookup_replied(id, verdict, bytes, io),
            Wait::Tree => self.tree_replied(verdict, bytes, io),
            Wait::Flush(tag) => self.flush_replied(tag, status, io),
            Wait::Header(asked) => self.header_replied(asked, verdict, bytes, io),
            Wait::Reload => self.reload_replied(status, bytes, vid, io),
            Wait::Release(tag) => io.done(tag, released(verdict)),
            Wait::Discard(tag, question) => {
                self.discard_replied(tag, question, verdict, (bytes, vid), io);
            }
        }
        self.settle(io);
        false
    }

    /// A volume that failed tries nothing again: what was not done fails.
    fn ruling(&self, wait: &Wait, verdict: Verdict) -> Verdict {
        let asks = matches!(
            wait,
            Wait::StripeRest(..)
                | Wait::Recheck(..)
                | Wait::Recovery(..)
                | Wait::Confirm(..)
                | Wait::Discard(..)
        );
        match self.failure() {
            Some(failure) if asks || verdict != Verdict::Done => Verdict::Fail(failure),
            Some(_) | None => verdict,
        }
    }
}
