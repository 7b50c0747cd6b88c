//! Many requests, and no sheep to answer them: memory stays bounded, control files answer, and
//! when a sheep is back all are answered.

use crate::MIB;
use crate::mount::{Mount, children_of};
use crate::site::{Site, timed};
use crate::stalls::Stalls;
use crate::tools::{arg, start, wait_for, wait_until};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const REQUESTS: u64 = 20_000;
const LARGE_WRITERS: u64 = 400;
const PROCESSES: u64 = 4;
const MEMORY_KIB_MAX: u64 = 256 << 10;
static LARGE: [u8; 1 << 20] = [5; 1 << 20];

/// Writes blocks that carry their number, each from a thread of its own.
const WRITERS: &str = r#"
import os, sys, threading

path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
threading.stack_size(64 << 10)
file = os.open(path, os.O_WRONLY)
done = []

def write(number):
    block = (number + 1).to_bytes(8, "little") + bytes(4088)
    if os.pwrite(file, block, number * 4096) == 4096:
        done.append(number)

threads = [threading.Thread(target=write, args=[first + i]) for i in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(len(done) != count)
"#;

/// The memory that a process and what it started have, in KiB: what several share is counted
/// once (the kernel's "proportional set size"), and so is what is locked.
fn memory_kib(mount: &Mount) -> u64 {
    let own = |process: Pid| {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
        let rollup = rollup.unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.map_or(0, |rest| rest.trim().trim_end_matches(" kB").parse().unwrap())
    };
    own(mount.supervisor()) + children_of(mount.supervisor()).into_iter().map(own).sum::<u64>()
}

fn resident_kib(process: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What must hold with all that outstanding.
fn assert_alive_and_small(mount: &Mount, what: &str) {
    let mut stalls = Stalls::new(&format!("control files with {what}"));
    for _ in 0..20 {
        for file in ["config/sheep_info", "config/status"] {
            stalls.add(timed(|| mount.read(file)).1);
        }
        stalls.add(timed(|| mount.write("config/page_cache", b"0").unwrap()).1);
    }
    stalls.print();
    let memory = memory_kib(mount);
    println!(
        "{what}: {memory} KiB in all processes, {} KiB resident in the supervisor; in_flight {} \
         queued_bytes {} short_writes {}",
        resident_kib(mount.supervisor()),
        mount.count("in_flight"),
        mount.count("queued_bytes"),
        mount.count("short_writes")
    );
    assert!(memory < MEMORY_KIB_MAX, "{what}: {memory} KiB");
}

/// Processes that make the small requests: one alone may not have so many threads, since each
/// of them needs mappings of its own.
#[derive(Debug)]
struct Crowd(Vec<Child>);

impl Crowd {
    /// Starts a writer for each block of `volume`, up to [`REQUESTS`].
    fn start(volume: &Path) -> Self {
        let share = REQUESTS / PROCESSES;
        let one = |number: u64| {
            let range = [number * share, share].map(|number| number.to_string());
            start(Command::new("python3").args(["-c", WRITERS, arg(volume)]).args(range))
        };
        Self((0..PROCESSES).map(one).collect())
    }

    fn has_ended(&mut self) -> bool {
        self.0.iter_mut().any(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits until all are answered.
    fn join(&mut self) {
        for child in &mut self.0 {
            let deadline = Instant::now() + Duration::from_secs(120);
            let status = wait_until(child, deadline).expect("an answer to all requests");
            assert!(status.success(), "a write failed or was cut short, see above");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // With a test that fails they hang until the mount is gone, and are not waited for.
        self.0.iter_mut().for_each(|child| drop(child.kill()));
    }
}

fn small_block(number: u64) -> [u8; 4096] {
    let mut block = [0; 4096];
    block[..8].copy_from_slice(&(number + 1).to_le_bytes());
    block
}

fn begin_outage(site: &mut Site, mount: &Mount) {
    site.gateways[0].kill();
    wait_for("the outage", || mount.status("worker_state").as_deref() == Some("backing_off"));
}

#[test]
fn twenty_thousand_small_requests_without_a_sheep() {
    let mut site = Site::start(1);
    let disk = site.cluster.vdi("disk", 80 * MIB);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    begin_outage(&mut site, &mount);
    let mut crowd = Crowd::start(&mount.volume(&disk));
    wait_for("all requests", || mount.count("in_flight") == REQUESTS);
    assert_alive_and_small(&mount, "20,000 writes of 4 KiB");
    assert!(!crowd.has_ended(), "answered by nobody");
    site.gateways[0].restart();
    crowd.join();
    wait_for("the table to empty", || mount.count("in_flight") == 0);
    assert_eq!(mount.count("short_writes"), 0, "a write of one block was cut");
    let content = site.cluster.content(&disk);
    for number in 0..REQUESTS {
        let block = &content[number as usize * 4096..][..4096];
        assert!(block == small_block(number), "block {number}");
    }
}

/// Beyond the bound on bytes, writes may be cut short, which programs that write all of their
/// bytes don't notice.
#[test]
fn many_large_writers_without_a_sheep() {
    let mut site = Site::start(1);
    let disk = site.cluster.vdi("disk", LARGE_WRITERS * MIB);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    let file = Arc::new(mount.open(&disk));
    begin_outage(&mut site, &mount);
    // Threads without a scope: with a test that fails they hang until the mount is gone.
    let writers: Vec<_> = (0..LARGE_WRITERS)
        .map(|number| {
            let file = Arc::clone(&file);
            thread::spawn(move || file.write_all_at(&LARGE, number * MIB))
        })
        .collect();
    wait_for("all writers", || {
        mount.count("in_flight") + mount.count("short_writes") >= LARGE_WRITERS
    });
    assert_alive_and_small(&mount, "400 writers of 1 MiB");
    assert!(!writers.iter().any(thread::JoinHandle::is_finished), "answered by nobody");
    site.gateways[0].restart();
    writers.into_iter().for_each(|writer| writer.join().unwrap().unwrap());
    drop(file);
    let content = site.cluster.content(&disk);
    assert!(content.iter().all(|byte| *byte == 5), "something is missing");
}

/// Asynchronous writes can't be taken in part: for these that is an error.
#[test]
fn many_large_asynchronous_writes_without_a_sheep() {
    let mut site = Site::start(1);
    let disk = site.cluster.vdi("disk", 400 * MIB);
    let through = site.through(0);
    let mount = Mount::with_volume(&through, &disk, &[]);
    begin_outage(&mut site, &mount);
    let volume = mount.volume(&disk);
    let mut fio = Command::new("fio")
        .args([
            "--name=x",
            "--rw=write",
            "--bs=1M",
            "--ioengine=libaio",
            "--iodepth=200",
            "--direct=1",
            "--size=300M",
        ])
        .arg(format!("--filename={}", volume.display()))
        .spawn()
        .unwrap();
    wait_for("as many writes as the kernel lets out", || mount.count("in_flight") >= 96);
    site.gateways[0].restart();
    assert!(fio.wait().unwrap().success());
    assert_eq!(mount.count("short_writes"), 0);
    assert!(mount.count("longest_stall_ms") > 0);
}
