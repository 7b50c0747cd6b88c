//! The worker's decisions against a cluster in memory, which answers in any
//! order, makes snapshots at any moment, asks for patience, and checks the rules
//! that the real one leaves to its clients (protocol 8.5, 8.7).

use crate::context::Wire;
use crate::engine::{Engine, Surroundings};
use crate::frame::Reply;
use rand_core::Rand;
use sheepfs::ipc::{Arena, Failure, FromWorker, RawSpan, Span, Tag, ToWorker, VolumeId};
use sheepfs::wire::header::{ReplyHeader, VdiReply, flags};
use sheepfs::wire::inode::{INODE_HEADER_LEN, INODE_LEN, InodeHeader, index_offset};
use sheepfs::wire::name::VolumeName;
use sheepfs::wire::request::Payload;
use sheepfs::wire::{ObjectId, Opcode, Request, Status, VdiId};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SHIFT: u8 = 12;
const OBJECT_LEN: usize = 1 << SHIFT;
const VDI_LEN: usize = 40 * OBJECT_LEN + 100;

/// A small random source, so that a failure can be repeated by its seed.
mod rand_core {
    /// A linear congruential generator.
    pub struct Rand(pub u64);

    impl Rand {
        /// A number below `n`.
        pub fn below(&mut self, n: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % n.max(1)
        }
    }
}

/// A request on its way, with the payload it had when it was sent.
struct Sent {
    id: u32,
    request: Request,
    span: Option<Span>,
}

/// The cluster.
struct Cluster {
    working: u32,
    objects: HashMap<u64, Vec<u8>>,
    inodes: BTreeMap<u32, Vec<u8>>,
    sent: Vec<Sent>,
    next_id: u32,
    snapshots: usize,
    lose_entry: bool,
    /// As on a real gateway, a write at the front of a stripe then loses its rest.
    erasure_coded: bool,
    /// The entry written last, which a snapshot may lose.
    newest: Option<u32>,
    repaired: usize,
}

impl Wire for Cluster {
    fn request(&mut self, request: Request, span: Option<Span>) -> u32 {
        self.next_id += 1;
        let id = self.next_id;
        self.check_rules(&request);
        self.sent.push(Sent { id, request, span });
        id
    }

    fn ask_node(&mut self, _: SocketAddr, _: Request, _: Instant) -> Option<u32> {
        None
    }
}

impl Cluster {
    fn new() -> Self {
        Self::with_policy(0)
    }

    fn with_policy(copy_policy: u8) -> Self {
        let header = InodeHeader {
            name: b"disk".to_vec(),
            tag: Vec::new(),
            create_time: 1,
            snap_ctime: 0,
            vdi_size: VDI_LEN as u64,
            copy_policy,
            store_policy: 0,
            nr_copies: 1,
            block_size_shift: SHIFT,
            snap_id: 1,
            vdi_id: 7,
            parent_vdi_id: 0,
        };
        let mut inode = header.encode().to_vec();
        inode.resize(INODE_LEN as usize, 0);
        let inodes = BTreeMap::from([(7, inode)]);
        let (objects, sent) = (HashMap::new(), Vec::new());
        Self {
            working: 7,
            objects,
            inodes,
            sent,
            next_id: 0,
            snapshots: 0,
            lose_entry: false,
            erasure_coded: copy_policy != 0,
            newest: None,
            repaired: 0,
        }
    }

    fn entry(&self, vid: u32, index: u32) -> u32 {
        let at = index_offset(index) as usize;
        u32::from_le_bytes(self.inodes[&vid][at..at + 4].try_into().unwrap())
    }

