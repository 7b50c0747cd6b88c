//! The tree of VDIs, in use when the supervisor is replaced: what the kernel was told holds.

use crate::MIB;
use crate::cluster::Cluster;
use crate::served::{Lives, Served};
use crate::tools::wait_for;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::thread;

/// Directories held open, files half read and a listing half done go on under the next one.
#[test]
fn what_is_open_in_it_goes_on() {
    const VDIS: usize = 3000;
    let cluster = Cluster::mini();
    let mut names: Vec<_> = (0..VDIS).map(|n| cluster.vdi(&format!("disk{n}"), MIB)).collect();
    names.sort();
    cluster.snapshot(&names[0], "one");
    let mut served = Served::<Lives>::start(&cluster, &[], &[]);
    let path = served.path(&format!("vdi/tree/{}", names[0]));
    let dir = File::open(&path).unwrap();
    let number = dir.metadata().unwrap().ino();
    let mut size = File::open(path.join("size")).unwrap();
    // The kernel asks for parts of some 30 KiB, which is not all of them.
    let mut listing = fs::read_dir(served.path("vdi/tree")).unwrap();
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut listed = vec![name(listing.next().unwrap())];
    served.take_over(Signal::SIGKILL);
    listed.extend(listing.map(name));
    listed.sort();
    assert!(listed == names, "{} of {VDIS}", listed.len());
    let mut text = String::new();
    size.read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("{MIB}\n"));
    assert_eq!(dir.metadata().unwrap().ino(), number);
    let below = |name: &str| format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    assert_eq!(fs::read_to_string(below("1/tag")).unwrap(), "one\n");
    assert_eq!(fs::metadata(&path).unwrap().ino(), number, "the same number by name");
}

/// A look that waits for the cluster is answered by the next supervisor.
#[test]
fn what_waits_is_answered() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", MIB);
    let mut served = Served::<Lives>::start(&cluster, &[], &[]);
    let path = served.path(&format!("vdi/tree/{disk}/size"));
    let sheep = cluster.minisheep();
    let fault = sheep.fault("delay ms=3600000 opcode=lookup count=1");
    let reader = thread::spawn(move || fs::read_to_string(path));
    wait_for("a question that is not answered", || sheep.fired(&fault) > 0);
    served.take_over(Signal::SIGKILL);
    assert_eq!(reader.join().unwrap().unwrap(), format!("{MIB}\n"));
    sheep.control("hurry");
}
