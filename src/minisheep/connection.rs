//! A client's connection: requests come in on its own thread, answers leave from any.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<'a> {
    stream: BufReader<&'a TcpStream>,
}

impl Receiver<'_> {
    /// Waits for the next request.
    pub fn wait(&mut self) -> Received {
        match self.receive() {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Received::Malformed,
            Err(_) => Received::End,
        }
    }

    /// Whether more has arrived already.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.stream.buffer().len() >= HEADER_LEN
    }

    fn receive(&mut self) -> io::Result<Received> {
        if self.has_ended()? {
            return Ok(Received::End);
        }
        let mut bytes = [0; HEADER_LEN];
        self.stream.read_exact(&mut bytes)?;
        let header = RequestHeader::decode(&bytes);
        if header.has_payload() && header.data_length > PAYLOAD_LEN_MAX {
            return Ok(Received::Malformed);
        }
        let payload = if header.has_payload() {
            self.payload(usize::try_from(header.data_length).map_err(io::Error::other)?)?
        } else {
            Buffer::default()
        };
        Ok(Received::Request(Incoming { header, payload }))
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

    fn payload(&mut self, len: usize) -> io::Result<Buffer> {
        let mut buffer = Buffer::with_len(len.min(PIECE_LEN));
        self.stream.read_exact(&mut buffer)?;
        while buffer.len() < len {
            let start = buffer.len();
            buffer.grow((len - start).min(PIECE_LEN));
            self.stream.read_exact(&mut buffer[start..])?;
        }
        Ok(buffer)
    }
}

/// The sending half.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    gone: Arc<AtomicBool>,
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
        Ok(Self { stream, gone: Arc::default(), held: Mutex::new(None) })
    }

    /// Its receiving half.
    #[must_use]
    pub fn receiver(&self) -> Receiver<'_> {
        Receiver { stream: BufReader::with_capacity(RECEIVE_LEN, &self.stream) }
    }

    /// Set when the connection has ended.
    #[must_use]
    pub fn gone(&self) -> &Arc<AtomicBool> {
        &self.gone
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.gone.store(true, Ordering::Relaxed);
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
        if self.write(&answer.header.encode(), &answer.payload).is_err() {
            self.close();
        }
    }

    /// Header and payload leave together.
    fn write(&self, header: &[u8], payload: &[u8]) -> io::Result<()> {
        let total = header.len() + payload.len();
        let mut sent = 0;
        while sent < total {
            let parts = [
                IoSlice::new(&header[sent.min(header.len())..]),
                IoSlice::new(&payload[sent.saturating_sub(header.len())..]),
            ];
            match (&self.stream).write_vectored(&parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
