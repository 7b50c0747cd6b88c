//! Where an object's replicas live (protocol 15.9): the ring of a node list.
//!
//! The cluster tells nobody where an object is; every node computes it, and so can a
//! client. Each node stands on a ring of 64-bit values as often as it has virtual nodes;
//! an object's replicas are the next nodes from its own value on, no two in one zone.
//!
//! A ring is what one node list says. While nodes join or leave, an object may still be
//! on its way to where the newest ring puts it; any node serves any object, so a holder
//! that was guessed wrong only costs the hop that was to be saved.

use super::ObjectId;
use super::cluster::Node;
use super::oid::{fnv1a, fnv1a_from};
use thiserror::Error;

/// The most replicas the ring is asked for; the original allows 31 copies.
pub const HOLDERS_MAX: usize = 31;
/// The most virtual nodes of a ring, 10 bytes each. A cluster of the most nodes there can
/// be has 128 times 6,144 of them.
pub const POINTS_MAX: usize = 1 << 20;

/// Bytes of a node id that count for the ring: address and port, not the I/O address.
const KEY_LEN: usize = 18;

/// A node list from which no ring can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RingError {
    /// More virtual nodes than a cluster has: a list that is not believed.
    #[error("the node list has {found} virtual nodes, a ring takes {POINTS_MAX}")]
    Points {
        /// How many there are.
        found: usize,
    },
    /// More nodes than can be numbered.
    #[error("the node list has {found} nodes, a ring takes {}", u16::MAX)]
    Nodes {
        /// How many there are.
        found: usize,
    },
}

/// The ring of a node list. Nodes are known by their place in that list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// The values of all virtual nodes, sorted.
    values: Vec<u64>,
    /// Which node stands at the value of the same place.
    nodes: Vec<u16>,
    /// The zone of each node.
    zones: Vec<u32>,
    /// How many zones have a virtual node.
    zone_count: usize,
}

/// The nodes that hold an object, in the cluster's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holders {
    nodes: [u16; HOLDERS_MAX],
    len: usize,
}

impl Ring {
    /// The ring of a whole node list.
    ///
    /// # Errors
    /// A list that no cluster has.
    pub fn new(nodes: &[Node]) -> Result<Self, RingError> {
        if nodes.len() > usize::from(u16::MAX) {
            return Err(RingError::Nodes { found: nodes.len() });
        }
        let found = nodes.iter().map(|node| usize::from(node.nr_vnodes)).sum();
        if found > POINTS_MAX {
            return Err(RingError::Points { found });
        }
        let mut points = Vec::with_capacity(found);
        for (number, node) in (0..=u16::MAX).zip(nodes) {
            points.extend(points_of(node).map(|value| (value, number)));
        }
        points.sort_unstable();
        let mut zones: Vec<_> =
            nodes.iter().filter(|node| node.nr_vnodes > 0).map(|node| node.zone).collect();
        zones.sort_unstable();
        zones.dedup();
        Ok(Self {
            values: points.iter().map(|(value, _)| *value).collect(),
            nodes: points.iter().map(|(_, node)| *node).collect(),
            zones: nodes.iter().map(|node| node.zone).collect(),
            zone_count: zones.len(),
        })
    }

    /// Who holds a replicated object of so many copies: as many nodes, or fewer when
    /// there are fewer zones.
    #[must_use]
    pub fn holders(&self, oid: ObjectId, copies: u8) -> Holders {
        let mut holders = Holders { nodes: [0; HOLDERS_MAX], len: 0 };
        let wanted = usize::from(copies).min(self.zone_count).min(HOLDERS_MAX);
        let first = self.values.partition_point(|value| *value < value_of(oid));
        let (before, behind) = self.nodes.split_at(first);
        for node in behind.iter().chain(before) {
            if holders.len == wanted {
                break;
            }
            let zone = |node: &u16| self.zones.get(usize::from(*node));
            if holders.as_slice().iter().all(|held| zone(held) != zone(node)) {
                holders.nodes[holders.len] = *node;
                holders.len += 1;
            }
        }
        holders
    }

    /// Whether no node of the list holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl Holders {
    /// Places in the node list of which the ring was made; the first replica's first.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        &self.nodes[..self.len]
    }
}

/// The next value of the ring's sequence.
fn next(value: u64) -> u64 {
    fnv1a_from(&value.to_le_bytes(), value)
}

fn points_of(node: &Node) -> impl Iterator<Item = u64> {
    let first = next(fnv1a(&node.id.encode()[..KEY_LEN]));
    std::iter::successors(Some(next(first)), |value| Some(next(*value)))
        .take(usize::from(node.nr_vnodes))
}

