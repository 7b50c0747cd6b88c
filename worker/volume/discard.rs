//! Discards: whole objects go from the cluster, and their index entries with them.
//!
//! A discard is cut into its blocks, which wait in their objects' queues. All of them are
//! held at the head of these before it begins. Two discards never overlap, and no other
//! request holds more than one object, so they can't wait for each other in a circle. A block
//! that is written again waits in its object's queue until the discard is done, so the create
//! comes after the removal was answered.
//!
//! Then it goes from stage to stage, which are others for an index that is an array ([`mod@array`])
//! than for the tree of a hyper volume ([`tree`]). A stage asks something for all blocks at
//! once, and is over when all of that is answered; what was refused for the moment is asked
//! again, after a while.
//!
//! What is not whole here, the supervisor writes as zeros, where something is.

mod array;
mod former;
mod look;
mod questions;
mod tree;

use super::intake::Op;
use super::objects::{Kind, Part, PartId, State};
use super::{Io, Volume};
use former::Former;
pub use look::{Found, gref};
pub use questions::Question;
use sheepfs::ipc::{Failure, RawSpan, Tag};
use sheepfs::wire::VdiId;
use sheepfs::wire::request::Extent;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

/// How far a discard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its parts wait for their turn.
    Gathering,
    /// Its index is an array.
    Array(array::Stage),
    /// Its index is a tree.
    Tree(tree::Stage),
}

/// A block of a discard.
#[derive(Clone, Copy, Debug)]
struct Block {
    part: PartId,
    /// What its entry was before it was cleared.
    was: u32,
    /// Whether the stage has something to do for it yet.
    due: bool,
}

/// A discard under way.
#[derive(Debug)]
pub struct Discard {
    blocks: BTreeMap<u32, Block>,
    /// Whether an earlier worker, or an earlier vid, may have seen a part of it, or the
    /// entries are not known for certain. All of them are cleared then, since nodes may
    /// differ in what a gateway that died has written.
    again: bool,
    stage: Stage,
    /// What the stage waits for.
    outstanding: usize,
    /// Whether some of them are to be asked once more.
    once_more: bool,
    delayed: Option<Instant>,
    /// How often it began anew since something was not as it must be.
    refusals: u32,
    /// How often in a row a part of the stage was refused: of many questions that are asked at
    /// once as often as of one.
    refused: u32,
    /// Whether one was since they were asked.
    refused_now: bool,
    failure: Option<Failure>,
    /// What was read of an inode.
    found: Found,
    former: Option<Former>,
    /// The vid in which the blocks were cleared, before the name had another.
    cleared_in: Option<VdiId>,
}

impl Discard {
    /// Whether it must come to an end, or back to its beginning, before its volume may
    /// look for another vid.
    pub fn is_running(&self) -> bool {
        self.stage != Stage::Gathering
    }

    /// When what was delayed is due.
    pub fn delayed_until(&self) -> Option<Instant> {
        self.delayed
    }

    fn range(&self) -> (u32, u32) {
        let first = self.blocks.first_key_value().map_or(0, |(block, _)| *block);
        let last = self.blocks.last_key_value().map_or(0, |(block, _)| *block);
        (first, (last - first).saturating_add(1))
    }

    fn due(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let due = self.blocks.iter().filter(|(_, block)| block.due);
        due.map(|(number, block)| (*number, block.was))
    }

    fn settle_block(&mut self, number: u32) {
        if let Some(block) = self.blocks.get_mut(&number) {
            block.due = false;
        }
    }
}

impl Volume {
    /// Takes a discard: of the objects that lie wholly in the range. The volume's last one
    /// does when the range ends with the volume.
    pub fn discard(&mut self, tag: Tag, range: (u64, u32), again: bool, io: &mut Io) {
        let (offset, len) = range;
        let size = self.header.vdi_size;
        let Some(end) = offset.checked_add(u64::from(len)).filter(|end| *end <= size) else {
            return io.done(tag, Err(Failure::OutOfBounds));
        };
        if let Some(failure) = self.refusal(Kind::Discard) {
            return io.done(tag, Err(failure));
        }
        let shift = self.header.block_size_shift;
        let object_len = 1u64 << shift;
        // It was cut for a volume that ended there, which has grown since.
        if end < size && end % object_len != 0 {
            return io.done(tag, Err(Failure::Grown));
        }
        let last = if end == size { end.div_ceil(object_len) } else { end >> shift };
        self.recent.note_use();
        self.gather(tag, offset.div_ceil(object_len)..last, again, io);
    }

