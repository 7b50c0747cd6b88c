//! The bare client: it looks a VDI up and then reads and overwrites its objects with as many
//! requests in flight as the case says, and does nothing else. No index, no cache, no FUSE:
//! what it reaches is what the sheep and the network allow. It asks one gateway for everything,
//! or for each object a node that holds it.

use crate::cases::Case;
use crate::connection::Connection;
use crate::lane::Lane;
use crate::places::{Place, Places};
use crate::results::{Failure, Group, Outcome};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use sheepfs::wire::cluster::decode_nodes;
use sheepfs::wire::inode::InodeHeader;
use sheepfs::wire::name::{Generation, VdiRef};
use sheepfs::wire::placement::Ring;
use sheepfs::wire::request::Extent;
use sheepfs::wire::{ObjectId, Request, VdiId, VdiName};
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// Blocks of the VDI must hold a whole request of the largest case.
const BLOCK_SHIFT_MIN: u8 = 20;

/// A VDI of a cluster, seen from the wire.
#[derive(Debug)]
pub struct Wire {
    gateway: SocketAddr,
    nodes: Vec<SocketAddr>,
    ring: Ring,
    vid: VdiId,
    shift: u8,
    copies: u8,
    bytes: u64,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Always the gateway.
    Gateway,
    /// A node that holds the object.
    Holder,
}

/// A request, with whom to ask.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The request.
    pub request: Request,
    /// The nodes that may be asked, as places in the list.
    pub nodes: &'a [u16],
}

impl Wire {
    /// Looks `vdi` up. The first `bytes` of it must have objects of their own.
    pub fn open(sheep: &str, vdi: &str, bytes: u64) -> Result<Self, Failure> {
        let gateway = resolve(sheep)?;
        let mut connection = Connection::open(gateway)?;
        let (reply, list) = connection.ask(&Request::get_node_list())?;
        let nodes = decode_nodes(&list, reply.node().nr_nodes)?;
        let name = VdiRef { name: VdiName::new(vdi)?, generation: Generation::Working };
        let (reply, _) = connection.ask(&Request::get_vdi_info(&name))?;
        let vid = VdiId::new(reply.vdi().vdi_id).ok_or("the sheep answered vid 0")?;
        let (_, header) = connection.ask(&Request::read_inode_header(vid))?;
        let inode = InodeHeader::decode(&header)?;
        let shift = inode.block_size_shift;
        if shift < BLOCK_SHIFT_MIN || inode.vdi_size < bytes {
            return Err(format!("{vdi} is too small, or its blocks of 2^{shift} bytes are").into());
        }
        let ring = Ring::new(&nodes)?;
        let nodes = nodes.iter().map(|node| node.id.socket_addr()).collect();
        Ok(Self { gateway, nodes, ring, vid, shift, copies: inode.nr_copies, bytes })
    }

    /// The nodes of the cluster.
    pub fn nodes(&self) -> &[SocketAddr] {
        &self.nodes
    }

    /// One repeat of a case.
    pub fn measure(
        &self,
        case: &Case,
        whom: Whom,
        time: Duration,
        connections: u32,
    ) -> Result<Outcome, Failure> {
        let connections = connections.min(case.depth);
        let places = Places::new(case, self.bytes);
        let before = own_cpu()?;
        let start = Instant::now();
        let counts: Result<Vec<u64>, Failure> = thread::scope(|scope| {
            let lanes = (0..connections).map(|first| {
                let slots: Vec<u32> = (first..case.depth).step_by(connections as usize).collect();
                let lane = Lane::new(self, whom, case, &places);
                scope.spawn(move || lane.run(&slots, start + time))
            });
            let lanes: Vec<_> = lanes.collect();
            lanes.into_iter().map(|lane| lane.join().map_err(|_| "a lane panicked")?).collect()
        });
        let requests: u64 = counts?.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds' requests")]
        let per_second = requests as f64 / time.as_secs_f64();
        let cpu = own_cpu()?.saturating_sub(before);
        Ok(Outcome { requests, per_second, cpu: vec![(Group::Client, cpu)] })
    }

    /// Where to connect to for a node of [`Errand::nodes`].
    pub fn address(&self, whom: Whom, node: usize) -> SocketAddr {
        match whom {
            Whom::Gateway => self.gateway,
            Whom::Holder => self.nodes[node],
        }
    }

    /// What to ask for a place, and whom; `holders` is room for the answer.
    pub fn errand<'a>(
        &self,
        whom: Whom,
        place: Place,
        len: u32,
        holders: &'a mut Vec<u16>,
    ) -> Result<Errand<'a>, Failure> {
        let index = u32::try_from(place.offset >> self.shift)?;
        let inside = u32::try_from(place.offset & ((1 << self.shift) - 1))?;
        let extent = Extent::new(inside, len, self.shift).ok_or("outside its object")?;
        let request = match place.write {
            true => Request::write(self.vid, index, extent),
            false => Request::read(self.vid, index, extent),
        };
        holders.clear();
        match whom {
            Whom::Gateway => holders.push(0),
            Whom::Holder => {
                let found = self.ring.holders(ObjectId::data(self.vid, index), self.copies);
                holders.extend_from_slice(found.as_slice());
            }
        }
        Ok(Errand { request, nodes: holders })
    }
}

fn resolve(sheep: &str) -> Result<SocketAddr, Failure> {
    let mut found = sheep.to_socket_addrs().map_err(|error| format!("{sheep}: {error}"))?;
    Ok(found.next().ok_or_else(|| format!("{sheep} has no address"))?)
}

/// This process's time, of all its threads.
fn own_cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = |value: TimeVal| {
        let micros = value.tv_sec() * 1_000_000 + value.tv_usec();
        Duration::from_micros(micros.unsigned_abs())
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}