fn value_of(oid: ObjectId) -> u64 {
    next(fnv1a(&oid.raw().to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cluster::NodeId;
    use std::net::SocketAddr;

    fn node(number: u16, nr_vnodes: u16, zone: u32) -> Node {
        let [high, low] = number.to_be_bytes();
        let id = NodeId::new(SocketAddr::from(([10, 0, high, low], 7000)));
        Node { id, nr_vnodes, zone, space: 1 << 40 }
    }

    fn objects() -> impl Iterator<Item = ObjectId> {
        (0..2_000).map(|index| ObjectId::from_raw(0x0070_9128_0000_0000 | index))
    }

    #[test]
    fn a_ring_of_nobody_has_no_holders() {
        for nodes in [vec![], vec![node(1, 0, 1), node(2, 0, 2)]] {
            let ring = Ring::new(&nodes).unwrap();
            assert!(ring.is_empty());
            assert!(objects().all(|oid| ring.holders(oid, 3).as_slice().is_empty()));
        }
    }

    #[test]
    fn no_copies_are_held_by_nobody() {
        let ring = Ring::new(&[node(1, 128, 1)]).unwrap();
        assert!(objects().all(|oid| ring.holders(oid, 0).as_slice().is_empty()));
    }

    #[test]
    fn holders_are_of_different_zones_and_have_virtual_nodes() {
        let mut nodes: Vec<_> = (0..40).map(|n| node(n, 128, u32::from(n) / 4)).collect();
        nodes[7].nr_vnodes = 0;
        let ring = Ring::new(&nodes).unwrap();
        for oid in objects() {
            let holders = ring.holders(oid, 5);
            let mut zones: Vec<_> =
                holders.as_slice().iter().map(|held| nodes[usize::from(*held)].zone).collect();
            zones.sort_unstable();
            zones.dedup();
            assert_eq!((holders.as_slice().len(), zones.len()), (5, 5));
            assert!(!holders.as_slice().contains(&7));
        }
    }

    #[test]
    fn fewer_zones_than_copies_give_a_holder_for_each_zone() {
        let ring = Ring::new(&[node(1, 128, 1), node(2, 128, 1), node(3, 128, 2)]).unwrap();
        for oid in objects() {
            assert_eq!(ring.holders(oid, 3).as_slice().len(), 2);
        }
    }

    /// An object behind the last virtual node belongs to the first one.
    #[test]
    fn the_ring_has_no_end() {
        let nodes = [node(1, 1, 1), node(2, 1, 2)];
        let ring = Ring::new(&nodes).unwrap();
        let last = *ring.values.last().unwrap();
        let first = ring.nodes[0];
        let behind: Vec<_> = objects().filter(|oid| value_of(*oid) > last).collect();
        assert!(!behind.is_empty());
        for oid in behind {
            let holders = ring.holders(oid, 2);
            assert_eq!(holders.as_slice(), [first, 1 - first]);
        }
    }

    #[test]
    fn the_copies_asked_for_are_cut_to_what_a_cluster_can_have() {
        let nodes: Vec<_> = (0..40).map(|n| node(n, 8, n.into())).collect();
        let ring = Ring::new(&nodes).unwrap();
        let oid = ObjectId::from_raw(1 << 32);
        assert_eq!(ring.holders(oid, u8::MAX).as_slice().len(), HOLDERS_MAX);
    }

    #[test]
    fn a_thousand_nodes_share_about_alike() {
        let nodes: Vec<_> = (0..1_000).map(|n| node(n, 128, n.into())).collect();
        let ring = Ring::new(&nodes).unwrap();
        let mut held = vec![0_u32; nodes.len()];
        for index in 0..100_000 {
            let oid = ObjectId::from_raw(0x0012_3456_0000_0000 | index);
            for holder in ring.holders(oid, 3).as_slice() {
                held[usize::from(*holder)] += 1;
            }
        }
        assert!(held.iter().all(|count| (100..900).contains(count)), "{held:?}");
    }

    #[test]
    fn a_list_that_no_cluster_has_is_refused() {
        let nodes: Vec<_> = (0..17).map(|n| node(n, u16::MAX, n.into())).collect();
        assert_eq!(Ring::new(&nodes), Err(RingError::Points { found: 17 * 65_535 }));
        let nodes = vec![node(1, 0, 1); 65_536];
        assert_eq!(Ring::new(&nodes), Err(RingError::Nodes { found: 65_536 }));
    }
}
