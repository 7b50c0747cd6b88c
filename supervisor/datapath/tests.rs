//! The data path against a worker that is a `Vec<u8>`, or silent, or gone, or lying.

mod cleared;
mod copied;
mod growing;
mod orphans;
mod recovery;
mod seeks;

use super::*;
use crate::events::{Event, Events};
use crate::fake::{FakeWorker, link, tag_of, volume};
use crate::inflight::CONTROL_TAG;
use crate::volumes::Volume;
use proptest::prelude::*;
use sheepfs::ipc::arena::ARENA_LEN;
use sheepfs::ipc::{Failure, FromWorker, Tag, ToWorker};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

type Answer = (u64, Result<Vec<u8>, Errno>);

/// A parked reply with a number.
#[derive(Debug)]
struct Waiter(u64, Sender<Answer>);

impl Parked for Waiter {
    fn done(self, bytes: &[u8]) {
        let _ = self.1.send((self.0, Ok(bytes.to_vec())));
    }
    fn sought(self, offset: u64) {
        self.done(&offset.to_le_bytes());
    }
    fn fail(self, errno: Errno) {
        let _ = self.1.send((self.0, Err(errno)));
    }
}

/// A data path with one volume, and the thread that reads its link.
struct Rig {
    links: Vec<Arc<Link>>,
    data: Arc<DataPath<Waiter>>,
    volume: Arc<Volume>,
    answers: (Sender<Answer>, Receiver<Answer>),
    events: (Events, Receiver<Event>),
    next: u64,
}

impl Rig {
    fn new(size: u32) -> Self {
        let (tell, told) = channel();
        Self {
            data: Arc::default(),
            volume: volume(1, "disk", size.into(), false),
            answers: channel(),
            events: (Events(tell), told),
            next: 0,
            links: Vec::new(),
        }
    }

    fn connect(&mut self, generation: u64, arena_len: u32) -> (FakeWorker, JoinHandle<()>) {
        self.connect_at(generation, arena_len, Pace::All)
    }

    fn connect_at(
        &mut self,
        generation: u64,
        arena_len: u32,
        pace: Pace,
    ) -> (FakeWorker, JoinHandle<()>) {
        let disk_len = usize::try_from(self.volume.size()).unwrap();
        let (link, worker) = link(generation, arena_len, disk_len);
        self.links.push(link.clone());
        self.data.connect(link.clone(), pace);
        let (data, events) = (self.data.clone(), self.events.0.clone());
        (worker, std::thread::spawn(move || link.run(&data, &events)))
    }

    fn waiter(&mut self) -> Waiter {
        self.next += 1;
        Waiter(self.next, self.answers.0.clone())
    }

    fn read(&mut self, offset: u64, len: u32) {
        let waiter = self.waiter();
        self.data.read(&self.volume, offset, len, waiter);
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let waiter = self.waiter();
        self.data.write(&self.volume, offset, bytes, Cut::Early, waiter);
    }

    fn flush(&mut self) {
        let waiter = self.waiter();
        self.data.flush(&self.volume, waiter);
    }

    fn answer(&self) -> Answer {
        self.answers.1.recv_timeout(DEADLINE).expect("an answer")
    }

    fn outcome(&self) -> Result<Vec<u8>, Errno> {
        self.answer().1
    }

    fn event(&self) -> Event {
        self.events.1.recv_timeout(DEADLINE).expect("an event")
    }

