//! The placement rule against a real cluster's node list and the stores of its nodes: five
//! nodes, three copies, two of the nodes in one zone.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/golden.rs"]
mod golden;

use serde_json::Value;
use sheepfs::wire::ObjectId;
use sheepfs::wire::cluster::decode_nodes;
use sheepfs::wire::placement::Ring;

#[test]
fn every_object_of_the_recorded_cluster_is_where_the_ring_says() {
    let recorded: Value = serde_json::from_str(include_str!("golden/placement.json")).unwrap();
    let bytes = golden::unhex(&recorded["node_list_reply_hex"]);
    let nodes = decode_nodes(&bytes, 5).unwrap();
    for (node, recorded) in nodes.iter().zip(recorded["nodes"].as_array().unwrap()) {
        let found = (node.id.port.into(), node.nr_vnodes.into(), node.zone.into(), node.space);
        let number = |name: &str| recorded[name].as_u64().unwrap();
        assert_eq!(found, (number("port"), number("nr_vnodes"), number("zone"), number("space")));
    }
    let ring = Ring::new(&nodes).unwrap();
    let copies = u8::try_from(recorded["copies"].as_u64().unwrap()).unwrap();
    let placement = recorded["placement"].as_object().unwrap();
    assert_eq!(placement.len(), 301);
    for (oid, holders) in placement {
        let oid = ObjectId::from_raw(u64::from_str_radix(oid, 16).unwrap());
        let computed = ring.holders(oid, copies);
        let computed: Vec<_> =
            computed.as_slice().iter().map(|n| u64::from(nodes[usize::from(*n)].id.port)).collect();
        let found: Vec<_> =
            holders.as_array().unwrap().iter().map(|port| port.as_u64().unwrap()).collect();
        assert_eq!(computed, found, "{oid}");
    }
}
