//! What the recordings do not show: limits, rubbish, and that no bytes make a decoder panic.

use proptest::prelude::*;

use super::*;
use crate::wire::inode::{INDEX_ENTRIES, InodeHeader};
use crate::wire::oid::{ObjectId, VdiId};

fn id(address: &str) -> NodeId {
    NodeId::new(address.parse().unwrap())
}

fn node(address: &str) -> Node {
    Node { id: id(address), nr_vnodes: 128, zone: 7, space: 1 << 40 }
}

fn vid(raw: u32) -> VdiId {
    VdiId::new(raw).unwrap()
}

fn epoch_record(nodes: Vec<Node>) -> EpochRecord {
    EpochRecord {
        ctime: 5 << 32 | 6,
        time: 5,
        epoch: 9,
        disable_recovery: true,
        nr_copies: 3,
        copy_policy: 0x12,
        flags: ClusterFlags(0x14),
        store: *b"plain\0\0\0\0\0\0\0\0\0\0\0",
        nodes,
    }
}

fn cluster_info() -> ClusterInfo {
    ClusterInfo {
        proto_ver: 10,
        disable_recovery: true,
        epoch: 3,
        ctime: 1,
        flags: ClusterFlags(0x0c),
        nr_copies: 2,
        copy_policy: 0x12,
        status: ClusterStatus::Killed,
        block_size_shift: 23,
        store: *b"tree\0\0\0\0\0\0\0\0\0\0\0\0",
        nodes: vec![node("10.0.0.1:7000"), node("[fe80::1]:7001")],
    }
}

fn vdi_state(lock: Lock) -> VdiState {
    VdiState {
        vid: 0xab_cdef,
        nr_copies: 3,
        snapshot: true,
        deleted: true,
        copy_policy: 0x12,
        block_size_shift: 20,
        parent_vid: 5,
        lock,
    }
}

fn count_error<T>(result: Result<T, LayoutError>) -> bool {
    matches!(result, Err(LayoutError::Count { .. }))
}

fn length_error<T>(result: Result<T, LayoutError>) -> bool {
    matches!(result, Err(LayoutError::Length { .. }))
}

fn value_error<T>(result: Result<T, LayoutError>) -> bool {
    matches!(result, Err(LayoutError::Value { .. }))
}

#[test]
fn addresses_are_shown_and_dialled_as_dog_does() {
    for address in ["127.0.0.1:7000", "[fe80::1]:7000", "[::1]:1"] {
        assert_eq!(id(address).socket_addr(), address.parse().unwrap());
    }
    assert_eq!(id("127.0.0.1:7000").to_string(), "127.0.0.1:7000");
    assert_eq!(id("[fe80::1]:7000").to_string(), "fe80::1:7000");
    assert_eq!(id("10.0.0.1:0").to_string(), "10.0.0.1");
    assert_eq!(id("[::ffff:10.0.0.1]:1").to_string(), "::ffff:10.0.0.1:1");
    assert_eq!(id("0.0.0.1:1").to_string(), "::1:1", "byte 12 is 0, so this is not IPv4");
}

#[test]
fn an_id_has_its_fields_at_their_places() {
    let io_addr = [9; 16];
    let bytes = NodeId { io_addr, io_port: 0x0304, ..id("1.2.3.4:258") }.encode();
    assert_eq!(bytes[..18], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 2, 1]);
    assert_eq!((&bytes[18..34], &bytes[34..]), (&io_addr[..], &[4, 3, 0, 0, 0, 0][..]));
}

#[test]
fn a_node_list_must_have_as_many_nodes_as_it_says() {
    let nodes = vec![node("10.0.0.1:7000"), node("10.0.0.2:7000")];
    let bytes = encode_nodes(&nodes);
    assert_eq!(decode_nodes(&bytes, 2).unwrap(), nodes);
    assert_eq!(decode_nodes(&[], 0).unwrap(), Vec::new());
    assert!(length_error(decode_nodes(&bytes, 1)));
    assert!(length_error(decode_nodes(&bytes, 3)));
    assert!(length_error(decode_nodes(&bytes, 0)));
    assert!(count_error(decode_nodes(&bytes, u32::MAX)));
}

