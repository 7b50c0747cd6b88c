//! Four nodes whose links carry 100 Mbit/s each way: what one gateway can give is what its link
//! can carry, what holders can give together is four times that.
//!
//! ```text
//! hub: client, switch ── 127.77.1.1 ═ 100 Mbit/s ═ 127.77.1.2 ── node 1 ┐
//!                     ── 127.77.2.1 ═ 100 Mbit/s ═ 127.77.2.2 ── node 2 ├ each a namespace
//!                     ── …                                             ┘
//!                     ── 127.78.N.1 ── 127.78.N.2: a node's "disk", not limited
//! ```
//!
//! The client is in the hub, which also passes on what nodes say to each other. Each link is
//! limited at both ends, so in both directions. The nodes are minisheep's gateways, which reach
//! the store in the hub by links of their own; or, where `SHEEP` names a program, real sheep that
//! make a cluster over the links.
//! All is in namespaces that are made here and go with this process.

use crate::namespace::Namespace;
use crate::results::Failure;
use crate::support_wire::Wire;
use sheepfs::wire::Request;
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// How many.
const NODES: usize = 4;
const PORT: u16 = 7000;
/// Where minisheep listens in the hub.
const STORE: &str = "127.79.0.1";
const LIMIT: &str = "tbf rate 100mbit burst 64kb latency 50ms";
/// The VDI that is made.
pub const VDI: &str = "narrow";
/// Replicas; minisheep only claims to have them, and each of its gateways answers for all.
const COPIES: u8 = 2;
const READY_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// The namespaces, and what runs in them. Fields go in this order, the nodes first.
#[derive(Debug)]
pub struct Namespaces {
    programs: Vec<Running>,
    nodes: Vec<Namespace>,
    hub: Namespace,
    real: bool,
    _dir: TempDir,
}

