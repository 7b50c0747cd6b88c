//! A sheep hangs with a change of ours and wakes up when its replay, and newer writes to the
//! same object, have gone through another (hazards 1 and 2): the fence. The sheep is the one in
//! use, or another that is asked directly since it holds the object.

use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::rounds::rounds;
use crate::site::{Site, wait_for_swap};
use crate::tools::wait_for;
use crate::{KIB, MIB};
use nix::sys::signal::Signal;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread::{self, JoinHandle};
use std::time::Instant;

const BLOCK: usize = 4096;
const OBJECT: u64 = 4 * MIB;
/// The write that is held, the one after it, and what was there before.
const OLD: u8 = 1;
const NEW: u8 = 2;
const BEFORE: u8 = 9;

/// What is held by the gateway when it stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stale {
    /// An overwrite: when it comes late, an older block replaces a newer.
    Write,
    /// A create: when it comes late, it replaces the object.
    Create,
}

impl Stale {
    fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Create => "create",
        }
    }

    /// Where the newer write goes, in the object: over the held one, or beside it.
    fn newer_at(self) -> u64 {
        match self {
            Self::Write => 0,
            Self::Create => 64 * KIB,
        }
    }

    /// What is at the newer write's place when the held one has come too late.
    fn lost(self) -> u8 {
        match self {
            Self::Write => OLD,
            Self::Create => 0,
        }
    }
}

/// Which gateway stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The one in use, through which everything goes.
    InUse,
    /// The other, which holds the object.
    Holder,
}

/// Objects from which each round takes one, so that one of them is where it must be.
const CHOICE: u64 = 24;

/// A mount over two gateways, with a volume of some objects for each round.
struct Scene<'a> {
    site: &'a Site,
    mount: &'a Mount<'a>,
    disk: &'a str,
    stale: Stale,
    which: Which,
}

/// A round, from the moment on when the held write's replay was answered.
struct Woken {
    /// The gateway that stopped.
    stopped: usize,
    /// Where the newer write goes.
    offset: u64,
}

impl Scene<'_> {
    fn write(&self, value: u8, offset: u64) -> JoinHandle<io::Result<()>> {
        let file = self.mount.open(self.disk);
        thread::spawn(move || file.write_all_at(&[value; BLOCK], offset))
    }

    fn block_at(&self, offset: u64) -> u8 {
        let content = self.site.cluster.content(self.disk);
        let block = &content[offset as usize..][..BLOCK];
        assert!(block.iter().all(|byte| *byte == block[0]), "a torn block");
        block[0]
    }

    /// Has the gateway in use hold a change of the round's object and stop, until another has
    /// answered for it.
    fn stop_with_a_change(&self, round: u64) -> Woken {
        let (object, stopped) = self.object_of(round);
        if self.stale == Stale::Write {
            self.write(BEFORE, object).join().unwrap().unwrap();
        }
        let gateway = &self.site.gateways[stopped];
        let line = format!("hold kind=data opcode={} count=1", self.stale.word());
        let answer = gateway.control(&line);
        let fault = answer.strip_prefix("ok ").expect(&line).trim().to_owned();
        let held = self.write(OLD, object);
        let fired = format!("{fault} 1");
        wait_for("the change to be held", || {
            gateway.control("fired").lines().any(|line| line == fired)
        });
        let before = self.mount.count("swaps_sheep_silent");
        gateway.signal(Signal::SIGSTOP);
        wait_for_swap(self.mount, "swaps_sheep_silent", before);
        held.join().unwrap().unwrap();
        assert_ne!(self.site.in_use(self.mount), stopped);
        assert_eq!(self.block_at(object), OLD);
        Woken { stopped, offset: object + self.stale.newer_at() }
    }

    /// The round's object, and the gateway to which changes of it are sent.
    fn object_of(&self, round: u64) -> (u64, usize) {
        let (in_use, first) = (self.site.in_use(self.mount), round * CHOICE);
        if self.which == Which::InUse {
            return (first * OBJECT, in_use);
        }
        let elsewhere = |block: &u64| self.site.holder(self.disk, *block) != in_use;
        let mut blocks = (first..first + CHOICE).filter(elsewhere);
        let (block, other) = (blocks.next().unwrap(), blocks.next().unwrap());
        // The first request for an object of it makes it known.
        self.write(BEFORE, other * OBJECT).join().unwrap().unwrap();
        let mut room = [0; BLOCK];
        let file = self.mount.open(self.disk);
        wait_for("the holder to be asked", || {
            file.read_exact_at(&mut room, other * OBJECT).unwrap();
            self.mount.count("direct_nodes") == 1
        });
        (block * OBJECT, self.site.holder(self.disk, block))
    }

    /// Lets the stopped gateway go on with what it holds.
    fn wake(&self, round: &Woken) {
        let gateway = &self.site.gateways[round.stopped];
        gateway.signal(Signal::SIGCONT);
        gateway.control("release");
    }
}

fn on_a_scene(
    (which, stale): (Which, Stale),
    fence: &[&str],
    times: u64,
    body: impl Fn(&Scene, u64),
) {
    let site = Site::start(2);
    let disk = site.cluster.vdi("disk", times * CHOICE * OBJECT);
    let through = site.through(0);
    let route = if which == Which::InUse { "--route=gateway" } else { "--route=replica" };
    let mount = Mount::with_volume(&through, &disk, &[&["--io-timeout=1", route], fence].concat());
    let scene = Scene { site: &site, mount: &mount, disk: &disk, stale, which };
    for round in 0..times {
        wait_for("both candidates", || mount.count("candidates") >= 2);
        body(&scene, round);
    }
}

