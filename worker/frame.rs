//! Requests on their way out and replies on their way in.

use sheepfs::ipc::{LostReason, Span};
use sheepfs::wire::request::Payload;
use sheepfs::wire::{HEADER_LEN, Opcode, ReplyHeader, Request, Status};

/// Where a request's payload comes from.
#[derive(Debug)]
pub enum Source {
    /// There is none.
    None,
    /// Memory of our own.
    Bytes(Box<[u8]>),
    /// The arena; the span is leased until the reply.
    Arena(Span),
}

/// A request as bytes.
#[derive(Debug)]
pub struct Frame {
    /// The header, encoded.
    pub header: [u8; HEADER_LEN],
    /// What follows it.
    pub source: Source,
}

/// Where a reply's payload goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Into the arena: the answer to a read, of exactly that length.
    Arena(Span),
    /// Into memory of our own, up to that many bytes.
    Memory {
        /// Bytes.
        len_max: u32,
    },
}

/// What is known of a reply before it comes.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The request's kind, which the reply must repeat.
    pub opcode: Opcode,
    /// Where its payload goes.
    pub destination: Destination,
}

/// A whole reply.
#[derive(Debug)]
pub struct Reply {
    /// Which request it answers.
    pub id: u32,
    /// The result.
    pub status: Status,
    /// The rest of the header.
    pub header: ReplyHeader,
    /// The payload, unless it went to the arena.
    pub bytes: Vec<u8>,
    /// Why there was no answer, if there was none; the status is a stand-in then.
    pub lost: Option<LostReason>,
}

impl Frame {
    /// Puts a request into bytes. `span` holds the payload of requests that
    /// have theirs in the arena.
    pub fn new(request: Request, id: u32, span: Option<Span>) -> Self {
        let header = request.header(id).encode();
        let source = match (request.into_payload(), span) {
            (Payload::None, _) | (Payload::External, None) => Source::None,
            (Payload::Bytes(bytes), _) => Source::Bytes(bytes),
            (Payload::External, Some(span)) => Source::Arena(span),
        };
        Self { header, source }
    }

    /// The request's id.
    pub fn id(&self) -> u32 {
        u32::from_le_bytes([self.header[8], self.header[9], self.header[10], self.header[11]])
    }

    /// Bytes to send.
    pub fn len(&self) -> usize {
        HEADER_LEN
            + match &self.source {
                Source::None => 0,
                Source::Bytes(bytes) => bytes.len(),
                Source::Arena(span) => span.len() as usize,
            }
    }
}

impl Expected {
    /// The most bytes the reply may carry.
    pub fn reply_len(&self) -> usize {
        match self.destination {
            Destination::Arena(span) => span.len() as usize,
            Destination::Memory { len_max } => len_max as usize,
        }
    }
}

impl Reply {
    /// Puts a reply together.
    pub fn new(header: ReplyHeader, bytes: Vec<u8>) -> Self {
        Self { id: header.id, status: header.status, header, bytes, lost: None }
    }

    /// The reply that a request to another node gets when there is none.
    pub fn unreachable(id: u32, why: LostReason) -> Self {
        let header = ReplyHeader::decode(&[0; HEADER_LEN]);
        Self { id, status: Status::NetworkError, header, bytes: Vec::new(), lost: Some(why) }
    }
}
