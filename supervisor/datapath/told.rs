//! Which writes a worker was told of, in memory that outlives this process: what a
//! successor must fence.
//!
//! A record is in the place of the write's slot. It is there from before the worker
//! is told until the worker has said that the write is over, however its answer was.

use crate::fence::Object;
use crate::inflight::{Request, Slot};
use crate::state::Records;
use sheepfs::ipc::VolumeId;
use sheepfs::ipc::slots::PAGE_LEN;

/// No write touches more: 1 MiB, in objects of 512 bytes.
const OBJECTS_MAX: usize = 2049;

/// The records.
#[derive(Debug)]
pub struct Told(pub Records<3>);

impl Told {
    /// A worker is about to be told.
    pub fn note(&self, generation: u64, request: Request, slot: Slot) {
        let mut blocks = Object::of(request).map(|object| u64::from(object.block));
        let first = blocks.next().unwrap_or_default();
        let last = blocks.last().unwrap_or(first);
        self.0.set(place(slot), [generation, request.volume.0.into(), first << 32 | last]);
    }

    /// It is over.
    pub fn over(&self, slot: Slot) {
        self.0.clear(place(slot));
    }

    /// The worker is another one, and what the last one was told of is fenced.
    pub fn forget(&self) {
        self.0.clear_all();
    }

    /// How many records are of other workers: of one that was lost, its successor did not
    /// come to be told of anything.
    pub fn others_than(&self, generation: Option<u64>) -> usize {
        self.0.all().iter().filter(|(_, record)| Some(record[0]) != generation).count()
    }

    /// The objects that writes which a worker was told of may still change.
    pub fn left_by(&self, generation: u64) -> Vec<Object> {
        let of_worker = |(_, record): &(usize, [u64; 3])| record[0] == generation;
        let records = self.0.all().into_iter().filter(of_worker);
        records.flat_map(|(_, [_, volume, blocks])| objects(volume, blocks)).collect()
    }
}

fn objects(volume: u64, blocks: u64) -> impl Iterator<Item = Object> {
    let volume = VolumeId(u32::try_from(volume).unwrap_or_default());
    let (first, last) = (blocks >> 32, blocks & u64::from(u32::MAX));
    let block = |at: u64| u32::try_from(at).unwrap_or(u32::MAX);
    (block(first)..=block(last)).take(OBJECTS_MAX).map(move |block| Object { volume, block })
}

fn place(slot: Slot) -> usize {
    (slot.raw.offset / PAGE_LEN) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::Kind;
    use crate::state::State;
    use sheepfs::ipc::Arena;
    use sheepfs::ipc::RawSpan;

    #[test]
    fn a_successor_finds_what_is_not_over() {
        let state = State::create().unwrap();
        let arena = Arena::create(1 << 20).unwrap();
        let slot = |offset, len| {
            let raw = RawSpan { offset, len };
            Slot { raw, span: arena.check(raw).unwrap() }
        };
        let write = |offset, len| Request {
            kind: Kind::Write,
            volume: VolumeId(7),
            offset,
            len,
            shift: 12,
        };
        let told = Told(state.told());
        told.note(3, write(4096, 4096), slot(0, 4096));
        told.note(3, write(10_000, 8192), slot(4096, 8192));
        told.note(3, write(0, 512), slot(16_384, 512));
        told.over(slot(0, 4096));
        let left = Told(state.told());
        let blocks = |generation| {
            left.left_by(generation).iter().map(|object| object.block).collect::<Vec<_>>()
        };
        assert_eq!(blocks(3), [2, 3, 4, 0]);
        assert!(blocks(2).is_empty());
        told.forget();
        assert!(blocks(3).is_empty());
    }
}