#[test]
fn nodes_of_a_server_with_disks_are_understood() {
    let nodes = vec![node("10.0.0.1:7000"), node("10.0.0.2:7000")];
    let with_disks = |node: &Node| [&node.encode()[..], &[0xee; 512]].concat();
    let bytes: Vec<u8> = nodes.iter().flat_map(with_disks).collect();
    assert_eq!(decode_nodes(&bytes, 2).unwrap(), nodes);
}

#[test]
fn cluster_infos_are_checked() {
    let bytes = cluster_info().encode();
    assert_eq!(bytes.len(), CLUSTER_INFO_LEN);
    assert_eq!(ClusterInfo::decode(&bytes), Ok(cluster_info()));
    assert!(length_error(ClusterInfo::decode(&bytes[1..])));
    let changed = |at: usize, value: [u8; 2]| {
        let mut bytes = bytes.clone();
        bytes[at..at + 2].copy_from_slice(&value);
        ClusterInfo::decode(&bytes)
    };
    assert!(count_error(changed(2, [0xff, 0xff])), "-1 nodes");
    assert!(count_error(changed(2, 6145_u16.to_le_bytes())));
    assert_eq!(changed(2, 6144_u16.to_le_bytes()).unwrap().nodes.len(), 6144);
    assert!(value_error(changed(20, [0, 22])), "status 0");
}

#[test]
fn more_nodes_than_fit_are_left_out() {
    let info = ClusterInfo { nodes: vec![node("10.0.0.1:7000"); 7000], ..cluster_info() };
    assert_eq!(ClusterInfo::decode(&info.encode()).unwrap().nodes.len(), NODES_MAX);
    let mut bytes = Vec::new();
    epoch_record(info.nodes).encode_into(2, &mut bytes);
    assert_eq!(EpochRecord::decode_all(&bytes, 2).unwrap()[0].nodes.len(), 2);
}

#[test]
fn epoch_records_follow_each_other_with_room_for_nodes() {
    let records = [epoch_record(vec![node("10.0.0.1:7000")]), epoch_record(Vec::new())];
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.encode_into(3, &mut bytes));
    assert_eq!(bytes.len(), 2 * (48 + 3 * 80));
    assert_eq!(EpochRecord::decode_all(&bytes, 3).unwrap(), records);
    assert!(length_error(EpochRecord::decode_all(&bytes[1..], 3)));
    assert!(count_error(EpochRecord::decode_all(&bytes, u32::MAX)));
    assert_eq!(EpochRecord::decode_all(&[], 3), Ok(Vec::new()));
    bytes[20] = 4;
    assert!(count_error(EpochRecord::decode_all(&bytes, 3)), "four nodes in room for three");
}

#[test]
fn flags_are_told_apart() {
    let flags = ClusterFlags(0x14);
    assert!(flags.contains(ClusterFlags::RECYCLE_VID) && flags.contains(ClusterFlags::AUTO_VNODES));
    assert!(!flags.contains(ClusterFlags::USE_LOCK) && !flags.contains(ClusterFlags(0x18)));
}

#[test]
fn locks_survive_both_ways() {
    let (a, b) = (id("10.0.0.1:7000"), id("10.0.0.2:7000"));
    let shared = vec![(a, ShareState::Modified), (b, ShareState::Invalidated)];
    for lock in [Lock::Unlocked, Lock::Locked(a), Lock::Shared(shared)] {
        let state = vdi_state(lock);
        assert_eq!(VdiState::decode(&state.encode()), Ok(state));
    }
}

#[test]
fn locks_are_checked() {
    let sharers = vec![(id("10.0.0.1:7000"), ShareState::Shared); 40];
    let bytes = vdi_state(Lock::Shared(sharers)).encode();
    let Lock::Shared(kept) = VdiState::decode(&bytes).unwrap().lock else { panic!("shared") };
    assert_eq!(kept.len(), PARTICIPANTS_MAX);
    let changed = |at: usize, value: u8| {
        let mut bytes = bytes;
        bytes[at] = value;
        VdiState::decode(&bytes)
    };
    assert!(value_error(changed(16, 4)), "lock state 4");
    assert!(count_error(changed(60, 32)), "32 participants");
    assert!(value_error(changed(64, 0)), "participant in state 0");
    assert!(length_error(VdiState::decode_all(&bytes[..1427])));
    assert_eq!(VdiState::decode_all(&[]), Ok(Vec::new()));
}

