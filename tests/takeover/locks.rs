//! The cluster's lock: held from attach to detach, whoever of ours dies, leaves or is left, and
//! whatever others do meanwhile.

use crate::MIB;
use crate::served::{Lives, Served};
use crate::site::{Site, wait_until_serving};
use crate::tools::wait_for;
use nix::sys::signal::{Signal, kill};
use sheepfs::wire::Status;
use std::os::unix::fs::FileExt;

const LOCKING: [&str; 2] = ["--format", "--lock"];

/// Whoever asks, by whichever node, is refused, and the volume can be written.
fn assert_held(site: &Site, served: &Served<Lives>, disk: &str, after: &str) {
    wait_until_serving(served);
    for gateway in &site.gateways {
        let mut wire = crate::wire::Wire::connect(gateway.address());
        assert_eq!(wire.lock(disk), Status::VdiLocked, "after {after}");
    }
    served.open(disk).write_all_at(&[7; 4096], 0).unwrap_or_else(|e| panic!("{after}: {e}"));
}

fn kill_worker(served: &Served<Lives>) {
    let generation = served.count("worker_generation");
    kill(served.worker().expect("a worker"), Signal::SIGKILL).unwrap();
    wait_for("the next worker", || served.count("worker_generation") > generation);
}

#[test]
fn it_is_kept_until_the_volume_is_detached() {
    let site = Site::start_with(2, &LOCKING);
    let (disk, other) = (site.cluster.vdi("disk", 4 * MIB), site.cluster.vdi("other", 4 * MIB));
    let through = site.through(0);
    let mut served = Served::<Lives>::start(&through, &[&disk, &other], &[]);
    assert_held(&site, &served, &disk, "the attach");
    kill_worker(&served);
    assert_held(&site, &served, &disk, "a worker's death");
    served.take_over(Signal::SIGKILL);
    assert_held(&site, &served, &disk, "the supervisor's death");
    let second = site.gateways[1].address();
    served.write("config/sheep_info", second.as_bytes()).unwrap();
    assert_eq!(served.status("sheep").as_deref(), Some(second));
    assert_held(&site, &served, &disk, "a failover");
    // A write finds out about a snapshot, and by then the lock must have moved.
    for tag in ["one", "two"] {
        site.cluster.snapshot(&disk, tag);
        served.open(&disk).write_all_at(&[8; 512], 0).unwrap();
        assert_held(&site, &served, &disk, "a snapshot");
    }
    served.take_over(Signal::SIGUSR2);
    assert_held(&site, &served, &disk, "a restart");
    served.detach(&disk);
    assert_eq!(site.cluster.wire().lock(&disk), Status::Success, "after the detach");
    assert_eq!(site.cluster.wire().lock(&other), Status::VdiLocked);
    drop(served);
    assert_eq!(site.cluster.wire().lock(&other), Status::Success, "after the unmount");
}

/// The next life comes without the option: what was attached without a lock stays so.
#[test]
fn a_volume_without_a_lock_stays_without_one() {
    let site = Site::start_with(2, &LOCKING);
    let disk = site.cluster.vdi("disk", 4 * MIB);
    let mut others = site.cluster.wire();
    assert_eq!(others.lock(&disk), Status::Success);
    let through = site.through(0);
    let mut served = Served::<Lives>::start(&through, &[&disk], &["--no-lock"]);
    let is_unlocked = |served: &Served<Lives>| {
        served.open(&disk).write_all_at(&[7; 4096], 0).unwrap();
        assert_eq!(served.count("volumes_unlocked"), 1);
    };
    is_unlocked(&served);
    kill_worker(&served);
    is_unlocked(&served);
    served.manager_mut().drop_option("--no-lock");
    served.take_over(Signal::SIGKILL);
    is_unlocked(&served);
    served.detach(&disk);
    assert_eq!(others.lock(&disk), Status::VdiLocked, "the other's is not given back");
}