    /// So many failed with EIO; nothing is left over.
    fn all_failed(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.outcome(), Err(Errno::EIO));
        }
        assert!(self.answers.1.try_recv().is_err());
    }

    /// The worker's death, of which it was on its way to that sheep.
    fn lose(&self, generation: u64, gateway: Option<SocketAddr>) -> Vec<Tag> {
        self.data.lost(generation, gateway.as_slice(), Instant::now())
    }

    fn gone(&self, generation: u64) {
        loop {
            match self.event() {
                Event::WorkerGone { generation: gone } => return assert_eq!(gone, generation),
                Event::WorkerBroken { generation: broken, .. } => {
                    assert_eq!(broken, generation);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// A fake worker that serves everything ends with this.
impl Drop for Rig {
    fn drop(&mut self) {
        self.links.iter().for_each(|link| link.hang_up());
    }
}

#[test]
fn what_is_written_is_read_and_the_ends_are_a_disks() {
    let mut rig = Rig::new(10_000);
    let worker = rig.connect(1, ARENA_LEN).0.serve_all();
    rig.write(9_000, b"sheep");
    assert_eq!(rig.outcome(), Ok(b"sheep".to_vec()));
    rig.flush();
    assert_eq!(rig.outcome(), Ok(Vec::new()));
    rig.read(9_001, 3);
    assert_eq!(rig.outcome(), Ok(b"hee".to_vec()));
    rig.write(9_998, b"1234");
    assert_eq!(rig.outcome(), Ok(b"12".to_vec()), "a write across the end is short");
    rig.read(9_998, 4_096);
    assert_eq!(rig.outcome(), Ok(b"12".to_vec()), "a read across the end is short");
    for offset in [10_000, 10_001, u64::MAX] {
        rig.write(offset, b"x");
        assert_eq!(rig.outcome(), Err(Errno::ENOSPC));
        rig.read(offset, 1);
        assert_eq!(rig.outcome(), Ok(Vec::new()));
    }
    rig.write(5, b"");
    assert_eq!(rig.outcome(), Ok(Vec::new()));
    drop(rig);
    assert_eq!(&worker.join().unwrap().disk[9_000..9_005], b"sheep");
}

#[test]
fn a_silent_worker_stops_nobody_and_gets_everything_in_order() {
    let mut rig = Rig::new(MIB);
    let (mut worker, _reader) = rig.connect(1, 4 * MIB);
    // 64 of these find a slot.
    for request in 0..1000 {
        rig.read(request, 64 * KIB);
    }
    rig.write(0, b"one more");
    rig.flush();
    assert_eq!(rig.data.in_flight(), 1002);
    assert!(rig.answers.1.try_recv().is_err());
    for expected in 0..1000 {
        let message = worker.next().unwrap();
        assert!(matches!(message, ToWorker::Read { offset, .. } if offset == expected));
        worker.serve(message);
    }
    for _ in 0..2 {
        let message = worker.next().unwrap();
        worker.serve(message);
    }
    let numbers: Vec<u64> = (0..1002).map(|_| rig.answer().0).collect();
    assert_eq!(numbers, (1..=1002).collect::<Vec<_>>());
    assert_eq!(&worker.disk[..8], b"one more");
    assert!(rig.data.is_idle());
}

#[test]
fn slots_come_back_and_a_large_request_is_not_starved() {
    let mut rig = Rig::new(2 * MIB);
    let (mut worker, _reader) = rig.connect(1, MIB);
    rig.read(0, 512 * KIB);
    rig.read(1, MIB);
    rig.read(2, 4 * KIB);
    for (expected, len) in [(0, 512), (1, 1024), (2, 4)] {
        let message = worker.next().unwrap();
        assert!(matches!(message, ToWorker::Read { offset, .. } if offset == expected));
        worker.serve(message);
        assert_eq!(rig.outcome().unwrap().len(), len << 10);
    }
    for _ in 0..100 {
        rig.write(0, &vec![7; MIB as usize]);
        let message = worker.next().unwrap();
        worker.serve(message);
        assert_eq!(rig.outcome().unwrap().len(), MIB as usize);
    }
    rig.read(0, MIB + 1);
    assert_eq!(rig.outcome(), Err(Errno::EIO), "no arena could hold it");
}

#[test]
fn a_full_socket_loses_and_reorders_nothing() {
    let mut rig = Rig::new(MIB);
    let (worker, _reader) = rig.connect(1, ARENA_LEN);
    const COUNT: u64 = 100_000;
    (0..COUNT).for_each(|_| rig.flush());
    let mut last = None;
    for _ in 0..COUNT {
        let (tag, _) = tag_of(&worker.next().unwrap());
        assert!(last < Some(tag), "{last:?} came before {tag:?}");
        last = Some(tag);
        worker.done(tag, Ok(()));
    }
    (1..=COUNT).for_each(|number| assert_eq!(rig.answer().0, number));
}

#[test]
fn failures_keep_their_errno() {
    let mut rig = Rig::new(MIB);
    let (worker, _reader) = rig.connect(1, MIB);
    for (failure, errno) in [
        (Failure::NoSpace, Errno::ENOSPC),
        (Failure::ReadOnly, Errno::EROFS),
        (Failure::ObjectLost, Errno::EIO),
    ] {
        rig.write(0, b"x");
        worker.done(tag_of(&worker.next().unwrap()).0, Err(failure));
        assert_eq!(rig.outcome(), Err(errno));
    }
}

#[test]
fn a_lie_ends_the_link_after_the_truths_before_it() {
    for lie in [7, CONTROL_TAG - 1] {
        let mut rig = Rig::new(MIB);
        let (worker, reader) = rig.connect(5, MIB);
        rig.read(0, 1);
        worker.done(tag_of(&worker.next().unwrap()).0, Ok(()));
        worker.done(Tag(lie), Ok(()));
        assert!(matches!(rig.event(), Event::WorkerBroken { generation: 5, nonsense: true }));
        assert_eq!(rig.outcome(), Ok(vec![0]));
        drop(worker);
        rig.gone(5);
        reader.join().unwrap();
    }
}

#[test]
fn what_is_no_data_goes_to_the_control_loop() {
    let mut rig = Rig::new(MIB);
    let (worker, reader) = rig.connect(3, MIB);
    let said = [
        FromWorker::Pong { number: 7 },
        FromWorker::Done { tag: Tag(CONTROL_TAG), outcome: Err(Failure::Locked) },
    ];
    said.iter().for_each(|message| worker.say(message.clone()));
    for expected in said {
        let Event::Worker { generation: 3, message } = rig.event() else { panic!() };
        assert_eq!(message, expected);
    }
    drop(worker);
    rig.gone(3);
    reader.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Reads and writes that never overlap an outstanding write, in batches, over
    /// an arena that holds few of them, against a plain disk.
    #[test]
    fn it_is_a_disk(
        steps in proptest::collection::vec((any::<bool>(), 0u32..300_000, 1u32..50_000), 1..60)
    ) {
        const SIZE: u32 = 256 * KIB;
        let mut rig = Rig::new(SIZE);
        let worker = rig.connect(1, 64 * KIB).0.serve_all();
        let mut model = vec![0u8; SIZE as usize];
        for (number, (writing, offset, len)) in (0u8..).zip(steps) {
            let from = offset.min(SIZE) as usize;
            let to = (from + len as usize).min(SIZE as usize);
            if writing {
                let bytes = vec![number; len as usize];
                rig.write(offset.into(), &bytes);
                let expected = if from == to { Err(Errno::ENOSPC) } else { Ok(bytes[..to - from].to_vec()) };
                model[from..to].fill(number);
                prop_assert_eq!(rig.outcome(), expected);
            } else {
                // Two at once, so that answers come in batches and slots run out.
                rig.read(offset.into(), len);
                rig.read(offset.into(), len);
                prop_assert_eq!(rig.outcome().unwrap(), &model[from..to]);
                prop_assert_eq!(rig.outcome().unwrap(), &model[from..to]);
            }
        }
        drop(rig);
        prop_assert_eq!(worker.join().unwrap().disk, model);
    }
}
