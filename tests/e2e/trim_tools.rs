//! Tools that give space back: fio's trims with verification, `blkdiscard`, and `qemu-img`.

use crate::MIB;
use crate::cluster::Cluster;
use crate::filesystems::Loop;
use crate::mapped::MODES;
use crate::mount::Mount;
use crate::tools::{arg, run};
use crate::trimmed::objects;
use sheepfs::wire::request::NewVdi;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SIZE: u64 = 32 * MIB;
/// Small, so that fio's blocks are whole objects.
const OBJECT_SHIFT: u8 = 16;
const OBJECTS: usize = (SIZE >> OBJECT_SHIFT) as usize;

fn small_objects(cluster: &Cluster) -> String {
    let new = NewVdi { size: SIZE, block_size_shift: OBJECT_SHIFT, ..NewVdi::default() };
    cluster.vdi_with("disk", &new)
}

/// Runs fio on a device or file, which must find all that it looks for.
fn fio(target: &str, arguments: &[&str]) {
    let (target, size) = (format!("--filename={target}"), format!("--size={SIZE}"));
    let verify = ["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"];
    let common = [["--name=trimmed", &target, &size], verify].concat();
    run("fio", &[&common[..], arguments].concat());
}

/// Each block is trimmed before it is written again, at once; all are verified.
fn trims_and_verifies(options: &[&str], direct: bool) {
    let cluster = Cluster::start();
    let disk = small_objects(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, options);
    let device = Loop::over(&mount.volume(&disk), direct);
    let trims = |more: &[&str]| {
        let how = ["--rw=randtrimwrite", "--direct=1", "--ioengine=libaio", "--iodepth=16"];
        fio(device.path(), &[&how[..], &["--do_verify=1"], more].concat());
    };
    fio(device.path(), &["--rw=write", "--bs=64k", "--direct=1", "--do_verify=1"]);
    assert_eq!(objects(&cluster, &disk), OBJECTS);
    trims(&["--bs=64k"]);
    if let Cluster::Mini(sheep) = &cluster {
        assert!(sheep.served("RemoveObj") >= OBJECTS as u64, "each block was discarded");
    }
    trims(&["--bsrange=4k-256k"]);
    // Some blocks are trimmed and looked at: they are zeros.
    let zeros = ["--trim_percentage=30", "--trim_verify_zero=1", "--trim_backlog=64"];
    trims(&[&zeros[..], &["--trim_backlog_batch=16", "--bs=64k"]].concat());
    run("cmp", &[device.path(), arg(&mount.volume(&disk))]);
    fio(device.path(), &["--rw=randtrim", "--bs=64k"]);
    drop(device);
    assert_eq!(objects(&cluster, &disk), 0);
    assert!(cluster.content(&disk).iter().all(|byte| *byte == 0));
}

#[test]
fn fio_trims_and_verifies() {
    trims_and_verifies(&[], true);
}

#[test]
fn fio_trims_and_verifies_in_both_caches() {
    trims_and_verifies(&["-k", "-o"], false);
}

/// Without a loop device: fio's engine for that punches holes.
#[test]
fn fio_punches_holes_in_a_volume() {
    for options in MODES {
        let cluster = Cluster::start();
        let disk = small_objects(&cluster);
        let mount = Mount::with_volume(&cluster, &disk, options);
        let volume = mount.volume(&disk);
        fio(arg(&volume), &["--rw=write", "--bs=64k", "--do_verify=1"]);
        assert_eq!(objects(&cluster, &disk), OBJECTS);
        fio(arg(&volume), &["--rw=randtrim", "--bs=128k", "--ioengine=falloc"]);
        assert_eq!(objects(&cluster, &disk), 0);
        assert!(fs::read(&volume).unwrap().iter().all(|byte| *byte == 0));
    }
}

/// Parts of a loop device, discarded and zeroed.
#[test]
fn blkdiscard_takes_what_it_is_told_and_no_more() {
    for (options, direct) in [(&[][..], true), (&["-k", "-o"], false)] {
        let cluster = Cluster::start();
        let disk = small_objects(&cluster);
        let mount = Mount::with_volume(&cluster, &disk, options);
        mount.open(&disk).write_all_at(&vec![9; SIZE as usize], 0).unwrap();
        let device = Loop::over(&mount.volume(&disk), direct);
        let (four, eight) = ((4 << 20).to_string(), (8 << 20).to_string());
        run("blkdiscard", &["-o", &four, "-l", &eight, device.path()]);
        assert_eq!(objects(&cluster, &disk), OBJECTS - (8 << 20 >> OBJECT_SHIFT));
        run("blkdiscard", &["-z", "-o", "20976128", "-l", "4096", device.path()]);
        let mut expected = vec![9; SIZE as usize];
        expected[4 << 20..12 << 20].fill(0);
        expected[20_976_128..][..4096].fill(0);
        assert!(fs::read(device.path()).unwrap() == expected);
        drop(device);
        assert!(cluster.content(&disk) == expected);
    }
}

/// An image that holds something at its begin and at its end.
fn sparse_image(path: &Path) {
    let size = SIZE.to_string();
    run("qemu-img", &["create", "-q", "-f", "qcow2", arg(path), &size]);
    let writes = ["-c", "write -P 1 0 1M", "-c", "write -P 2 31M 1M"];
    run("qemu-io", &[&["-f", "qcow2"], &writes[..], &[arg(path)]].concat());
}

#[test]
fn an_image_with_holes_frees_what_was_there() {
    for options in MODES {
        let cluster = Cluster::start();
        let disk = small_objects(&cluster);
        let mount = Mount::with_volume(&cluster, &disk, options);
        let (volume, image) = (mount.volume(&disk), mount.scratch().join("sparse.qcow2"));
        mount.open(&disk).write_all_at(&vec![9; SIZE as usize], 0).unwrap();
        sparse_image(&image);
        run("qemu-img", &["convert", "-n", "-O", "raw", arg(&image), arg(&volume)]);
        run("qemu-img", &["compare", "-F", "raw", arg(&image), arg(&volume)]);
        assert_eq!(objects(&cluster, &disk), 2 << 20 >> OBJECT_SHIFT);
        let mut expected = vec![0; SIZE as usize];
        expected[..1 << 20].fill(1);
        expected[31 << 20..].fill(2);
        assert!(cluster.content(&disk) == expected);
    }
}

/// What a guest's discards, and zeros that may be unmapped, become.
#[test]
fn qemu_discards_and_unmaps_zeros() {
    for options in MODES {
        let cluster = Cluster::start();
        let disk = small_objects(&cluster);
        let mount = Mount::with_volume(&cluster, &disk, options);
        let volume = mount.volume(&disk);
        let commands =
            ["write -P 5 0 32M", "discard 4M 8M", "write -z -u 16M 4M", "write -z 24M 2M"];
        let commands: Vec<_> = commands.iter().flat_map(|command| ["-c", command]).collect();
        run("qemu-io", &[&["-f", "raw", "-d", "unmap"], &commands[..], &[arg(&volume)]].concat());
        let left = objects(&cluster, &disk);
        assert_eq!(left, OBJECTS - (14 << 20 >> OBJECT_SHIFT), "with {options:?}");
        let mut expected = vec![5; SIZE as usize];
        for (from, to) in [(4, 12), (16, 20), (24, 26)] {
            expected[from << 20..to << 20].fill(0);
        }
        assert!(cluster.content(&disk) == expected);
    }
}
