//! The FUSE session: the handshake with the kernel, and the threads that read its
//! requests.
//!
//! fuser can't be told that INIT was answered already, as it is when a later
//! supervisor takes a mount over. So it never sees the kernel's own handshake: it
//! is given one end of a socketpair on which an INIT request waits, answers that,
//! and then finds the device in the place of its descriptor. That is done at
//! every start, the first one too, so there is one path. Here the INIT request
//! comes from the kernel, and fuser's answer is passed on to it.

use crate::descriptors;
use crate::events::{Event, Events};
use fuser::{Config, Filesystem, SessionACL};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Builder, JoinHandle};
use thiserror::Error;

/// Each thread of fuser's owns a buffer of 16 MiB, and none ever waits.
const THREADS: usize = 2;
/// The smallest buffer the kernel fills with a request (`FUSE_MIN_READ_BUFFER`).
const REQUEST_BUFFER_LEN: usize = 8192;
/// `FUSE_INIT` of linux/fuse.h.
const OPCODE_INIT: u32 = 26;
/// The major version of the kernel's protocol that fuser speaks.
const MAJOR: u32 = 7;
/// Where `fuse_in_header` has the opcode, and where `fuse_init_in` begins.
const OPCODE_AT: usize = 4;
const MAJOR_AT: usize = 40;

/// Why there is no session.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The kernel's first request could not be read.
    #[error("reading the kernel's first request from /dev/fuse failed: {0}")]
    Read(Errno),
    /// It is not INIT, or of another major version.
    #[error("the kernel's first request is not an INIT of version {MAJOR}")]
    NotInit,
    /// No socketpair, no thread, or fuser refused the request.
    #[error("the FUSE session can't be set up: {0}")]
    SetUp(#[from] io::Error),
    /// The kernel refused the answer.
    #[error("answering the kernel's first request failed: {0}")]
    Answer(Errno),
}

impl From<Errno> for SessionError {
    fn from(errno: Errno) -> Self {
        Self::SetUp(errno.into())
    }
}

/// A session that has shaken hands; the kernel queues requests for it.
#[derive(Debug)]
pub struct Session<F: Filesystem> {
    inner: fuser::Session<F>,
}

impl<F: Filesystem> Session<F> {
    /// Shakes hands over a device that was just mounted.
    ///
    /// # Errors
    /// See [`SessionError`]; the mount is of no use then.
    pub fn start(device: &OwnedFd, filesystem: F) -> Result<Self, SessionError> {
        let request = init_request(device)?;
        let (ours, theirs) = handshake_pair()?;
        write(&ours, &request)?;
        let mut config = Config::default();
        config.n_threads = Some(THREADS);
        config.clone_fd = false;
        let inner = fuser::Session::from_fd(filesystem, theirs, SessionACL::All, config)?;
        let mut answer = [0; REQUEST_BUFFER_LEN];
        let len = read(&ours, &mut answer)?;
        write(device, &answer[..len]).map_err(SessionError::Answer)?;
        descriptors::replace(inner.as_fd(), device)?;
        Ok(Self { inner })
    }

    /// Serves the kernel until the mount ends, which the control loop is told.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn serve(self, events: Events) -> Result<JoinHandle<()>, SessionError> {
        let serve = move || {
            if let Err(error) = self.inner.run() {
                tracing::error!("the FUSE session failed: {error}; the mount is lost");
            }
            events.tell(Event::Unmounted);
        };
        Ok(Builder::new().name("session".to_owned()).spawn(serve)?)
    }
}

/// SEQPACKET, since each request is one read.
fn handshake_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Reads the kernel's INIT. It queues it while mounting, so this waits for
/// nothing but the kernel itself.
fn init_request(device: &OwnedFd) -> Result<Vec<u8>, SessionError> {
    let mut request = vec![0; REQUEST_BUFFER_LEN];
    let len = loop {
        match read(device, &mut request) {
            Ok(len) => break len,
            Err(Errno::EINTR | Errno::ENOENT | Errno::EAGAIN) => {}
            Err(errno) => return Err(SessionError::Read(errno)),
        }
    };
    request.truncate(len);
    let is_init = u32_at(&request, OPCODE_AT) == Some(OPCODE_INIT);
    let is_ours = u32_at(&request, MAJOR_AT) == Some(MAJOR);
    if is_init && is_ours { Ok(request) } else { Err(SessionError::NotInit) }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl Filesystem for Nothing {}

    fn start(request: &[u8]) -> SessionError {
        let (kernel, device) = handshake_pair().unwrap();
        write(&kernel, request).unwrap();
        Session::start(&device, Nothing).map(drop).unwrap_err()
    }

    fn header(opcode: u32, major: u32) -> Vec<u8> {
        let mut request = vec![0; 104];
        request[..4].copy_from_slice(&104u32.to_ne_bytes());
        request[4..8].copy_from_slice(&opcode.to_ne_bytes());
        request[40..44].copy_from_slice(&major.to_ne_bytes());
        request
    }

    #[test]
    fn only_an_init_of_a_version_we_speak_begins_a_session() {
        assert!(matches!(start(&header(3, 7)), SessionError::NotInit));
        assert!(matches!(start(&header(26, 8)), SessionError::NotInit));
        assert!(matches!(start(&header(26, 7)[..40]), SessionError::NotInit));
    }
}