#[test]
fn a_bitmap_is_a_set_of_vids() {
    let members = [1, 63, 64, 65, 0x70_9128, 0xff_ffff].map(vid);
    let mut bitmap = VdiBitmap::new();
    members.iter().rev().for_each(|vid| bitmap.insert(*vid));
    assert_eq!(bitmap.as_bytes()[0x70_9128 >> 3], 1, "bit v & 7 of byte v >> 3");
    assert_eq!(bitmap.iter().collect::<Vec<_>>(), members);
    assert!(bitmap.contains(vid(64)) && !bitmap.contains(vid(66)));
    let mut deleted = VdiBitmap::new();
    [2, 64, 0xff_ffff].into_iter().for_each(|raw| deleted.insert(vid(raw)));
    let left: Vec<_> = bitmap.without(&deleted).collect();
    assert_eq!(left, [1, 63, 65, 0x70_9128].map(vid));
    bitmap.remove(vid(1));
    assert!(!bitmap.contains(vid(1)));
}

#[test]
fn vid_0_is_nobody_and_lengths_are_exact() {
    let bitmap = VdiBitmap::decode(vec![0xff; VDI_BITMAP_LEN]).unwrap();
    assert_eq!(bitmap.iter().count(), (1 << 24) - 1);
    assert!(length_error(VdiBitmap::decode(vec![0; VDI_BITMAP_LEN - 1])));
    assert!(length_error(VdiBitmap::decode(Vec::new())));
}

#[test]
fn pieces_of_an_index_add_up() {
    let index: Vec<u8> = [5_u32, 0, 6, 5, 7, 5].iter().flat_map(|e| e.to_le_bytes()).collect();
    let whole = BlockUsage::of_index(&index, vid(5));
    assert_eq!(whole, BlockUsage { own: 3, shared: 2 });
    let mut sum = BlockUsage::of_index(&index[..8], vid(5));
    sum += BlockUsage::of_index(&index[8..], vid(5));
    assert_eq!(sum, whole);
    assert_eq!(BlockUsage::of_index(&index[..7], vid(5)), BlockUsage { own: 1, shared: 0 });
}

#[test]
fn only_blocks_within_the_size_are_covered() {
    let entries = |vdi_size, block_size_shift| {
        let zeros = InodeHeader::decode(&[0; 4664]).unwrap();
        covered_entries(&InodeHeader { vdi_size, block_size_shift, ..zeros })
    };
    assert_eq!([entries(0, 22), entries(1, 22), entries(4 << 20, 22)], [0, 1, 1]);
    assert_eq!([entries((4 << 20) + 1, 22), entries(4 << 40, 22)], [2, INDEX_ENTRIES]);
    assert_eq!([entries(u64::MAX, 0), entries(u64::MAX, 255)], [INDEX_ENTRIES, 1]);
}

