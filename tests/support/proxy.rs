//! A proxy on loopback in front of a sheep, which can be told to misbehave as networks do.
//!
//! Each connection has two threads, one a direction. They look at the proxy's mode between any
//! two pieces and while they wait, so that a change of mode takes hold within [`TICK`].

use nix::errno::Errno;
use nix::libc::linger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt::Linger};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// How long a thread waits before it looks at the mode again, in milliseconds.
const TICK: u16 = 5;
const PIECE: usize = 64 << 10;

/// What a proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Hands on what comes.
    Pass,
    /// Keeps its connections and hands on nothing; new connections are made by the kernel and
    /// never served. What waits is handed on when the mode is another again.
    Blackhole,
    /// Listens no more. Connections go on.
    Refuse,
    /// Ends, when its proxy goes.
    End,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: String,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    mode: Mutex<Mode>,
    /// Grows with each reset: connections of an earlier one are to be reset.
    era: AtomicU64,
    /// How many bytes may pass before all connections are reset.
    left: Mutex<u64>,
    connections: AtomicU64,
    bytes: AtomicU64,
}

/// What both directions of a connection share.
#[derive(Debug)]
struct Connection {
    era: u64,
    /// One direction met an error: the other must not end as if all were well.
    broken: AtomicBool,
    /// One direction has ended in order, and calls no more.
    half: AtomicBool,
}

impl Connection {
    /// Whether the end of `stream` is the other's word. After a reset the kernel tells the first
    /// caller of it, perhaps the other direction, and shows an ordinary end to the next: then
    /// there is no peer any more. Nor is there when both ends have closed in order; but in that
    /// case the other direction calls no more, and a reset would have been told here.
    fn is_in_order(&self, stream: &TcpStream) -> bool {
        let half = self.half.load(Ordering::SeqCst);
        !self.broken.load(Ordering::SeqCst) && (half || stream.peer_addr().is_ok())
    }
}

impl Proxy {
    /// Starts one before `target`, at a port of its own.
    pub fn start(target: &str) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), target)
    }

    /// Starts one that takes connections from `listener`, which is in any network namespace;
    /// the connections to `target` are made in ours.
    pub fn start_on(listener: TcpListener, target: &str) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            mode: Mutex::new(Mode::Pass),
            era: AtomicU64::new(0),
            left: Mutex::new(u64::MAX),
            connections: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let (own, at) = (Arc::clone(&shared), address.clone());
        let thread = Some(thread::spawn(move || own.listen(listener, &at)));
        Self { shared, address, thread }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Changes what it does.
    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// Resets all connections that there are; new ones are served.
    pub fn reset(&self) {
        self.shared.era.fetch_add(1, Ordering::SeqCst);
    }

    /// Resets all connections when so many more bytes have passed, in the middle of a message
    /// most likely.
    pub fn cut_after(&self, bytes: u64) {
        *self.shared.left.lock().unwrap() = bytes;
    }

    /// How many connections it has made.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many bytes it has handed on.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::End);
        self.reset();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the proxy's listener failed");
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    fn listen(self: Arc<Self>, listener: TcpListener, address: &str) {
        let mut listener = Some(listener);
        loop {
            match self.mode() {
                Mode::End => return,
                Mode::Refuse => listener = None,
                Mode::Blackhole | Mode::Pass => {
                    listener.get_or_insert_with(|| TcpListener::bind(address).unwrap());
                }
            }
            match &listener {
                Some(open) if is_readable(open) => self.accept(open),
                Some(_) => {}
                None => pause(),
            }
        }
    }

    /// Takes a connection, unless the mode has become another meanwhile. It can't change before
    /// that is done.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mode = self.mode.lock().unwrap();
        match *mode {
            Mode::Pass => self.serve(&listener.accept().unwrap().0),
            Mode::Blackhole => {
                drop(mode);
                pause();
            }
            Mode::Refuse | Mode::End => {}
        }
    }

    /// Connects to the target and starts both directions. When the target is not there, the
    /// caller's connection ends.
    fn serve(self: &Arc<Self>, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(&self.target) else { return };
        self.connections.fetch_add(1, Ordering::SeqCst);
        let era = self.era.load(Ordering::SeqCst);
        let connection = Arc::new(Connection {
            era,
            broken: AtomicBool::new(false),
            half: AtomicBool::new(false),
        });
        for (from, to) in [(client, &server), (&server, client)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            from.set_nodelay(true).unwrap();
            from.set_nonblocking(true).unwrap();
            let (shared, connection) = (Arc::clone(self), Arc::clone(&connection));
            thread::spawn(move || shared.pump(&from, &to, &connection));
        }
    }

    /// Hands on what comes, until the end of the stream or a reset.
    fn pump(&self, mut from: &TcpStream, to: &TcpStream, connection: &Connection) {
        let mut piece = vec![0; PIECE];
        while self.may_go_on(connection) {
            if !is_readable(from) {
                continue;
            }
            match from.read(&mut piece) {
                Ok(0) if connection.is_in_order(from) => {
                    connection.half.store(true, Ordering::SeqCst);
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(len) if len > 0 && self.hand_on(&piece[..len], to, connection) => {}
                Err(error) if is_passing(&error) => {}
                _ => break,
            }
        }
        connection.broken.store(true, Ordering::SeqCst);
        // The last of both directions to let go of a socket then resets its connection.
        let reset = linger { l_onoff: 1, l_linger: 0 };
        for stream in [from, to] {
            let _ = setsockopt(stream, Linger, &reset);
            // Wakes the other direction, which may wait for something to read.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Whether a connection lives; waits while nothing may be handed on.
    fn may_go_on(&self, connection: &Connection) -> bool {
        loop {
            let is_old = self.era.load(Ordering::SeqCst) != connection.era;
            if is_old || connection.broken.load(Ordering::SeqCst) {
                return false;
            }
            if self.mode() != Mode::Blackhole {
                return true;
            }
            pause();
        }
    }

    fn hand_on(&self, mut bytes: &[u8], to: &TcpStream, connection: &Connection) -> bool {
        while !bytes.is_empty() {
            if !self.may_go_on(connection) {
                return false;
            }
            match self.write_some(bytes, to) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if is_passing(&error) => wait(to, PollFlags::POLLOUT),
                Err(_) => return false,
            }
        }
        true
    }

    /// Writes what may pass of `bytes` without waiting. With the last that may, all connections
    /// end. One direction at a time, so that the count is exact.
    fn write_some(&self, bytes: &[u8], mut to: &TcpStream) -> std::io::Result<usize> {
        let mut left = self.left.lock().unwrap();
        let room = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        let len = to.write(&bytes[..room])?;
        self.bytes.fetch_add(len as u64, Ordering::SeqCst);
        if *left != u64::MAX {
            *left -= len as u64;
        }
        if *left == 0 {
            *left = u64::MAX;
            self.era.fetch_add(1, Ordering::SeqCst);
        }
        Ok(len)
    }
}

fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Whether there is something to read, or an end; waits for it for a [`TICK`].
pub fn is_readable(socket: &impl AsFd) -> bool {
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut wanted, TICK) {
        Ok(count) => count > 0,
        Err(Errno::EINTR) => false,
        Err(error) => panic!("poll: {error}"),
    }
}

fn wait(socket: &TcpStream, what: PollFlags) {
    let _ = poll(&mut [PollFd::new(socket.as_fd(), what)], TICK);
}

fn pause() {
    let _ = poll(&mut [], PollTimeout::from(TICK));
}
