//! The end of the mount by other hands than ours, and what is left of one that nobody ended.

use crate::MIB;
use crate::apart::apart;
use crate::cluster::Cluster;
use crate::mount::is_mounted;
use crate::random::Random;
use crate::rounds::rounds;
use crate::served::{Keeper, Lives, Manager, Mounted, Served, give_up};
use crate::site::random_while;
use crate::tools::{start, succeed, wait_for};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Writes to a file of the connection's in fusectl, which is mounted for that in a namespace of
/// its own.
fn abort(connection: u32) {
    let script = "mount -t fusectl fusectl /sys/fs/fuse/connections && \
                  echo 1 > /sys/fs/fuse/connections/$0/abort";
    let connection = connection.to_string();
    apart(move || {
        succeed(Command::new("unshare").args(["--mount", "sh", "-c", script, &connection]))
    });
}

/// The volume of a mount that has begun anew, on the same point and without anybody's help.
fn assert_starts_clean(served: &mut Served<Lives>, disk: &str) {
    let ready = served.manager().store().count("READY=1");
    served.manager_mut().spawn();
    served.manager().store().wait_until_said("READY=1", ready + 1);
    assert_eq!(served.count("takeovers"), 0, "this is another mount");
    let file = served.open(disk);
    file.write_all_at(&[8; 4096], 0).unwrap();
}

/// `umount -l`: it goes on until its last file is closed.
#[test]
fn a_detached_mount_ends_with_its_last_file() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    served.take_over(Signal::SIGKILL);
    let file = served.open(&disk);
    umount2(served.point(), MntFlags::MNT_DETACH).unwrap();
    assert!(!is_mounted(served.point()));
    file.write_all_at(&[7; 4096], 0).unwrap();
    assert_eq!(cluster.content(&disk)[..4096], [7; 4096]);
    drop(file);
    served.manager_mut().assert_ended();
    assert_starts_clean(&mut served, &disk);
}

/// `umount -f`: whoever waits gets an error, and nothing is kept.
#[test]
fn a_forced_unmount_ends_all() {
    for is_open in [false, true] {
        let cluster = Cluster::mini();
        let disk = cluster.vdi("disk", 4 * MIB);
        let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
        let file = is_open.then(|| served.open(&disk));
        // With a file open it fails, but has ended the connection.
        let done = umount2(served.point(), MntFlags::MNT_FORCE);
        println!("umount -f with a file open ({is_open}): {done:?}");
        served.manager_mut().assert_ended();
        drop(file);
        assert_starts_clean(&mut served, &disk);
    }
}

#[test]
fn an_abort_by_hand_ends_all() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    served.take_over(Signal::SIGKILL);
    let file = served.open(&disk);
    abort(served.mounted().connection);
    served.manager_mut().assert_ended();
    file.write_all_at(&[7; 4096], 0).expect_err("the connection is gone");
    assert_starts_clean(&mut served, &disk);
}

#[test]
fn an_abort_by_hand_ends_the_keeper() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Keeper>::start(&cluster, &[&disk], &[]);
    served.take_over(Signal::SIGKILL);
    abort(served.mounted().connection);
    served.manager_mut().assert_ended();
    assert_eq!(Mounted::find(served.point()), None);
}

/// Everything is killed at once, and what was kept is lost: the next start cleans up.
#[test]
fn a_mount_that_nobody_serves_is_no_obstacle() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    let before = served.mounted();
    served.kill();
    served.manager_mut().bury();
    served.manager().with_store(|store| store.lose());
    assert_eq!(served.mounted(), before, "a dead mount stays in the way");
    assert_starts_clean(&mut served, &disk);
    // The kernel may give the new one the numbers of the old.
    let log = served.manager().log();
    assert!(log.contains("that no process serves any more"), "{log}");
}

