//! The cluster that is measured: somebody's sheep, or a minisheep of our own behind gateways.

use crate::minisheep::{Gateway, Minisheep};
use crate::mounted;
use crate::narrow::Namespaces;
use crate::proc;
use crate::results::Failure;
use crate::wire::Wire;
use nix::unistd::Pid;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Nodes of a cluster of our own.
const GATEWAYS: usize = 3;
const LOCAL_VDI: &str = "bench";

/// A cluster with a volume to be measured.
#[derive(Debug)]
pub struct Site {
    gateway: String,
    vdi: String,
    mib: u32,
    /// Where our own keeps its objects, to know its process by.
    store: Option<SocketAddr>,
    /// Words before the words that start a file system.
    enter: Vec<String>,
    keeps: Keeps,
}

/// What has to live as long as the site.
#[derive(Debug)]
enum Keeps {
    /// Nothing: others start and stop it.
    Nothing,
    /// Gateways, and the minisheep behind them, which goes last.
    Own { _gateways: Vec<Gateway>, store: Store },
    /// Nodes in namespaces of their own.
    Narrow(Namespaces),
}

/// A minisheep that complains of the rules that clients of ours break.
#[derive(Debug)]
struct Store(Minisheep);

impl Drop for Store {
    /// The original's mistakes are not ours.
    fn drop(&mut self) {
        if mounted::original().is_some() {
            self.0.kill();
        }
    }
}

impl Site {
    /// A sheep that is there already, and a VDI on it.
    pub fn named(sheep: &str, vdi: &str, mib: u32) -> Self {
        let (gateway, vdi) = (sheep.to_owned(), vdi.to_owned());
        Self { gateway, vdi, mib, store: None, enter: Vec::new(), keeps: Keeps::Nothing }
    }

    /// A cluster of our own: one store, several gateways.
    pub fn own(mib: u32) -> Result<Self, Failure> {
        let create = format!("{LOCAL_VDI}:{mib}M");
        let minisheep = Minisheep::start(&["--format", "--create", &create]);
        let gateways: Vec<_> = (0..GATEWAYS).map(|_| Gateway::start(&minisheep)).collect();
        let gateway = gateways[0].address().to_owned();
        let (vdi, store) = (LOCAL_VDI.to_owned(), Some(minisheep.address().parse()?));
        let keeps = Keeps::Own { _gateways: gateways, store: Store(minisheep) };
        Ok(Self { gateway, vdi, mib, store, enter: Vec::new(), keeps })
    }

    /// Nodes in namespaces, with a VDI of that name there.
    pub fn narrow(namespaces: Namespaces, vdi: &str, mib: u32) -> Self {
        let (gateway, enter) = (namespaces.gateway(), namespaces.enter());
        let keeps = Keeps::Narrow(namespaces);
        Self { gateway, vdi: vdi.to_owned(), mib, store: None, enter, keeps }
    }

    /// What it is, for the report.
    pub fn describe(&self) -> String {
        match &self.keeps {
            Keeps::Nothing => format!("{} of the sheep at {}", self.vdi, self.gateway),
            Keeps::Own { store, .. } => {
                format!("{GATEWAYS} gateways before the minisheep at {}", store.0.address())
            }
            Keeps::Narrow(namespaces) => namespaces.describe(),
        }
    }

    /// Whether it is our own, and VDIs in it disturb nobody.
    pub fn is_own(&self) -> bool {
        matches!(self.keeps, Keeps::Own { .. })
    }

    /// The namespaces that it is in.
    pub fn namespaces(&self) -> Option<&Namespaces> {
        match &self.keeps {
            Keeps::Narrow(namespaces) => Some(namespaces),
            Keeps::Nothing | Keeps::Own { .. } => None,
        }
    }

    /// The sheep to be asked first, as `host:port`.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The VDI.
    pub fn vdi(&self) -> &str {
        &self.vdi
    }

    /// How much of it is used.
    pub fn mib(&self) -> u32 {
        self.mib
    }

    /// How much of it is used, in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.mib) << 20
    }

    /// Starts `program` where the cluster can be reached. It gets a SIGTERM when the benchmark
    /// dies, so no mount is left.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).args(&self.enter).arg(program);
        command
    }

    /// The sheep that run on this machine.
    pub fn sheep(&self, wire: &Wire) -> Vec<Pid> {
        let nodes = wire.nodes().iter().copied().chain(self.store);
        proc::listeners(&nodes.collect::<Vec<_>>())
    }
}