/// How often fences were released, by any cause.
fn released(mount: &Mount) -> u64 {
    let keys = ["released_drained", "released_gone", "released_not_member", "released_time"];
    keys.iter().map(|key| mount.count(key)).sum()
}

/// With the fence: the newer write waits for the old gateway, and stays.
fn fenced(what: (Which, Stale), fence: &str) {
    on_a_scene(what, &[fence], rounds(2, 20), |scene, round| {
        let mount = scene.mount;
        let before = (mount.count("fenced"), released(mount));
        let woken = scene.stop_with_a_change(round);
        assert!(mount.count("fenced") > before.0 && mount.count("fenced_now") > 0);
        let newer = scene.write(NEW, woken.offset);
        wait_for("the newer write to be held", || mount.count("held") > 0);
        assert!(!newer.is_finished(), "answered while the old gateway could wake up");
        let fault = Instant::now();
        scene.wake(&woken);
        newer.join().unwrap().unwrap();
        println!("the fence fell {} ms after the gateway woke", fault.elapsed().as_millis());
        assert_eq!(scene.block_at(woken.offset), NEW);
        let mut room = [0; BLOCK];
        mount.open(scene.disk).read_exact_at(&mut room, woken.offset).unwrap();
        assert_eq!(room, [NEW; BLOCK]);
        assert!(released(mount) > before.1);
        wait_for("the fence to fall", || mount.count("fenced_now") == 0);
        assert_eq!(mount.count("held"), 0);
    });
}

#[test]
fn a_stale_write_overwrites_nothing() {
    fenced((Which::InUse, Stale::Write), "--fence=strict");
}

#[test]
fn a_stale_create_replaces_nothing() {
    fenced((Which::InUse, Stale::Create), "--fence=strict");
}

#[test]
fn nor_does_a_stale_write_at_a_node_that_was_asked_directly() {
    fenced((Which::Holder, Stale::Write), "--fence=strict");
}

#[test]
fn nor_a_stale_create_at_a_node_that_was_asked_directly() {
    fenced((Which::Holder, Stale::Create), "--fence=strict");
}

/// Without the fence, the same is a lost write: what the tests above show is the fence's doing.
fn unfenced(which: Which, stale: Stale) {
    on_a_scene((which, stale), &["--unsafe-fence-off"], 1, |scene, round| {
        let woken = scene.stop_with_a_change(round);
        scene.write(NEW, woken.offset).join().unwrap().unwrap();
        assert_eq!(scene.block_at(woken.offset), NEW);
        scene.wake(&woken);
        wait_for("the answered write to be lost", || scene.block_at(woken.offset) == stale.lost());
        // A client of a real sheep must not do that, and minisheep may have said so.
        tolerate_bugs(scene.site.cluster.minisheep());
    });
}

fn tolerate_bugs(sheep: &Minisheep) {
    println!("without the fence, minisheep saw: {:?}", sheep.bugs());
    sheep.control("clear-bugs");
}

#[test]
fn without_the_fence_a_stale_write_loses_an_answered_one() {
    unfenced(Which::InUse, Stale::Write);
    unfenced(Which::Holder, Stale::Write);
}

#[test]
fn without_the_fence_a_stale_create_loses_an_answered_write() {
    unfenced(Which::InUse, Stale::Create);
    unfenced(Which::Holder, Stale::Create);
}

/// Reads, and writes to other objects, don't wait for a fence.
#[test]
fn a_fence_holds_one_object_only() {
    on_a_scene((Which::InUse, Stale::Write), &["--fence=strict"], 2, |scene, round| {
        if round > 0 {
            return;
        }
        scene.write(BEFORE, OBJECT).join().unwrap().unwrap();
        let woken = scene.stop_with_a_change(round);
        let newer = scene.write(NEW, woken.offset);
        wait_for("the newer write to be held", || scene.mount.count("held") == 1);
        scene.write(NEW, OBJECT).join().unwrap().unwrap();
        let mut room = [0; BLOCK];
        let file = scene.mount.open(scene.disk);
        file.read_exact_at(&mut room, MIB).unwrap();
        file.read_exact_at(&mut room, OBJECT).unwrap();
        assert_eq!(room, [NEW; BLOCK]);
        assert!(!newer.is_finished());
        scene.wake(&woken);
        newer.join().unwrap().unwrap();
        assert_eq!(scene.block_at(woken.offset), NEW);
    });
}

/// The gateway's death is as good as its word: what it held is gone with it.
#[test]
fn a_fence_falls_when_the_old_gateway_is_gone() {
    let mut site = Site::start(2);
    let disk = site.cluster.vdi("disk", OBJECT);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &["--io-timeout=1", "--route=gateway"]);
    wait_for("both candidates", || mount.count("candidates") >= 2);
    let (stale, which) = (Stale::Write, Which::InUse);
    let scene = Scene { site: &site, mount: &mount, disk: &disk, stale, which };
    let woken = scene.stop_with_a_change(0);
    let newer = scene.write(NEW, woken.offset);
    wait_for("the newer write to be held", || mount.count("held") > 0);
    let before = mount.count("released_gone");
    site.gateways[woken.stopped].kill();
    newer.join().unwrap().unwrap();
    assert!(mount.count("released_gone") > before);
    let content = site.cluster.content(&disk);
    assert_eq!(content[..BLOCK], [NEW; BLOCK]);
    site.gateways[woken.stopped].restart();
}
