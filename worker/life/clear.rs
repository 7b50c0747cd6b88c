//! The end of a VDI: its index is cleared, by which the cluster drops the objects, and then
//! its name (protocol 12.3).
//!
//! As `dog` does it: up to 128 used entries go with one request. A hyper volume is deleted
//! with its tree as it is, which the server walks; cleared like an array it would make the
//! server abort (protocol 5.5).
//!
//! The name is the only thing by which a VDI can be deleted, so that it still means this vid
//! is seen just before. A snapshot is meant by its number, which no other one of that name
//! has.

use super::{Action, Event, out_of_turn};
use sheepfs::ipc::Failure;
use sheepfs::wire::cluster::covered_entries;
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiName, VdiRef};
use sheepfs::wire::{Request, VdiId};
use std::collections::VecDeque;

/// Entries of the index that one request reads: 1 MiB of them.
const PIECE_ENTRIES: u32 = 1 << 18;
/// Used entries that one request clears.
const BATCH_ENTRIES: u32 = 128;

/// The end of a VDI.
#[derive(Debug)]
pub struct Clear {
    vid: VdiId,
    vdi: VdiRef,
    /// Entries that count; none of a hyper volume's.
    entries: u32,
    /// The first entry that was not read yet.
    next: u32,
    /// What of the piece that was read is to be cleared: the first block, and how many.
    batches: VecDeque<(u32, u32)>,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Read,
    Clear,
    LookUp,
    Delete,
}

impl Clear {
    /// Will delete that VDI.
    ///
    /// # Errors
    /// When its name can't be one.
    pub fn new(vid: VdiId, header: &InodeHeader) -> Result<Self, Failure> {
        let name = std::str::from_utf8(&header.name).ok();
        let name = name.and_then(|name| VdiName::new(name).ok()).ok_or(Failure::BadAnswer)?;
        let generation = if header.is_snapshot() {
            Generation::SnapId(header.snap_id)
        } else {
            Generation::Working
        };
        let entries = if header.store_policy == 0 { covered_entries(header) } else { 0 };
        let vdi = VdiRef { name, generation };
        Ok(Self { vid, vdi, entries, next: 0, batches: VecDeque::new(), step: Step::Begin })
    }

    /// Takes what it is told. Its end is that the VDI is gone.
    pub fn step(&mut self, event: Event) -> Result<Action, Failure> {
        match (self.step, event) {
            (Step::Begin, _) => self.go_on(),
            (Step::Read, Event::Answer(answer)) => {
                if !answer.is_done() {
                    return Err(answer.failure());
                }
                let count = PIECE_ENTRIES.min(self.entries - self.next);
                self.batches = batches(answer.bytes, self.next);
                self.next += count;
                self.go_on()
            }
            (Step::Clear, Event::Answer(answer)) if answer.is_done() => self.go_on(),
            (Step::LookUp, Event::Answer(answer)) if answer.is_missing() => Ok(Action::End(Ok(()))),
            (Step::LookUp, Event::Answer(answer)) => {
                if answer.found()? != self.vid {
                    return Err(Failure::Replaced);
                }
                self.step = Step::Delete;
                Ok(Action::Ask(Request::del_vdi(&self.vdi)))
            }
            (Step::Delete, Event::Answer(answer)) if answer.is_done() || answer.is_missing() => {
                Ok(Action::End(Ok(())))
            }
            (Step::Clear | Step::Delete, Event::Answer(answer)) => Err(answer.failure()),
            (Step::Read | Step::Clear | Step::LookUp | Step::Delete, _) => out_of_turn(),
        }
    }

    fn go_on(&mut self) -> Result<Action, Failure> {
        if let Some((first, count)) = self.batches.pop_front() {
            self.step = Step::Clear;
            let request = Request::clear_index(self.vid, first, count);
            return request.map(Action::Ask).ok_or(Failure::BadAnswer);
        }
        if self.next < self.entries {
            self.step = Step::Read;
            let count = PIECE_ENTRIES.min(self.entries - self.next);
            return Ok(Action::Ask(Request::read_index(self.vid, self.next, count)));
        }
        self.step = Step::LookUp;
        Ok(Action::Ask(Request::get_vdi_info(&self.vdi)))
    }
}

/// What is to be cleared of a piece of the index that begins with block `first`: from a used
/// entry to a used entry, and not too many of them at once.
fn batches(index: &[u8], first: u32) -> VecDeque<(u32, u32)> {
    let mut found: VecDeque<(u32, u32)> = VecDeque::new();
    let mut used = 0;
    for (block, entry) in (first..).zip(index.chunks_exact(4)) {
        if entry.iter().all(|byte| *byte == 0) {
            continue;
        }
        match found.back_mut() {
            Some((start, count)) if used < BATCH_ENTRIES => {
                *count = block - *start + 1;
                used += 1;
            }
            _ => {
                found.push_back((block, 1));
                used = 1;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(used: impl Fn(u32) -> bool, len: u32) -> Vec<u8> {
        (0..len).flat_map(|block| u32::from(used(block)).to_le_bytes()).collect()
    }

    #[test]
    fn batches_reach_from_used_entries_to_used_entries() {
        assert!(batches(&index(|_| false, 1000), 5).is_empty());
        assert_eq!(batches(&index(|block| block == 7 || block == 12, 1000), 100), [(107, 6)]);
        // Every other entry: 128 of them are 255 blocks.
        let found = batches(&index(|block| block % 2 == 1, 300), 0);
        assert_eq!(found, [(1, 255), (257, 43)]);
        assert_eq!(batches(&index(|_| true, 129), 0), [(0, 128), (128, 1)]);
    }
}