    fn set_entry(&mut self, vid: u32, index: u32, value: u32) {
        let at = index_offset(index) as usize;
        self.inodes.get_mut(&vid).unwrap()[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Panics when a request breaks a rule, given what is on the wire already.
    fn check_rules(&self, request: &Request) {
        let new = request.header(0);
        let obj = new.obj();
        if ObjectId::from_raw(obj.oid).kind() != sheepfs::wire::oid::ObjectKind::Data
            || !new.has_payload()
        {
            return;
        }
        for other in &self.sent {
            let old = other.request.header(0);
            if old.obj().oid != obj.oid || !old.has_payload() || old.opcode > 3 {
                continue;
            }
            let creates = [new.opcode, old.opcode].contains(&Opcode::CreateAndWriteObj.code());
            assert!(!creates, "a write beside a create of {:x}", obj.oid);
            let (a, b) = (obj.offset, old.obj().offset);
            let apart = a + new.data_length <= b || b + old.data_length <= a;
            assert!(apart, "writes that overlap are under way on {:x}", obj.oid);
        }
    }

    /// Carries a request out.
    fn execute(&mut self, sent: &Sent, arena: &Arena) -> Reply {
        let header = sent.request.header(sent.id);
        let payload = match sent.request.payload() {
            Payload::Bytes(bytes) => bytes.to_vec(),
            Payload::External => arena.bytes(sent.span.unwrap()).to_vec(),
            Payload::None => Vec::new(),
        };
        let (status, bytes, vid) = match sent.request.opcode().unwrap() {
            Opcode::ReadObj => self.read(header.obj().oid, header.obj().offset, header.data_length),
            Opcode::WriteObj | Opcode::CreateAndWriteObj => self.write(&header, &payload),
            Opcode::LockVdi | Opcode::GetVdiInfo => self.look_up(&payload),
            Opcode::FlushVdi => (Status::InvalidParms, Vec::new(), 0),
            Opcode::ReleaseVdi => (Status::Success, Vec::new(), 0),
            other => panic!("nobody asks {other:?} here"),
        };
        if let (Some(span), Status::Success) = (sent.span, status)
            && !header.has_payload()
        {
            arena.fill(span, &bytes);
        }
        let len = u32::try_from(bytes.len()).unwrap();
        let reply = ReplyHeader::new(&header, 1, status, len)
            .with_vdi(&VdiReply { vdi_id: vid, ..VdiReply::default() });
        Reply::new(reply, bytes)
    }

    fn look_up(&self, payload: &[u8]) -> (Status, Vec<u8>, u32) {
        let name = sheepfs::wire::name::field_bytes(&payload[..256]);
        let status = if name == b"disk" { Status::Success } else { Status::NoVdi };
        (status, Vec::new(), self.working)
    }

    fn read(&self, oid: u64, offset: u32, len: u32) -> (Status, Vec<u8>, u32) {
        let oid = ObjectId::from_raw(oid);
        let found = match oid.kind() {
            sheepfs::wire::oid::ObjectKind::Inode => self.inodes.get(&oid.vid_raw()),
            _ => self.objects.get(&oid.raw()),
        };
        match found {
            Some(bytes) => {
                (Status::Success, bytes[offset as usize..(offset + len) as usize].to_vec(), 0)
            }
            None => (Status::NoObj, Vec::new(), 0),
        }
    }

    fn write(
        &mut self,
        header: &sheepfs::wire::RequestHeader,
        payload: &[u8],
    ) -> (Status, Vec<u8>, u32) {
        let obj = header.obj();
        let (oid, at) = (ObjectId::from_raw(obj.oid), obj.offset as usize);
        assert_eq!((obj.copies, obj.copy_policy), (0, 0));
        if oid.kind() == sheepfs::wire::oid::ObjectKind::Inode {
            return self.write_inode(oid.vid_raw(), at, payload);
        }
        if self.inodes[&oid.vid_raw()][520..528] != [0; 8] {
            return (Status::Readonly, Vec::new(), 0);
        }
        assert!(at + payload.len() <= OBJECT_LEN);
        if header.opcode == Opcode::CreateAndWriteObj.code() {
            let base = if header.flags & flags::COW == 0 {
                vec![0; OBJECT_LEN]
            } else {
                self.objects[&obj.cow_oid].clone()
            };
            self.objects.insert(oid.raw(), base);
        }
        let Some(object) = self.objects.get_mut(&oid.raw()) else {
            return (Status::NoObj, Vec::new(), 0);
        };
        object[at..at + payload.len()].copy_from_slice(payload);
        let end = at + payload.len();
        let in_front = at.is_multiple_of(512) && !payload.is_empty() && payload.len() < 512;
        if self.erasure_coded && in_front && header.opcode == Opcode::WriteObj.code() {
            object[end..at + 512].fill(0);
        }
        (Status::Success, Vec::new(), 0)
    }

    fn write_inode(&mut self, vid: u32, at: usize, payload: &[u8]) -> (Status, Vec<u8>, u32) {
        let index_end = index_offset(u32::MAX) as usize;
        if at >= INODE_HEADER_LEN && at < index_end {
            for (number, word) in (((at - INODE_HEADER_LEN) / 4)..).zip(payload.chunks_exact(4)) {
                let (index, value) =
                    (u32::try_from(number).unwrap(), u32::from_le_bytes(word.try_into().unwrap()));
                assert_ne!(self.entry(vid, index), value, "an unchanged entry was written");
                let object = ObjectId::data(VdiId::new(value).unwrap(), index).raw();
                assert!(self.objects.contains_key(&object), "the entry came before the object");
                self.repaired += usize::from(value != vid);
                self.newest = Some(index);
            }
        }
        self.inodes.get_mut(&vid).unwrap()[at..at + payload.len()].copy_from_slice(payload);
        (Status::Success, Vec::new(), 0)
    }

    /// Makes a snapshot, as somebody else would. The server may lose an entry
    /// that was written while it worked.
    fn snapshot(&mut self) {
        let old = self.working;
        let new = old + 1;
        let mut inode = self.inodes[&old].clone();
        let mut header = InodeHeader::decode(&inode).unwrap();
        header.parent_vdi_id = old;
        header.vdi_id = new;
        header.snap_id += 1;
        inode[..INODE_HEADER_LEN].copy_from_slice(&header.encode());
        self.inodes.insert(new, inode);
        let frozen = self.inodes.get_mut(&old).unwrap();
        frozen[520..528].copy_from_slice(&9u64.to_le_bytes());
        if self.lose_entry
            && let Some(lost) = self.newest.take().filter(|index| self.entry(old, *index) == old)
        {
            self.set_entry(new, lost, 0);
            self.set_entry(old, lost, 0);
        }
        self.working = new;
        self.snapshots += 1;
    }
}

/// A worker on that cluster, with a model of what its disk must hold.
struct Run {
    engine: Engine,
    cluster: Cluster,
    arena: Arena,
    out: Vec<FromWorker>,
    now: Instant,
    random: Rand,
}

impl Run {
    fn new(seed: u64, cache_bytes: u64) -> Self {
        Self::on(Cluster::new(), seed, cache_bytes)
    }

    fn on(cluster: Cluster, seed: u64, cache_bytes: u64) -> Self {
        let mut run = Self {
            engine: Engine::new(cache_bytes),
            cluster,
            arena: Arena::create(1 << 20).unwrap(),
            out: Vec::new(),
            now: Instant::now(),
            random: Rand(seed),
        };
        let name = VolumeName::parse(b"disk").unwrap();
        run.tell(ToWorker::Attach { tag: Tag(0), volume: VolumeId(1), name, held_lock: 0 });
        run.settle();
        assert!(matches!(run.out.pop(), Some(FromWorker::Attached { .. })));
        run
    }

    fn tell(&mut self, message: ToWorker) {
        let (arena, now) = (&self.arena, self.now);
        let around = &mut Surroundings { wire: &mut self.cluster, out: &mut self.out, arena, now };
        self.engine.message(message, around);
    }

    /// Carries out one request on the wire, any of them.
    fn answer_one(&mut self) {
        let which = self.random.below(self.cluster.sent.len());
        let sent = self.cluster.sent.swap_remove(which);
        let asks_patience = self.random.below(20) == 0 && sent.request.payload_len() > 0;
        let reply = if asks_patience && sent.request.opcode() != Some(Opcode::LockVdi) {
            Reply::new(
                ReplyHeader::new(&sent.request.header(sent.id), 1, Status::Halt, 0),
                Vec::new(),
            )
        } else {
            self.cluster.execute(&sent, &self.arena)
        };
        let (arena, now) = (&self.arena, self.now);
        let around = &mut Surroundings { wire: &mut self.cluster, out: &mut self.out, arena, now };
        self.engine.reply(&reply, around).unwrap();
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(250);
        let (arena, now) = (&self.arena, self.now);
        let around = &mut Surroundings { wire: &mut self.cluster, out: &mut self.out, arena, now };
        self.engine.tick(around);
    }

    /// Answers everything.
    fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.cluster.sent.is_empty() {
                self.answer_one();
            } else if self
                .engine
                .next_deadline()
                .is_some_and(|at| at < self.now + Duration::from_secs(5))
            {
                self.tick();
            } else {
                return;
            }
        }
        panic!("the worker does not come to rest");
    }
}

