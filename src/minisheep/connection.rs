//! A client's connection: requests come in on its own thread, answers leave from any.
//!
//! What has arrived but was not yet taken is lost when the client resets the connection, as at a
//! real sheep (protocol 17.6): that is how a client that is killed, or gives up, takes back what
//! was not read. What was taken is carried out whatever becomes of the client.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::buffer::Buffer;
use super::sheep::{Answer, Incoming};
use crate::wire::{HEADER_LEN, RequestHeader};

/// Small requests that arrive together are received together.
const RECEIVE_LEN: usize = 64 << 10;
/// A larger payload is taken for a malformed frame.
const PAYLOAD_LEN_MAX: u32 = 256 << 20;
/// Memory for a payload is taken as it arrives.
const PIECE_LEN: usize = 1 << 20;

/// What came from a client.
#[derive(Debug)]
pub enum Received {
    /// A request.
    Request(Incoming),
    /// The client has closed the connection, or it was reset.
    End,
    /// Something that can't be a request, or only a part of one.
    Malformed,
}

/// Where requests come from.
#[derive(Debug, Default)]
pub struct Origin {
    gateway: OnceLock<SocketAddr>,
    gone: AtomicBool,
}

impl Origin {
    /// The gateway through which they come, if not directly.
    #[must_use]
    pub fn gateway(&self) -> Option<SocketAddr> {
        self.gateway.get().copied()
    }

    /// They come through the gateway at `address`. The first word counts.
    pub fn is_behind(&self, address: SocketAddr) {
        let _ = self.gateway.set(address);
    }

    /// Whether the client's connection has ended: nobody waits for an answer any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// The client's connection has ended.
    pub fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<'a> {
    stream: BufReader<&'a TcpStream>,
    origin: &'a Arc<Origin>,
}

impl Receiver<'_> {
    /// Waits for the next request.
    pub fn wait(&mut self) -> Received {
        match self.receive() {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.has_peer() => {
                Received::Malformed
            }
            Err(_) => Received::End,
        }
    }

    /// Whether more has arrived already.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.stream.buffer().len() >= HEADER_LEN
    }

    fn receive(&mut self) -> io::Result<Received> {
        if self.has_ended()? || self.is_reset()? {
            return Ok(Received::End);
        }
        let mut bytes = [0; HEADER_LEN];
        self.stream.read_exact(&mut bytes)?;
        let header = RequestHeader::decode(&bytes);
        if header.has_payload() && header.data_length > PAYLOAD_LEN_MAX {
            return Ok(Received::Malformed);
        }
        let payload = if header.has_payload() {
            let len = usize::try_from(header.data_length).map_err(io::Error::other)?;
            receive_payload(&mut self.stream, len)?
        } else {
            Buffer::default()
        };
        Ok(Received::Request(Incoming { header, payload, origin: Arc::clone(self.origin) }))
    }

    /// Whether an end of the stream was the client's word. The kernel tells of a reset once, and
    /// perhaps the thread that was just sending a reply; to others it then looks like an end, but
    /// there is no peer any more.
    fn has_peer(&self) -> bool {
        self.stream.get_ref().peer_addr().is_ok()
    }

    /// Waits for the first byte of a request.
    fn has_ended(&mut self) -> io::Result<bool> {
        loop {
            match self.stream.fill_buf() {
                Ok(bytes) => return Ok(bytes.is_empty()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the client has reset the connection.
    fn is_reset(&self) -> io::Result<bool> {
        let stream = self.stream.get_ref().as_fd();
        let mut polled = [PollFd::new(stream, PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO)?;
        let over = PollFlags::POLLHUP | PollFlags::POLLERR;
        Ok(polled[0].revents().is_some_and(|events| events.intersects(over)))
    }
}

/// Receives `len` bytes.
///
/// # Errors
/// What the socket says; `UnexpectedEof` when it ends before.
pub fn receive_payload(stream: &mut impl Read, len: usize) -> io::Result<Buffer> {
    let mut buffer = Buffer::with_len(len.min(PIECE_LEN));
    stream.read_exact(&mut buffer)?;
    while buffer.len() < len {
        let start = buffer.len();
        buffer.grow((len - start).min(PIECE_LEN));
        stream.read_exact(&mut buffer[start..])?;
    }
    Ok(buffer)
}

/// The sending half.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    origin: Arc<Origin>,
    /// An answer that waits to be overtaken; also the right to send.
    held: Mutex<Option<Answer>>,
}

impl Connection {
    /// Takes an accepted connection.
    ///
    /// # Errors
    /// What the socket says.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, origin: Arc::default(), held: Mutex::new(None) })
    }

    /// Its receiving half.
    #[must_use]
    pub fn receiver(&self) -> Receiver<'_> {
        let stream = BufReader::with_capacity(RECEIVE_LEN, &self.stream);
        Receiver { stream, origin: &self.origin }
    }

    /// Where its requests come from.
    #[must_use]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.origin.leave();
        // Fails when it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Sends an answer, and after it one that was held. A client that is gone gets none.
    pub fn send(&self, answer: &Answer) {
        let mut held = self.held();
        self.send_now(answer);
        if let Some(late) = held.take() {
            self.send_now(&late);
        }
    }

    /// Sends an answer after the next one, or after `limit` when none comes.
    pub fn send_after_next(self: &Arc<Self>, answer: Answer, limit: Duration) {
        let mut held = self.held();
        if let Some(late) = held.take() {
            self.send_now(&answer);
            self.send_now(&late);
            return;
        }
        *held = Some(answer);
        let this = Arc::clone(self);
        thread::spawn(move || {
            thread::sleep(limit);
            if let Some(late) = this.held().take() {
                this.send_now(&late);
            }
        });
    }

    fn held(&self) -> MutexGuard<'_, Option<Answer>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called with the right to send.
    fn send_now(&self, answer: &Answer) {
        let sent = send_together(&self.stream, &answer.header.encode(), &answer.payload);
        if sent.is_err() {
            self.close();
        }
    }
}

/// Sends a header and its payload: they leave together.
///
/// # Errors
/// What the socket says.
pub fn send_together(mut stream: &TcpStream, header: &[u8], payload: &[u8]) -> io::Result<()> {
    let total = header.len() + payload.len();
    let mut sent = 0;
    while sent < total {
        let parts = [
            IoSlice::new(&header[sent.min(header.len())..]),
            IoSlice::new(&payload[sent.saturating_sub(header.len())..]),
        ];
        match stream.write_vectored(&parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => sent += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
