//! qemu's tools on a volume, and a machine that boots from one.

use crate::MIB;
use crate::boot;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::tools::{arg, run};
use std::os::unix::fs::FileExt;

const SIZE: u64 = 24 * MIB;

/// Patterns here and there: whole objects, pieces, and a last one at the very end.
const PATTERNS: [(u8, &str, &str); 4] =
    [(0x11, "0", "64k"), (0x22, "5M", "4M"), (0x33, "13M", "512"), (0x44, "25161728", "4096")];

fn qemu_io(format: &str, verb: &str, image: &str) {
    let mut arguments = vec!["-f".to_owned(), format.to_owned()];
    for (pattern, offset, len) in PATTERNS {
        arguments.extend(["-c".to_owned(), format!("{verb} -P {pattern} {offset} {len}")]);
    }
    arguments.extend(["-c".to_owned(), "flush".to_owned(), image.to_owned()]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let said = run("qemu-io", &arguments);
    assert!(!said.contains("failed"), "{said}");
}

#[test]
fn an_image_is_converted_onto_the_volume_and_back() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", SIZE);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let (image, back) = (mount.scratch().join("in.qcow2"), mount.scratch().join("out.qcow2"));
    let (image, back, volume) = (arg(&image), arg(&back), mount.volume(&disk));
    run("qemu-img", &["create", "-q", "-f", "qcow2", image, &SIZE.to_string()]);
    qemu_io("qcow2", "write", image);
    run("qemu-img", &["convert", "-n", "-O", "raw", image, arg(&volume)]);
    let equal = "Images are identical.\n";
    assert_eq!(run("qemu-img", &["compare", "-F", "raw", image, arg(&volume)]), equal);
    mount.reattach(&disk);
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", arg(&volume), back]);
    assert_eq!(run("qemu-img", &["compare", image, back]), equal);
    assert!(run("qemu-img", &["info", "-f", "raw", arg(&volume)]).contains("24 MiB"));
}

#[test]
fn qemu_io_finds_its_patterns() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", SIZE);
    for options in [&[][..], &["-k"], &["-o"]] {
        let mount = Mount::with_volume(&cluster, &disk, options);
        let volume = mount.volume(&disk);
        qemu_io("raw", "write", arg(&volume));
        mount.reattach(&disk);
        qemu_io("raw", "read", arg(&volume));
    }
}

/// As the original's manual shows it: the volume is the disk of a machine, `cache=writeback`.
#[test]
fn a_machine_boots_from_a_volume() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", boot::DISK_BYTES_MIN);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let text = "this came from the cluster\r\n";
    boot::make_bootable(&mount.open(&disk), text).unwrap();
    mount.reattach(&disk);
    let serial = boot::boot(&mount.volume(&disk)).unwrap();
    assert_eq!(serial, format!("{}{text}", boot::GREETING));
    assert!(!serial.contains(boot::DISK_ERROR));
    mount.reattach(&disk);
    let mut copy = [0; 512];
    mount.open(&disk).read_exact_at(&mut copy, boot::COPY_SECTOR * 512).unwrap();
    assert_eq!(copy, boot::text_sector(text));
}