/// Ranges of a batch lie apart, so that the model knows what each must see.
fn batch(random: &mut Rand) -> Vec<(u64, u32)> {
    let mut at = random.below(3 * OBJECT_LEN);
    let mut ranges = Vec::new();
    while at < VDI_LEN && ranges.len() < 12 {
        let len_max = [600, 2 * OBJECT_LEN][random.below(2)];
        let len = (1 + random.below(len_max)).min(VDI_LEN - at);
        ranges.push((at as u64, u32::try_from(len).unwrap()));
        at += len + random.below(5 * OBJECT_LEN);
        if random.below(2) == 0 {
            at = at.next_multiple_of(512);
        }
    }
    ranges
}

fn random_batches(seed: u64, cache_bytes: u64, lose_entry: bool) -> Cluster {
    let cluster = Cluster { lose_entry, ..Cluster::new() };
    random_batches_on(cluster, seed, cache_bytes)
}

fn random_batches_on(cluster: Cluster, seed: u64, cache_bytes: u64) -> Cluster {
    let mut run = Run::on(cluster, seed, cache_bytes);
    let mut model = vec![0; VDI_LEN];
    let mut tag = 0;
    for _ in 0..60 {
        let mut expected: HashMap<Tag, (RawSpan, Option<Vec<u8>>)> = HashMap::new();
        let mut room = 0;
        for (offset, len) in batch(&mut run.random) {
            tag += 1;
            let span = RawSpan { offset: room, len };
            room += len;
            let (start, end) =
                (usize::try_from(offset).unwrap(), usize::try_from(offset).unwrap() + len as usize);
            if run.random.below(2) == 0 {
                let value = u8::try_from(1 + run.random.below(255)).unwrap();
                model[start..end].fill(value);
                run.arena.fill(run.arena.check(span).unwrap(), &vec![value; len as usize]);
                expected.insert(Tag(tag), (span, None));
                run.tell(ToWorker::Write { tag: Tag(tag), volume: VolumeId(1), offset, span });
            } else {
                expected.insert(Tag(tag), (span, Some(model[start..end].to_vec())));
                run.tell(ToWorker::Read { tag: Tag(tag), volume: VolumeId(1), offset, span });
            }
            if !run.cluster.sent.is_empty() && run.random.below(2) == 0 {
                run.answer_one();
            }
            if run.random.below(60) == 0 {
                run.cluster.snapshot();
            }
        }
        run.settle();
        for message in std::mem::take(&mut run.out) {
            let FromWorker::Done { tag, outcome } = message else { continue };
            assert_eq!(outcome, Ok(()), "seed {seed}");
            let (span, bytes) = expected.remove(&tag).unwrap();
            if let Some(bytes) = bytes {
                assert!(
                    run.arena.bytes(run.arena.check(span).unwrap()) == bytes,
                    "seed {seed}: a read is wrong"
                );
            }
        }
        assert!(expected.is_empty(), "seed {seed}: {} requests have no answer", expected.len());
    }
    run.cluster
}

