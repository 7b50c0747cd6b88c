//! A sheep for one machine: a Sheepdog server that is its whole cluster.
//!
//! It speaks the real protocol to anyone who connects over loopback: sheepfs, the real `dog`, the
//! original sheepfs. It is for a first try, for tests and for benchmarks. It is **not** a cluster:
//! there is one copy of everything, nothing is synced to the disk, and it refuses any address but
//! loopback. An answered write survives the death of the process, not that of the machine.
//!
//! For tests of failover, other processes can stand in front of it as a cluster's nodes, to be
//! killed and stopped as these are: see [`gateway`].
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`connection`], [`queue`], [`service`] | the life of a request |
//! | [`dispatch`] | what is refused at once, and who carries out the rest |
//! | [`objects`], [`index`], [`tree`], [`references`] | objects, index updates, reference counts |
//! | [`vdis`], [`attributes`], [`nodes`] | the operations on VDIs and on the cluster |
//! | [`sheep`], [`table`], [`image`], [`state`], [`store`], [`buffer`] | what they work on |
//! | [`members`], [`counters`] | nodes and epochs; what STAT tells |
//! | [`rules`], [`inflight`], [`lives`] | what clients did wrong |
//! | [`hooks`], [`faults`], [`control`] | where tests may step in |
//! | [`gateway`] | processes in front of one minisheep that pass for a cluster's nodes |

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use thiserror::Error;
use tracing::info;

use self::faults::Faults;
use self::hooks::{Hooks, NoHooks};
use self::service::Service;
use self::sheep::{Phase, Sheep};
use self::state::{Format, now};
use crate::wire::cluster::ClusterFlags;
use crate::wire::header::VdiFields;
use crate::wire::{Status, VdiName};

pub mod attributes;
pub mod bare;
pub mod buffer;
pub mod connection;
pub mod control;
pub mod counters;
pub mod dispatch;
pub mod faults;
pub mod gateway;
pub mod hooks;
pub mod image;
pub mod index;
pub mod inflight;
pub mod lives;
pub mod members;
pub mod nodes;
pub mod objects;
pub mod queue;
pub mod references;
pub mod rules;
pub mod service;
pub mod sheep;
pub mod state;
pub mod store;
pub mod table;
pub mod tree;
pub mod vdis;

pub use self::gateway::{Gateway, GatewayConfig};

/// Open object files at most, whatever the process may have.
const OPEN_MAX: u64 = 16_384;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes any.
    pub address: SocketAddr,
    /// Where the objects are kept; made if it is missing.
    pub dir: PathBuf,
    /// With what to format the cluster, if it is not formatted.
    pub format: Option<FormatConfig>,
    /// VDIs to be made if they are missing, with their sizes in bytes.
    pub create: Vec<(VdiName, u64)>,
    /// Where tests can ask for faults.
    pub control: Option<PathBuf>,
}

/// What a cluster is formatted with; 0 is the server's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatConfig {
    /// Copies that VDIs claim to have.
    pub copies: u8,
    /// log2 of the block size.
    pub block_size_shift: u8,
    /// LOCK_VDI locks.
    pub lock: bool,
    /// The vids of deleted VDIs are used again.
    pub recycle: bool,
}

/// Why serving did not begin.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Another machine could connect.
    #[error("{0} is not a loopback address: minisheep keeps no data worth a network")]
    NotLoopback(IpAddr),
    /// Another process has the directory.
    #[error("{0} is used by another minisheep; stop that one, or name another directory")]
    InUse(PathBuf),
    /// The system refused something.
    #[error("could not {what}: {source}")]
    System {
        /// What was tried, on what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to be a gateway to.
    #[error("could not join the minisheep on {address}: {source}; is it running?")]
    Join {
        /// Where it should listen.
        address: SocketAddr,
        /// What was in the way.
        source: io::Error,
    },
    /// A VDI can't be made.
    #[error("could not create the VDI {name}: {status:?}; is the cluster formatted? (--format)")]
    Create {
        /// Its name.
        name: VdiName,
        /// What a client would have been answered.
        status: Status,
    },
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    sheep: Arc<Sheep>,
    listener: TcpListener,
    address: SocketAddr,
    /// Caught from the start, so that a signal right after the first line stops in order.
    signals: Signals,
    /// Held for as long as the directory is ours.
    _lock: Flock<File>,
}

