//! The FUSE session: the handshake with the kernel, and the threads that read its
//! requests.
//!
//! fuser can't be told that INIT was answered already, as it is when a later
//! supervisor takes a mount over. So it never sees the kernel's own handshake: it
//! is given one end of a socketpair on which an INIT request waits, answers that,
//! and then finds the device in the place of its descriptor. That is done at
//! every start, the first one too, so there is one path. The first time the INIT
//! request comes from the kernel, and fuser's answer is passed on to it; later ones
//! use the recorded request, and the answer must be the recorded one, since the
//! kernel goes by that.
//!
//! Then, before anything is read from the device, the kernel is asked to deliver again
//! what was read and never answered (`FUSE_NOTIFY_RESEND`, Linux 6.9).

use crate::descriptors;
use crate::events::{Event, Events};
use crate::fs;
use fuser::{Config, Filesystem, KernelConfig, Notifier, Request, SessionACL};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Builder, JoinHandle};
use thiserror::Error;

/// Each thread of fuser's owns a buffer of 16 MiB, and none ever waits, so one is enough. A
/// second one was no faster at anything that was tried, and cost a fifth more processor time
/// for each request: woken in turns, each finds one request, and they wait for each other's locks.
pub const THREADS: usize = 1;
/// The smallest buffer the kernel fills with a request (`FUSE_MIN_READ_BUFFER`).
const REQUEST_BUFFER_LEN: usize = 8192;
/// `FUSE_INIT` of linux/fuse.h.
const OPCODE_INIT: u32 = 26;
/// The major version of the kernel's protocol that fuser speaks.
const MAJOR: u32 = 7;
/// Where `fuse_in_header` has the opcode, and where `fuse_init_in` begins and has
/// its two words of flags.
const OPCODE_AT: usize = 4;
const MAJOR_AT: usize = 40;
const FLAGS_AT: usize = 52;
const FLAGS2_AT: usize = 56;
/// `FUSE_INIT_EXT`: the second word of flags is there; and `FUSE_HAS_RESEND` in it.
const INIT_EXT: u32 = 1 << 30;
const HAS_RESEND: u32 = 1 << (39 - 32);
/// `FUSE_NOTIFY_RESEND`.
const NOTIFY_RESEND: i32 = 7;

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
    /// This build would agree on something else than its predecessor did.
    #[error(
        "this build agrees on something else with the kernel than the one before did, and can't take its mount over; use that build, or unmount first"
    )]
    Disagreed,
    /// The kernel refused the answer.
    #[error("answering the kernel's first request failed: {0}")]
    Answer(Errno),
}

impl From<Errno> for SessionError {
    fn from(errno: Errno) -> Self {
        Self::SetUp(errno.into())
    }
}

/// What the kernel asked at the start of a mount, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Handshake {
    /// Whether the kernel delivers again what was read and not answered.
    pub fn has_resend(&self) -> bool {
        let flags = |at| u32_at(&self.request, at).unwrap_or_default();
        flags(FLAGS_AT) & INIT_EXT != 0 && flags(FLAGS2_AT) & HAS_RESEND != 0
    }

    /// Whether this build would give the same answer.
    ///
    /// # Errors
    /// When it would not, or nobody can tell.
    pub fn check(&self) -> Result<(), SessionError> {
        struct Negotiator;
        impl Filesystem for Negotiator {
            fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
                fs::init::negotiate(config);
                Ok(())
            }
        }
        let (_, answer) = shake_hands(&self.request, Negotiator)?;
        if answer == self.answer { Ok(()) } else { Err(SessionError::Disagreed) }
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
    pub fn start(device: &OwnedFd, filesystem: F) -> Result<(Self, Handshake), SessionError> {
        let request = init_request(device)?;
        let (inner, answer) = shake_hands(&request, filesystem)?;
        write(device, &answer).map_err(SessionError::Answer)?;
        descriptors::replace(inner.as_fd(), device)?;
        Ok((Self { inner }, Handshake { request, answer }))
    }

    /// Goes on with a device over which a predecessor has shaken hands.
    ///
    /// # Errors
    /// See [`SessionError`]; nothing was asked of the kernel then.
    pub fn resume(
        device: &OwnedFd,
        handshake: &Handshake,
        filesystem: F,
    ) -> Result<Self, SessionError> {
        let (inner, answer) = shake_hands(&handshake.request, filesystem)?;
        if answer != handshake.answer {
            return Err(SessionError::Disagreed);
        }
        descriptors::replace(inner.as_fd(), device)?;
        Ok(Self { inner })
    }

    /// Has the kernel deliver again what was read and not answered. To be called
    /// before anything is read (hazard 6).
    ///
    /// # Errors
    /// When the kernel can't.
    pub fn resend(&self) -> Result<(), Errno> {
        let mut notification = [0; 16];
        notification[..4].copy_from_slice(&16u32.to_ne_bytes());
        notification[4..8].copy_from_slice(&NOTIFY_RESEND.to_ne_bytes());
        write(&self.inner, &notification).map(drop)
    }

    /// Fails a request that was read and not answered.
    ///
    /// # Errors
    /// `ENOENT` when there is none of that number.
    pub fn fail(&self, unique: u64) -> Result<(), Errno> {
        let mut answer = [0; 16];
        answer[..4].copy_from_slice(&16u32.to_ne_bytes());
        answer[4..8].copy_from_slice(&(-(Errno::EIO as i32)).to_ne_bytes());
        answer[8..].copy_from_slice(&unique.to_ne_bytes());
        write(&self.inner, &answer).map(drop)
    }

    /// The way to tell the kernel what it must not believe any more.
    pub fn notifier(&self) -> Notifier {
        self.inner.notifier()
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

/// Lets fuser answer an INIT request.
fn shake_hands<F: Filesystem>(
    request: &[u8],
    filesystem: F,
) -> Result<(fuser::Session<F>, Vec<u8>), SessionError> {
    let (ours, theirs) = handshake_pair()?;
    write(&ours, request)?;
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = false;
    let inner = fuser::Session::from_fd(filesystem, theirs, SessionACL::All, config)?;
    let mut answer = vec![0; REQUEST_BUFFER_LEN];
    let len = read(&ours, &mut answer)?;
    answer.truncate(len);
    Ok((inner, answer))
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
