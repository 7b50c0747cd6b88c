//! Where a volume has no data, and how much it has, for tools that want to know.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::tools::{arg, run, wait_for};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const TIB: u64 = 1 << 40;
/// Where the large volume is written to; the last place is in its last object.
const PLACES: [u64; 4] = [0, 300 << 30, (300 << 30) + 5 * MIB, TIB - 100];
/// What that is, in whole objects.
const STORED: u64 = 4 * 4 * MIB;

fn large_volume(cluster: &Cluster) -> String {
    let new = NewVdi { size: TIB, block_size_shift: 22, ..NewVdi::default() };
    cluster.vdi_with("large", &new)
}

/// Waits until it is known that nothing is stored.
pub fn wait_until_counted(mount: &Mount, disk: &str) {
    let path = mount.volume(disk);
    let words = ["--absolute-names", "--only-values", "-n", "user.sheepdog.used", arg(&path)];
    wait_for("the count", || Command::new("getfattr").args(words).output().unwrap().stdout == b"0");
}

fn content(place: u64) -> [u8; 64] {
    [(place >> 20) as u8 | 1; 64]
}

fn fill(mount: &Mount, disk: &str) {
    let file = mount.open(disk);
    PLACES.iter().for_each(|place| file.write_all_at(&content(*place), *place).unwrap());
}

/// Whether that is the large volume's content, as far as it is not zeros.
fn check(copy: &Path) {
    let file = File::open(copy).unwrap();
    assert_eq!(file.metadata().unwrap().len(), TIB);
    for place in PLACES {
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, place).unwrap();
        assert_eq!(bytes, content(place), "at {place}");
    }
    let stored = file.metadata().unwrap().blocks() * 512;
    assert!(stored <= STORED + MIB, "{stored} bytes are stored of the copy");
}

fn timed(what: &str, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    println!("{what}: {:?}", begun.elapsed());
}

fn seek(file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
    let found = lseek(file, i64::try_from(offset).unwrap(), whence);
    found.map(|offset| u64::try_from(offset).unwrap())
}

fn blocks(mount: &Mount, disk: &str) -> u64 {
    fs::metadata(mount.volume(disk)).unwrap().blocks()
}

/// Copied byte by byte it would take hours.
#[test]
fn a_large_empty_volume_is_copied_in_the_time_of_its_data() {
    let cluster = Cluster::start();
    let disk = large_volume(&cluster);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    fill(&mount, &disk);
    let (volume, scratch) = (mount.volume(&disk), mount.scratch());
    let (copy, unpacked, image) =
        (scratch.join("copy"), scratch.join(&disk), scratch.join("image"));
    timed("cp", || drop(run("cp", &["--sparse=always", arg(&volume), arg(&copy)])));
    check(&copy);
    timed("tar", || {
        let tree = mount.path("volume");
        let archive = scratch.join("archive");
        run("tar", &["-C", arg(&tree), "-S", "-cf", arg(&archive), &disk]);
        assert!(fs::metadata(&archive).unwrap().len() < 2 * STORED);
        run("tar", &["-C", arg(scratch), "-xf", arg(&archive)]);
    });
    check(&unpacked);
    timed("qemu-img convert", || {
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", arg(&volume), arg(&image)]);
    });
    check(&image);
    timed("qemu-img map", || {
        let map = run("qemu-img", &["map", "-f", "raw", "--output=json", arg(&volume)]);
        let data: Vec<&str> = map.lines().filter(|line| line.contains("\"data\": true")).collect();
        let extents = [(0, 4 * MIB), (300 << 30, 8 * MIB), (TIB - 4 * MIB, 4 * MIB)];
        assert_eq!(data.len(), extents.len(), "{map}");
        for (line, (start, length)) in data.iter().zip(extents) {
            let wanted = format!("\"start\": {start}, \"length\": {length},");
            assert!(line.contains(&wanted), "{line} instead of {wanted}");
        }
    });
    let read = mount.open(&disk);
    timed("a seek over all of it", || {
        assert_eq!(seek(&read, 310 << 30, Whence::SeekData), Ok(TIB - 4 * MIB));
    });
}

