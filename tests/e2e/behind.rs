//! Somebody else's snapshot that the volume does not know of yet, when something else is done
//! with its VDI here.

use crate::MIB;
use crate::cluster::Cluster;
use crate::life::done;
use crate::mount::Mount;
use crate::random::Random;
use sheepfs::wire::request::NewVdi;
use std::fs;
use std::os::unix::fs::FileExt;

/// The index entries that the server lost by the other snapshot are in ours.
#[test]
fn a_snapshot_has_what_the_server_lost_by_another_one() {
    let cluster = Cluster::mini();
    let new = NewVdi { size: 16 * MIB, block_size_shift: 20, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let file = mount.open(&disk);
    // It comes with the last entry, so that no write of data is refused after it.
    let fault = cluster.minisheep().fault("snapshot disk one kind=inode after=11 lose=6");
    let mut expected = vec![0; 16 << 20];
    for block in 0..12_u64 {
        let data = Random::seeded(block).bytes(10_000);
        file.write_all_at(&data, block * MIB + 100).unwrap();
        expected[(block * MIB) as usize + 100..][..10_000].copy_from_slice(&data);
    }
    assert_eq!(cluster.minisheep().fired(&fault), 1);
    assert!(cluster.content(&disk) != expected, "nothing was lost");
    done(&mount, "snapshot", "disk two");
    mount.attach("disk:two");
    assert!(fs::read(mount.volume("disk:two")).unwrap() == expected, "the snapshot lacks writes");
    file.write_all_at(b"later", 15 * MIB).unwrap();
    expected[15 << 20..][..5].copy_from_slice(b"later");
    assert!(fs::read(mount.volume(&disk)).unwrap() == expected);
    assert!(cluster.content(&disk) == expected);
}
