//! Reading a stretch of the index.
//!
//! Of an array it is a piece of [`PIECE_BLOCKS`] entries. Of a hyper volume it is a lookup in
//! the tree, of all that there is from a block on, or of so much that changes of the tree, which
//! wait for it, do not wait long ([`Wanted::Stretch`]).
//!
//! A stretch on its way may be older or newer than what is known here. So once it is there,
//! what a snapshot may have lost is put over it, then the pages that are known, then what
//! has changed since it was asked for. As with a page, the header that is read after it
//! says whether the index is still our VDI's: a deleted one would be a single hole. If a
//! snapshot was made meanwhile, the stretch is read again under the new vid. One that was
//! asked for before the count could begin is no part of it.

use super::piece::Piece;
use crate::verdict::Verdict;
use crate::volume::index::Index;
use crate::volume::tree::Wanted;
use crate::volume::{Io, Phase, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use sheepfs::ipc::Failure;
use sheepfs::wire::Request;
use sheepfs::wire::inode::InodeHeader;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Blocks of a piece of an array: 256 KiB of an index.
const PIECE_BLOCKS: u32 = 1 << 16;

/// Entries that name an object, among the blocks from the first to the last.
#[derive(Debug)]
pub struct Stretch {
    /// The first block.
    pub first: u32,
    /// The last block.
    pub last: u32,
    /// Those that are not 0.
    pub entries: BTreeMap<u32, u32>,
}

impl Stretch {
    fn put(&mut self, block: u32, owner: u32) {
        if !(self.first..=self.last).contains(&block) {
            return;
        }
        match owner {
            0 => drop(self.entries.remove(&block)),
            owner => drop(self.entries.insert(block, owner)),
        }
    }
}

/// Whether a stretch is on its way.
#[derive(Debug, Default)]
pub enum Load {
    /// None.
    #[default]
    None,
    /// One is.
    UnderWay {
        /// From here on.
        first: u32,
        /// The entries that have changed since it was asked for.
        changed: BTreeMap<u32, u32>,
        /// The blocks on which something was under way then.
        busy: BTreeSet<u32>,
        /// What was read, which the header is to confirm.
        read: Option<Stretch>,
    },
    /// The cluster did not want to give it; it is asked for again then.
    Delayed(Instant),
}

impl Load {
    /// When it is asked for again.
    pub fn delayed_until(&self) -> Option<Instant> {
        if let Self::Delayed(until) = self { Some(*until) } else { None }
    }

    /// Whether it is time to ask again. If so, none is delayed any more.
    pub fn is_ripe(&mut self, now: Instant) -> bool {
        let ripe = self.delayed_until().is_some_and(|until| until <= now);
        if ripe {
            *self = Self::None;
        }
        ripe
    }

    /// An entry is another now.
    pub fn note(&mut self, block: u32, owner: u32) {
        if let Self::UnderWay { changed, .. } = self {
            changed.insert(block, owner);
        }
    }
}

impl Volume {
    /// Asks for the stretch with a block, unless one is on its way.
    pub(super) fn load_stretch(&mut self, block: u32, io: &mut Io) {
        if !matches!(self.extents.load, Load::None) {
            return;
        }
        let last = u32::try_from(self.blocks().count.saturating_sub(1)).unwrap_or(u32::MAX);
        let hyper = self.is_hyper();
        let first = if hyper { block } else { block / PIECE_BLOCKS * PIECE_BLOCKS };
        let busy = self.objects.range(first..).map(|(block, _)| *block).collect();
        let (changed, read) = (BTreeMap::new(), None);
        self.extents.load = Load::UnderWay { first, changed, busy, read };
        self.extents.number = self.extents.number.wrapping_add(1);
        let number = self.extents.number;
        if hyper {
            self.look_up(Wanted::Stretch(number, first, last), io);
        } else {
            let count = PIECE_BLOCKS.min(last.saturating_sub(first).saturating_add(1));
            self.send(Request::read_index(self.own, first, count), None, Wait::Stretch(number), io);
        }
    }

    /// Whether that is the load that is under way, and of use.
    fn is_awaited(&self, number: u32) -> bool {
        let under_way = matches!(self.extents.load, Load::UnderWay { .. });
        under_way && number == self.extents.number
    }

    /// A piece of an array has come.
    pub(in crate::volume) fn stretch_replied(
        &mut self,
        number: u32,
        verdict: Verdict,
        bytes: &[u8],
        io: &mut Io,
    ) {
        if verdict != Verdict::Done {
            return self.stretch_failed(number, verdict, io);
        }
        let Load::UnderWay { first, .. } = self.extents.load else { return };
        let (entries, _) = bytes.as_chunks::<4>();
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let owners = entries.iter().map(|bytes| u32::from_le_bytes(*bytes));
        let found = (first..).zip(owners).filter(|(_, owner)| *owner != 0).collect();
        match count.checked_sub(1) {
            Some(more) => {
                self.stretch_found(number, (first, first.saturating_add(more)), found, io);
            }
            None => self.stretch_failed(number, Verdict::Fail(Failure::BadAnswer), io),
        }
    }

    /// All entries from the first to the last block are found.
    pub(in crate::volume) fn stretch_found(
        &mut self,
        number: u32,
        (first, last): (u32, u32),
        mut entries: BTreeMap<u32, u32>,
        io: &mut Io,
    ) {
        if !self.is_awaited(number) {
            return;
        }
        if !matches!(self.phase, Phase::Serving) {
            self.extents.load = Load::None;
            return;
        }
        entries.retain(|_, owner| *owner != 0);
        if let Load::UnderWay { read, .. } = &mut self.extents.load {
            *read = Some(Stretch { first, last, entries });
        }
        self.send(Request::read_inode_header(self.own), None, Wait::StretchHeader(number), io);
    }

    /// The header has come that was read after a stretch.
    pub(in crate::volume) fn stretch_confirmed(
        &mut self,
        number: u32,
        verdict: Verdict,
        bytes: &[u8],
        io: &mut Io,
    ) {
        if verdict != Verdict::Done {
            return self.stretch_failed(number, verdict, io);
        }
        if !self.is_awaited(number) {
            return;
        }
        let load = std::mem::take(&mut self.extents.load);
        let (Phase::Serving, Load::UnderWay { changed, busy, read: Some(mut stretch), .. }) =
            (&self.phase, load)
        else {
            return;
        };
        match InodeHeader::decode(bytes) {
            Ok(header) if self.is_still_ours(&header) => {
                if header.is_snapshot() && !self.header.is_snapshot() {
                    return self.drain();
                }
            }
            Ok(_) | Err(_) => return self.fail(Failure::Replaced, io),
        }
        self.extents.refusals = 0;
        let ours = |block| busy.contains(&block) || changed.contains_key(&block);
        self.take_late(&stretch, ours, io);
        self.put_newer(&mut stretch);
        changed.iter().for_each(|(block, owner)| stretch.put(*block, *owner));
        if !self.extents.outdated.is_load(number) {
            self.extents.tally.take(&stretch, self.own);
        }
        if self.is_wanted_by_seek(&stretch) {
            self.extents.piece = Some((Piece::new(&stretch), io.now));
        }
        self.tell_stored(io);
        self.pump_extents(io);
    }

    fn is_wanted_by_seek(&self, stretch: &Stretch) -> bool {
        let seek = self.extents.seeks.front();
        seek.is_some_and(|seek| (stretch.first..=stretch.last).contains(&seek.block()))
    }

    /// Puts over entries that were read what is known to be newer.
    fn put_newer(&self, stretch: &mut Stretch) {
        let range = stretch.first..=stretch.last;
        for known in self.recent.among(range) {
            // An own entry is the newest there can be, also if nobody told of it.
            if stretch.entries.get(&known.block) != Some(&self.own.get()) {
                stretch.put(known.block, known.owner.get());
            }
        }
        let pages = Index::page_of(stretch.first)..=Index::page_of(stretch.last);
        for page in self.index.loaded().filter(|page| pages.contains(page)) {
            let known = self.index.entries_of(page).into_iter().flatten();
            let blocks = Index::blocks_of(page);
            let read: Vec<u32> = stretch.entries.range(blocks.clone()).map(|(at, _)| *at).collect();
            read.into_iter().for_each(|block| stretch.put(block, 0));
            let known = blocks.zip(known).filter(|(_, owner)| **owner != 0);
            known.for_each(|(block, owner)| stretch.put(block, *owner));
        }
    }

    /// A stretch did not come.
    pub(in crate::volume) fn stretch_failed(&mut self, number: u32, verdict: Verdict, io: &mut Io) {
        if !self.is_awaited(number) {
            return;
        }
        if !matches!(self.phase, Phase::Serving) {
            self.extents.load = Load::None;
            return;
        }
        let failure = match verdict {
            Verdict::Retry => None,
            Verdict::Fail(_) | Verdict::Recheck if self.extents.refusals < REFUSALS_MAX => {
                self.extents.refusals += 1;
                None
            }
            Verdict::Fail(failure) => Some(failure),
            Verdict::Done | Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                Some(Failure::ObjectLost)
            }
        };
        match failure {
            None => self.extents.load = Load::Delayed(io.now + RETRY_DELAY),
            Some(failure) => self.stretch_damaged(number, failure, io),
        }
    }

    /// Trying again is of no use.
    pub(in crate::volume) fn stretch_damaged(
        &mut self,
        number: u32,
        failure: Failure,
        io: &mut Io,
    ) {
        if self.is_awaited(number) {
            (self.extents.load, self.extents.refusals) = (Load::None, 0);
            self.give_up_extents(failure, io);
        }
    }
}
