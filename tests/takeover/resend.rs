//! Kernels before 6.9 don't deliver again what was read and never answered.

use crate::MIB;
use crate::cluster::Cluster;
use crate::served::{Lives, Manager, Served};
use crate::tools::wait_for;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;
use std::thread;

/// What was in flight fails at once, since nobody could ever answer it; what comes later, and
/// what had not been read, does not.
///
/// A kernel that can't deliver requests again, before Linux 6.9, has those in flight fail with EIO,
/// and a line in the log says so at the start.
#[test]
fn what_can_not_be_delivered_again_fails_and_nothing_hangs() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &["--no-resend"]);
    let log = served.manager().log();
    assert!(log.contains("can't deliver requests again"), "not said at the start: {log}");
    let file = served.open(&disk);
    file.write_all_at(&[1; 4096], 0).unwrap();
    // For ever, or until `hurry`.
    let fault = cluster.minisheep().fault("delay ms=3600000 kind=data");
    let other = served.open(&disk);
    let write = thread::spawn(move || file.write_all_at(&[2; 4096], 0));
    let read = thread::spawn(move || other.read_exact_at(&mut [0; 4096], 8192));
    wait_for("both to be on the wire", || cluster.minisheep().fired(&fault) == 2);
    assert_eq!(served.count("in_flight"), 2);
    served.take_over(Signal::SIGKILL);
    for call in [write, read] {
        let error = call.join().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EIO as i32));
    }
    cluster.minisheep().control("clear");
    cluster.minisheep().control("hurry");
    let file = served.open(&disk);
    file.write_all_at(&[3; 4096], 0).unwrap();
    assert_eq!(cluster.content(&disk)[..4096], [3; 4096]);
    assert_eq!(served.count("in_flight"), 0);
    let log = served.manager().log();
    assert!(log.contains("fail with an input/output error"), "{log}");
}
