//! A connection of the bare client: whole requests out, whole replies in, nothing else.

use crate::results::Failure;
use sheepfs::wire::request::Payload;
use sheepfs::wire::{HEADER_LEN, ReplyHeader, Request};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

/// A connection to a sheep.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Connects.
    pub fn open(sheep: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(sheep).map_err(|error| format!("{sheep}: {error}"))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends a request; its payload, if any, stands in `message` behind the header's room, so
    /// that both leave together.
    pub fn send(&mut self, request: &Request, id: u32, message: &mut [u8]) -> Result<(), Failure> {
        let header = request.header(id);
        message[..HEADER_LEN].copy_from_slice(&header.encode());
        let payload = if header.has_payload() { header.data_length as usize } else { 0 };
        Ok(self.0.write_all(&message[..HEADER_LEN + payload])?)
    }

    /// Reads one reply, its payload into `room`; returns its id.
    pub fn receive(&mut self, room: &mut [u8]) -> Result<u32, Failure> {
        let reply = self.header()?;
        let room = room.get_mut(..reply.data_length as usize).ok_or("a reply is too long")?;
        self.0.read_exact(room)?;
        Ok(reply.id)
    }

    /// A request that stands alone, with its answer.
    pub fn ask(&mut self, request: &Request) -> Result<(ReplyHeader, Vec<u8>), Failure> {
        let mut message = request.header(0).encode().to_vec();
        if let Payload::Bytes(bytes) = request.payload() {
            message.extend_from_slice(bytes);
        }
        self.0.write_all(&message)?;
        let reply = self.header()?;
        if reply.data_length > request.reply_len_max() {
            return Err("a reply is too long".into());
        }
        let mut payload = vec![0; reply.data_length as usize];
        self.0.read_exact(&mut payload)?;
        Ok((reply, payload))
    }

    fn header(&mut self) -> Result<ReplyHeader, Failure> {
        let mut header = [0; HEADER_LEN];
        self.0.read_exact(&mut header)?;
        let reply = ReplyHeader::decode(&header);
        match reply.status.is_success() {
            true => Ok(reply),
            false => Err(format!("the sheep answered {:?}", reply.status).into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
