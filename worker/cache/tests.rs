use super::*;
use proptest::prelude::*;
use sheepfs::ipc::RawSpan;
use std::collections::HashMap;

const FIRST: VolumeId = VolumeId(1);
const SECOND: VolumeId = VolumeId(2);
const SHIFT: u8 = 22;

fn arena() -> Arena {
    Arena::create(1 << 20).unwrap()
}

fn piece(owner: u32, object: u32, offset: u32, len: u32) -> Piece {
    let owner = VdiId::new(owner).unwrap();
    Piece { owner, object, extent: Extent::new(offset, len, SHIFT).unwrap() }
}

fn span(arena: &Arena, offset: u32, len: u32) -> Span {
    arena.check(RawSpan { offset, len }).unwrap()
}

/// Lets a volume have read or written these bytes.
fn learn(cache: &mut Cache, arena: &Arena, volume: VolumeId, piece: &Piece, bytes: &[u8]) {
    let span = span(arena, 0, piece.extent.len());
    arena.fill(span, bytes);
    cache.learn(volume, piece, span, arena);
}

/// What the cache says, if it says anything.
fn read(cache: &mut Cache, arena: &Arena, volume: VolumeId, piece: &Piece) -> Option<Vec<u8>> {
    let span = span(arena, 1 << 19, piece.extent.len());
    cache.read(volume, piece, span, arena).then(|| arena.bytes(span).to_vec())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[test]
fn whole_blocks_are_learnt_and_read_at_any_offset() {
    let (arena, mut cache) = (arena(), Cache::new(1 << 20, true));
    let bytes = pattern(10_000);
    learn(&mut cache, &arena, FIRST, &piece(7, 3, 1000, 10_000), &bytes);
    let inside = read(&mut cache, &arena, FIRST, &piece(7, 3, 4100, 300));
    assert_eq!(inside.unwrap(), &bytes[3100..3400]);
    let over_a_border = read(&mut cache, &arena, FIRST, &piece(7, 3, 8000, 500));
    assert!(over_a_border.is_none(), "the second block is only half there");
    assert!(read(&mut cache, &arena, FIRST, &piece(7, 3, 1000, 300)).is_none(), "half a block");
    assert!(read(&mut cache, &arena, FIRST, &piece(7, 2, 4100, 300)).is_none());
    assert!(read(&mut cache, &arena, FIRST, &piece(8, 3, 4100, 300)).is_none());
    learn(&mut cache, &arena, FIRST, &piece(7, 3, 8192, 4096), &bytes);
    let over_a_border = read(&mut cache, &arena, FIRST, &piece(7, 3, 8000, 500));
    assert_eq!(over_a_border.unwrap(), [&bytes[7000..7192], &bytes[..308]].concat());
}

#[test]
fn what_is_written_is_forgotten_and_what_is_created_altogether() {
    let (arena, mut cache) = (arena(), Cache::new(1 << 20, true));
    learn(&mut cache, &arena, FIRST, &piece(7, 0, 0, 16384), &[7; 16384]);
    cache.forget(&piece(7, 0, 4095, 1));
    assert!(read(&mut cache, &arena, FIRST, &piece(7, 0, 0, 1)).is_none());
    assert!(read(&mut cache, &arena, FIRST, &piece(7, 0, 4096, 1)).is_some());
    cache.forget_object(VdiId::new(7).unwrap(), 0, SHIFT);
    assert!(read(&mut cache, &arena, FIRST, &piece(7, 0, 12288, 1)).is_none());
    assert_eq!(cache.usage().bytes, 0);
}

#[test]
fn volumes_share_what_a_snapshot_owns_and_nothing_that_is_claimed() {
    let (arena, mut cache) = (arena(), Cache::new(1 << 20, true));
    let vid = VdiId::new(7).unwrap();
    cache.claim(FIRST, vid);
    let block = piece(7, 0, 0, 4096);
    learn(&mut cache, &arena, SECOND, &block, &[1; 4096]);
    assert!(!cache.may_learn(SECOND, vid));
    assert_eq!(cache.usage().bytes, 0, "another volume writes there");
    learn(&mut cache, &arena, FIRST, &block, &[2; 4096]);
    assert!(read(&mut cache, &arena, SECOND, &block).is_none());
    cache.release_claim(FIRST, vid);
    assert!(cache.may_learn(SECOND, vid));
    assert_eq!(read(&mut cache, &arena, SECOND, &block).unwrap(), [2; 4096]);
    cache.drop_volume(FIRST);
    assert!(read(&mut cache, &arena, SECOND, &block).is_some(), "it is still used");
    cache.drop_volume(SECOND);
    assert_eq!(cache.usage().bytes, 0);
    assert!(read(&mut cache, &arena, SECOND, &block).is_none());
}

#[test]
fn where_vids_are_used_again_nothing_is_shared() {
    let (arena, mut cache) = (arena(), Cache::new(1 << 20, false));
    let block = piece(7, 0, 0, 4096);
    learn(&mut cache, &arena, FIRST, &block, &[1; 4096]);
    assert!(read(&mut cache, &arena, FIRST, &block).is_some());
    assert!(read(&mut cache, &arena, SECOND, &block).is_none());
    cache.claim(SECOND, VdiId::new(7).unwrap());
    assert!(read(&mut cache, &arena, SECOND, &block).is_none(), "it was another VDI's");
    assert!(read(&mut cache, &arena, FIRST, &block).is_none());
}

/// A vid that two volumes claim is a mistake somewhere, and so nobody's.
#[test]
fn what_two_claim_is_not_cached() {
    let (arena, mut cache) = (arena(), Cache::new(1 << 20, true));
    let block = piece(7, 0, 0, 4096);
    cache.claim(FIRST, block.owner);
    cache.claim(SECOND, block.owner);
    for volume in [FIRST, SECOND] {
        learn(&mut cache, &arena, volume, &block, &[1; 4096]);
        assert!(read(&mut cache, &arena, volume, &block).is_none());
    }
}

#[test]
fn a_smaller_size_keeps_what_has_room_and_gives_memory_back() {
    let (arena, mut cache) = (arena(), Cache::new(16 << 20, true));
    let bytes = |object: u32| vec![u8::try_from(object % 256).unwrap(); 65536];
    for object in 0..400 {
        let all = piece(7 + object % 3, object, 0, 65536);
        learn(&mut cache, &arena, FIRST, &all, &bytes(object));
    }
    assert!(cache.usage().bytes > 15 << 20);
    cache.resize(4 << 20);
    let used = cache.usage().bytes;
    assert!((3 << 20..4 << 20).contains(&used), "{used} bytes");
    let mut found = 0;
    for object in 0..400 {
        for block in 0..16 {
            let one = piece(7 + object % 3, object, block * 4096, 4096);
            if let Some(read) = read(&mut cache, &arena, FIRST, &one) {
                assert_eq!(read, bytes(object)[..4096]);
                found += 4096;
            }
        }
    }
    assert_eq!(found, used);
    cache.drop_volume(FIRST);
    assert_eq!(cache.usage().bytes, 0, "its lists are still whole");
    cache.resize(0);
    learn(&mut cache, &arena, FIRST, &piece(7, 0, 0, 4096), &[1; 4096]);
    assert!(read(&mut cache, &arena, FIRST, &piece(7, 0, 0, 4096)).is_none());
}

/// Blocks that are read again and again survive one long scan.
#[test]
fn a_scan_does_not_wash_away_what_is_used() {
    let (arena, mut cache) = (arena(), Cache::new(4 << 20, true));
    let hot = |n: u32| piece(7, 0, n * 4096, 4096);
    for _ in 0..3 {
        for n in 0..256 {
            if read(&mut cache, &arena, FIRST, &hot(n)).is_none() {
                learn(&mut cache, &arena, FIRST, &hot(n), &[1; 4096]);
            }
        }
    }
    for n in 0..20_000 {
        let cold = piece(7, 1 + n / 1024, n % 1024 * 4096, 4096);
        learn(&mut cache, &arena, FIRST, &cold, &[2; 4096]);
    }
    let kept = (0..256).filter(|n| read(&mut cache, &arena, FIRST, &hot(*n)).is_some()).count();
    assert!(kept > 200, "{kept} of 256 blocks survived");
}

#[test]
fn what_it_counts_is_what_it_takes() {
    let before = private_kib();
    let (arena, mut cache) = (arena(), Cache::new(64 << 20, true));
    for n in 0..40_000 {
        let one = piece(7, n / 1024, n % 1024 * 4096, 4096);
        learn(&mut cache, &arena, FIRST, &one, &[3; 4096]);
    }
    let (grown, blocks) = (private_kib() - before, cache.usage().bytes >> 10);
    println!("64 MiB: {grown} KiB of memory, {blocks} KiB of blocks");
    // Other tests run beside this one, in the same process.
    assert!(grown < (64 << 10) + 8192, "{grown} KiB");
    assert!(blocks > 61 << 10, "{blocks} KiB");
}

/// The memory of this process that is in no file, in KiB.
fn private_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Learn { volume: u32, owner: u32, block: u32, count: u32 },
    Forget { owner: u32, block: u32, count: u32 },
    Create { owner: u32, object: u32 },
    Drop { volume: u32 },
    Resize { kib: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1u32..4, 5u32..8, 0u32..64, 1u32..8)
            .prop_map(|(volume, owner, block, count)| Step::Learn { volume, owner, block, count }),
        4 => (5u32..8, 0u32..64, 1u32..8)
            .prop_map(|(owner, block, count)| Step::Forget { owner, block, count }),
        1 => (5u32..8, 0u32..4).prop_map(|(owner, object)| Step::Create { owner, object }),
        1 => (1u32..4).prop_map(|volume| Step::Drop { volume }),
        1 => (0u64..4).prop_map(|eighth| Step::Resize { kib: 100 << eighth }),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever it says is what it was told last.
    #[test]
    fn it_forgets_but_does_not_err(steps in steps()) {
        let (arena, mut cache) = (arena(), Cache::new(400 << 10, true));
        let mut model: HashMap<(u32, u32), u8> = HashMap::new();
        let at = |owner, block, count: u32| piece(owner, block / 16, block % 16 * 4096, count * 4096);
        let names = |owner, block: u32, count| (0..count).map(move |n| (owner, block / 16 * 1024 + block % 16 + n));
        for (value, step) in steps.into_iter().enumerate() {
            let value = u8::try_from(value).unwrap();
            match step {
                Step::Learn { volume, owner, block, count } => {
                    let bytes = vec![value; count as usize * 4096];
                    learn(&mut cache, &arena, VolumeId(volume), &at(owner, block, count), &bytes);
                    model.extend(names(owner, block, count).map(|name| (name, value)));
                }
                Step::Forget { owner, block, count } => {
                    cache.forget(&at(owner, block, count));
                    for name in names(owner, block, count) {
                        model.remove(&name);
                    }
                }
                Step::Create { owner, object } => {
                    cache.forget_object(VdiId::new(owner).unwrap(), object, SHIFT);
                    model.retain(|(other, block), _| (*other, block / 1024) != (owner, object));
                }
                Step::Drop { volume } => cache.drop_volume(VolumeId(volume)),
                Step::Resize { kib } => cache.resize(kib << 10),
            }
            for owner in 5..8 {
                for block in (0..4).flat_map(|object| (0..24).map(move |n| object * 1024 + n)) {
                    let one = piece(owner, block / 1024, block % 1024 * 4096, 4096);
                    if let Some(read) = read(&mut cache, &arena, FIRST, &one) {
                        prop_assert_eq!(Some(&read[0]), model.get(&(owner, block)));
                    }
                }
            }
        }
    }
}
