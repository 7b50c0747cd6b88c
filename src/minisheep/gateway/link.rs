//! A gateway's connection to the minisheep behind it.

use std::io::{self, BufReader, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};

use super::Notice;
use crate::minisheep::connection::{receive_payload, send_together};
use crate::minisheep::sheep::Answer;
use crate::wire::{HEADER_LEN, ReplyHeader, RequestHeader};

/// Small replies that arrive together are received together.
const RECEIVE_LEN: usize = 64 << 10;

/// Requests leave from any thread; replies are received on one.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    sending: Mutex<()>,
}

impl Link {
    /// Connects, and says what the connection is for.
    ///
    /// # Errors
    /// What the socket says.
    pub fn open(address: SocketAddr, purpose: Notice) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let link = Self { stream, sending: Mutex::new(()) };
        link.send(&purpose.header(), &[])?;
        Ok(link)
    }

    /// Sends a request or a notice.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send(&self, header: &RequestHeader, payload: &[u8]) -> io::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        send_together(&self.stream, &header.encode(), payload)
    }

    /// The receiving half.
    #[must_use]
    pub fn replies(&self) -> Replies<'_> {
        Replies { stream: BufReader::with_capacity(RECEIVE_LEN, &self.stream) }
    }

    /// Ends the connection.
    pub fn close(&self) {
        // Fails when it has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The bare connection.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

/// What the minisheep answers.
#[derive(Debug)]
pub struct Replies<'a> {
    stream: BufReader<&'a TcpStream>,
}

impl Replies<'_> {
    /// Waits for the next one.
    ///
    /// # Errors
    /// What the socket says; `UnexpectedEof` when it has ended.
    pub fn next(&mut self) -> io::Result<Answer> {
        let mut bytes = [0; HEADER_LEN];
        self.stream.read_exact(&mut bytes)?;
        let header = ReplyHeader::decode(&bytes);
        let len = usize::try_from(header.data_length).map_err(io::Error::other)?;
        let payload = receive_payload(&mut self.stream, len)?;
        Ok(Answer { header, payload })
    }
}
