//! The receiving side of a connection: replies of any length, cut anywhere.
//!
//! A staging buffer takes whatever comes when no payload is under way, so that one
//! read fetches many small replies with their payloads, which are copied from there.
//! While a large reply is awaited, only a few headers' worth of it is used, and nearly
//! all of the payload is received straight into the arena, by the same call that
//! fetches the headers behind it. A read that fills less than it was offered has
//! emptied the socket: more is waited for, not asked for.

use super::{Connection, lost};
use crate::frame::{Destination, Expected, Reply};
use sheepfs::ipc::{Arena, LostReason, Span};
use sheepfs::wire::{HEADER_LEN, Opcode, ReplyHeader};
use std::io::{self, IoSliceMut, Read};
use std::time::Instant;

/// Room for the replies to eight reads of 4 KiB: what payload falls in here is copied
/// once more, which costs less than a system call.
pub(super) const STAGING_LEN: usize = 8 * (HEADER_LEN + 4096);
/// What is used of it while a large reply is awaited: room for a few headers.
const STAGING_LEN_MIN: usize = 8 * HEADER_LEN;
/// Replies above this are large: to copy them would cost more than to fetch them apart.
const SMALL_REPLY_LEN_MAX: usize = 8192;

/// Where the receiving side stands.
#[derive(Debug)]
pub(super) enum Inbox {
    /// The next bytes are a reply's header.
    Header,
    /// The next bytes are the payload of this reply.
    Payload {
        header: ReplyHeader,
        expected: Expected,
        buffer: Vec<u8>,
        received: usize,
        len: usize,
        /// When bytes of it came last.
        since: Instant,
    },
}

impl Connection {
    /// Receives what is there and appends the replies that are complete.
    ///
    /// # Errors
    /// Why the connection is lost: it broke, or the peer is no sheep.
    pub fn receive(
        &mut self,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), LostReason> {
        loop {
            let (received, offered) = match self.receive_once(arena) {
                Ok((0, _)) => return Err(LostReason::Disconnected),
                Ok(both) => both,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(lost(&error)),
            };
            self.advance(received, arena, now, replies)?;
            if received < offered {
                return Ok(());
            }
        }
    }

    /// One read: first what is missing of a payload, then the staging buffer. Gives how
    /// many bytes came, and how many could have come.
    fn receive_once(&mut self, arena: &Arena) -> io::Result<(usize, usize)> {
        // Less than a header is staged between two reads.
        let end = if self.large > 0 { STAGING_LEN_MIN } else { STAGING_LEN };
        let staging = IoSliceMut::new(&mut self.staging[self.staged..end]);
        let room = staging.len();
        match &mut self.inbox {
            Inbox::Header => {
                (&self.stream).read_vectored(&mut [staging]).map(|received| (received, room))
            }
            Inbox::Payload { expected, buffer, received, len, .. } => {
                let target = match expected.direct(*len) {
                    Some(span) => {
                        arena.io_slice_mut(span.part(count(*received), count(*len - *received)))
                    }
                    None => IoSliceMut::new(&mut buffer[*received..]),
                };
                let offered = target.len() + room;
                let received = (&self.stream).read_vectored(&mut [target, staging])?;
                Ok((received, offered))
            }
        }
    }

    /// Accounts for `n` bytes received by [`Self::receive_once`].
    fn advance(
        &mut self,
        n: usize,
        arena: &Arena,
        now: Instant,
        replies: &mut Vec<Reply>,
    ) -> Result<(), LostReason> {
        let mut staged_more = n;
        if let Inbox::Payload { received, len, since, .. } = &mut self.inbox {
            let direct = n.min(*len - *received);
            *received += direct;
            *since = now;
            staged_more = n - direct;
        }
        self.staged += staged_more;
        self.finish_payload(replies);
        let mut at = 0;
        while matches!(self.inbox, Inbox::Header) && self.staged - at >= HEADER_LEN {
            let mut bytes = [0; HEADER_LEN];
            bytes.copy_from_slice(&self.staging[at..at + HEADER_LEN]);
            at += HEADER_LEN;
            self.begin(ReplyHeader::decode(&bytes), now)?;
            at += self.take_staged(at, arena);
            self.finish_payload(replies);
        }
        self.staging.copy_within(at..self.staged, 0);
        self.staged -= at;
        Ok(())
    }

    /// A header has come: check it against what was asked.
    fn begin(&mut self, header: ReplyHeader, now: Instant) -> Result<(), LostReason> {
        let pending = self.expected.remove(&header.id).ok_or(LostReason::NotASheep)?;
        let expected = pending.expected;
        self.large -= usize::from(expected.is_large());
        self.awaited_bytes -= HEADER_LEN + expected.reply_len();
        let len = header.data_length as usize;
        let known = Opcode::from_code(header.opcode) == Some(expected.opcode);
        // Servers before 0.8 trimmed zeros off (protocol 1.9); these are not
        // supported, so a read is answered whole or not at all.
        let read_whole = expected.opcode == Opcode::ReadObj && header.status.is_success();
        let fits =
            if read_whole { len == expected.reply_len() } else { len <= expected.reply_len() };
        if !known || !fits {
            return Err(LostReason::NotASheep);
        }
        let buffered = if expected.direct(len).is_some() { 0 } else { len };
        let buffer = vec![0; buffered];
        self.inbox = Inbox::Payload { header, expected, buffer, received: 0, len, since: now };
        Ok(())
    }

    /// Copies the payload's beginning out of the staging buffer.
    fn take_staged(&mut self, at: usize, arena: &Arena) -> usize {
        let Inbox::Payload { expected, buffer, received, len, .. } = &mut self.inbox else {
            return 0;
        };
        let have = &self.staging[at..self.staged];
        let taken = have.len().min(*len);
        match expected.direct(*len) {
            Some(span) => arena.fill(span, &have[..taken]),
            None => buffer[..taken].copy_from_slice(&have[..taken]),
        }
        *received = taken;
        taken
    }

    fn finish_payload(&mut self, replies: &mut Vec<Reply>) {
        let done = matches!(&self.inbox, Inbox::Payload { received, len, .. } if received == len);
        if !done {
            return;
        }
        if let Inbox::Payload { header, buffer, .. } =
            std::mem::replace(&mut self.inbox, Inbox::Header)
        {
            replies.push(Reply::new(header, buffer));
        }
    }
}

impl Expected {
    /// Whether to copy it would cost more than to fetch it apart.
    pub(super) fn is_large(&self) -> bool {
        self.reply_len() > SMALL_REPLY_LEN_MAX
    }

    /// Where a payload of `len` bytes may go straight away.
    fn direct(&self, len: usize) -> Option<Span> {
        match &self.destination {
            Destination::Arena(span) if span.len() as usize == len => Some(*span),
            Destination::Arena(_) | Destination::Memory { .. } => None,
        }
    }
}

/// Lengths of payloads fit 32 bits, as `data_length` does.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