#[test]
fn the_disk_equals_its_model_whatever_the_order_of_replies() {
    let clusters: Vec<_> = (0..30).map(|seed| random_batches(seed, 0, false)).collect();
    assert!(clusters.iter().map(|cluster| cluster.snapshots).sum::<usize>() > 30);
}

#[test]
fn the_cache_changes_nothing() {
    (100..120).for_each(|seed| drop(random_batches(seed, 1 << 17, false)));
}

/// A gateway zeroes what lies behind a write that begins at a stripe's border.
#[test]
fn nothing_behind_a_write_to_an_erasure_coded_stripe_is_lost() {
    for seed in 300..308 {
        random_batches_on(Cluster::with_policy(0x11), seed, if seed < 304 { 0 } else { 1 << 17 });
    }
}

/// Protocol 7.4: the server loses index entries while it makes a snapshot.
#[test]
fn entries_that_a_snapshot_loses_are_repaired() {
    let repaired: usize = (200..220).map(|seed| random_batches(seed, 0, true).repaired).sum();
    assert!(repaired > 10, "only {repaired} entries were lost and repaired");
}

#[test]
fn writes_to_one_absent_object_create_it_once() {
    let mut run = Run::new(1, 0);
    for tag in 1..=16u32 {
        let span = RawSpan { offset: tag * 256, len: 256 };
        run.arena.fill(run.arena.check(span).unwrap(), &[u8::try_from(tag).unwrap(); 256]);
        let offset = u64::from(tag - 1) * 256;
        run.tell(ToWorker::Write { tag: Tag(u64::from(tag)), volume: VolumeId(1), offset, span });
    }
    run.settle();
    assert_eq!(run.out.len(), 16);
    let object = &run.cluster.objects[&(7 << 32)];
    let expected: Vec<u8> = (1..=16).flat_map(|value| [value; 256]).collect();
    assert_eq!(object, &expected);
}

#[test]
fn a_vdi_that_was_replaced_gets_an_error_and_never_other_data() {
    let mut run = Run::new(1, 0);
    let span = RawSpan { offset: 0, len: 512 };
    run.tell(ToWorker::Write { tag: Tag(1), volume: VolumeId(1), offset: 0, span });
    run.settle();
    run.cluster.snapshot();
    // Somebody deleted it and made another of that name.
    let working = run.cluster.working;
    run.cluster.inodes.get_mut(&working).unwrap()[564..568].copy_from_slice(&99u32.to_le_bytes());
    let mut other = run.cluster.inodes[&working].clone();
    other[564..568].copy_from_slice(&0u32.to_le_bytes());
    run.cluster.inodes.insert(99, other);
    run.tell(ToWorker::Write { tag: Tag(2), volume: VolumeId(1), offset: 0, span });
    run.tell(ToWorker::Read { tag: Tag(3), volume: VolumeId(1), offset: 0, span });
    run.settle();
    let failed = Err(Failure::Replaced);
    let lost = FromWorker::Done { tag: Tag(2), outcome: failed };
    assert!(run.out.contains(&lost), "{:?}", run.out);
}
