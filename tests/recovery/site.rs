//! A place for faults: a minisheep that has the directory, the locks and the rule counters and is
//! never hit, gateways before it that are, and the words to hit them with.

use crate::cluster::Cluster;
pub use crate::minisheep::Gateway;
use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::mount::tree::Tree;
use crate::netns::Namespace;
use crate::random::Random;
use crate::register::plan::Plan;
use crate::tools::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sheepfs::wire::cluster::decode_nodes;
use sheepfs::wire::placement::Ring;
use sheepfs::wire::request::NewVdi;
use sheepfs::wire::{ObjectId, Request};
use std::thread;
use std::time::{Duration, Instant};

/// The counters of `config/status` that say why a worker or its sheep was left.
const SWAPS: [&str; 5] = [
    "swaps_worker_died",
    "swaps_worker_silent",
    "swaps_sheep_lost",
    "swaps_sheep_silent",
    "swaps_failover",
];

/// Gateways and what is behind them; the gateways go first.
pub struct Site {
    /// What faults hit.
    pub gateways: Vec<Gateway>,
    /// What is behind them.
    pub cluster: Cluster,
}

impl Site {
    /// A formatted minisheep with so many gateways.
    pub fn start(gateways: usize) -> Self {
        Self::start_with(gateways, &["--format"])
    }

    /// As [`Site::start`], with options for the minisheep.
    pub fn start_with(gateways: usize, options: &[&str]) -> Self {
        let sheep = Minisheep::start(options);
        let gateways = (0..gateways).map(|_| Gateway::start(&sheep)).collect();
        Self { gateways, cluster: Cluster::Mini(sheep) }
    }

    /// The way to the cluster through a gateway, to mount by.
    pub fn through(&self, gateway: usize) -> Cluster {
        Cluster::named(self.gateways[gateway].address())
    }

    /// The gateway that the placement rule gives a block of a VDI of one copy.
    pub fn holder(&self, disk: &str, block: u64) -> usize {
        let mut wire = self.cluster.wire();
        let (reply, bytes) = wire.done(&Request::get_node_list(), &[]);
        let nodes = decode_nodes(&bytes, reply.node().nr_nodes).unwrap();
        let oid = ObjectId::data(wire.vid(disk), block.try_into().unwrap());
        let holders = Ring::new(&nodes).unwrap().holders(oid, 1);
        let address = nodes[usize::from(holders.as_slice()[0])].id.socket_addr().to_string();
        let found = self.gateways.iter().position(|gateway| gateway.address() == address);
        found.unwrap_or_else(|| panic!("{address} is no gateway of ours"))
    }

    /// Which gateway a mount uses.
    pub fn in_use(&self, mount: &Tree) -> usize {
        let sheep = mount.status("sheep").unwrap();
        let found = self.gateways.iter().position(|gateway| gateway.address() == sheep);
        found.unwrap_or_else(|| panic!("{sheep} is no gateway of ours"))
    }
}

/// A VDI for the registers of `plan`.
pub fn vdi_for(cluster: &Cluster, plan: Plan) -> String {
    let block_size_shift = plan.object_shift();
    let new = NewVdi { size: plan.size(), block_size_shift, ..NewVdi::default() };
    cluster.vdi_with("registers", &new)
}

/// A hyper volume for the registers of `plan`.
pub fn hyper_for(cluster: &Cluster, plan: Plan) -> String {
    let block_size_shift = plan.object_shift();
    let new = NewVdi { size: plan.size(), block_size_shift, ..NewVdi::default() };
    cluster.hyper("registers", &new)
}

/// Mounts, in the namespace, what is at the other end of its link.
pub fn mount_over(link: &Namespace, options: &[&str]) -> Mount<'static> {
    let [program, namespace] = link.enter();
    let address = link.address();
    Mount::start_by(&[&program, &namespace], &[&["--address", &address], options].concat())
}

/// How often a mount left a worker or sheep, for whatever cause.
pub fn swaps(mount: &Tree) -> u64 {
    SWAPS.iter().map(|key| mount.count(key)).sum()
}

/// Waits until a worker serves.
pub fn wait_until_serving(mount: &Tree) {
    let serves = || mount.status("worker_state").as_deref() == Some("serving");
    wait_for("a worker that serves", serves);
}

/// Waits until the counter `key` is above `before`, and a worker serves.
pub fn wait_for_swap(mount: &Tree, key: &str, before: u64) {
    wait_for(key, || mount.count(key) > before);
    wait_until_serving(mount);
}

/// Sends a signal to a process of a mount's.
pub fn send(signal: Signal, process: Pid) {
    kill(process, signal).unwrap();
}

/// Lets some time pass, less than `limit`: not to wait for anything, but so that a fault comes
/// at any instant of a load.
pub fn random_while(random: &mut Random, limit: Duration) {
    thread::sleep(Duration::from_micros(random.within(0..limit.as_micros() as u64)));
}

/// Does something that must be done at once, and tells how long it took.
pub fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let value = call();
    (value, begun.elapsed())
}