/// A write that was answered is data at once, with the page cache and without.
#[test]
fn what_was_written_is_data() {
    let cluster = Cluster::start();
    let new = NewVdi { size: 64 * MIB, block_size_shift: 20, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    for (options, place) in [(&[][..], 7 * MIB), (&["-k"], 40 * MIB)] {
        let mount = Mount::with_volume(&cluster, &disk, options);
        let file = mount.open(&disk);
        assert_eq!(seek(&file, place, Whence::SeekHole), Ok(place));
        file.write_all_at(b"x", place + MIB / 2).unwrap();
        assert_eq!(seek(&file, 7 * MIB + MIB / 2 + 1, Whence::SeekData).unwrap() >> 20, 7);
        assert_eq!(seek(&file, place, Whence::SeekHole), Ok(place + MIB));
        assert_eq!(seek(&file, place - 1, Whence::SeekData), Ok(place));
        assert_eq!(seek(&file, place + MIB, Whence::SeekData), Err(Errno::ENXIO));
        assert_eq!(seek(&file, 64 * MIB, Whence::SeekHole), Err(Errno::ENXIO));
        assert_eq!(seek(&file, 64 * MIB - 1, Whence::SeekHole), Ok(64 * MIB - 1));
    }
}

/// Of a clone or a working VDI with snapshots, what it inherits counts too.
#[test]
fn what_is_stored_is_counted() {
    let cluster = Cluster::start();
    let new = NewVdi { size: 64 * MIB, block_size_shift: 20, ..NewVdi::default() };
    let disk = cluster.vdi_with("disk", &new);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let attribute = |name: &str| {
        let name = format!("user.sheepdog.{name}");
        let path = mount.volume(&disk);
        run("getfattr", &["--absolute-names", "--only-values", "-n", &name, arg(&path)])
    };
    let counted = |own: u64, shared: u64| {
        wait_for("the count", || blocks(&mount, &disk) == (own + shared) * MIB / 512);
        assert_eq!(attribute("used"), (own * MIB).to_string());
        assert_eq!(attribute("shared"), (shared * MIB).to_string());
    };
    counted(0, 0);
    let file = mount.open(&disk);
    file.write_all_at(&[1; 3 * MIB as usize], MIB).unwrap();
    assert!(blocks(&mount, &disk) >= 3 * MIB / 512, "an answered write is not counted");
    counted(3, 0);
    cluster.snapshot(&disk, "before");
    file.write_all_at(b"x", 2 * MIB).unwrap();
    counted(1, 2);
    assert_eq!(attribute("name"), disk);
    assert_eq!(attribute("size"), (64 * MIB).to_string());
    let list = mount.read("vdi/list");
    let line = list.lines().find(|line| line.starts_with("  ") && line.contains(&*disk)).unwrap();
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(columns[4..8], ["1.0", "MB", "2.0", "MB"], "{line}");
    drop(file);
    mount.detach(&disk);
    mount.attach(&format!("{disk}:before"));
    let path = mount.volume(&format!("{disk}:before"));
    let name = "user.sheepdog.tag";
    let tag = run("getfattr", &["--absolute-names", "--only-values", "-n", name, arg(&path)]);
    assert_eq!(tag, "before");
    wait_for("the count", || fs::metadata(&path).unwrap().blocks() == 3 * MIB / 512);
}

/// A loop device learns from statfs(2) in what pieces discards are of use.
#[test]
fn the_block_size_of_a_volume_is_that_of_its_objects() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    let space = |path: &Path| {
        let said = run("stat", &["-f", "-c", "%s %S %b", arg(path)]);
        let numbers = said.split_whitespace().map(|word| word.parse::<u64>().unwrap());
        let [optimal, fundamental, blocks] = numbers.collect::<Vec<_>>()[..] else {
            panic!("{said}")
        };
        assert_eq!(optimal, fundamental);
        (optimal, blocks)
    };
    let (unit, whole) = space(&mount.path(""));
    assert_eq!(unit, 4096);
    for shift in [20, 22, 25] {
        let new = NewVdi { size: 64 * MIB, block_size_shift: shift, ..NewVdi::default() };
        let disk = cluster.vdi_with(&format!("disk{shift}"), &new);
        mount.attach(&disk);
        let path = mount.volume(&disk);
        let (unit, blocks) = space(&path);
        assert_eq!(unit, 1 << shift);
        assert!((whole * 4096).abs_diff(blocks * unit) < 64 * MIB, "another space is shown");
        assert_eq!(fs::metadata(&path).unwrap().blksize(), 4096);
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        drop(file);
        let device = run("losetup", &["--find", "--show", arg(&path)]);
        let device = device.trim();
        let name = device.strip_prefix("/dev/").unwrap();
        let granularity =
            fs::read_to_string(format!("/sys/block/{name}/queue/discard_granularity"));
        run("losetup", &["--detach", device]);
        assert_eq!(granularity.unwrap().trim(), (1 << shift).to_string());
    }
    run("df", &[arg(&mount.path(""))]);
}