/// A program that ends with this.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Namespaces {
    /// Starts the nodes, on links that are not limited yet, with a VDI of so many MiB.
    pub fn start(mib: u32) -> Result<Self, Failure> {
        let hub = Namespace::new()?;
        hub.open_up()?;
        // The kernel gives loopback the whole network; here most of it is elsewhere.
        hub.ip("addr del 127.0.0.1/8 dev lo")?;
        hub.ip(&format!("addr add {STORE}/32 dev lo scope global"))?;
        let sheep = std::env::var("SHEEP").ok();
        let (real, dir) = (sheep.is_some(), tempfile::tempdir()?);
        let nodes = (1..=NODES).map(|number| node(&hub, number)).collect::<Result<_, _>>()?;
        let mut all = Self { programs: Vec::new(), nodes, hub, real, _dir: dir };
        match sheep {
            Some(sheep) => all.start_sheep(&sheep)?,
            None => all.start_minisheep()?,
        }
        all.make_vdi(mib)?;
        Ok(all)
    }

    fn start_minisheep(&mut self) -> Result<(), Failure> {
        let program = Path::new(env!("CARGO_BIN_EXE_minisheep"));
        let store = self._dir.path().join("store").display().to_string();
        let (port, behind) = (PORT.to_string(), format!("{STORE}:{PORT}"));
        let copies = COPIES.to_string();
        let words = ["--address", STORE, "--port", &port, "--format", "--copies", &copies, &store];
        self.programs.push(spawn(&self.hub, program, &words, self._dir.path(), "store.log")?);
        self.wait_for(&behind)?;
        for number in 1..=NODES {
            let address = address(number);
            let words = ["--address", &address, "--port", &port, "--gateway-of", &behind];
            self.start_node(number, program, &words)?;
        }
        Ok(())
    }

    fn start_sheep(&mut self, program: &str) -> Result<(), Failure> {
        let driver = format!("local:{}", self._dir.path().join("members").display());
        for number in 1..=NODES {
            let (address, zone) = (address(number), number.to_string());
            let store = self._dir.path().join(format!("store{number}")).display().to_string();
            fs::create_dir(&store)?;
            let (port, driver) = (PORT.to_string(), driver.as_str());
            let words = [
                store.as_str(),
                "-n",
                "-f",
                "-b",
                &address,
                "-y",
                &address,
                "-p",
                &port,
                "-z",
                &zone,
                "-c",
                driver,
            ];
            self.start_node(number, Path::new(program), &words)?;
        }
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        self.wait_for_nodes()?;
        self.ask(&Request::make_fs(seconds << 32, COPIES, 0, 22))
    }

    fn start_node(&mut self, number: usize, program: &Path, words: &[&str]) -> Result<(), Failure> {
        let log = format!("node{number}.log");
        let node = &self.nodes[number - 1];
        self.programs.push(spawn(node, program, words, self._dir.path(), &log)?);
        self.wait_for(&format!("{}:{PORT}", address(number)))
    }

    /// Waits until something listens there.
    fn wait_for(&self, at: &str) -> Result<(), Failure> {
        self.wait(at, || TcpStream::connect(at).is_ok())
    }

    fn wait_for_nodes(&self) -> Result<(), Failure> {
        let gateway = self.gateway();
        self.wait("all nodes to be members", || {
            let (reply, _) = Wire::connect(&gateway).ask(&Request::get_node_list(), &[]);
            reply.node().nr_nodes as usize == NODES
        })
    }

    fn wait(&self, what: &str, condition: impl Fn() -> bool + Sync) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        self.hub.inside(|| {
            while !condition() {
                if Instant::now() > deadline {
                    return Err(format!("waited for {what}:\n{}", self.logs()).into());
                }
                thread::sleep(PAUSE);
            }
            Ok(())
        })
    }

    fn logs(&self) -> String {
        let files = fs::read_dir(self._dir.path()).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
        logs.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    fn ask(&self, request: &Request) -> Result<(), Failure> {
        let gateway = self.gateway();
        self.hub.inside(|| {
            Wire::connect(&gateway).done(request, &[]);
            Ok(())
        })
    }

    fn make_vdi(&self, mib: u32) -> Result<(), Failure> {
        let (gateway, size) = (self.gateway(), u64::from(mib) << 20);
        self.hub.inside(|| {
            Wire::connect(&gateway).new_vdi(VDI, &NewVdi { size, ..NewVdi::default() });
            Ok(())
        })
    }

    /// Limits the links, in both directions.
    pub fn limit(&self) -> Result<(), Failure> {
        for (node, number) in self.nodes.iter().zip(1..) {
            self.hub.run("tc", &format!("qdisc add dev node{number} root {LIMIT}"))?;
            node.run("tc", &format!("qdisc add dev uplink root {LIMIT}"))?;
        }
        Ok(())
    }

    /// Runs `work` where the client is.
    pub fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        self.hub.inside(work)
    }

    /// The words that start a program where the client is.
    pub fn enter(&self) -> Vec<String> {
        self.hub.enter()
    }

    /// The node to be asked first.
    pub fn gateway(&self) -> String {
        format!("{}:{PORT}", address(1))
    }

    /// For the report.
    pub fn describe(&self) -> String {
        let what = if self.real { "real sheep" } else { "minisheep's gateways" };
        format!("{NODES} {what}, each behind 100 Mbit/s")
    }
}

fn address(number: usize) -> String {
    format!("127.77.{number}.2")
}

/// A namespace with a link to the hub, and another for what would be its disk.
fn node(hub: &Namespace, number: usize) -> Result<Namespace, Failure> {
    let node = Namespace::new()?;
    node.open_up()?;
    node.ip("addr del 127.0.0.1/8 dev lo")?;
    for (name, there, net) in [("node", "uplink", 77), ("disk", "disk", 78)] {
        let path = node.path();
        hub.ip(&format!("link add {name}{number} type veth peer name {there} netns {path}"))?;
        hub.ip(&format!("addr add 127.{net}.{number}.1/30 dev {name}{number} scope global"))?;
        hub.ip(&format!("link set {name}{number} up"))?;
        node.ip(&format!("addr add 127.{net}.{number}.2/30 dev {there} scope global"))?;
        node.ip(&format!("link set {there} up"))?;
    }
    node.ip(&format!("route add 127.77.0.0/16 via 127.77.{number}.1"))?;
    node.ip(&format!("route add {STORE}/32 via 127.78.{number}.1"))?;
    Ok(node)
}

fn spawn(
    namespace: &Namespace,
    program: &Path,
    words: &[&str],
    dir: &Path,
    log: &str,
) -> Result<Running, Failure> {
    let log = File::create(dir.join(log))?;
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .args(namespace.enter())
        .arg(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    Ok(Running(child.map_err(|error| format!("{}: {error}", program.display()))?))
}
