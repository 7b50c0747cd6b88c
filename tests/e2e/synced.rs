//! What `O_SYNC`, `O_DSYNC`, `fsync`, `fdatasync` and `syncfs` mean, counted and held back at a
//! minisheep, in every mode.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mapped::MODES;
use crate::mapping::Mapping;
use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::tools::wait_for;
use nix::fcntl::OFlag;
use nix::libc::SYS_fsync;
use nix::unistd::{Pid, gettid, syncfs};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::mpsc::channel;
use std::thread;

const SIZE: u64 = 8 * MIB;
const LEN: usize = 10_000;

fn in_every_mode(test: impl Fn(&Cluster, &Mount, &str)) {
    for options in MODES {
        println!("with {options:?}");
        let cluster = Cluster::mini();
        let disk = cluster.vdi("disk", SIZE);
        let mount = Mount::with_volume(&cluster, &disk, options);
        // So that the object is there, and only written to.
        mount.open(&disk).write_all_at(&[1; LEN], 0).unwrap();
        test(&cluster, &mount, &disk);
    }
}

fn open_with(mount: &Mount, disk: &str, flags: OFlag) -> File {
    File::options().write(true).custom_flags(flags.bits()).open(mount.volume(disk)).unwrap()
}

/// The first bytes of the volume, as the cluster has them.
fn stored(cluster: &Cluster, disk: &str) -> Vec<u8> {
    cluster.content(disk)[..LEN].to_vec()
}

/// Has all writes of data wait at the sheep; gives the name under which they count.
fn hold(sheep: &Minisheep) -> String {
    sheep.fault("hold opcode=write kind=data")
}

fn let_go(sheep: &Minisheep) {
    sheep.control("clear");
    sheep.control("release");
}

/// With `O_SYNC`, `O_DSYNC` and neither: no write is answered before the cluster has it.
#[test]
fn a_write_is_answered_when_the_cluster_has_it() {
    in_every_mode(|cluster, mount, disk| {
        let sheep = cluster.minisheep();
        for (byte, flags) in (2..).zip([OFlag::empty(), OFlag::O_DSYNC, OFlag::O_SYNC]) {
            let file = open_with(mount, disk, flags);
            let held = hold(sheep);
            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    file.write_all_at(&[byte; LEN], 0).unwrap();
                    stored(cluster, disk)
                });
                wait_for("the write at the sheep", || sheep.fired(&held) == 1);
                assert!(mount.count("in_flight") >= 1, "it was answered");
                assert!(!writer.is_finished());
                let_go(sheep);
                assert_eq!(writer.join().unwrap(), [byte; LEN], "{flags:?}");
            });
        }
    });
}

/// They make no difference, since that is what every write waits for: no request more.
#[test]
fn synchronous_writes_cost_no_request_more() {
    in_every_mode(|cluster, mount, disk| {
        let sheep = cluster.minisheep();
        mount.open(disk).sync_all().unwrap();
        let flushes = sheep.served("FlushVdi");
        let written = |flags: OFlag| {
            let file = open_with(mount, disk, flags);
            let before = sheep.served("WriteObj");
            (0..10).for_each(|_| file.write_all_at(&[3; LEN], 0).unwrap());
            sheep.served("WriteObj") - before
        };
        let plain = written(OFlag::empty());
        assert!(plain >= 10, "ten writes were {plain} requests");
        assert_eq!(written(OFlag::O_DSYNC), plain);
        assert_eq!(written(OFlag::O_SYNC), plain);
        assert_eq!(sheep.served("FlushVdi"), flushes);
    });
}

/// A sheep that refuses it, as all today's do since they write through, is asked to flush once.
#[test]
fn a_sheep_that_refuses_a_flush_is_asked_once() {
    in_every_mode(|cluster, mount, disk| {
        let file = mount.open(disk);
        for byte in 1..=5 {
            file.write_all_at(&[byte; LEN], 0).unwrap();
            file.sync_all().unwrap();
            file.sync_data().unwrap();
        }
        assert_eq!(cluster.minisheep().served("FlushVdi"), 1);
    });
}

#[test]
fn fsync_and_fdatasync_store_what_was_written_through_a_mapping() {
    type Sync = fn(&File) -> io::Result<()>;
    in_every_mode(|cluster, mount, disk| {
        let (file, other) = (mount.open(disk), mount.open(disk));
        let mapping = Mapping::shared(&file).unwrap();
        let ways: [(&File, Sync); 4] = [
            (&file, File::sync_all),
            (&file, File::sync_data),
            (&other, File::sync_all),
            (&other, File::sync_data),
        ];
        for (byte, (of, sync)) in (2..).zip(ways) {
            let before = cluster.minisheep().served("WriteObj");
            mapping.write(0, &[byte; LEN]);
            sync(of).unwrap();
            assert_eq!(stored(cluster, disk), [byte; LEN]);
            let written = cluster.minisheep().served("WriteObj");
            sync(of).unwrap();
            assert!(written > before);
            assert_eq!(cluster.minisheep().served("WriteObj"), written, "that was all");
        }
    });
}

/// Whether that thread of ours is in that system call.
fn is_in(thread: Pid, call: i64) -> bool {
    let said = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).unwrap_or_default();
    said.split(' ').next() == Some(&call.to_string())
}

/// Also by those that somebody else has begun.
#[test]
fn fsync_waits_for_writes_that_were_begun_before_it() {
    in_every_mode(|cluster, mount, disk| {
        let sheep = cluster.minisheep();
        let (file, other) = (mount.open(disk), mount.open(disk));
        let held = hold(sheep);
        thread::scope(|scope| {
            let writer = scope.spawn(|| file.write_all_at(&[9; LEN], 0).unwrap());
            wait_for("the write at the sheep", || sheep.fired(&held) == 1);
            let (sender, receiver) = channel();
            let syncer = scope.spawn(move || {
                sender.send(gettid()).unwrap();
                other.sync_all().unwrap();
                stored(cluster, disk)
            });
            let thread = receiver.recv().unwrap();
            wait_for("fsync", || is_in(thread, SYS_fsync) || syncer.is_finished());
            let_go(sheep);
            assert_eq!(syncer.join().unwrap(), [9; LEN]);
            writer.join().unwrap();
        });
    });
}

/// What was written with `write` is stored already. What was written through a mapping is not
/// waited for: `syncfs` returns while no sheep takes it.
#[test]
fn syncfs_does_not_wait_for_mappings() {
    in_every_mode(|cluster, mount, disk| {
        let sheep = cluster.minisheep();
        let file = mount.open(disk);
        let mapping = Mapping::shared(&file).unwrap();
        file.write_all_at(&[2; LEN], 0).unwrap();
        assert_eq!(stored(cluster, disk), [2; LEN]);
        hold(sheep);
        mapping.write(0, &[3; LEN]);
        syncfs(&file).unwrap();
        assert_eq!(stored(cluster, disk), [2; LEN]);
        let_go(sheep);
        mapping.sync().unwrap();
        assert_eq!(stored(cluster, disk), [3; LEN]);
    });
}
