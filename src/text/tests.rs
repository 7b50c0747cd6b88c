//! Corners of the formats that no recording shows.

use jiff::tz::{self, TimeZone};

use super::report::VdiReport;
use super::*;
use crate::wire::cluster::{BlockUsage, ClusterFlags, NodeId};
use crate::wire::inode::InodeHeader;

fn node(address: &str) -> Node {
    let id = NodeId::new(address.parse().unwrap());
    Node { id, nr_vnodes: 128, zone: 0xc8a8_a8c0, space: 1 }
}

fn epoch_record() -> EpochRecord {
    EpochRecord {
        ctime: 1_795_314_444 << 32 | 17,
        time: 1_795_314_444,
        epoch: 1_234_567,
        disable_recovery: true,
        nr_copies: 3,
        copy_policy: 0,
        flags: ClusterFlags::default(),
        store: [0; 16],
        nodes: vec![node("127.0.0.1:7000"), node("[fe80::1]:7001")],
    }
}

fn vdi(name: &[u8], tag: &[u8]) -> VdiReport {
    let header = InodeHeader {
        name: name.to_vec(),
        tag: tag.to_vec(),
        create_time: 1_795_314_444 << 32,
        snap_ctime: 0,
        vdi_size: 10 << 30,
        copy_policy: 0,
        store_policy: 0,
        nr_copies: 3,
        block_size_shift: 22,
        snap_id: 2,
        vdi_id: 0xab,
        parent_vdi_id: 0xcd,
    };
    VdiReport { header, usage: BlockUsage { own: 3, shared: 0 } }
}

fn line(report: VdiReport) -> Vec<u8> {
    let text = vdi_list(&[report], &TimeZone::UTC);
    text.split_inclusive(|byte| *byte == b'\n').nth(1).unwrap().to_vec()
}

#[test]
fn sizes_change_unit_at_1024_and_precision_at_10() {
    let mib = |mib: u64| size_text(mib << 20);
    assert_eq!(
        [size_text(0), size_text(52_428), size_text(52_429)],
        ["0.0 MB", "0.0 MB", "0.1 MB"]
    );
    assert_eq!([mib(1), mib(9), mib(10), mib(1023)], ["1.0 MB", "9.0 MB", "10 MB", "1023 MB"]);
    assert_eq!([mib(1024), mib(1536), mib(10 << 10)], ["1.0 GB", "1.5 GB", "10 GB"]);
    assert_eq!([mib(1 << 20), mib(1 << 30), mib(1 << 40)], ["1.0 TB", "1.0 PB", "1.0 EB"]);
    assert_eq!(size_text(u64::MAX), "16 EB");
}

/// C rounds ties to the even neighbour, and rounds before it looks at the width.
#[test]
fn sizes_round_as_c_does() {
    let halves = |halves: u64| size_text(halves << 19);
    assert_eq!([halves(21), halves(23)], ["10 MB", "12 MB"]);
    let quarters = |quarters: u64| size_text(quarters << 18);
    assert_eq!([quarters(1), quarters(3), quarters(5)], ["0.2 MB", "0.8 MB", "1.2 MB"]);
    assert_eq!(size_text((10 << 20) - 1), "10.0 MB");
}

#[test]
fn a_percentage_is_cut_as_a_floating_point_number_is() {
    assert_eq!(
        [percent(29, 100), percent(99, 100), percent(1, 1), percent(7, 0)],
        [28, 99, 100, 0]
    );
}

#[test]
fn cluster_info_speaks_local_time_and_of_recovery() {
    let report = ClusterReport { status: 0, epochs: vec![epoch_record()] };
    let text = cluster_info(&report, &tz::offset(-14).to_time_zone());
    let expected = "Cluster status: running, auto-recovery disabled\n\n\
        Cluster created at Sat Nov 21 12:27:24 2026\n\n\
        Epoch Time           Version [Host:Port:V-Nodes,,,]\n\
        2026-11-21 12:27:24 1234567 [127.0.0.1:7000:128, fe80::1:7001:128]\n";
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn a_day_below_10_is_padded_with_a_blank() {
    let record = EpochRecord { ctime: 86_400 << 32, ..epoch_record() };
    let report = ClusterReport { status: 0, epochs: vec![record] };
    let text = String::from_utf8(cluster_info(&report, &TimeZone::UTC)).unwrap();
    assert!(text.contains("Cluster created at Fri Jan  2 00:00:00 1970\n\n"), "{text}");
}

#[test]
fn times_without_a_date_do_no_harm() {
    let record = EpochRecord { ctime: u64::MAX, time: u64::MAX, ..epoch_record() };
    let report = ClusterReport { status: 0, epochs: vec![record] };
    for hours in [-25, 0, 25] {
        let zone = tz::offset(hours).to_time_zone();
        let text = String::from_utf8(cluster_info(&report, &zone)).unwrap();
        assert!(text.contains("\n9999-12-"), "{text}");
    }
}

#[test]
fn states_have_the_words_of_dog() {
    let status = |status| {
        let text = cluster_info(&ClusterReport { status, epochs: Vec::new() }, &TimeZone::UTC);
        String::from_utf8(text).unwrap()
    };
    assert_eq!(status(0x11), "Cluster status: System is shutting down\n\n");
    assert_eq!(status(0x06), "Cluster status: System error\n\n");
    assert_eq!(status(0xf1), "Cluster status: Invalid error code f1\n\n");
}

#[test]
fn zones_are_unsigned_and_long_addresses_push() {
    let nodes = vec![node("192.168.168.200:7000"), node("[2001:db8:1:2:3:4:5:6]:7000")];
    let text = String::from_utf8(node_list(&NodeReport { nodes })).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "   0   192.168.168.200:7000\t128 3366496448");
    assert_eq!(lines[2], "   1   2001:db8:1:2:3:4:5:6:7000\t128 3366496448");
}

