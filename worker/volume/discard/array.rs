//! Discards of volumes whose index is an array.
//!
//! # Why not as the protocol has it
//!
//! Both of the protocol's own ways give the old reference up *later*, in a queue of the
//! gateway's that tells nobody when it is through. A block that is written again before
//! that loses its new object (hazard 43, protocol 10). And neither way looks whether a
//! snapshot has come to need the object meanwhile. So a discard goes like this instead:
//!
//! ```text
//!  Header ──> Former* ──> Clear ──> Lookup ──> Look ──> Release ──> done
//!    │                                │
//!    │                                └─ another vid: Former, of our own
//!    └─ a snapshot by now ───────────────────┴─ reload, and all over again
//! ```
//!
//! 1. **Header**: our vid is still that of a working VDI.
//! 2. **Clear**: the entry turns to 0 by a write of three bytes. A gateway counts the whole
//!    entries in a write to the index, and there is none in it: no reference is noted,
//!    none is given up, no count is forgotten. A vid has three bytes, so the entry changes
//!    at once. No other entry is written with it: nothing is reverted, neither now nor by a
//!    late copy (hazard 52 does not arise).
//! 3. **Lookup**: the name, which must still mean our vid. It waits behind a snapshot that
//!    is being made, since operations of the whole cluster follow each other (protocol 1.8).
//! 4. **Look**: the entry, which must be 0, and its reference count.
//! 5. **Release**: with a count of 0, an own object is removed, and an inherited one's
//!    reference is given up, explicitly and before the answer.
//!
//! # Why nothing is lost
//!
//! *A snapshot.* Whoever makes one reads the whole inode, raises the count of each entry
//! that is not 0, writes the whole inode back and makes the new one, all in one operation
//! of the cluster. Had it read the inode before our clear, it began before the lookup, which
//! then waits for its end and finds the name at another vid. So when the lookup finds our
//! vid, each snapshot, past or to come, is without the entry, and nobody but us can ever
//! name the object: it may go at any time, until we make it anew. The count is looked at
//! besides: it is raised by all that copy an index, also by what no tool does (a clone of a
//! working VDI), and our clear has not touched it.
//!
//! When the name has moved, nothing was removed yet. The old inode has one of three states:
//! cleared, with a count of 0: the snapshot was made after us, and does not have the block,
//! so its object goes as above; not cleared: the snapshot has written it back; or cleared, with a count of 1 and more:
//! our clear came after the snapshot's last write, and the entry is put back, again with
//! three bytes, so that what was made a snapshot stays what it was. That state is known by
//! looking, without anything remembered. It is put right at once, since nothing may come of the
//! reload; and whoever repeats a discard looks at the vids before ours too (**Former**). The new vid's entry is inherited then, and is cleared in
//! its turn. Between the look at the header and the clear, a snapshot may be made and read
//! that has the block for a moment as zeros; but only one that is made while the discard is
//! under way, and has not answered.
//!
//! *A death.* The entry is cleared first: a reader sees zeros, and never a missing object.
//! An own object that is left without its entry goes when the discard is repeated, which
//! `again` says: then also what has no entry is removed, if it has no count either. A
//! reference to an inherited object is given up at most once, since a second time would
//! count; if a worker dies just there, the object stays until the end of the cluster, as it
//! does when a gateway dies with its queue. Space is lost then, and never data.
//!
//! That the block is no recent allocation any more ([`super::super::recent`]) is noted where it
//! outlives the supervisor, before the clear leaves: it must never be repaired.
//!
//! *Late copies.* A discard is a change to each of its objects, fenced like a create: before
//! these are made anew, nothing of it runs on a gateway that was given up; and a late removal
//! finds nothing. A late clear of a clear entry changes nothing either. But a snapshot may have
//! been made since, and it takes an entry from that. So a repeated discard itself waits for
//! the fences of its objects (the supervisor's `replay` module): then the vids before ours are
//! looked at (**Former**) when no clear can come any more.

use super::{Question, look};
use crate::volume::{Io, REFUSALS_MAX, RETRY_DELAY, Volume};
use sheepfs::ipc::{Failure, FromWorker, Tag};
use sheepfs::wire::{Request, VdiId};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The header.
    Header,
    /// A vid before ours.
    Former,
    /// What is put back there.
    Restore,
    /// The entries.
    Clear,
    /// The name.
    Lookup,
    /// The entries, and their reference counts.
    Look,
    /// The objects.
    Release,
}

