//! The second half of a reload: index entries that the server lost while it made the
//! snapshot are written again in the new inode, with their reference counts
//! (protocol 7.4).

use super::index::Index;
use super::recent::Allocation;
use super::reload::Step;
use super::{Io, Phase, Volume, Wait};
use sheepfs::ipc::{self, FromWorker};
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

    /// Finds the entries of a page that are not what they must be.
    pub(super) fn compare_page(&mut self, page: u32, bytes: &[u8], io: &mut Io) {
        let half_done = self.repairing;
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.index.load(page, bytes);
        while let Some(next) = reload.unchecked.front().copied()
            && Index::page_of(next.block) == page
        {
            reload.unchecked.pop_front();
            let entry = reload.index.get(next.block).and_then(VdiId::new);
            let newer = entry.filter(|entry| is_newer(&reload.line, *entry, next.owner));
            let listed = entry == Some(next.owner);
            if let Some(owner) = newer {
                reload.checked.push(Allocation { owner, at: io.now, ..next });
                let allocation = ipc::Allocation { block: next.block, owner: owner.get() };
                io.out.push(FromWorker::Allocated { volume: self.id, allocation });
            } else if listed
                && half_done != Some(next.block)
                && !self.rewritten.contains(&next.block)
            {
                reload.checked.push(next);
            } else {
                reload.lost.push_back(next);
            }
        }
        self.repair_or_read_on(io);
    }

    pub(super) fn repair_or_read_on(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &self.phase else { return };
        match reload.lost.front() {
            None => self.next_page(io),
            Some(lost) => {
                // Once this is on its way, a late copy of it could undo what is
                // allocated afterwards: the supervisor must know before.
                let repairing = FromWorker::Repairing { volume: self.id, block: lost.block };
                io.out.push(repairing);
                // An earlier worker may have written it, and died before its counts.
                let is_listed = reload.index.get(lost.block) == Some(lost.owner.get());
                let step = if is_listed { Step::NewEntry } else { Step::Entry };
                self.ask(step, io);
            }
        }
    }

    /// The entry is written in the new inode; the old one may have it too.
    pub(super) fn found_old_entry(&mut self, bytes: &[u8], io: &mut Io) {
        let step = if self.is_first_lost(bytes) { Step::OldGref } else { Step::NewGref };
        let Phase::Reloading(reload) = &mut self.phase else { return };
        reload.gref = (1, 0);
        self.ask(step, io);
    }

    /// Whether an entry names the owner that the first lost one must name.
    pub(super) fn is_first_lost(&self, bytes: &[u8]) -> bool {
        let Phase::Reloading(reload) = &self.phase else { return false };
        reload.lost.front().is_some_and(|lost| entry(bytes) == lost.owner.get())
    }

    /// Makes the snapshot count the reference that the new inode now holds.
    pub(super) fn raise_old_gref(&mut self, bytes: &[u8], io: &mut Io) {
        let own = self.own;
        let Phase::Reloading(reload) = &mut self.phase else { return };
        let Some(block) = reload.lost.front().map(|lost| lost.block) else { return };
        let (generation, count) = gref(bytes);
        reload.gref = (generation.saturating_add(1), 0);
        if count > 0 && self.rewritten.contains(&block) {
            // The entry was written again before the snapshot was made, which counts it.
            return self.ask(Step::NewGref, io);
        }
        reload.step = Step::RaiseOldGref;
        let request = Request::write_gref(own, block, generation, count.saturating_add(1));
        self.send(request, None, Wait::Reload, io);
    }

    /// The new inode has the entry, with that reference count. If it had it already, it may
    /// have come through more snapshots, and has its generation; and if that vid became a
    /// snapshot meanwhile, what was made of it is counted.
    pub(super) fn found_new_gref(&mut self, bytes: &[u8], io: &mut Io) {
        let (generation, count) = gref(bytes);
        if generation > 0 {
            return self.repaired(io);
        }
        if let Phase::Reloading(reload) = &mut self.phase {
            reload.gref.1 = count;
        }
        self.ask(Step::Gref, io);
    }

    /// The first lost entry is written again.
    pub(super) fn repaired(&mut self, io: &mut Io) {
        let Phase::Reloading(reload) = &mut self.phase else { return };
        if let Some(lost) = reload.lost.pop_front() {
            let was_lost = reload.index.get(lost.block) != Some(lost.owner.get());
            reload.index.set(lost.block, lost.owner.get());
            reload.checked.push(Allocation { at: io.now, ..lost });
            let allocation = ipc::Allocation { block: lost.block, owner: lost.owner.get() };
            io.out.push(FromWorker::Allocated { volume: self.id, allocation });
            if was_lost {
                tracing::warn!(volume = %self.name, block = lost.block, "repaired an index entry that a snapshot had lost");
            }
        }
        self.repair_or_read_on(io);
    }
}

/// Whether an entry is younger than the one that is remembered. Who is not in the line
/// is older than all that are.
fn is_newer(line: &[VdiId], entry: VdiId, remembered: VdiId) -> bool {
    let place = |vid| line.iter().position(|known| *known == vid);
    place(entry).is_some_and(|entry| place(remembered).is_none_or(|known| entry < known))
}

/// Generation and count.
fn gref(bytes: &[u8]) -> (i32, i32) {
    let (words, _) = bytes.as_chunks::<4>();
    let word = |at: usize| words.get(at).map_or(0, |word| i32::from_le_bytes(*word));
    (word(0), word(1))
}

fn entry(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
