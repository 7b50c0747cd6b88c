//! Discards of hyper volumes, whose index is a tree.
//!
//! ```text
//!  Header ──> Clear ──> Lookup ──> Release ──> done
//!    ^                    │
//!    └─── another vid ────┘
//! ```
//!
//! 1. **Header**: our vid is still that of a working VDI.
//! 2. **Clear**: the tree lists no object for these blocks any more. Their entries are changed
//!    in a run like those that are entered ([`crate::volume::tree`]), and together with them.
//!    They stay, and name nobody, as the protocol's own discard leaves them (protocol 5.5).
//! 3. **Lookup**: the name, which must still mean our vid. If not, the header says why.
//! 4. **Release**: the objects are removed, explicitly and before the answer.
//!
//! # Why nothing is lost
//!
//! *Nobody else needs the objects.* Hyper volumes have no snapshots, and nothing counts
//! references to what their trees list; gateways take a write of the index for one only where
//! it lies behind the header, and none of ours does (protocol 5.4). What a tree lists that is
//! another vid's is not removed. Should somebody make a snapshot all the same, that is the
//! volume's end; but it is looked for before anything is changed, and, behind the cluster's
//! queue of such operations, before anything is removed.
//!
//! *A death.* The entry goes before its object, so a reader sees zeros and never a missing
//! object. An object that is left without its entry would stay when the VDI is deleted, which
//! takes what the tree lists; it goes when the discard is repeated, which `again` says: then
//! all of the range is removed, listed or not.
//!
//! *Late copies.* A late removal is fenced by its object, as with arrays. A late write of a node
//! takes back what was changed since, of any block: as with a write that makes an object, the
//! supervisor is told before, and holds the whole volume after a death (hazard 52).

use super::Question;
use crate::volume::{Io, REFUSALS_MAX, RETRY_DELAY, Volume};
use sheepfs::ipc::{Failure, Tag};
use sheepfs::wire::Request;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The header.
    Header,
    /// The entries.
    Clear,
    /// The name.
    Lookup,
    /// The objects.
    Release,
}

impl Volume {
    /// Begins a stage, and those after it while there is nothing to wait for.
    pub(super) fn enter_tree(&mut self, tag: Tag, stage: Stage, io: &mut Io) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.stage = super::Stage::Tree(stage);
        let own = self.own.get();
        let (index, again) = (&self.index, discard.again);
        for (number, block) in &mut discard.blocks {
            block.due = match stage {
                Stage::Header | Stage::Lookup => false,
                Stage::Clear => {
                    block.was = index.get(*number).unwrap_or(0);
                    block.was != 0 || again
                }
                Stage::Release => block.was == own || (block.was == 0 && again),
            };
            // What has no entry can only be ours.
            if stage == Stage::Release && block.was == 0 {
                block.was = own;
            }
        }
        self.ask_discard(tag, io);
    }

    /// Asks what the stage has to ask.
    pub(super) fn ask_of_tree(&mut self, tag: Tag, stage: Stage, io: &mut Io) {
        let Some(discard) = self.discards.get(&tag) else { return };
        let own = self.own;
        let due: Vec<u32> = discard.due().map(|(block, _)| block).collect();
        let asks = match stage {
            Stage::Header => vec![(Question::Header, Some(Request::read_inode_header(own)))],
            Stage::Clear => return self.clear_entries(tag, &due, io),
            Stage::Lookup => vec![self.ask_name()],
            Stage::Release => {
                let remove = |block| (Question::Release(block), Some(Request::remove(own, block)));
                due.into_iter().map(remove).collect()
            }
        };
        self.send_all(tag, asks, io);
    }

    fn clear_entries(&mut self, tag: Tag, due: &[u32], io: &mut Io) {
        if due.is_empty() {
            return self.advance_in_tree(tag, Stage::Clear, io);
        }
        self.tell_growing(tag, io);
        due.iter().for_each(|block| self.forget_block(*block, io));
        self.tell_stored(io);
        if let Some(discard) = self.discards.get_mut(&tag) {
            discard.outstanding = due.len();
        }
        self.clear_in_tree(due, tag, io);
    }

    /// The tree lists no object for a block any more, or could not be changed.
    pub(in crate::volume) fn cleared_in_tree(
        &mut self,
        block: u32,
        tag: Tag,
        failure: Option<Failure>,
        io: &mut Io,
    ) {
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        discard.outstanding -= 1;
        match failure {
            None => discard.settle_block(block),
            Some(failure) => discard.failure = Some(failure),
        }
        self.answered(tag, io);
    }

    /// All of a stage is answered.
    pub(super) fn advance_in_tree(&mut self, tag: Tag, stage: Stage, io: &mut Io) {
        let own = self.own.get();
        let Some(discard) = self.discards.get_mut(&tag) else { return };
        match stage {
            Stage::Header => {
                if self.judge_header(tag, io).is_some() {
                    self.enter_tree(tag, Stage::Clear, io);
                }
            }
            Stage::Clear => self.enter_tree(tag, Stage::Lookup, io),
            Stage::Lookup if discard.found.vid == own => {
                self.enter_tree(tag, Stage::Release, io);
            }
            Stage::Lookup => {
                discard.again = true;
                discard.refusals += 1;
                if discard.refusals > REFUSALS_MAX {
                    return self.end_discard(tag, Some(Failure::BadAnswer), io);
                }
                self.regather(tag, Some(io.now + RETRY_DELAY));
            }
            Stage::Release => self.end_discard(tag, None, io),
        }
    }
}