#[test]
fn nodes_that_do_not_answer_are_neither_numbered_nor_counted() {
    let space = |size: u64, free: u64| Some(StoreSpace { size: size << 30, free: free << 30 });
    let nodes = vec![space(10, 5), None, space(30, 10)];
    let text = node_info(&SpaceReport { nodes, virtual_bytes: 5 << 40 });
    let expected = "Id\tSize\tUsed\tAvail\tUse%\n\
        \x200\t10 GB\t5.0 GB\t5.0 GB\t 50%\n\
        \x201\t30 GB\t20 GB\t10 GB\t 66%\n\
        Total\t40 GB\t25 GB\t15 GB\t 62%\n\n\
        Total virtual image size\t5.0 TB\n";
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn a_node_that_claims_more_free_than_there_is_does_no_harm() {
    let nodes = vec![Some(StoreSpace { size: 1, free: u64::MAX }); 2];
    let text = node_info(&SpaceReport { nodes, virtual_bytes: u64::MAX });
    assert!(String::from_utf8(text).unwrap().contains("Total\t0.0 MB\t0.0 MB\t16 EB\t  0%\n"));
}

#[test]
fn names_and_tags_are_printed_as_the_bytes_they_are() {
    let expected = b"  \xff\xfe           0   10 GB   12 MB  0.0 MB 2026-11-22 02:27       ab      3             \xe9  22\n";
    assert_eq!(line(vdi(b"\xff\xfe", b"\xe9")), expected);
}

#[test]
fn long_names_and_tags_push_the_line() {
    let expected = b"  a-long-name     0   10 GB   12 MB  0.0 MB 2026-11-22 02:27       ab      3 fourteen-bytes  22\n";
    assert_eq!(line(vdi(b"a-long-name", b"fourteen-bytes")), expected);
}

#[test]
fn snapshots_and_clones_are_marked() {
    let mut report = vdi(b"v", b"");
    assert_eq!(line(report.clone())[0], b' ', "second generation of a name");
    report.header.snap_id = 1;
    assert_eq!(line(report.clone())[0], b'c');
    report.header.snap_ctime = 1;
    assert_eq!(line(report.clone())[0], b's', "first snapshot of a clone");
    report.header.parent_vdi_id = 0;
    assert_eq!(line(report.clone())[0], b's');
    report.header.snap_id = 12;
    assert!(
        line(report).starts_with(b"s v           12   10 GB"),
        "a later snapshot and its number"
    );
}

#[test]
fn an_object_size_from_nowhere_does_no_harm() {
    let mut report = vdi(b"v", b"");
    report.header.block_size_shift = 255;
    report.header.copy_policy = 0x2f;
    let text = String::from_utf8(line(report)).unwrap();
    assert!(text.contains("  16 EB  0.0 MB "), "{text}");
    assert!(text.contains("   4:15 "), "{text}");
}

#[test]
fn facts_are_lines_that_scripts_can_take() {
    let zone = tz::offset(1).to_time_zone();
    let mut report = vdi(b"disk", b"next");
    let line =
        |fact, report: &VdiReport| String::from_utf8(vdi_fact(fact, report, None, &zone)).unwrap();
    assert_eq!(line(VdiFact::Vid, &report), "ab\n");
    assert_eq!(line(VdiFact::Size, &report), "10737418240\n");
    assert_eq!(line(VdiFact::Used, &report), "12582912\n");
    assert_eq!(line(VdiFact::Created, &report), "2026-11-22 03:27:24 +0100\n");
    assert_eq!([VdiFact::Tag, VdiFact::Frozen].map(|fact| line(fact, &report)), ["\n", "\n"]);
    assert_eq!(line(VdiFact::Id, &report), "0\n");
    assert_eq!(line(VdiFact::Parent, &report), "cd\n", "its name is not known");
    let parent = InodeHeader { snap_id: 7, name: b"base".to_vec(), ..report.header.clone() };
    let text = vdi_fact(VdiFact::Parent, &report, Some(&parent), &zone);
    assert_eq!(text, b"cd base:7\n");
    report.header.snap_ctime = 1_795_314_445 << 32;
    report.header.parent_vdi_id = 0;
    report.header.copy_policy = 0x21;
    let facts = [VdiFact::Tag, VdiFact::Frozen, VdiFact::Id, VdiFact::Parent, VdiFact::Copies];
    let lines = facts.map(|fact| line(fact, &report));
    assert_eq!(lines, ["next\n", "2026-11-22 03:27:25 +0100\n", "2\n", "\n", "4:1\n"]);
}
