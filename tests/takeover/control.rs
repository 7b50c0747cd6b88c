//! Control files that are in use when the supervisor dies: what was asked is done once, and no
//! caller hears of the death (hazard 20).

use crate::MIB;
use crate::cluster::Cluster;
use crate::minisheep::Gateway;
use crate::random::Random;
use crate::rounds::rounds;
use crate::served::{Keeper, Lives, Manager, Served};
use crate::site::random_while;
use crate::tools::wait_for;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const INSTANT_MAX: Duration = Duration::from_millis(20);

/// A volume comes and goes all the time, and the supervisor dies meanwhile.
fn come_and_go<M: Manager>(times: u64) {
    let cluster = Cluster::Mini(crate::minisheep::Minisheep::start(&["--format", "--lock"]));
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<M>::start(&cluster, &[], &[]);
    let mut random = Random::announced();
    let (stop, turns) = (AtomicBool::new(false), AtomicU64::new(0));
    let tree = crate::mount::tree::Tree::at(served.point());
    let turn = || {
        let written = tree.write("vdi/mount", disk.as_bytes());
        assert_eq!(written.expect("attach"), disk.len());
        let listed = fs::read_dir(tree.path("volume")).unwrap().count();
        assert_eq!(listed, 1, "one volume, once");
        let written = tree.write("vdi/unmount", disk.as_bytes());
        assert_eq!(written.expect("detach"), disk.len());
        assert!(!tree.volume(&disk).exists());
        turns.fetch_add(1, Ordering::SeqCst);
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                turn();
            }
        });
        for round in 0..times {
            let before = turns.load(Ordering::SeqCst);
            wait_for("a turn", || turns.load(Ordering::SeqCst) > before);
            random_while(&mut random, INSTANT_MAX);
            served.take_over(Signal::SIGKILL);
            assert_eq!(served.count("takeovers"), round + 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} turns, {times} deaths", turns.load(Ordering::SeqCst));
    assert_eq!(served.count("volumes"), 0);
    served.attach(&disk);
    served.open(&disk).write_all_at(&[7; 4096], 0).unwrap();
    served.detach(&disk);
    assert_eq!(cluster.content(&disk)[..4096], [7; 4096]);
}

/// What was written to vdi/mount and vdi/unmount is done once, and answered.
#[test]
fn volumes_come_and_go_over_a_death() {
    come_and_go::<Lives>(rounds(10, 50));
}

#[test]
fn volumes_come_and_go_under_a_keeper() {
    come_and_go::<Keeper>(rounds(5, 50));
}

/// A text of which a part was read is the same text for the rest of it.
///
/// A report that is being read stays one text.
#[test]
fn a_list_that_is_being_read_stays_one_text() {
    let cluster = Cluster::mini();
    for nth in 0..40 {
        cluster.vdi(&format!("vdi-{nth}"), MIB);
    }
    let mut served = Served::<Lives>::start(&cluster, &[], &[]);
    for _ in 0..rounds(2, 10) {
        let expected = served.read("vdi/list");
        let mut list = File::open(served.path("vdi/list")).unwrap();
        let mut text = vec![0; 100];
        list.read_exact(&mut text).unwrap();
        served.take_over(Signal::SIGKILL);
        list.read_to_end(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}

/// Files that were opened before count: the successor knows of them.
///
/// A volume that is open can't be detached by a successor either.
#[test]
fn a_volume_that_is_open_since_before_can_not_be_detached() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    for signal in [Signal::SIGKILL, Signal::SIGUSR2] {
        let file = served.open(&disk);
        served.take_over(signal);
        let refused = served.write("vdi/unmount", disk.as_bytes()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EBUSY as i32));
        file.write_all_at(&[5; 4096], 0).unwrap();
        drop(file);
        served.reattach(&disk);
    }
}

/// Settings made through the tree and the sheep in use are kept. A volume that was detached
/// stays detached, whatever --attach says.
#[test]
fn what_was_set_and_detached_stays_so() {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", MIB);
    let gateway = Gateway::start(cluster.minisheep());
    let mut served = Served::<Lives>::start(&cluster, &[&disk], &[]);
    for (file, text) in [
        ("config/page_cache", "1"),
        ("config/object_cache", "1"),
        ("config/sheep_info", gateway.address()),
        ("vdi/unmount", disk.as_str()),
    ] {
        served.write(file, text.as_bytes()).unwrap();
    }
    for signal in [Signal::SIGKILL, Signal::SIGUSR2] {
        served.take_over(signal);
        assert_eq!(served.read("config/page_cache"), "1\n");
        assert_eq!(served.read("config/object_cache"), "1\n");
        assert_eq!(served.read("config/sheep_info"), format!("{}\n", gateway.address()));
        assert!(!served.path("volume").join(&disk).exists(), "attached again");
    }
}
