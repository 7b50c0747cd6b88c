//! Where a volume has data, and how much: seeks, and the count of its objects.
//!
//! Both walk over the index. It is read in stretches ([`load`]) of many entries, far larger
//! than the pages that reads and writes want ([`super::pages`]), and nothing of it is kept
//! but which blocks of one stretch have an object: where a seek has ended the next one
//! begins. A stretch is forgotten [`PIECE_TIME`] after it was last used. It stays true
//! meanwhile, since nobody else changes the index of an attached VDI and each change of ours
//! goes through [`Volume::set_entry`]; when the volume moves to another vid, it is forgotten.
//!
//! A block is data from the moment on in which its write has come, and stays so when its index
//! entry is ours, before the write is answered. A block that is discarded is none any more when
//! its entry is about to be cleared. Where a seek has been it does not look again, also not
//! after a reload: each block was what the seek took it for while the seek ran.
//!
//! # The count
//!
//! `st_blocks` must never say less than what is stored, as programs take a file without
//! blocks for a hole and do not read it. So a volume counts as full until its objects are
//! counted. That begins with each attach and each resume, when no orphan is left, a few
//! volumes at a time ([`crate::turns`]). From then on each changed entry changes the number
//! ([`tally`]), and the supervisor hears of it before the write that made the object is
//! answered ([`FromWorker::Stored`]). A worker that follows another counts afresh, and says at
//! once that it does not know yet: the one before it may have written entries of which nobody
//! heard. So there is nothing to be kept over the death of a worker or a supervisor, and a
//! volume looks full for the time of a count. An index of 1 TiB in blocks of 4 MiB is 1 MiB,
//! which takes four requests.
//!
//! # Orphans
//!
//! What a dead worker has left on the wire may set an entry at any time, also of a write that
//! nobody repeats, since it was answered with an error meanwhile; and the tree of a hyper volume
//! may be in the middle of a change, so that a walk would miss entries that are moved. So no
//! count begins before all orphans are over, and nothing is counted that was read before: the
//! gateways that could have any say that nothing is active there, or are gone, or the time has
//! passed that fences have ([`crate::watch`]), and the cluster knows of the death of those that
//! are dead ([`crate::departure`]). After that only this worker changes the index. For the
//! supervisor the count of the one before has ended with its death, where orphans are left.
//!
//! Where time alone has passed, nothing is proved. So a write that is repeated, and finds its
//! entry set, has it counted again from the start ([`Tally::doubt`]).
//!
//! A page of the index may have been read before an orphan has set an entry in it. What the
//! count reads is newer then, and believed ([`mod@late`]).

mod late;
mod load;
mod piece;
mod seek;
mod tally;

use super::objects::ObjectQueue;
use super::{Io, Phase, Volume};
use late::Outdated;
use load::Load;
use piece::Piece;
use seek::{Blocks, Seek, Walk};
use sheepfs::ipc::{Failure, FromWorker, SeekTarget, Tag};
use sheepfs::wire::cluster::{BlockUsage, covered_entries};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tally::Tally;

/// How long a stretch is kept that nobody uses.
const PIECE_TIME: Duration = Duration::from_secs(10);

/// What is known of where a volume has data.
#[derive(Debug, Default)]
pub struct Extents {
    /// Seeks without an answer, in order.
    seeks: VecDeque<Seek>,
    piece: Option<(Piece, Instant)>,
    load: Load,
    /// Of the last load.
    number: u32,
    /// How often in a row a stretch was refused.
    refusals: u32,
    tally: Tally,
    /// What was under way when the count could begin, and is older.
    outdated: Outdated,
    /// Whether an entry was counted as it was known, and not as it was read.
    disputed: bool,
    /// What the supervisor knows, and how often it was told.
    told: (Option<BlockUsage>, u64),
}

impl Extents {
    /// Whether nobody waits for a seek.
    pub fn is_idle(&self) -> bool {
        self.seeks.is_empty()
    }

    /// When [`Volume::tick_extents`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let forget = self.piece.as_ref().map(|(_, used)| *used + PIECE_TIME);
        self.load.delayed_until().into_iter().chain(forget).min()
    }
}

impl Volume {
    fn blocks(&self) -> Blocks {
        let (len, shift) = (self.header.vdi_size, self.header.block_size_shift);
        let block = 1_u64.checked_shl(shift.into()).unwrap_or(u64::MAX);
        let count = if self.is_hyper() {
            len.div_ceil(block).min(1 << 32)
        } else {
            covered_entries(&self.header).into()
        };
        Blocks { count, shift, len }
    }

    /// Takes a seek.
    pub fn seek(&mut self, tag: Tag, offset: u64, target: SeekTarget, io: &mut Io) {
        if let Some(failure) = self.failure() {
            return io.done(tag, Err(failure));
        }
        self.recent.note_use();
        let seek = Seek::new(tag, offset, target, self.blocks());
        self.extents.seeks.push_back(seek);
        self.pump_extents(io);
    }

