//! A sheep hangs with a change of a hyper volume's tree and wakes up when another has done the
//! same, and more (hazard 52): the fence holds the whole volume.

use crate::minisheep::Minisheep;
use crate::mount::Mount;
use crate::site::{Site, wait_for_swap};
use crate::tools::wait_for;
use crate::{KIB, MIB};
use nix::sys::signal::Signal;
use sheepfs::wire::request::NewVdi;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread::{self, JoinHandle};

const BLOCK: usize = 4096;
/// Blocks that have objects: one from the beginning, one whose entry is held, a newer one.
const FIRST: u64 = 300;
const HELD: u64 = 200;
const NEWER: u64 = 100;
const OBJECT: u64 = 64 * KIB;

struct Scene<'a> {
    site: &'a Site,
    mount: &'a Mount<'a>,
    disk: &'a str,
    stopped: usize,
}

impl Scene<'_> {
    fn write(&self, block: u64) -> JoinHandle<io::Result<()>> {
        let file = self.mount.open(self.disk);
        let value = u8::try_from(block % 251).unwrap();
        thread::spawn(move || file.write_all_at(&[value; BLOCK], block * OBJECT))
    }

    fn read(&self, block: u64) -> JoinHandle<u8> {
        let file = self.mount.open(self.disk);
        thread::spawn(move || {
            let mut room = [0; BLOCK];
            file.read_exact_at(&mut room, block * OBJECT).unwrap();
            room[0]
        })
    }

    fn wake(&self) {
        let gateway = &self.site.gateways[self.stopped];
        gateway.signal(Signal::SIGCONT);
        gateway.control("release");
    }

    /// The blocks that the tree lists.
    fn listed(&self) -> Vec<u64> {
        let mut wire = self.site.cluster.wire();
        let vid = wire.vid(self.disk);
        wire.tree(vid).into_keys().map(u64::from).collect()
    }
}

/// Goes on when the gateway in use has stopped with a change of the tree, and another is in use.
fn with_a_change_held(fence: &str, body: impl Fn(&Scene, JoinHandle<io::Result<()>>)) {
    let site = Site::start(2);
    let new = NewVdi { size: 64 * MIB, block_size_shift: 16, ..NewVdi::default() };
    let disk = site.cluster.hyper("disk", &new);
    let through = site.through(0);
    let options = ["--io-timeout=1", "--route=gateway", fence];
    let mount = Mount::with_volume(&through, &disk, &options);
    wait_for("both candidates", || mount.count("candidates") >= 2);
    let stopped = site.in_use(&mount);
    let scene = Scene { site: &site, mount: &mount, disk: &disk, stopped };
    scene.write(FIRST).join().unwrap().unwrap();
    let gateway = &site.gateways[stopped];
    let line = "hold kind=inode opcode=write count=1";
    let answer = gateway.control(line);
    let fault = answer.strip_prefix("ok ").expect(line).trim().to_owned();
    let held = scene.write(HELD);
    let fired = format!("{fault} 1");
    wait_for("the change of the tree to be held", || {
        gateway.control("fired").lines().any(|line| line == fired)
    });
    let before = mount.count("swaps_sheep_silent");
    gateway.signal(Signal::SIGSTOP);
    wait_for_swap(&mount, "swaps_sheep_silent", before);
    assert_ne!(site.in_use(&mount), stopped);
    body(&scene, held);
}

#[test]
fn a_stale_change_of_a_tree_takes_nothing_back() {
    with_a_change_held("--fence=strict", |scene, held| {
        let newer = scene.write(NEWER);
        let read = scene.read(FIRST);
        wait_for("all three to be held", || scene.mount.count("held") == 3);
        assert!(!held.is_finished() && !newer.is_finished() && !read.is_finished());
        scene.wake();
        for write in [held, newer] {
            write.join().unwrap().unwrap();
        }
        assert_eq!(read.join().unwrap(), u8::try_from(FIRST % 251).unwrap());
        assert_eq!(scene.listed(), [NEWER, HELD, FIRST]);
        wait_for("the fence to fall", || scene.mount.count("fenced_now") == 0);
        for block in [NEWER, HELD, FIRST] {
            assert_eq!(u64::from(scene.read(block).join().unwrap()), block % 251);
        }
    });
}

/// What the test above shows is the fence's doing.
#[test]
fn without_the_fence_a_stale_change_of_a_tree_takes_entries_back() {
    with_a_change_held("--unsafe-fence-off", |scene, held| {
        held.join().unwrap().unwrap();
        scene.write(NEWER).join().unwrap().unwrap();
        assert_eq!(scene.listed(), [NEWER, HELD, FIRST]);
        scene.wake();
        wait_for("the answered block to be lost", || scene.listed() == [HELD, FIRST]);
        tolerate_bugs(scene.site.cluster.minisheep());
    });
}

fn tolerate_bugs(sheep: &Minisheep) {
    println!("without the fence, minisheep saw: {:?}", sheep.bugs());
    sheep.control("clear-bugs");
}
