//! The boot image itself, on a plain file: when the boot test on a mounted volume fails and
//! this one passes, the volume is at fault and not the image or the emulator.

#[path = "support/boot.rs"]
mod boot;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

#[test]
fn boots_from_a_plain_file_and_leaves_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let disk = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    disk.set_len(boot::DISK_BYTES_MIN).unwrap();
    let text = "sector 2048 was read\r\n";
    boot::make_bootable(&disk, text).unwrap();

    let serial = boot::boot(&path).unwrap();

    assert_eq!(serial, format!("{}{text}", boot::GREETING));
    let mut copy = [0; 512];
    disk.read_exact_at(&mut copy, boot::COPY_SECTOR * 512).unwrap();
    assert_eq!(copy, boot::text_sector(text));
}