    /// The volume's turn to count its objects has come.
    pub fn take_turn(&mut self, io: &mut Io) {
        self.note_outdated();
        self.extents.tally.take_turn();
        self.pump_extents(io);
    }

    /// Whether it counts its objects just now.
    pub fn has_turn(&self) -> bool {
        self.failure().is_none() && self.detaching.is_none() && self.extents.tally.has_turn()
    }

    /// Lets the first seek go on, or the count.
    pub(super) fn pump_extents(&mut self, io: &mut Io) {
        if !matches!(self.phase, Phase::Serving) || self.pausing {
            return;
        }
        let blocks = self.blocks();
        while let Some(seek) = self.extents.seeks.front_mut() {
            let known = self.extents.piece.as_mut();
            let piece = known.map(|(piece, used)| {
                *used = io.now;
                &*piece
            });
            let (objects, unsure) = (&self.objects, &self.unsure);
            let written = |from: u32| {
                let written = |(_, queue): &(&u32, &ObjectQueue)| queue.is_written();
                let written = objects.range(from..).find(written).map(|(block, _)| *block);
                written.into_iter().chain(unsure.range(from..).next().copied()).min()
            };
            let tag = seek.tag;
            match seek.walk(piece, written, blocks) {
                Walk::Needs(block) => return self.load_stretch(block, io),
                Walk::Ends(offset) => {
                    self.extents.seeks.pop_front();
                    io.out.push(FromWorker::Sought { tag, offset });
                    io.done(tag, Ok(()));
                }
            }
        }
        // Nobody asks any more how much a volume has that goes.
        match self.extents.tally.wants().filter(|_| self.detaching.is_none()) {
            Some(first) if u64::from(first) < blocks.count => self.load_stretch(first, io),
            Some(_) => {
                self.extents.tally.finish();
                self.tell_stored(io);
            }
            None => {}
        }
    }

    /// Nobody can say where there is data.
    pub(super) fn give_up_extents(&mut self, failure: Failure, io: &mut Io) {
        for seek in std::mem::take(&mut self.extents.seeks) {
            io.done(seek.tag, Err(failure));
        }
        if self.extents.tally.known().is_none() {
            self.extents.tally = Tally::GivenUp;
        }
        self.extents.piece = None;
    }

    /// Nobody knows any more how many objects there are.
    pub(super) fn give_up_count(&mut self, io: &mut Io) {
        self.extents.tally = Tally::GivenUp;
        self.tell_stored(io);
    }

    /// Takes a time step.
    pub(super) fn tick_extents(&mut self, io: &mut Io) {
        if self.extents.load.is_ripe(io.now) {
            self.pump_extents(io);
        }
        self.extents.piece.take_if(|(_, used)| *used + PIECE_TIME <= io.now);
    }

    /// The volume goes on under a new vid. Its index says the same, unless a discard was
    /// under way, which the server may have undone as it made the snapshot, or an orphan has set
    /// an entry that was not believed.
    pub(super) fn move_extents(&mut self, io: &mut Io) {
        self.extents.piece = None;
        (self.extents.load, self.extents.outdated) = (Load::None, Outdated::default());
        if self.discards.is_empty() && !std::mem::take(&mut self.extents.disputed) {
            self.extents.tally.inherit();
        } else {
            self.extents.tally.begin_again();
        }
        self.tell_stored(io);
        self.pump_extents(io);
    }

    /// An index entry is another now: everything that changes one says so here.
    pub(super) fn set_entry(&mut self, block: u32, owner: u32) {
        let before = self.index.get(block).unwrap_or(0);
        self.index.set(block, owner);
        let extents = &mut self.extents;
        if before == owner && owner != 0 {
            extents.tally.doubt(block);
        }
        extents.tally.change(block, (before, owner), self.own);
        extents.load.note(block, owner);
        if let Some((piece, _)) = &mut extents.piece {
            piece.set(block, owner != 0);
        }
    }

    /// Lets the supervisor know how many objects there are, if that is news. If they are to
    /// be counted again, that begins.
    pub(super) fn tell_stored(&mut self, io: &mut Io) {
        let usage = self.extents.tally.known();
        if usage != self.extents.told.0 {
            self.extents.told.0 = usage;
            self.say_stored(io);
        }
        if self.extents.tally.wants().is_some() {
            self.pump_extents(io);
        }
    }

    /// Says how many objects there are, as far as that is known.
    pub(super) fn say_stored(&mut self, io: &mut Io) {
        let (usage, number) = &mut self.extents.told;
        *number += 1;
        io.out.push(FromWorker::Stored { volume: self.id, number: *number, usage: *usage });
    }
}
