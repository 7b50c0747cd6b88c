//! The second half of a reload: what the server lost of the index while it made the
//! snapshot is done once more, in the snapshot's inode and in the new one (protocol 7.4).
//!
//! Our update of an entry falls behind the server's reading of the inode, and before its
//! writing it back, or behind that: the new inode does not have it then, and the snapshot's
//! has or has not. Its object was written before the vid was frozen, and what was written in
//! place since is in the snapshot as well: so the snapshot is whole only with it, and lists it
//! from now on. That is also what the counting of references needs (protocol 9). The update
//! has given up the reference that the snapshot had to what the entry named before. Were the
//! snapshot to go with the old entry, it would give that up again, which can cost an older
//! snapshot its object; and the new object would be counted once more than it is listed.
//!
//! Entries are written alone ([`Request::write_bare_entry`]), so that nothing is given up by
//! that, to all replicas: these may differ (protocol 8.5), so a repair that a death cut short is
//! made again. Between the writes of an entry and of its count whoever deletes or clones the
//! snapshot must find nothing that costs an object. So where another entry is replaced, the
//! new one comes first, and has too high a generation for a moment. A hole gets its count
//! first, which a clone that is being made may write back: so the name is looked up, which
//! waits for that, and the count looked at, before the entry is written.
//!
//! Whether the server counted the new inode's reference to what the entry named before is not
//! known: our update may have come behind the snapshot's, and given up what that had counted. It
//! is taken not to have: an object stays for good otherwise, and none goes too early.
//!
//! A gateway writes an entry first, and sets its generation and count to nothing then. A
//! snapshot that reads the inode between the two takes those of what the entry named before
//! for its own; one whose counts come before the second write loses them, and the first that
//! lets the object go takes it from the others. So the counts of all that was allocated
//! lately are looked at.

use super::Step;
use super::loss::{OldInode, Reach, inherited, is_newer};
use crate::volume::discard::{Found, gref};
use crate::volume::index::Index;
use crate::volume::recent::Allocation;
use crate::volume::{Io, Phase, Volume};
use sheepfs::ipc::{self, Failure, FromWorker};
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::{Request, VdiId};

impl Volume {
    /// Reads the next page of the new index that holds a recent block.
    pub(super) fn next_page(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &self.phase else { return };
        match reload.unchecked.front() {
            Some(next) => self.ask(Step::Page(Index::page_of(next.block)), io),
            None => self.finish_reload(io),
        }
    }

    /// Finds which recent blocks of a page may have lost something.
    pub(super) fn compare_page(&mut self, page: u32, bytes: &[u8], io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.index.load(page, bytes);
        while let Some(next) = reload.unchecked.front().copied()
            && Index::page_of(next.block) == page
        {
            reload.unchecked.pop_front();
            let entry = reload.index.get(next.block).and_then(VdiId::new);
            if let Some(owner) = entry.filter(|entry| is_newer(&reload.line, *entry, next.owner)) {
                reload.checked.push(Allocation::new(next.block, owner, io.now));
                let allocation = ipc::Allocation { block: next.block, owner: owner.get() };
                io.out.push(FromWorker::Allocated { volume: self.id, allocation });
            } else {
                reload.repair.doubted.push(next);
            }
        }
        let repair = &mut reload.repair;
        repair.found = Found::default();
        repair.found.first = repair.range().map_or(0, |range| range.0);
        if repair.doubted.is_empty() || repair.old_inode == OldInode::Gone {
            self.judge_page(io);
        } else {
            self.ask(Step::OldEntries, io);
        }
    }

    pub(super) fn found_old_entries(&mut self, bytes: &[u8], io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.repair.found.take_entries(bytes);
        self.ask(Step::OldGrefs, io);
    }

    pub(super) fn found_old_grefs(&mut self, bytes: &[u8], io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.repair.found.take_grefs(bytes);
        self.judge_page(io);
    }

    /// What both inodes have of the page is known.
    fn judge_page(&mut self, io: &mut Io) {
        let (own, half_done) = (self.own, self.repairing);
        let Phase::Reloading(reload) = &mut self.phase else { return };
        for mut doubted in std::mem::take(&mut reload.repair.doubted) {
            let block = doubted.block;
            let again = half_done == Some(block);
            let is_listed = |owner: VdiId| reload.index.get(block) == Some(owner.get());
            let in_old = reload.repair.found.entry(block) == Some(own.get());
            // Nobody lived to tell of our last update. Its write is repeated, and may as well
            // be in the snapshot.
            if in_old && (again || !is_listed(doubted.owner)) {
                doubted = Allocation::new(block, own, io.now);
            }
            match reload.repair.judge(doubted, own, !is_listed(doubted.owner), again) {
                Some(loss) => reload.repair.losses.push_back(loss),
                None => reload.checked.push(inherited(doubted, own, &reload.line)),
            }
        }
        self.repair_or_read_on(io);
    }

