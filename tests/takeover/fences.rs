//! The supervisor dies while objects are fenced (hazard 53): a sheep hangs with a change of ours,
//! another has answered for it, and newer changes to the object must wait, whoever serves.

use crate::MIB;
use crate::rounds::rounds;
use crate::served::{Keeper, Lives, Manager, Served};
use crate::site::{Site, wait_for_swap};
use crate::tools::wait_for;
use nix::sys::signal::Signal;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread::{self, JoinHandle};

const BLOCK: usize = 4096;
const OBJECT: u64 = 4 * MIB;
const BEFORE: u8 = 9;
const OLD: u8 = 1;
const NEW: u8 = 2;

struct Scene<'a, M: Manager> {
    site: &'a Site,
    served: Served<M>,
    disk: &'a str,
}

impl<M: Manager> Scene<'_, M> {
    fn write(&self, value: u8, offset: u64) -> JoinHandle<io::Result<()>> {
        let file = self.served.open(self.disk);
        thread::spawn(move || file.write_all_at(&[value; BLOCK], offset))
    }

    fn block_at(&self, offset: u64) -> u8 {
        let content = self.site.cluster.content(self.disk);
        let block = &content[offset as usize..][..BLOCK];
        assert!(block.iter().all(|byte| *byte == block[0]), "a torn block");
        block[0]
    }

    /// Has the gateway in use hold a write and stop, until another has answered for it; which.
    fn stop_with_a_write(&self, offset: u64) -> usize {
        wait_for("both candidates", || self.served.count("candidates") >= 2);
        self.write(BEFORE, offset).join().unwrap().unwrap();
        let stopped = self.site.in_use(&self.served);
        let gateway = &self.site.gateways[stopped];
        let fault = gateway.fault("hold kind=data opcode=write count=1");
        let held = self.write(OLD, offset);
        wait_for("the write to be held", || gateway.fired(&fault) == 1);
        let before = self.served.count("swaps_sheep_silent");
        gateway.freeze();
        wait_for_swap(&self.served, "swaps_sheep_silent", before);
        held.join().unwrap().unwrap();
        assert_ne!(self.site.in_use(&self.served), stopped);
        stopped
    }

    fn wake(&self, stopped: usize) {
        let gateway = &self.site.gateways[stopped];
        gateway.thaw();
        gateway.control("release");
    }
}

fn on_a_scene<M: Manager>(options: &[&str], times: u64, body: impl Fn(&mut Scene<M>, u64)) {
    let site = Site::start(2);
    let disk = site.cluster.vdi("disk", times * OBJECT);
    let through = site.through(0);
    let options = [&["--io-timeout=1"], options].concat();
    let served = Served::<M>::start(&through, &[&disk], &options);
    let mut scene = Scene { site: &site, served, disk: &disk };
    for round in 0..times {
        body(&mut scene, round * OBJECT);
    }
}

fn fenced_over_a_death<M: Manager>(times: u64) {
    on_a_scene::<M>(&["--fence=strict", "--route=gateway"], times, |scene, offset| {
        let stopped = scene.stop_with_a_write(offset);
        assert!(scene.served.count("fenced_now") > 0);
        scene.served.take_over(Signal::SIGKILL);
        assert!(scene.served.count("fenced_now") > 0, "the successor knows of no fence");
        let newer = scene.write(NEW, offset);
        wait_for("the newer write to be held", || scene.served.count("held") > 0);
        assert!(!newer.is_finished(), "answered while the old gateway could wake up");
        scene.wake(stopped);
        newer.join().unwrap().unwrap();
        wait_for("the fence to fall", || scene.served.count("fenced_now") == 0);
        assert_eq!(scene.served.count("released_time"), 0, "nothing was proved");
        assert_eq!(scene.block_at(offset), NEW);
    });
}

/// What the worker had on the wire is fenced by the successor, and fences that were there are there
/// still.
#[test]
fn a_fence_outlives_the_supervisor() {
    fenced_over_a_death::<Lives>(rounds(3, 20));
}

#[test]
fn a_fence_outlives_the_keepers_supervisor() {
    fenced_over_a_death::<Keeper>(rounds(1, 20));
}

/// A node other than the one in use, that is asked directly, hangs with a write when the
/// supervisor dies, and with it the worker: the successor knows of that node.
#[test]
fn a_node_that_was_asked_directly_is_known_to_the_successor() {
    let site = Site::start(2);
    let disk = site.cluster.vdi("disk", 24 * OBJECT);
    let through = site.through(0);
    let served = Served::<Lives>::start(&through, &[&disk], &["--fence=strict"]);
    let mut scene = Scene { site: &site, served, disk: &disk };
    let mut held_there = (0..24).filter(|block| site.holder(&disk, *block) == 1);
    let (object, other) = (held_there.next().unwrap(), held_there.next().unwrap());
    scene.write(BEFORE, other * OBJECT).join().unwrap().unwrap();
    scene.write(BEFORE, object * OBJECT).join().unwrap().unwrap();
    wait_for("the holder to be asked", || {
        scene.write(BEFORE, other * OBJECT).join().unwrap().unwrap();
        scene.served.count("direct_nodes") == 1
    });
    let fault = site.gateways[1].fault("hold kind=data opcode=write count=1");
    let held = scene.write(OLD, object * OBJECT);
    wait_for("the write to be held", || site.gateways[1].fired(&fault) == 1);
    site.gateways[1].freeze();
    scene.served.take_over(Signal::SIGKILL);
    let home = format!("runs there any more sheep={}", site.gateways[0].address());
    wait_for("the sheep in use to be quiet", || scene.served.manager().log().contains(&home));
    assert!(scene.served.count("fenced_now") > 0, "the successor knows of no other node");
    assert!(!held.is_finished(), "answered while the node could wake up");
    scene.wake(1);
    held.join().unwrap().unwrap();
    scene.write(NEW, object * OBJECT).join().unwrap().unwrap();
    wait_for("the fence to fall", || scene.served.count("fenced_now") == 0);
    assert_eq!((scene.block_at(object * OBJECT), scene.served.count("released_time")), (NEW, 0));
}

/// Without the fence, the same is a lost write: what the tests above show is the fence's doing.
#[test]
fn without_a_fence_the_same_loses_an_answered_write() {
    on_a_scene::<Lives>(&["--unsafe-fence-off", "--route=gateway"], 1, |scene, offset| {
        let stopped = scene.stop_with_a_write(offset);
        scene.served.take_over(Signal::SIGKILL);
        scene.write(NEW, offset).join().unwrap().unwrap();
        assert_eq!(scene.block_at(offset), NEW);
        scene.wake(stopped);
        wait_for("the answered write to be lost", || scene.block_at(offset) == OLD);
        // A client of a real sheep must not do that, and minisheep may have said so.
        scene.site.cluster.minisheep().control("clear-bugs");
    });
}
