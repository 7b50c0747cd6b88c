//! A peer for tests: it listens, reads requests, and answers what it is told to.

use sheepfs::wire::cluster::{Node, NodeId, encode_nodes};
use sheepfs::wire::header::{NodeReply, ReplyHeader, RequestHeader};
use sheepfs::wire::{HEADER_LEN, Opcode, Status};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// When the cluster of all fakes was formatted.
pub const CTIME: u64 = 77;

/// What a fake sheep does, changed while it runs.
#[derive(Debug)]
pub struct Habits {
    /// Its epoch.
    pub epoch: AtomicU32,
    /// How many requests it says are active.
    pub active: AtomicU64,
    /// Whether it answers nothing from now on.
    pub frozen: AtomicBool,
    /// Whether it leaves look-ups unanswered.
    pub slow: AtomicBool,
    /// The opcodes of all requests, in order.
    pub seen: Mutex<Vec<u8>>,
}

/// A fake sheep.
pub struct FakeSheep {
    pub address: SocketAddr,
    pub habits: Arc<Habits>,
}

impl FakeSheep {
    /// Starts one. Its threads end with the test's process.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let habits = Arc::new(Habits {
            epoch: AtomicU32::new(1),
            active: AtomicU64::new(0),
            frozen: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            seen: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&habits);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let habits = Arc::clone(&shared);
                std::thread::spawn(move || habits.serve(stream, address));
            }
        });
        Self { address, habits }
    }

    /// How many requests of that kind have come.
    pub fn count(&self, opcode: Opcode) -> usize {
        let seen = self.habits.seen.lock().unwrap();
        seen.iter().filter(|code| **code == opcode.code()).count()
    }
}

impl Habits {
    fn serve(&self, mut stream: TcpStream, address: SocketAddr) {
        let mut bytes = [0; HEADER_LEN];
        while stream.read_exact(&mut bytes).is_ok() {
            let request = RequestHeader::decode(&bytes);
            if request.has_payload() {
                let mut payload = vec![0; request.data_length as usize];
                stream.read_exact(&mut payload).unwrap();
            }
            self.seen.lock().unwrap().push(request.opcode);
            let lookup = request.opcode == Opcode::GetVdiInfo.code()
                || request.opcode == Opcode::LockVdi.code();
            if self.frozen.load(Ordering::SeqCst) || lookup && self.slow.load(Ordering::SeqCst) {
                continue;
            }
            let (header, payload) = self.answer(&request, address);
            if stream.write_all(&[&header.encode()[..], &payload].concat()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, request: &RequestHeader, address: SocketAddr) -> (ReplyHeader, Vec<u8>) {
        let (status, payload) = match Opcode::from_code(request.opcode) {
            Some(Opcode::StatCluster) => {
                let mut record = CTIME.to_le_bytes().to_vec();
                record.resize(48, 0);
                (Status::Success, record)
            }
            Some(Opcode::Stat) => {
                let mut words = self.active.load(Ordering::SeqCst).to_le_bytes().to_vec();
                words.resize(120, 0);
                (Status::Success, words)
            }
            Some(Opcode::GetNodeList) => {
                let node = Node { id: NodeId::new(address), nr_vnodes: 1, zone: 0, space: 0 };
                (Status::Success, encode_nodes(&[node]))
            }
            Some(Opcode::ReadObj) => (Status::Success, vec![0; request.data_length as usize]),
            Some(Opcode::GetVdiInfo | Opcode::LockVdi) => (Status::NoVdi, Vec::new()),
            _ => (Status::Success, Vec::new()),
        };
        let epoch = self.epoch.load(Ordering::SeqCst);
        let len = u32::try_from(payload.len()).unwrap();
        let header = ReplyHeader::new(request, epoch, status, len);
        let nodes = request.opcode == Opcode::GetNodeList.code();
        let fields = NodeReply { nr_nodes: 1, ..NodeReply::default() };
        (if nodes { header.with_node(&fields) } else { header }, payload)
    }
}