impl Volume {
    /// Begins a stage, and those after it while there is nothing to ask.
    pub(super) fn enter_array(&mut self, tag: Tag, stage: Stage, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.stage = super::Stage::Array(stage);
        let own = self.own.get();
        let (index, again) = (&self.index, discard.again);
        // What an earlier round has cleared here is still to be let go of.
        let cleared = discard.cleared_in == Some(self.own);
        if stage == Stage::Clear {
            discard.cleared_in = Some(self.own);
        }
        for (number, block) in &mut discard.blocks {
            block.due = match stage {
                Stage::Clear => {
                    let entry = index.get(*number).unwrap_or(0);
                    block.was = if cleared && entry == 0 { block.was } else { entry };
                    block.was != 0 || again
                }
                Stage::Restore => discard.former.as_ref().is_some_and(|f| f.concerns(*number)),
                Stage::Release => discard.found.is_unneeded(*number) && (block.was != 0 || again),
                Stage::Header | Stage::Former | Stage::Lookup | Stage::Look => false,
            };
            // Whose object it was that has no entry any more is known of our own only.
            if stage == Stage::Release && block.was == 0 {
                block.was = own;
            }
        }
        self.ask_discard(tag, io);
    }

    /// Asks what the stage has to ask.
    pub(super) fn ask_of_array(&mut self, tag: Tag, stage: Stage, io: &mut Io) {
        let Some(discard) = self.discards.get(&tag) else { return };
        let (first, count) = discard.range();
        let own = self.own;
        let due: Vec<_> = discard.due().collect();
        let asks: Vec<(Question, Option<Request>)> = match stage {
            Stage::Header => vec![(Question::Header, Some(Request::read_inode_header(own)))],
            Stage::Former => discard.former.as_ref().map_or(Vec::new(), |f| f.ask(first, count)),
            Stage::Restore => discard.former.as_ref().map_or(Vec::new(), |f| f.settle(&due)),
            Stage::Clear => {
                let clear = |(block, _): &(u32, u32)| {
                    (Question::Clear(*block), Request::write_bare_entry(own, *block, None))
                };
                due.iter().map(clear).collect()
            }
            Stage::Lookup => vec![self.ask_name()],
            Stage::Look => look::ask(own, first, count),
            Stage::Release => due.iter().map(|(at, was)| self.release_of(tag, *at, *was)).collect(),
        };
        if stage == Stage::Clear {
            due.iter().for_each(|(block, _)| self.forget_block(*block, io));
            self.tell_stored(io);
            if !due.is_empty() {
                io.out.push(FromWorker::Discarding { volume: self.id });
            }
        }
        self.send_all(tag, asks, io);
    }

    /// What lets go of a block's object.
    fn release_of(&self, tag: Tag, block: u32, was: u32) -> (Question, Option<Request>) {
        let found = self.discards.get(&tag).and_then(|discard| discard.found.gref(block));
        let generation = found.map_or(0, |gref| gref.0);
        let request = match (VdiId::new(was), u32::try_from(generation)) {
            (Some(owner), Ok(0)) if owner == self.own => Some(Request::remove(owner, block)),
            (Some(owner), Ok(generation)) if owner != self.own && generation > 0 => {
                Some(Request::drop_reference(owner, block, generation))
            }
            // Counts that don't fit are not acted upon: the object stays.
            _ => None,
        };
        (Question::Release(block), request)
    }

    /// All of a stage is answered.
    pub(super) fn advance_in_array(&mut self, tag: Tag, stage: Stage, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        if stage != Stage::Release {
            discard.found.first = discard.range().0;
        }
        match stage {
            Stage::Header => {
                let again = discard.again;
                match self.judge_header(tag, io) {
                    Some(header) if again => self.look_at_former(tag, header.parent_vdi_id, io),
                    Some(_) => self.enter_array(tag, Stage::Clear, io),
                    None => {}
                }
            }
            Stage::Former => self.judge_former(tag, io),
            Stage::Restore => self.next_former(tag, io),
            Stage::Clear => {
                let cleared = discard.blocks.values().any(|block| block.was != 0);
                if cleared || discard.again {
                    return self.enter_array(tag, Stage::Lookup, io);
                }
                self.end_discard(tag, None, io);
            }
            Stage::Lookup if discard.found.vid == self.own.get() => {
                self.enter_array(tag, Stage::Look, io);
            }
            Stage::Lookup => {
                discard.again = true;
                self.look_behind(tag, io);
            }
            Stage::Look => self.judge_look(tag, io),
            Stage::Release => self.end_discard(tag, None, io),
        }
    }

    /// Whether the entries are clear. If not, somebody has written the inode back.
    fn judge_look(&mut self, tag: Tag, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        let back: Vec<(u32, u32)> = discard.found.listed().collect();
        if back.is_empty() {
            return self.enter_array(tag, Stage::Release, io);
        }
        discard.refusals += 1;
        discard.again = true;
        if discard.refusals > REFUSALS_MAX {
            return self.end_discard(tag, Some(Failure::BadAnswer), io);
        }
        for (block, entry) in back {
            self.set_entry(block, entry);
        }
        self.tell_stored(io);
        self.regather(tag, Some(io.now + RETRY_DELAY));
    }
}
