//! The bare client: it looks a VDI up and then reads and overwrites its objects with as many
//! requests in flight as the case says, and does nothing else. No index, no cache, no FUSE:
//! what it reaches is what the sheep and the network allow.

use crate::Failure;
use crate::cases::Case;
use sheepfs::wire::inode::{INODE_HEADER_LEN, InodeHeader};
use sheepfs::wire::name::{Generation, VdiRef};
use sheepfs::wire::request::{Extent, Payload};
use sheepfs::wire::{HEADER_LEN, ReplyHeader, Request, VdiId, VdiName};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Blocks of the VDI must hold a whole request of the largest case.
const BLOCK_SHIFT_MIN: u8 = 20;

/// A VDI on a sheep, seen from the wire.
#[derive(Debug)]
pub struct Wire {
    sheep: String,
    vid: VdiId,
    shift: u8,
    bytes: u64,
}

impl Wire {
    /// Looks `vdi` up. The first `bytes` of it must have objects of their own.
    pub fn open(sheep: &str, vdi: &str, bytes: u64) -> Result<Self, Failure> {
        let mut connection = Connection::open(sheep)?;
        let name = VdiRef { name: VdiName::new(vdi)?, generation: Generation::Working };
        let (reply, _) = connection.ask(&Request::get_vdi_info(&name))?;
        let vid = VdiId::new(reply.vdi().vdi_id).ok_or("the sheep answered vid 0")?;
        let (_, header) = connection.ask(&Request::read_inode_header(vid))?;
        let inode = InodeHeader::decode(&header)?;
        let shift = inode.block_size_shift;
        if shift < BLOCK_SHIFT_MIN || inode.vdi_size < bytes {
            return Err(format!("{vdi} is too small, or its blocks of 2^{shift} bytes are").into());
        }
        Ok(Self { sheep: sheep.to_owned(), vid, shift, bytes })
    }

    /// Bytes in use, from the volume's start.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Requests per second over `time`.
    pub fn measure(&self, case: &Case, time: Duration, connections: u32) -> Result<f64, Failure> {
        let connections = connections.min(case.depth);
        let places = Places::new(case, self.bytes);
        let start = Instant::now();
        let counts: Result<Vec<u64>, Failure> = thread::scope(|scope| {
            let lanes = (0..connections).map(|first| {
                let slots = (first..case.depth).step_by(connections as usize).collect();
                scope.spawn(|| self.lane(case, slots, &places, start + time))
            });
            let lanes: Vec<_> = lanes.collect();
            lanes.into_iter().map(|lane| lane.join().map_err(|_| "a lane panicked")?).collect()
        });
        let done: u64 = counts?.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds' requests")]
        let done = done as f64;
        Ok(done / time.as_secs_f64())
    }

    /// One connection with one request in flight for each of `slots`; a slot is the id of its
    /// requests. Returns how many were answered before `end`; waits for the others.
    fn lane(
        &self,
        case: &Case,
        slots: Vec<u32>,
        places: &Places,
        end: Instant,
    ) -> Result<u64, Failure> {
        let mut connection = Connection::open(&self.sheep)?;
        let mut message = vec![0x5a; HEADER_LEN + case.len as usize];
        let mut in_flight = slots.len();
        let mut done = 0;
        for slot in slots {
            connection.send(&self.request(case, places.next(slot))?, slot, &mut message)?;
        }
        while in_flight > 0 {
            let slot = connection.receive(&mut message[HEADER_LEN..])?;
            if Instant::now() >= end {
                in_flight -= 1;
                continue;
            }
            done += 1;
            connection.send(&self.request(case, places.next(slot))?, slot, &mut message)?;
        }
        Ok(done)
    }

    fn request(&self, case: &Case, offset: u64) -> Result<Request, Failure> {
        let index = u32::try_from(offset >> self.shift)?;
        let inside = u32::try_from(offset & ((1 << self.shift) - 1))?;
        let extent = Extent::new(inside, case.len, self.shift).ok_or("outside its object")?;
        Ok(match case.write {
            true => Request::write(self.vid, index, extent),
            false => Request::read(self.vid, index, extent),
        })
    }
}

/// Where the next request goes. Each slot has places of its own, so that no two writes in
/// flight overlap: that is the client's duty (protocol 8.5).
struct Places {
    len: u64,
    count: u64,
    depth: u64,
    random: bool,
    state: AtomicU64,
}

impl Places {
    fn new(case: &Case, bytes: u64) -> Self {
        let (len, depth) = (u64::from(case.len), u64::from(case.depth));
        Self { len, count: bytes / len, depth, random: case.random, state: AtomicU64::new(1) }
    }

    fn next(&self, slot: u32) -> u64 {
        let step = self.state.fetch_add(1, Ordering::Relaxed);
        if !self.random {
            return step % self.count * self.len;
        }
        let row = scramble(step) % (self.count / self.depth);
        (row * self.depth + u64::from(slot)) * self.len
    }
}

/// `SplitMix64`'s output function: neighbouring numbers in, unrelated numbers out.
fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

struct Connection(TcpStream);

impl Connection {
    fn open(sheep: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(sheep).map_err(|error| format!("{sheep}: {error}"))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends a request; its payload, if any, stands in `message` behind the header's room, so
    /// that both leave together.
    fn send(&mut self, request: &Request, id: u32, message: &mut [u8]) -> Result<(), Failure> {
        let header = request.header(id);
        message[..HEADER_LEN].copy_from_slice(&header.encode());
        let payload = if header.has_payload() { header.data_length as usize } else { 0 };
        Ok(self.0.write_all(&message[..HEADER_LEN + payload])?)
    }

    /// Reads one reply, its payload into `room`; returns its id.
    fn receive(&mut self, room: &mut [u8]) -> Result<u32, Failure> {
        let mut header = [0; HEADER_LEN];
        self.0.read_exact(&mut header)?;
        let reply = ReplyHeader::decode(&header);
        if !reply.status.is_success() {
            return Err(format!("the sheep answered {:?}", reply.status).into());
        }
        let room = room.get_mut(..reply.data_length as usize).ok_or("a reply is too long")?;
        self.0.read_exact(room)?;
        Ok(reply.id)
    }

    /// A small request whose answer fits an inode's header.
    fn ask(&mut self, request: &Request) -> Result<(ReplyHeader, Vec<u8>), Failure> {
        let mut message = request.header(0).encode().to_vec();
        if let Payload::Bytes(bytes) = request.payload() {
            message.extend_from_slice(bytes);
        }
        self.0.write_all(&message)?;
        let mut header = [0; HEADER_LEN];
        self.0.read_exact(&mut header)?;
        let reply = ReplyHeader::decode(&header);
        if !reply.status.is_success() || reply.data_length as usize > INODE_HEADER_LEN {
            return Err(format!("the sheep answered {:?}", reply.status).into());
        }
        let mut payload = vec![0; reply.data_length as usize];
        self.0.read_exact(&mut payload)?;
        Ok((reply, payload))
    }
}