/// A B-tree node: magic number, depth, entries, then words.
fn tree(magic: u16, depth: u16, entries: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = [magic.to_le_bytes(), depth.to_le_bytes()].concat();
    bytes.extend_from_slice(&entries.to_le_bytes());
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

#[test]
fn trees_are_counted() {
    let usage = |bytes: &[u8]| TreeUsage::of_node(bytes, vid(5));
    let leaf = tree(0x6274, 1, 4, &[0, 5, 1, 6, 9, 0, 10, 5, 11, 5]);
    assert_eq!(usage(&leaf), Ok(TreeUsage::Leaf(BlockUsage { own: 2, shared: 1 })));
    assert_eq!(TreeHead::decode(&leaf).unwrap().used_len(), 40);
    let root = tree(0x6274, 2, 2, &[7, 0xbad, 0, 0x1000_0005, 9, 0xbad, 1, 0x1000_0005]);
    let leaves = [0x1000_0005_0000_0000, 0x1000_0005_0000_0001].map(ObjectId::from_raw);
    assert_eq!(usage(&root), Ok(TreeUsage::Root(leaves.to_vec())));
    assert_eq!(usage(&[0; 8]), Ok(TreeUsage::Leaf(BlockUsage::default())));
}

#[test]
fn damaged_trees_are_refused() {
    let usage = |bytes: &[u8]| TreeUsage::of_node(bytes, vid(5));
    assert!(length_error(usage(&[0; 7])));
    assert!(value_error(usage(&tree(0x6275, 1, 0, &[]))));
    assert!(value_error(usage(&tree(0x6274, 3, 0, &[]))));
    assert!(length_error(usage(&tree(0x6274, 1, 2, &[0, 5, 1]))));
    assert!(length_error(usage(&tree(0x6274, 1, 524_287, &[]))));
    assert!(count_error(usage(&tree(0x6274, 1, 524_288, &[]))));
    assert!(count_error(usage(&tree(0x6274, 2, 262_144, &[]))));
}

/// Any bytes, of the length of one or more records as often as not.
fn bytes(record: usize) -> impl Strategy<Value = Vec<u8>> {
    let odd = proptest::collection::vec(any::<u8>(), 0..3000);
    let even =
        (1..4_usize).prop_flat_map(move |n| proptest::collection::vec(any::<u8>(), n * record));
    prop_oneof![odd, even]
}

proptest! {
    #[test]
    fn any_node_survives(bytes in bytes(NODE_LEN), claimed in 0..4_u32) {
        for nr_nodes in [claimed, u32::try_from(bytes.len() / NODE_LEN).unwrap()] {
            if let Ok(nodes) = decode_nodes(&bytes, nr_nodes) {
                prop_assert_eq!(decode_nodes(&encode_nodes(&nodes), nr_nodes), Ok(nodes));
            }
        }
        prop_assert_eq!(NodeId::decode(&bytes).is_ok(), bytes.len() == NODE_ID_LEN);
        prop_assert_eq!(Node::decode(&bytes).is_ok(), bytes.len() == NODE_LEN);
    }

    #[test]
    fn any_epoch_record_survives(mut bytes in bytes(48 + 2 * 80), nodes_nr in 0..4_u32, n: Option<u8>) {
        if let (Some(n), Some(count)) = (n, bytes.get_mut(20..24)) {
            count.copy_from_slice(&u32::from(n % 4).to_le_bytes());
        }
        if let Ok(records) = EpochRecord::decode_all(&bytes, nodes_nr) {
            let mut again = Vec::new();
            records.iter().for_each(|record| record.encode_into(nodes_nr as usize, &mut again));
            prop_assert_eq!(EpochRecord::decode_all(&again, nodes_nr), Ok(records));
        }
    }

    #[test]
    fn any_vdi_state_survives(mut bytes in bytes(VDI_STATE_LEN), lock in 0..5_u8, sharers in 0..33_u8) {
        for record in bytes.chunks_exact_mut(VDI_STATE_LEN) {
            record[16..20].copy_from_slice(&[lock, 0, 0, 0]);
            record[60..64].copy_from_slice(&[sharers, 0, 0, 0]);
            record[64..188].as_chunks_mut::<4>().0.iter_mut().for_each(|s| *s = [s[0] % 4, 0, 0, 0]);
        }
        if let Ok(states) = VdiState::decode_all(&bytes) {
            let again: Vec<u8> = states.iter().flat_map(VdiState::encode).collect();
            prop_assert_eq!(VdiState::decode_all(&again), Ok(states));
        }
    }

    #[test]
    fn any_tree_node_is_counted_or_refused(mut bytes in bytes(64), magic: bool, entries in 0..12_u8) {
        if let (true, Some(head)) = (magic, bytes.get_mut(..8)) {
            head.copy_from_slice(&[0x74, 0x62, head[2] % 4, 0, entries, 0, 0, 0]);
        }
        let head = TreeHead::decode(&bytes);
        let usage = TreeUsage::of_node(&bytes, vid(1));
        let whole = head.is_ok_and(|head| head.used_len() <= bytes.len());
        prop_assert_eq!(usage.is_ok(), whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_cluster_info_survives(head: [u8; 48], node in proptest::collection::vec(any::<u8>(), 80), tame: bool) {
        let mut bytes = head.to_vec();
        if tame {
            bytes[2..4].copy_from_slice(&[head[2], head[3] % 24]);
            bytes[20] = head[20] % 5;
        }
        bytes.extend(node.iter().cycle().take(CLUSTER_INFO_LEN - 48));
        if let Ok(info) = ClusterInfo::decode(&bytes) {
            prop_assert_eq!(ClusterInfo::decode(&info.encode()), Ok(info));
        }
    }
}
