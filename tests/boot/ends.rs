//! Somebody else ends the mount: that is the end of the service, not a crash of it.

use crate::MIB;
use crate::cluster::Cluster;
use crate::service::{POINT, Service};
use crate::systemd::System;
use crate::tools::wait_for;
use std::fs::File;
use std::os::unix::fs::FileExt;

const BLOCK: usize = 4096;

/// Mounts, ends the mount by `end`, which gets a file that is open on it, and then: the service
/// has ended with success and keeps nothing, and starts afresh.
fn ended_by(end: impl FnOnce(&Service, File)) {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 8 * MIB);
    let system = System::boot();
    let service = Service::start(&system, cluster.address(), &disk);
    assert!(service.stored() > 0, "nothing that could be left behind");
    let supervisor = service.supervisor();
    let file = service.open(&disk);
    file.write_all_at(&[7; BLOCK], 0).unwrap();
    end(&service, file);
    wait_for("the end of the service", || service.property("ActiveState") != "active");
    wait_for("the unit to rest", || service.property("ActiveState") == "inactive");
    service.assert_ended();
    assert_eq!(service.property("NRestarts"), "0", "an end was taken for a crash");
    service.start_again(&disk);
    assert_ne!(service.supervisor(), supervisor);
    service.mount();
    let mut room = [0; BLOCK];
    service.open(&disk).read_exact_at(&mut room, 0).unwrap();
    assert_eq!(room, [7; BLOCK]);
    service.systemctl("stop");
    service.assert_ended();
}

/// As after any lazy unmount, what is open goes on until it is closed.
#[test]
fn a_lazy_unmount_ends_it_with_the_last_file() {
    ended_by(|service, file| {
        service.system.succeed(&["umount", "-l", POINT]);
        assert_eq!(service.system.mounts_at(POINT), [""; 0]);
        file.write_all_at(&[7; BLOCK], MIB).unwrap();
        assert_eq!(service.property("ActiveState"), "active");
    });
}

/// The file stays open: a mount in use, ended by force. `umount` itself says so, having aborted
/// the connection.
#[test]
fn a_forced_unmount_ends_it() {
    ended_by(|service, file| {
        let output = service.system.run(&["umount", "-f", POINT]);
        println!("umount -f: {} {}", output.status, output.stderr);
        assert!(file.sync_all().is_err() || file.read_at(&mut [0; BLOCK], 0).is_err());
    });
}

#[test]
fn an_abort_through_fusectl_ends_it() {
    ended_by(|service, file| {
        let connection = service.mount().connection;
        service.system.write(&format!("/sys/fs/fuse/connections/{connection}/abort"), "1");
        assert!(file.read_at(&mut [0; BLOCK], 0).is_err());
    });
}