    fn repair_or_read_on(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        let repair = &mut reload.repair;
        let Some(loss) = repair.losses.front() else { return self.next_page(io) };
        if loss.reach == Reach::All && repair.old_inode == OldInode::Unknown {
            return self.ask(Step::OldHeader, io);
        }
        repair.mends = loss.mends(&reload.line);
        // Once this is on its way, a late copy of it could undo what is allocated
        // afterwards: the supervisor must know before.
        let repairing = FromWorker::Repairing { volume: self.id, block: loss.allocation.block };
        io.out.push(repairing);
        self.next_mend(io);
    }

    /// The header of what was our inode: a deleted VDI has no name any more.
    pub(super) fn found_old_header(&mut self, bytes: &[u8], io: &mut Io) {
        let Ok(header) = InodeHeader::decode(bytes) else {
            return self.fail(Failure::BadAnswer, io);
        };
        let there = self.is_still_ours(&header);
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.repair.old_inode = if there { OldInode::There } else { OldInode::Gone };
        if !there {
            let all = reload.repair.losses.iter_mut().filter(|loss| loss.reach == Reach::All);
            all.for_each(|loss| loss.reach = Reach::New);
        }
        self.repair_or_read_on(io);
    }

    /// Looks at the next inode, or goes on with the next block.
    fn next_mend(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &self.phase else { return };
        match reload.repair.mends.front() {
            Some(_) => self.ask(Step::Before, io),
            None => self.repaired(io),
        }
    }

    pub(super) fn found_before(&mut self, bytes: &[u8], io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        if let Some(mend) = reload.repair.mends.front_mut() {
            mend.before = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        }
        self.ask(Step::GrefBefore, io);
    }

    pub(super) fn found_gref_before(&mut self, bytes: &[u8], io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        let Some(mend) = reload.repair.mends.front_mut() else { return };
        let (generation, count) = gref(bytes);
        mend.look(generation, count);
        let step = if mend.begins_with_entry() { Step::Entry } else { Step::Gref };
        self.ask(step, io);
    }

    /// An inode has the count.
    pub(super) fn counted(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &self.phase else { return };
        match reload.repair.mends.front() {
            Some(mend) if mend.owner.is_none() || mend.begins_with_entry() => self.mended(io),
            Some(mend) if mend.is_contested() => self.ask(Step::Barrier, io),
            Some(_) => self.ask(Step::Entry, io),
            None => {}
        }
    }

    /// No clone is being made any more that has read the counts before ours was written.
    pub(super) fn found_gref_behind(&mut self, bytes: &[u8], io: &mut Io) {
        let Phase::Reloading(reload) = &self.phase else { return };
        let stays = reload.repair.mends.front().is_some_and(|mend| mend.gref() == gref(bytes));
        self.ask(if stays { Step::Entry } else { Step::Gref }, io);
    }

    /// An inode has the entry.
    pub(super) fn listed(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &self.phase else { return };
        match reload.repair.mends.front() {
            Some(mend) if mend.begins_with_entry() => self.ask(Step::Gref, io),
            Some(_) | None => self.mended(io),
        }
    }

    /// An inode has what it must have.
    fn mended(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.repair.mends.pop_front();
        self.next_mend(io);
    }

    /// All inodes have what they must have of the first block.
    fn repaired(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        if let Some(loss) = reload.repair.losses.pop_front() {
            let Allocation { block, owner, .. } = loss.allocation;
            reload.index.set(block, owner.get());
            let repaired = Allocation { at: io.now, ..loss.allocation };
            reload.checked.push(inherited(repaired, self.own, &reload.line));
            let allocation = ipc::Allocation { block, owner: owner.get() };
            io.out.push(FromWorker::Allocated { volume: self.id, allocation });
            if loss.lost {
                tracing::warn!(volume = %self.name, block, "repaired an index entry that a snapshot had lost");
            }
        }
        self.repair_or_read_on(io);
    }

    /// The request of a step of the repair.
    pub(super) fn ask_for_repair(&self, step: Step) -> Option<Request> {
        let Phase::Reloading(reload) = &self.phase else { return None };
        let repair = &reload.repair;
        let block = repair.losses.front().map_or(0, |loss| loss.allocation.block);
        let mend = repair.mends.front();
        match step {
            Step::OldEntries => {
                repair.range().map(|(first, count)| Request::read_index(self.own, first, count))
            }
            Step::OldGrefs => {
                repair.range().map(|(first, count)| Request::read_grefs(self.own, first, count))
            }
            Step::OldHeader => Some(Request::read_inode_header(self.own)),
            Step::Before => mend.map(|mend| Request::read_index(mend.vid, block, 1)),
            Step::GrefBefore | Step::GrefBehind => {
                mend.map(|mend| Request::read_grefs(mend.vid, block, 1))
            }
            Step::Gref => mend.map(|mend| {
                let (generation, count) = mend.gref();
                Request::write_gref(mend.vid, block, generation, count)
            }),
            Step::Entry => {
                mend.and_then(|mend| Request::write_bare_entry(mend.vid, block, mend.owner))
            }
            _ => None,
        }
    }
}
