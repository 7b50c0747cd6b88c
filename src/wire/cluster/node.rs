//! Nodes and their addresses (protocol 1.10, 15.1, 15.3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{LayoutError, exactly};

/// Bytes of a node's addresses on the wire.
pub const NODE_ID_LEN: usize = 40;
/// Bytes of a node on the wire.
pub const NODE_LEN: usize = 80;
/// The most nodes a cluster can have; the arrays of the original are this long.
pub const NODES_MAX: usize = 6144;
/// The `data_length` to ask GET_NODE_LIST with; less makes a sheep write behind its buffer
/// (protocol 18).
pub const NODE_LIST_LEN: usize = NODES_MAX * NODE_LEN;

/// Bytes of a node as a server built with disk-vnodes sends it: 32 disks of 16 bytes follow
/// (protocol 15.1).
const NODE_WITH_DISKS_LEN: usize = NODE_LEN + 32 * 16;

/// The addresses of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeId {
    /// Where clients and peers reach it; an IPv4 address stands in the last four bytes.
    pub addr: [u8; 16],
    /// Its TCP port.
    pub port: u16,
    /// A second address for object traffic between nodes, zeros if there is none.
    pub io_addr: [u8; 16],
    /// The port of that second address.
    pub io_port: u16,
}

impl NodeId {
    /// The id of a node that listens on `address` and has no separate I/O network.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let mut addr = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => addr[12..].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => addr = ip.octets(),
        }
        Self { addr, port: address.port(), io_addr: [0; 16], io_port: 0 }
    }

    /// The address by `dog`'s rule: IPv4 when the first twelve bytes are 0 and the next is not.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        match self.addr {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if a != 0 => {
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            octets => IpAddr::V6(Ipv6Addr::from(octets)),
        }
    }

    /// Where to connect to.
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port)
    }

    /// Reads the 40 bytes of a node id.
    ///
    /// # Errors
    /// [`LayoutError::Length`] for any other number of bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        Ok(Self::from(exactly::<RawNodeId>("a node id", bytes)?))
    }

    /// The 40 bytes of this node id.
    #[must_use]
    pub fn encode(&self) -> [u8; NODE_ID_LEN] {
        zerocopy::transmute!(RawNodeId::from(*self))
    }
}

/// As `dog` prints it: `127.0.0.1:7000`; IPv6 without brackets, and no port when it is 0.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => write!(f, "{}", self.ip()),
            port => write!(f, "{}:{port}", self.ip()),
        }
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its addresses.
    pub id: NodeId,
    /// Its share of the ring; 0 for a node that only serves clients.
    pub nr_vnodes: u16,
    /// Replicas of one object go to different zones.
    pub zone: u32,
    /// Bytes of storage it announced when it joined.
    pub space: u64,
}

impl Node {
    /// Reads the 80 bytes of a node.
    ///
    /// # Errors
    /// [`LayoutError::Length`] for any other number of bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, LayoutError> {
        Ok(Self::from(exactly::<RawNode>("a node", bytes)?))
    }

    /// The 80 bytes of this node; what a server keeps in the first 24 is left zero.
    #[must_use]
    pub fn encode(&self) -> [u8; NODE_LEN] {
        zerocopy::transmute!(RawNode::from(*self))
    }
}

/// Reads the payload of GET_NODE_LIST, of which the reply's header says that it has `nr_nodes`.
///
/// The size of one node follows from both numbers, so servers built with disk-vnodes are
/// understood too; their disks are skipped.
///
/// # Errors
/// [`LayoutError::Count`] for more nodes than a cluster can have, [`LayoutError::Length`] when the
/// payload is not that many nodes of either size.
pub fn decode_nodes(bytes: &[u8], nr_nodes: u32) -> Result<Vec<Node>, LayoutError> {
    let count = usize::try_from(nr_nodes).unwrap_or(usize::MAX);
    if count > NODES_MAX {
        return Err(LayoutError::Count {
            what: "a node list",
            most: NODES_MAX,
            found: i64::from(nr_nodes),
        });
    }
    let stride = node_stride(bytes.len(), count)?;
    let nodes = bytes.chunks_exact(stride).take(count);
    nodes.map(|node| Node::decode(&node[..NODE_LEN])).collect()
}

/// Whether so many nodes that take `length` bytes come with their disks, by which such a
/// server may place objects.
#[must_use]
pub fn have_disks(length: usize, nr_nodes: u32) -> bool {
    nr_nodes > 0 && usize::try_from(nr_nodes).is_ok_and(|n| n * NODE_WITH_DISKS_LEN == length)
}

/// How far apart the nodes of a list lie, when `count` of them take `length` bytes.
fn node_stride(length: usize, count: usize) -> Result<usize, LayoutError> {
    [NODE_LEN, NODE_WITH_DISKS_LEN].into_iter().find(|stride| stride * count == length).ok_or(
        LayoutError::Length { what: "a node list", expected: NODE_LEN * count, found: length },
    )
}

/// The payload of a GET_NODE_LIST reply.
#[must_use]
pub fn encode_nodes(nodes: &[Node]) -> Vec<u8> {
    nodes.iter().flat_map(Node::encode).collect()
}

/// The layout of protocol 1.10.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawNodeId {
    addr: [u8; 16],
    port: U16,
    io_addr: [u8; 16],
    io_port: U16,
    pad: [u8; 4],
}

const _: () = assert!(size_of::<RawNodeId>() == NODE_ID_LEN);

impl From<RawNodeId> for NodeId {
    fn from(raw: RawNodeId) -> Self {
        Self {
            addr: raw.addr,
            port: raw.port.get(),
            io_addr: raw.io_addr,
            io_port: raw.io_port.get(),
        }
    }
}

impl From<NodeId> for RawNodeId {
    fn from(id: NodeId) -> Self {
        Self {
            addr: id.addr,
            port: U16::new(id.port),
            io_addr: id.io_addr,
            io_port: U16::new(id.io_port),
            pad: [0; 4],
        }
    }
}

/// The layout of protocol 15.1.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawNode {
    tree: [u8; 24],
    id: RawNodeId,
    nr_vnodes: U16,
    pad: [u8; 2],
    zone: U32,
    space: U64,
}

const _: () = assert!(size_of::<RawNode>() == NODE_LEN);

impl From<RawNode> for Node {
    fn from(raw: RawNode) -> Self {
        Self {
            id: raw.id.into(),
            nr_vnodes: raw.nr_vnodes.get(),
            zone: raw.zone.get(),
            space: raw.space.get(),
        }
    }
}

impl From<Node> for RawNode {
    fn from(node: Node) -> Self {
        Self {
            tree: [0; 24],
            id: node.id.into(),
            nr_vnodes: U16::new(node.nr_vnodes),
            pad: [0; 2],
            zone: U32::new(node.zone),
            space: U64::new(node.space),
        }
    }
}