    fn gather(&mut self, tag: Tag, objects: Range<u64>, again: bool, io: &mut Io) {
        let nothing = (Extent::new(0, 0, 0), io.arena.check(RawSpan { offset: 0, len: 0 }));
        let (Some(extent), Some(span)) = nothing else {
            return io.done(tag, Err(Failure::OutOfBounds));
        };
        let mut blocks = BTreeMap::new();
        for object in objects {
            // There are 2^32 of them at most.
            let Ok(object) = u32::try_from(object) else { break };
            let id = self.take_part_id();
            self.queue_part(object, Part::new(id, tag, Kind::Discard, extent, span));
            blocks.insert(object, Block { part: id, was: 0, due: false });
        }
        let write = Some(self.barriers.begin_write());
        let parts_left = blocks.len();
        self.ops.insert(tag, Op { parts_left, failure: None, write, again, sparse: false });
        if blocks.is_empty() {
            return self.finish_op(tag, io);
        }
        let objects: Vec<u32> = blocks.keys().copied().collect();
        let discard = Discard {
            blocks,
            again,
            stage: Stage::Gathering,
            outstanding: 0,
            once_more: false,
            delayed: None,
            refusals: 0,
            refused: 0,
            refused_now: false,
            failure: None,
            found: Found::default(),
            former: None,
            cleared_in: None,
        };
        self.discards.insert(tag, discard);
        objects.into_iter().for_each(|object| self.pump(object, io));
    }

    /// A part's turn has come. Once that is so of all, and all entries are known, the
    /// discard begins.
    pub(super) fn hold(&mut self, object: u32, part: &Part, io: &mut Io) {
        self.set_state(object, part.id, State::Holding);
        let Some(discard) = self.discards.get(&part.tag) else { return };
        let parts: Vec<_> = discard.blocks.iter().map(|(at, block)| (*at, block.part)).collect();
        let held = |(at, part): &(u32, PartId)| self.state_of(*at, *part) == Some(State::Holding);
        if !parts.iter().all(held) {
            return;
        }
        // A reload may have come since the first was held.
        let unknown = |(at, _): &&(u32, PartId)| self.index.get(*at).is_none();
        let unknown: Vec<_> = parts.iter().filter(unknown).copied().collect();
        for (at, part) in &unknown {
            self.set_state(*at, *part, State::Waiting);
        }
        if unknown.is_empty() {
            return self.begin_discard(part.tag, io);
        }
        unknown.into_iter().for_each(|(at, _)| self.pump(at, io));
    }

    fn begin_discard(&mut self, tag: Tag, io: &mut Io) {
        let Some(discard) = self.discards.get(&tag) else { return };
        let parts: Vec<_> = discard.blocks.iter().map(|(at, block)| (*at, block.part)).collect();
        let empty = parts.iter().all(|(at, _)| self.index.get(*at) == Some(0));
        let unsure = parts.iter().any(|(at, _)| self.unsure.remove(at));
        if empty && !discard.again && !unsure {
            return self.end_discard(tag, None, io);
        }
        if let Some(discard) = self.discards.get_mut(&tag) {
            discard.again |= unsure;
        }
        for (at, part) in parts {
            self.set_state(at, part, State::Running);
        }
        if self.is_hyper() {
            self.enter_tree(tag, tree::Stage::Header, io);
        } else {
            self.enter_array(tag, array::Stage::Header, io);
        }
    }

    /// The entry is about to be cleared. Whatever becomes of that, the block is taken for
    /// a hole from now on: a write to it makes its object anew, and its entry.
    fn forget_block(&mut self, block: u32, io: &mut Io) {
        self.recent.learn(block, None, io.now);
        self.tell_allocation(block, 0, io);
        self.rewritten.remove(&block);
        self.set_entry(block, 0);
        io.cache.forget_object(self.own, block, self.header.block_size_shift);
        io.ahead.void_object(self.id, block);
    }

    /// Back to where all parts wait for their turn.
    fn regather(&mut self, tag: Tag, until: Option<Instant>) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.stage = Stage::Gathering;
        let parts: Vec<_> = discard.blocks.iter().map(|(at, block)| (*at, block.part)).collect();
        for (at, part) in parts {
            self.set_state(at, part, until.map_or(State::Waiting, State::Delayed));
        }
    }

    fn end_discard(&mut self, tag: Tag, failure: Option<Failure>, io: &mut Io) {
        let Some(discard) = self.discards.remove(&tag) else { return };
        // One that began anew may have cleared something before.
        let begun = discard.is_running() || discard.again;
        if failure.is_some() {
            // What was taken for a hole may be there.
            self.give_up_count(io);
        }
        for (object, block) in &discard.blocks {
            // What became of it is not known: the next discard looks closely.
            if failure.is_some() && begun {
                self.unsure.insert(*object);
            }
            self.finish_part(*object, block.part, failure, io);
        }
        discard.blocks.keys().for_each(|object| self.pump(*object, io));
    }

    /// A part of one that has not begun can't be done: neither can the others.
    pub(super) fn abandon_discard(&mut self, tag: Tag, failure: Failure, io: &mut Io) {
        self.end_discard(tag, Some(failure), io);
    }
}
