//! The object cache behind `-o`: clean blocks of attached volumes.
//!
//! It holds what reads brought, in blocks of 4 KiB, by volume and block number,
//! and never anything dirty. It stays true because the volume orders requests
//! that overlap (hazard 7): a write removes its blocks before it is sent, no
//! overlapping read is under way then, and none starts before the write is
//! answered. What a snapshot or a copy on write does to the objects below
//! changes no content, so it does not concern the cache. Eviction is left to
//! the crate, which uses a scan-resistant algorithm (S3-FIFO).

use quick_cache::Weighter;
use quick_cache::unsync::Cache as Blocks;
use sheepfs::ipc::{Arena, Span, VolumeId};

/// The unit of the cache: a page of the machines sheepfs runs on.
pub const BLOCK_LEN: u64 = 4096;
const BLOCK_BYTES: usize = 4096;
/// What the crate needs for a block besides its bytes, roughly.
const OVERHEAD_LEN: u64 = 64;

type Key = (VolumeId, u64);
type Block = Box<[u8]>;

#[derive(Clone, Debug)]
struct Weight;

impl Weighter<Key, Block> for Weight {
    fn weight(&self, _key: &Key, block: &Block) -> u64 {
        block.len() as u64 + OVERHEAD_LEN
    }
}

/// The cache; with no room it holds nothing and costs nothing.
pub struct Cache {
    blocks: Option<Blocks<Key, Block, Weight>>,
}

impl Cache {
    /// A cache of that many bytes; 0 is off.
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / BLOCK_LEN).unwrap_or(usize::MAX);
        let blocks = (bytes > 0).then(|| Blocks::with_weighter(items, bytes, Weight));
        Self { blocks }
    }

    /// Fills `span` when all of its bytes are known. `false`: it is untouched.
    pub fn read(&mut self, volume: VolumeId, offset: u64, span: Span, arena: &Arena) -> bool {
        let Some(blocks) = &mut self.blocks else { return false };
        let numbers = touched(offset, span.len());
        if span.is_empty() || numbers.clone().any(|n| blocks.peek(&(volume, n)).is_none()) {
            return false;
        }
        for number in numbers {
            if let Some(block) = blocks.get(&(volume, number)) {
                copy_out(block, number, offset, span, arena);
            }
        }
        true
    }

    /// Takes the whole blocks of what a read brought.
    pub fn learn(&mut self, volume: VolumeId, offset: u64, span: Span, arena: &Arena) {
        let Some(blocks) = &mut self.blocks else { return };
        let bytes = arena.bytes(span);
        let lead =
            usize::try_from(offset.next_multiple_of(BLOCK_LEN) - offset).unwrap_or(usize::MAX);
        let first = offset.div_ceil(BLOCK_LEN);
        let whole = bytes.get(lead..).unwrap_or(&[]).chunks_exact(BLOCK_BYTES);
        for (number, block) in (first..).zip(whole) {
            blocks.insert((volume, number), block.into());
        }
    }

    /// Forgets what a write is about to change.
    pub fn forget(&mut self, volume: VolumeId, offset: u64, len: u32) {
        let Some(blocks) = &mut self.blocks else { return };
        for number in touched(offset, len) {
            blocks.remove(&(volume, number));
        }
    }

    /// Forgets a volume.
    pub fn drop_volume(&mut self, volume: VolumeId) {
        if let Some(blocks) = &mut self.blocks {
            blocks.retain(|(owner, _), _| *owner != volume);
        }
    }
}

/// The numbers of all blocks that a range touches.
fn touched(offset: u64, len: u32) -> std::ops::Range<u64> {
    offset / BLOCK_LEN..(offset + u64::from(len)).div_ceil(BLOCK_LEN)
}

/// Copies the part of a block that the range covers.
fn copy_out(block: &[u8], number: u64, offset: u64, span: Span, arena: &Arena) {
    let start = number * BLOCK_LEN;
    let skip = offset.saturating_sub(start);
    let into = u32::try_from(start.saturating_sub(offset)).unwrap_or(u32::MAX);
    let tail = &block[usize::try_from(skip).unwrap_or(block.len()).min(block.len())..];
    arena.fill(span.part(into, u32::MAX), tail);
}

#[cfg(test)]
mod tests {
    use super::*;
    use sheepfs::ipc::RawSpan;

    fn arena_with(bytes: &[u8]) -> (Arena, Span) {
        let arena = Arena::create(1 << 16).unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        let span = arena.check(RawSpan { offset: 0, len }).unwrap();
        arena.fill(span, bytes);
        (arena, span)
    }

    #[test]
    fn whole_blocks_are_learnt_and_read_at_any_offset() {
        let bytes: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
        let (arena, span) = arena_with(&bytes);
        let (mut cache, volume) = (Cache::new(1 << 20), VolumeId(1));
        cache.learn(volume, 1000, span, &arena);
        let target = arena.check(RawSpan { offset: 20_000, len: 300 }).unwrap();
        assert!(cache.read(volume, 4100, target, &arena));
        assert_eq!(arena.bytes(target), &bytes[3100..3400]);
        assert!(!cache.read(volume, 1000, target, &arena), "half a block was learnt");
        assert!(!cache.read(VolumeId(2), 4100, target, &arena));
    }

    #[test]
    fn a_range_over_two_blocks_is_put_together() {
        let bytes: Vec<u8> = (0..8192u32).map(|n| (n % 241) as u8).collect();
        let (arena, span) = arena_with(&bytes);
        let (mut cache, volume) = (Cache::new(1 << 20), VolumeId(1));
        cache.learn(volume, 0, span, &arena);
        let target = arena.check(RawSpan { offset: 20_000, len: 600 }).unwrap();
        assert!(cache.read(volume, 3900, target, &arena));
        assert_eq!(arena.bytes(target), &bytes[3900..4500]);
    }

    #[test]
    fn what_is_written_or_detached_is_forgotten() {
        let (arena, span) = arena_with(&[7; 8192]);
        let (mut cache, volume) = (Cache::new(1 << 20), VolumeId(1));
        cache.learn(volume, 0, span, &arena);
        cache.forget(volume, 4095, 1);
        assert!(!cache.read(volume, 0, span.part(0, 1), &arena));
        assert!(cache.read(volume, 4096, span.part(0, 1), &arena));
        cache.drop_volume(volume);
        assert!(!cache.read(volume, 4096, span.part(0, 1), &arena));
    }

    #[test]
    fn it_stays_within_its_size() {
        let (arena, span) = arena_with(&[7; 1 << 16]);
        let mut cache = Cache::new(1 << 20);
        for n in 0..64 {
            cache.learn(VolumeId(1), n << 16, span, &arena);
        }
        let blocks = cache.blocks.as_ref().unwrap();
        assert!(blocks.weight() <= 1 << 20 && blocks.len() > 100, "{}", blocks.weight());
    }
}