impl Server {
    /// Opens the directory, listens, formats and creates what the configuration says.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn open(config: &Config) -> Result<Self, ServeError> {
        check_loopback(config.address)?;
        let dir = &config.dir;
        fs::create_dir_all(dir).map_err(system(format!("make {}", dir.display())))?;
        let lock = lock(dir)?;
        let listener = TcpListener::bind(config.address)
            .map_err(system(format!("listen on {}", config.address)))?;
        let address = listener.local_addr().map_err(system("ask for the address".into()))?;
        let signals = Signals::new([SIGTERM, SIGINT]).map_err(system("handle signals".into()))?;
        let sheep = open_sheep(config, address)?;
        let server = Self { sheep, listener, address, signals, _lock: lock };
        server.format(config)?;
        server.create(&config.create)?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until SIGTERM, SIGINT, or a client's SHUTDOWN; what runs then is answered first.
    ///
    /// # Errors
    /// When the system has no room for threads or signal handlers.
    pub fn run(self) -> Result<(), ServeError> {
        let threads = "start the threads";
        let service = Service::start(Arc::clone(&self.sheep)).map_err(system(threads.into()))?;
        stop_on_signals(self.signals, Arc::clone(&service));
        let (accepting, listener) = (Arc::clone(&service), self.listener);
        thread::spawn(move || accepting.accept(&listener));
        service.wait();
        info!("minisheep: client bugs: {}", self.sheep.rules);
        Ok(())
    }

    fn format(&self, config: &Config) -> Result<(), ServeError> {
        let Some(asked) = config.format else { return Ok(()) };
        if self.sheep.format().is_some() {
            return Ok(());
        }
        let mut flags = ClusterFlags::AUTO_VNODES.0;
        if asked.lock {
            flags |= ClusterFlags::USE_LOCK.0;
        }
        if asked.recycle {
            flags |= ClusterFlags::RECYCLE_VID.0;
        }
        let format = Format::new(now(), asked.copies, 0, flags, asked.block_size_shift);
        self.sheep.set_format(format).map_err(system("format".into()))
    }

    fn create(&self, wanted: &[(VdiName, u64)]) -> Result<(), ServeError> {
        for (name, size) in wanted {
            let fields = VdiFields { vdi_size: *size, ..VdiFields::default() };
            match vdis::make(&self.sheep, name.as_str().as_bytes(), &fields) {
                Ok(_) | Err(Status::VdiExist) => {}
                Err(status) => return Err(ServeError::Create { name: name.clone(), status }),
            }
        }
        Ok(())
    }
}

/// Tests can step in only where a control socket was asked for.
fn open_sheep(config: &Config, address: SocketAddr) -> Result<Arc<Sheep>, ServeError> {
    let faults = config.control.is_some().then(Arc::<Faults>::default);
    let hooks: Arc<dyn Hooks> = match &faults {
        Some(faults) => Arc::clone(faults) as _,
        None => Arc::new(NoHooks),
    };
    let dir = &config.dir;
    let opened = Sheep::open(dir, address, open_max(), hooks);
    let sheep = Arc::new(opened.map_err(system(format!("open the store in {}", dir.display())))?);
    if let (Some(path), Some(faults)) = (&config.control, faults) {
        let listening = control::listen(path, faults, Arc::clone(&sheep) as _);
        listening.map_err(system(format!("listen on {}", path.display())))?;
    }
    Ok(sheep)
}

fn check_loopback(address: SocketAddr) -> Result<(), ServeError> {
    let ip = address.ip();
    if ip.is_loopback() { Ok(()) } else { Err(ServeError::NotLoopback(ip)) }
}

fn system(what: String) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

fn lock(dir: &Path) -> Result<Flock<File>, ServeError> {
    let path = dir.join("lock");
    let opened = File::options().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(system(format!("open {}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| ServeError::InUse(dir.to_owned()))
}

/// Raises the limit of open files and takes half of it.
fn open_max() -> usize {
    let limit = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(limit).unwrap_or((1024, 1024));
    let allowed = if setrlimit(limit, hard, hard).is_ok() { hard } else { soft };
    usize::try_from((allowed / 2).min(OPEN_MAX)).unwrap_or(512)
}

fn stop_on_signals(mut signals: Signals, service: Arc<Service>) {
    thread::spawn(move || {
        for _ in signals.forever() {
            service.stop(Phase::Killed);
        }
    });
}