/// A supervisor that nobody keeps anything for.
fn alone(cluster: &Cluster, disk: &str, point: &Path) -> Child {
    let options = ["--address", cluster.address(), "--attach", disk].map(str::to_owned);
    let (point, log) = (point.to_owned(), point.with_extension("log"));
    let child = apart({
        let point = point.clone();
        move || {
            let log = File::options().create(true).append(true).open(&log).unwrap();
            start(
                Command::new("setpriv")
                    .args(["--pdeathsig", "TERM", env!("CARGO_BIN_EXE_sheepfs"), "-f"])
                    .args(&options)
                    .arg(&point)
                    .env_remove("NOTIFY_SOCKET")
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().unwrap())
                    .stderr(log),
            )
        }
    });
    let volume = point.join("volume").join(disk);
    wait_for("the volume", || volume.exists());
    child
}

/// `-f` without a manager: it works, and says what its death means; after that the mount can't be
/// saved, but is no obstacle.
///
/// Started with -f and kept by nobody, the mount is lost when sheepfs dies, and is no obstacle to
/// the next start.
#[test]
fn without_a_manager_a_death_is_the_end_of_the_mount_only() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().join("mount");
    fs::create_dir(&point).unwrap();
    let write = |value: u8| {
        let file = File::options().write(true).open(point.join("volume").join(&disk)).unwrap();
        file.write_all_at(&[value; 4096], 0)
    };
    let mut child = alone(&cluster, &disk, &point);
    write(1).unwrap();
    let log = fs::read_to_string(point.with_extension("log")).unwrap();
    assert!(log.contains("nobody keeps the mount"), "{log}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_mounted(&point), "a dead mount stays in the way");
    let mut child = alone(&cluster, &disk, &point);
    let log = fs::read_to_string(point.with_extension("log")).unwrap();
    assert!(log.contains("that no process serves any more"), "{log}");
    write(2).unwrap();
    assert_eq!(cluster.content(&disk)[..4096], [2; 4096]);
    kill(crate::mount::pid_of(&child), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!is_mounted(&point));
    give_up(&point);
}

/// SIGTERM at any instant of a take-over: either the mount ends in order, or the process was too
/// young to be asked, and then the mount is kept for the next one.
#[test]
fn a_stop_in_a_take_over_ends_the_mount_or_leaves_it() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    let mut random = Random::announced();
    let (mut ended, mut left) = (0, 0);
    for round in 0..rounds(6, 40) {
        let value = round as u8 + 1;
        served.open(&disk).write_all_at(&[value; 4096], 0).unwrap();
        served.replace(Signal::SIGKILL);
        random_while(&mut random, Duration::from_millis(60));
        kill(served.supervisor(), Signal::SIGTERM).unwrap();
        let status = served.manager_mut().bury();
        let words = format!("round {round}: {status}\n{}", served.manager().log());
        assert_eq!(served.manager().is_kept(), is_mounted(served.point()), "{words}");
        assert_eq!(status.success(), !served.manager().is_kept(), "{words}");
        if status.success() {
            ended += 1
        } else {
            left += 1
        }
        let ready = served.manager().store().count("READY=1");
        served.manager_mut().spawn();
        served.manager().store().wait_until_said("READY=1", ready + 1);
        let mut room = [0; 4096];
        served.open(&disk).read_exact_at(&mut room, 0).unwrap();
        assert_eq!(room, [value; 4096], "{words}");
    }
    println!("{ended} times the mount was ended, {left} times it was left");
}

/// SIGTERM to a successor with everything still in flight: it drains, then unmounts.
#[test]
fn a_stop_after_a_take_over_drains_what_was_in_flight_before() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    let file = served.open(&disk);
    let fault = cluster.minisheep().fault("delay ms=3600000 kind=data");
    let write = thread::spawn(move || file.write_all_at(&[6; 4096], 0));
    wait_for("the write", || cluster.minisheep().fired(&fault) == 1);
    served.take_over(Signal::SIGKILL);
    kill(served.supervisor(), Signal::SIGTERM).unwrap();
    served.manager().store().wait_until_said("STOPPING=1", 1);
    cluster.minisheep().control("clear");
    cluster.minisheep().control("hurry");
    write.join().unwrap().unwrap();
    served.manager_mut().assert_ended();
    assert!(!is_mounted(served.point()));
    assert_eq!(cluster.content(&disk)[..4096], [6; 4096]);
}
