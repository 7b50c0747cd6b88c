//! A service manager as the tests need one: it listens to a notify socket, writes down what it
//! is told, keeps what it is given, and starts a program as systemd would, with all it kept.
//!
//! It shares no code with the client or the keeper, and does as systemd 252 does: it keeps
//! several descriptors of one name, except copies of one open file; it hands on the newest
//! first; a barrier is over when all that was said before it is carried out.

use crate::tools::wait_for;
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::socket::{UnixAddr, bind};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;

/// Started in the program's place: sets what only the process itself knows, its number.
const NUMBERED: &str = "[ -z \"$LISTEN_FDS\" ] || export LISTEN_PID=$$
[ -z \"$WATCHDOG_USEC\" ] || export WATCHDOG_PID=$$
exec \"$0\" \"$@\"";

/// One message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who sent it, as the kernel says.
    pub pid: i32,
    /// Its lines.
    pub text: String,
    /// How many descriptors came with it.
    pub descriptors: usize,
}

impl Message {
    /// Whether one of its lines is `line`.
    pub fn says(&self, line: &str) -> bool {
        self.text.lines().any(|found| found == line)
    }

    /// What is assigned to `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut pairs = self.text.lines().filter_map(|line| line.split_once('='));
        pairs.find(|(found, _)| *found == key).map(|(_, value)| value)
    }
}

#[derive(Debug, Default)]
struct Kept {
    messages: Vec<Message>,
    /// The newest first.
    store: Vec<(String, OwnedFd)>,
}

/// A service manager with a descriptor store.
#[derive(Debug)]
pub struct Store {
    address: String,
    kept: Arc<Mutex<Kept>>,
    watchdog: Option<Duration>,
    is_over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
    /// Sends the listener's last message.
    waker: (UnixDatagram, SocketAddr),
    _dir: Option<TempDir>,
}

impl Store {
    /// Listens at a path, as systemd does.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self::listen(socket, path.to_str().unwrap().to_owned(), Some(dir))
    }

    /// Listens at an address that is no path, as older ones and containers do.
    pub fn start_abstract() -> Self {
        let socket = UnixDatagram::unbound().unwrap();
        bind(socket.as_raw_fd(), &UnixAddr::new_unnamed()).unwrap();
        let bound = socket.local_addr().unwrap();
        let name = String::from_utf8(bound.as_abstract_name().unwrap().to_vec()).unwrap();
        Self::listen(socket, format!("@{name}"), None)
    }

    /// Says in the environment that it wants to hear `WATCHDOG=1` that often; it does nothing
    /// when it does not.
    #[must_use]
    pub fn with_watchdog(mut self, limit: Duration) -> Self {
        self.watchdog = Some(limit);
        self
    }

    fn listen(socket: UnixDatagram, address: String, dir: Option<TempDir>) -> Self {
        set_socket_passcred(&socket, true).unwrap();
        let waker = (UnixDatagram::unbound().unwrap(), socket.local_addr().unwrap());
        let kept = Arc::new(Mutex::new(Kept::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let listener = thread::spawn({
            let (kept, is_over) = (Arc::clone(&kept), Arc::clone(&is_over));
            move || {
                loop {
                    let (message, fds) = receive(&socket);
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    kept.lock().unwrap().hear(message, fds);
                }
            }
        });
        let (watchdog, listener) = (None, Some(listener));
        Self { address, kept, watchdog, is_over, listener, waker, _dir: dir }
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A command that starts `program` with all that is kept; give it arguments, and spawn it
    /// once. It has copies of what is kept until it is dropped.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let kept = self.kept.lock().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", NUMBERED]).arg(program);
        for variable in ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "WATCHDOG_USEC"] {
            command.env_remove(variable);
        }
        command.env_remove("WATCHDOG_PID").env("NOTIFY_SOCKET", &self.address);
        if let Some(limit) = self.watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        if !kept.store.is_empty() {
            let names: Vec<&str> = kept.store.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", names.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        let copies = kept
            .store
            .iter()
            .zip(3..)
            .map(|((_, fd), child_fd)| FdMapping { parent_fd: fd.try_clone().unwrap(), child_fd });
        command.fd_mappings(copies.collect()).unwrap();
        command
    }

    /// Starts `program` with `args` and all that is kept, and inherited output.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Child {
        crate::tools::start(self.command(program).args(args))
    }

    /// All that was said, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.kept.lock().unwrap().messages.clone()
    }

    /// How many messages have that line.
    pub fn count(&self, line: &str) -> usize {
        self.messages().iter().filter(|message| message.says(line)).count()
    }

    /// Waits until that many messages have that line.
    ///
    /// # Panics
    /// When they don't in time.
    pub fn wait_until_said(&self, line: &str, times: usize) {
        wait_for(line, || self.count(line) >= times);
    }

    /// The names of what is kept, the newest first.
    pub fn names(&self) -> Vec<String> {
        self.kept.lock().unwrap().store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// A copy of the newest that has this name.
    pub fn descriptor(&self, name: &str) -> Option<OwnedFd> {
        let kept = self.kept.lock().unwrap();
        let found = kept.store.iter().find(|(found, _)| found == name);
        found.map(|(_, fd)| fd.try_clone().unwrap())
    }

    /// Keeps `fd` in the place of all that have this name.
    pub fn replace(&self, name: &str, fd: OwnedFd) {
        let mut kept = self.kept.lock().unwrap();
        kept.store.retain(|(found, _)| found != name);
        kept.store.insert(0, (name.to_owned(), fd));
    }

    /// Loses all that is kept, as a unit does that systemd has given up.
    pub fn lose(&self) {
        self.kept.lock().unwrap().store.clear();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let (socket, address) = &self.waker;
        let _ = socket.send_to_addr(b"", address);
        if let Some(listener) = self.listener.take() {
            let ended = listener.join();
            assert!(ended.is_ok() || thread::panicking(), "the listener has failed");
        }
    }
}

