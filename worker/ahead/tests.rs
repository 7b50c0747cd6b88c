use super::*;
use sheepfs::ipc::RawSpan;

const VOLUME: VolumeId = VolumeId(1);

struct Store {
    ahead: Ahead,
    arena: Arena,
    now: Instant,
}

impl Store {
    fn new() -> Self {
        let (ahead, arena) = (Ahead::default(), Arena::create(1 << 20).unwrap());
        Self { ahead, arena, now: Instant::now() }
    }

    fn begin(&mut self, offset: u32, len: u32) -> bool {
        self.ahead.begin(VOLUME, 0, extent(offset, len), self.now)
    }

    /// A piece arrives, each byte of which says where it is.
    fn arrive(&mut self, offset: u32, len: u32) {
        let bytes: Vec<u8> = (offset..offset + len).map(byte_at).collect();
        self.ahead.finish(VOLUME, 0, offset, Some(&bytes));
    }

    fn read(&mut self, offset: u32, len: u32) -> Cover {
        let span = self.arena.check(RawSpan { offset: 0, len }).unwrap();
        let target = (span, &self.arena);
        let cover = self.ahead.read((VOLUME, 0), extent(offset, len), target, self.now);
        let right = (offset..offset + len).map(byte_at).eq(self.arena.bytes(span).iter().copied());
        assert!(cover != Cover::Filled || right);
        cover
    }
}

fn byte_at(offset: u32) -> u8 {
    u8::try_from(offset % 251).unwrap()
}

fn extent(offset: u32, len: u32) -> Extent {
    Extent::new(offset, len, 22).unwrap()
}

#[test]
fn what_has_come_is_read_across_pieces_and_goes_with_its_last_byte() {
    let mut store = Store::new();
    assert!(store.begin(1000, 4000) && store.begin(5000, 3000));
    assert!(!store.begin(4999, 1), "it is asked for already");
    assert_eq!(store.read(2000, 4000), Cover::UnderWay);
    store.arrive(1000, 4000);
    assert_eq!(store.read(2000, 4000), Cover::UnderWay);
    assert_eq!(store.read(1000, 1000), Cover::Filled);
    store.arrive(5000, 3000);
    assert_eq!(store.read(2000, 4000), Cover::Filled);
    assert_eq!(store.read(999, 100), Cover::None);
    assert_eq!(store.read(7000, 1001), Cover::None);
    assert_eq!(store.read(2000, 10), Cover::None, "it was read out");
    assert_eq!(store.read(6000, 2000), Cover::Filled);
    assert_eq!((store.ahead.pieces.len(), store.ahead.bytes), (0, 0));
}

#[test]
fn a_write_makes_void_what_is_there_and_what_is_under_way() {
    let mut store = Store::new();
    assert!(store.begin(0, 4096) && store.begin(4096, 4096));
    store.arrive(0, 4096);
    store.ahead.void(VOLUME, 0, extent(4095, 2));
    assert_eq!(store.read(0, 1), Cover::None);
    assert_eq!(store.read(4096, 1), Cover::None);
    assert!(!store.begin(4096, 1), "its answer is still to come");
    store.arrive(4096, 4096);
    assert_eq!(store.read(4096, 1), Cover::None, "it came too late");
    assert_eq!((store.ahead.bytes, store.ahead.under_way()), (0, 0));
}

#[test]
fn it_is_bounded_and_lets_go() {
    let mut store = Store::new();
    let len = PIECE_LEN_MAX;
    let most = u32::try_from(BYTES_MAX).unwrap() / len;
    let begin = |store: &mut Store, n: u32| store.ahead.begin(VOLUME, n, extent(0, len), store.now);
    for number in 0..most {
        assert!(begin(&mut store, number));
    }
    assert!(!begin(&mut store, most), "all of it is under way");
    let bytes = vec![0; len as usize];
    store.ahead.finish(VOLUME, 0, 0, Some(&bytes));
    assert!(!begin(&mut store, most), "its reader may come yet");
    store.now += IDLE_TIME;
    assert!(begin(&mut store, most), "nobody came for the oldest");
    for number in 1..most {
        store.ahead.finish(VOLUME, number, 0, (number > 1).then_some(&bytes));
    }
    assert_eq!(store.ahead.under_way(), 1);
    store.ahead.expire(store.now);
    assert!(store.ahead.bytes > 0);
    store.ahead.expire(store.now + IDLE_TIME);
    store.ahead.finish(VOLUME, most, 0, Some(&bytes));
    assert_eq!((store.ahead.bytes, store.ahead.under_way()), (0, 0));
    assert_eq!(store.ahead.deadline(), None);
}
