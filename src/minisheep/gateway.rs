//! A gateway: a process in front of a minisheep that passes for a node of a cluster.
//!
//! ```text
//! clients ──> gateway :7001 ──┐ a connection for each client,
//! clients ──> gateway :7002 ──┤ and one that says "I am a member"
//! clients ──> gateway :7003 ──┴──> minisheep :7000, all objects, locks, epochs, counted bugs
//! ```
//!
//! `minisheep --gateway-of 127.0.0.1:7000 --port 7001` is one. Any number of them make the
//! cluster of one minisheep look like a cluster of as many nodes, of which each can be killed,
//! stopped and started again without touching the data. The minisheep behind them is the only
//! one to hold anything, is no node itself from the first gateway on, and must not be a fault's
//! target: when it ends, its gateways do.
//!
//! What a client of a real cluster can see of its gateway is the same here:
//!
//! | what happens | what becomes of it |
//! | --- | --- |
//! | a gateway starts, dies | the epoch grows, the list of nodes changes, at once (see `linger` and `bury` of the minisheep's [`super::faults`]) |
//! | a gateway is stopped (SIGSTOP) | it stays a node; connecting works, nothing is answered |
//! | a client goes, its request was read | the request is carried out all the same |
//! | a client resets its connection | what the gateway had not read of it is lost |
//! | a gateway is killed | what it had read and not forwarded is lost, the rest is carried out |
//! | a lock is taken | the gateway's node holds it, and the lock outlives the gateway |
//! | STAT | the requests that this gateway received and has not finished |
//!
//! The control socket takes the faults of [`super::faults`], for this gateway alone: `hold` keeps
//! a request that was read, `hold_reply` an answer, over a stop and the client's death.
//!
//! [`notice`] is what gateways and minisheep say to each other, `session` a client's way through,
//! `link` its connection to the minisheep.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{info, warn};

use self::link::Link;
pub use self::notice::Notice;
use self::session::Session;
use super::control::{self, Controlled};
use super::counters::Counters;
use super::faults::{Faults, Subject};
use super::hooks::{Hooks, NoHooks};
use super::{ServeError, check_loopback, system};

mod link;
pub mod notice;
mod session;

/// How long to wait after the system had no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often to look again whether all is done; there is a notification too.
const DRAIN_PAUSE: Duration = Duration::from_millis(50);

/// How to be a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where to listen; port 0 takes any.
    pub address: SocketAddr,
    /// Where the minisheep listens.
    pub behind: SocketAddr,
    /// Where tests can ask for faults.
    pub control: Option<PathBuf>,
}

/// A gateway that listens and is a node of the cluster.
#[derive(Debug)]
pub struct Gateway {
    state: Arc<State>,
    listener: TcpListener,
    signals: Signals,
    /// Ends when the minisheep does, and tells it when this process has ended.
    membership: TcpStream,
}

/// What the sessions of a gateway share.
#[derive(Debug)]
struct State {
    address: SocketAddr,
    behind: SocketAddr,
    counters: Counters,
    hooks: Arc<dyn Hooks>,
    /// The last that the minisheep told.
    epoch: AtomicU32,
    stopping: AtomicBool,
    /// Requests received and not finished.
    busy: AtomicUsize,
    idle: Mutex<()>,
    changed: Condvar,
}

impl Gateway {
    /// Listens, and joins the cluster.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way.
    pub fn open(config: &GatewayConfig) -> Result<Self, ServeError> {
        check_loopback(config.address)?;
        check_loopback(config.behind)?;
        let listener = TcpListener::bind(config.address)
            .map_err(system(format!("listen on {}", config.address)))?;
        let address = listener.local_addr().map_err(system("ask for the address".into()))?;
        let signals = Signals::new([SIGTERM, SIGINT]).map_err(system("handle signals".into()))?;
        let state = open_state(config, address)?;
        let joined = join(config.behind, address, &state);
        let membership =
            joined.map_err(|source| ServeError::Join { address: config.behind, source })?;
        Ok(Self { state, listener, signals, membership })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.state.address
    }

    /// Serves until SIGTERM, SIGINT, or the end of the minisheep; what runs then is answered.
    pub fn run(self) {
        let Self { state, listener, mut signals, membership } = self;
        let stopped = Arc::clone(&state);
        thread::spawn(move || signals.forever().for_each(|_| stopped.stop()));
        let left = Arc::clone(&state);
        thread::spawn(move || {
            wait_for_end(&membership);
            info!("the minisheep has ended, and so does its gateway");
            left.stop();
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || accepting.accept(&listener));
        state.wait();
    }
}

fn open_state(config: &GatewayConfig, address: SocketAddr) -> Result<Arc<State>, ServeError> {
    let faults = config.control.is_some().then(Arc::<Faults>::default);
    let hooks: Arc<dyn Hooks> = match &faults {
        Some(faults) => Arc::clone(faults) as _,
        None => Arc::new(NoHooks),
    };
    let state = Arc::new(State {
        address,
        behind: config.behind,
        counters: Counters::default(),
        hooks,
        epoch: AtomicU32::new(0),
        stopping: AtomicBool::new(false),
        busy: AtomicUsize::new(0),
        idle: Mutex::new(()),
        changed: Condvar::new(),
    });
    if let (Some(path), Some(faults)) = (&config.control, faults) {
        let listening = control::listen(path, faults, Arc::clone(&state) as _);
        listening.map_err(system(format!("listen on {}", path.display())))?;
    }
    Ok(state)
}

/// Becomes a member of the cluster, for as long as the connection lasts.
fn join(behind: SocketAddr, address: SocketAddr, state: &State) -> io::Result<TcpStream> {
    let link = Link::open(behind, Notice::Member(address))?;
    let answer = link.replies().next()?;
    if !answer.header.status.is_success() {
        return Err(io::Error::other("whoever listens there is no minisheep"));
    }
    state.epoch.store(answer.header.epoch, Ordering::Relaxed);
    Ok(link.into_stream())
}

/// The minisheep says nothing more on this connection.
fn wait_for_end(mut membership: &TcpStream) {
    loop {
        match membership.read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

impl State {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            let served = accepted.and_then(|(stream, _)| Session::start(self, stream));
            if let Err(error) = served {
                warn!("could not take a connection: {error}");
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    fn begin(&self, opcode: u8) {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.counters.begin(opcode);
    }

    /// To be called before the answer leaves.
    fn end(&self, opcode: u8) {
        self.counters.end(opcode);
    }

    /// To be called after it left.
    fn done(&self) {
        self.busy.fetch_sub(1, Ordering::AcqRel);
        if self.is_stopping() {
            self.changed.notify_all();
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits until it is stopped and all that runs is answered. What is held never would be.
    fn wait(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_stopping() || self.busy.load(Ordering::Acquire) > 0 {
            if self.is_stopping() {
                self.hooks.let_go();
            }
            let waited = self.changed.wait_timeout(idle, DRAIN_PAUSE);
            idle = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Controlled for State {
    fn subject(&self) -> Subject<'_> {
        Subject { counters: &self.counters, sheep: None }
    }
}