impl Kept {
    /// What came and is not kept is closed at the end, and with it a barrier.
    fn hear(&mut self, message: Message, fds: Vec<OwnedFd>) {
        let name = message.value("FDNAME").unwrap_or("stored").to_owned();
        if message.says("FDSTOREREMOVE=1") {
            self.store.retain(|(found, _)| *found != name);
        } else if message.says("FDSTORE=1") {
            for fd in fds {
                if !self.store.iter().any(|(_, kept)| is_same_file(kept, &fd)) {
                    self.store.insert(0, (name.clone(), fd));
                }
            }
        }
        self.messages.push(message);
    }
}

/// Whether both are copies of one open file (kcmp(2) says 0 then).
fn is_same_file(one: &OwnedFd, other: &OwnedFd) -> bool {
    const KCMP_FILE: i32 = 0;
    // Of this thread, which may have open files of its own.
    let pid = nix::unistd::gettid().as_raw();
    let (one, other) = (one.as_fd().as_raw_fd(), other.as_fd().as_raw_fd());
    let call = nix::libc::SYS_kcmp;
    #[expect(unsafe_code, reason = "there is no safe kcmp")]
    // SAFETY: no memory is touched; both descriptors are open, since both are borrowed.
    let order = unsafe { nix::libc::syscall(call, pid, pid, KCMP_FILE, one, other) };
    assert_ne!(order, -1, "kcmp: {}", std::io::Error::last_os_error());
    order == 0
}

fn receive(socket: &UnixDatagram) -> (Message, Vec<OwnedFd>) {
    let mut bytes = [0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    let received = rustix::io::retry_on_intr(|| {
        recvmsg(socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let len = received.unwrap().bytes;
    let (mut pid, mut fds) = (0, Vec::new());
    for part in control.drain() {
        match part {
            RecvAncillaryMessage::ScmCredentials(who) => pid = who.pid.as_raw_pid(),
            RecvAncillaryMessage::ScmRights(more) => fds.extend(more),
            _ => {}
        }
    }
    let text = String::from_utf8(bytes[..len].to_vec()).unwrap();
    (Message { pid, text, descriptors: fds.len() }, fds)
}
