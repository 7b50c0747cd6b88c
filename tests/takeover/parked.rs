//! A supervisor that panics with many requests in flight.

use crate::MIB;
use crate::cluster::Cluster;
use crate::rounds::rounds;
use crate::served::{Lives, Manager, Served};
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::thread;

/// More than [`PANIC`] says: the one after that many panics.
const COUNT: u64 = 110;
const PANIC: &str = "--panic-at-parked=100";
const BLOCK: usize = 4096;

/// Hazard 55: a reply that is dropped answers an error. None is dropped, so the successor answers
/// them all.
#[test]
fn a_panic_with_a_hundred_requests_in_flight_is_no_error() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    served.open(&disk).write_all_at(&[9; BLOCK], 0).unwrap();
    for round in 0..rounds(3, 20) {
        let value = round as u8 + 1;
        served.manager_mut().add_option(PANIC);
        served.take_over(Signal::SIGKILL);
        served.manager_mut().drop_option(PANIC);
        let minisheep = cluster.minisheep();
        // For ever, or until `hurry`.
        minisheep.fault("delay ms=3600000 kind=data opcode=write");
        let takeovers = served.count("takeovers");
        // All of them before there is nobody to open them.
        let files: Vec<_> = (0..COUNT).map(|_| served.open(&disk)).collect();
        let writes: Vec<_> = (0..)
            .zip(files)
            .map(|(nth, file)| {
                thread::spawn(move || file.write_all_at(&[value; BLOCK], nth * BLOCK as u64))
            })
            .collect();
        let ended = served.manager_mut().bury();
        assert_eq!(ended.signal(), Some(Signal::SIGABRT as i32), "{ended}");
        assert!(!writes.iter().any(thread::JoinHandle::is_finished), "answered by nobody");
        served.manager_mut().spawn();
        minisheep.control("clear");
        minisheep.control("hurry");
        for write in writes {
            write.join().unwrap().unwrap();
        }
        assert_eq!(served.count("takeovers"), takeovers + 1);
        let content = cluster.content(&disk);
        assert!(content[..COUNT as usize * BLOCK].iter().all(|byte| *byte == value));
    }
    let log = served.manager().log();
    assert!(log.contains("panicked"), "{log}");
}
