//! Against a socket of the test's own: the exact messages, and what comes with
//! them.

use super::*;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::ffi::OsStr;
use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::thread;
use tempfile::TempDir;

/// What plays the manager, in a directory of its own where it needs one.
struct Listener {
    socket: UnixDatagram,
    manager: Manager,
    _dir: TempDir,
}

impl Listener {
    fn at_a_path() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, manager: manager_at(path.as_os_str()), _dir: dir }
    }

    /// The directory's name is good for one that is not in it, too.
    fn without_a_path() -> Self {
        let dir = TempDir::new().unwrap();
        let name = dir.path().to_str().unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Self { socket, manager: manager_at(OsStr::new(&format!("@{name}"))), _dir: dir }
    }

    /// A message and the descriptors that came with it.
    fn receive(&self) -> (String, Vec<OwnedFd>) {
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let received =
            recvmsg(&self.socket, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds,
            _ => panic!("something else came with it"),
        });
        let fds = fds.collect();
        (String::from_utf8(bytes[..received.bytes].to_vec()).unwrap(), fds)
    }

    fn message(&self) -> String {
        let (message, fds) = self.receive();
        assert!(fds.is_empty(), "{fds:?}");
        message
    }
}

fn manager_at(value: &OsStr) -> Manager {
    let watchdog = Some(Duration::from_secs(30));
    Manager::at(Address::parse(value).unwrap(), watchdog).unwrap()
}

/// Whether a writing end of the pipe is still open.
fn is_open(pipe: &io::PipeReader) -> bool {
    let hang_up = wait_for_hang_up(pipe.as_fd(), Instant::now());
    hang_up.is_err_and(|error| error.kind() == ErrorKind::TimedOut)
}

#[test]
fn each_word_is_that_of_the_protocol() {
    for listener in [Listener::at_a_path(), Listener::without_a_path()] {
        let manager = listener.manager.clone();
        manager.ready("serving");
        assert_eq!(listener.message(), "READY=1\nSTATUS=serving\n");
        manager.status("sheep 10.0.0.1:7000\nREADY=1");
        assert_eq!(listener.message(), "STATUS=sheep 10.0.0.1:7000 READY=1\n");
        manager.stopping();
        assert_eq!(listener.message(), "STOPPING=1\n");
        manager.extend_timeout(Duration::from_millis(1500));
        assert_eq!(listener.message(), "EXTEND_TIMEOUT_USEC=1500000\n");
        manager.extend_timeout(Duration::MAX);
        assert_eq!(listener.message(), "EXTEND_TIMEOUT_USEC=4294967295\n");
        manager.alive();
        assert_eq!(listener.message(), "WATCHDOG=1\n");
        manager.remove(StoredName::State);
        assert_eq!(listener.message(), "FDSTOREREMOVE=1\nFDNAME=sheepfs-state\n");
    }
}

#[test]
fn a_reload_carries_the_time_at_which_it_began() {
    let listener = Listener::without_a_path();
    listener.manager.reloading();
    let message = listener.message();
    let micros = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(micros.trim_end().parse::<u64>().unwrap() > 0, "{message}");
}

#[test]
fn a_stored_descriptor_is_the_one_that_was_given() {
    let listener = Listener::at_a_path();
    let file = tempfile::tempfile().unwrap();
    listener.manager.store(StoredName::Device, file.as_fd()).unwrap();
    let (message, fds) = listener.receive();
    assert_eq!(message, "FDSTORE=1\nFDNAME=sheepfs-device\nFDPOLL=0\n");
    let [fd] = <[OwnedFd; 1]>::try_from(fds).unwrap();
    File::from(fd).set_len(77).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 77);
}

#[test]
fn a_barrier_ends_when_the_manager_closes_its_end_and_not_before() {
    let listener = Listener::without_a_path();
    let manager = listener.manager.clone();
    let waiting = thread::spawn(move || manager.barrier(Duration::from_secs(60)));
    let (message, fds) = listener.receive();
    assert_eq!(message, "BARRIER=1\n");
    assert_eq!(fds.len(), 1);
    assert!(!waiting.is_finished());
    drop(fds);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_barrier_that_nobody_lifts_is_given_up() {
    let listener = Listener::without_a_path();
    let error = listener.manager.barrier(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

/// The queue of a socket has room for some ten messages.
#[test]
fn a_manager_that_does_not_read_holds_nobody_up() {
    let listener = Listener::without_a_path();
    for _ in 0..100_000 {
        listener.manager.alive();
    }
    // That is no failure: the next pet is as good.
    assert!(!listener.manager.inner.has_failed.load(Ordering::Relaxed));
    // This would wait for ever, had the socket no time-out.
    let (pipe, theirs) = io::pipe().unwrap();
    let error = listener.manager.store(StoredName::State, theirs.as_fd()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(is_open(&pipe));
    drop(theirs);
    assert!(!is_open(&pipe));
}

#[test]
fn a_manager_that_is_gone_is_no_reason_to_fail() {
    let Listener { socket, manager, _dir } = Listener::at_a_path();
    drop(socket);
    manager.ready("serving");
    manager.alive();
    assert!(manager.inner.has_failed.load(Ordering::Relaxed));
    let file = tempfile::tempfile().unwrap();
    manager.store(StoredName::Device, file.as_fd()).unwrap_err();
    manager.barrier(Duration::from_secs(60)).unwrap_err();
}

/// What serves us is the same socket each time, and no file: the address is looked
/// up anew for each message, so a manager may come back.
#[test]
fn a_manager_that_comes_back_is_heard_again() {
    let Listener { socket, manager, _dir } = Listener::at_a_path();
    drop(socket);
    manager.alive();
    let path = _dir.path().join("notify");
    std::fs::remove_file(&path).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    manager.ready("");
    let mut bytes = [0; 64];
    let len = socket.recv(&mut bytes).unwrap();
    assert_eq!(&bytes[..len], b"READY=1\nSTATUS=\n");
}

#[test]
fn one_pet_in_half_the_time() {
    let at = |watchdog| {
        let address = Address::parse(OsStr::new("@nobody")).unwrap();
        Manager::at(address, watchdog).unwrap().watchdog_interval()
    };
    assert_eq!(at(Some(Duration::from_secs(30))), Some(Duration::from_secs(15)));
    assert_eq!(at(Some(Duration::ZERO)), None);
    assert_eq!(at(None), None);
}

#[test]
fn children_inherit_nothing_of_it() {
    let mut command = Command::new("env");
    command.envs(VARIABLES.map(|variable| (variable, "x")));
    let output = hide_from(&mut command).env("KEPT", "x").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("KEPT=x\n"), "{text}");
    assert!(!VARIABLES.iter().any(|variable| text.contains(variable)), "{text}");
}

#[test]
fn the_socket_is_not_inherited() {
    let listener = Listener::without_a_path();
    let flags = fcntl(&listener.manager.inner.socket, FcntlArg::F_GETFD).unwrap();
    assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
}
