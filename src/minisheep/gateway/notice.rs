//! What a gateway tells the minisheep behind it, apart from its clients' requests.
//!
//! A notice is a header without payload, of an opcode that no sheep has. Its union starts with
//! eight bytes that no client sends by accident, so that the bare opcode is still refused as any
//! unknown one. No permission is needed: minisheep listens on loopback only.
//!
//! | notice | where | answered |
//! | --- | --- | --- |
//! | [`Notice::Member`] | first on a connection that lives as long as the gateway | yes |
//! | [`Notice::Client`] | first on a connection that carries one client's requests | no |
//! | [`Notice::Gone`] | on such a connection: its client has closed the one it had | no |
//! | [`Notice::Frame`] | on such a connection: the client's bytes were no request | no |

use std::net::SocketAddr;

use crate::wire::cluster::NodeId;
use crate::wire::opcode::PUBLIC_VERSION;
use crate::wire::{RequestHeader, array_at, u16_at};

/// Unused by the original; below 0xcd, so a real sheep that is taken for a minisheep refuses it.
const OPCODE: u8 = 0x7e;
const MAGIC: [u8; 8] = *b"minisheg";

const KIND: usize = 8;
const PORT: usize = 10;
const ADDRESS: usize = 12;

/// What a gateway says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A gateway at this address is a node of the cluster until this connection ends.
    Member(SocketAddr),
    /// What follows is from one client of the gateway at this address.
    Client(SocketAddr),
    /// That client is gone; what follows was read before.
    Gone,
    /// That client sent something that can't be a request.
    Frame,
}

impl Notice {
    /// The header that says it.
    #[must_use]
    pub fn header(self) -> RequestHeader {
        let (kind, address) = match self {
            Self::Member(address) => (1, Some(address)),
            Self::Client(address) => (2, Some(address)),
            Self::Gone => (3, None),
            Self::Frame => (4, None),
        };
        let mut union = [0; 32];
        union[..MAGIC.len()].copy_from_slice(&MAGIC);
        union[KIND] = kind;
        if let Some(address) = address {
            union[PORT..ADDRESS].copy_from_slice(&address.port().to_le_bytes());
            union[ADDRESS..ADDRESS + 16].copy_from_slice(&NodeId::new(address).addr);
        }
        RequestHeader {
            version: PUBLIC_VERSION,
            opcode: OPCODE,
            flags: 0,
            epoch: 0,
            id: 0,
            data_length: 0,
            union,
        }
    }

    /// What a header says, if it is a notice.
    #[must_use]
    pub fn of(header: &RequestHeader) -> Option<Self> {
        if header.opcode != OPCODE || header.has_payload() || !header.union.starts_with(&MAGIC) {
            return None;
        }
        match header.union[KIND] {
            1 => Some(Self::Member(address(&header.union))),
            2 => Some(Self::Client(address(&header.union))),
            3 => Some(Self::Gone),
            4 => Some(Self::Frame),
            _ => None,
        }
    }
}

fn address(union: &[u8; 32]) -> SocketAddr {
    let (addr, port) = (array_at(union, ADDRESS), u16_at(union, PORT));
    NodeId { addr, port, io_addr: [0; 16], io_port: 0 }.socket_addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Opcode;

    #[test]
    fn notices_survive_the_wire_and_nothing_else_is_one() {
        for address in ["127.0.0.1:7001", "[::1]:7001"] {
            let address = address.parse().unwrap();
            for notice in
                [Notice::Member(address), Notice::Client(address), Notice::Gone, Notice::Frame]
            {
                let header = RequestHeader::decode(&notice.header().encode());
                assert_eq!(Notice::of(&header), Some(notice));
                assert_eq!(Notice::of(&RequestHeader { opcode: 0x7d, ..header }), None);
                assert_eq!(Notice::of(&RequestHeader { union: [0; 32], ..header }), None);
                assert_eq!(Notice::of(&RequestHeader { flags: 1, ..header }), None);
            }
        }
        assert_eq!(Notice::of(&RequestHeader::new(Opcode::ReadObj, 0, 0)), None);
    }
}
