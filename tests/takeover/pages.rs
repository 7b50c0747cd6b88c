//! `config/page_cache` switched again and again while volumes are in use in every way: registers
//! and fio past the page cache, and a program that opens, writes, reads and maps one volume
//! through several open files at once. Supervisors and workers die meanwhile.

use crate::MIB;
use crate::cluster::Cluster;
use crate::load::{Disks, Load};
use crate::random::Random;
use crate::register::plan::Plan;
use crate::rounds::rounds;
use crate::served::{Keeper, Lives, Manager, Served};
use crate::site::{random_while, wait_for_swap, wait_until_serving};
use crate::tools::{arg, start, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INSTANT_MAX: Duration = Duration::from_millis(40);
/// Odd, so that it is on and off in turn when something dies.
const SWITCHES_PER_ROUND: u64 = 5;
const END_SECONDS_MAX: u64 = 60;

/// Each block is a register: whatever open file or mapping it is read by, it holds what was
/// written last, by whatever open file or mapping. Files are opened and closed all the time, so
/// that none is open now and then. Says how many rounds it has done.
const PROGRAM: &str = r"
import mmap, os, random, sys
volume, report, stop, seed = sys.argv[1:]
random.seed(int(seed))
blocks, block = 64, 4096
direct = mmap.mmap(-1, block)
last, files, number, rounds = [0] * blocks, [], 0, 0

def opened():
    flags = os.O_RDWR | random.choice([0, 0, os.O_DIRECT])
    file = os.open(volume, flags)
    mapped = mmap.mmap(file, blocks * block) if random.random() < 0.4 else None
    return file, mapped

def closed(file, mapped):
    if mapped is not None:
        mapped.close()
    os.close(file)

def write(file, mapped, at, content):
    if mapped is not None and random.random() < 0.7:
        mapped[at:at + block] = content
    else:
        direct[:] = content
        assert os.pwrite(file, direct, at) == block

def read(file, mapped, at):
    if mapped is not None and random.random() < 0.7:
        return mapped[at:at + block]
    assert os.preadv(file, [direct], at) == block
    return direct[:]

while not os.path.exists(stop):
    while files and random.random() < 0.7:
        closed(*files.pop(random.randrange(len(files))))
    while not files or random.random() < 0.5 and len(files) < 4:
        files.append(opened())
    for which in random.choices(range(blocks), k=8):
        number += 1
        write(*random.choice(files), which * block, number.to_bytes(8, 'little') * (block // 8))
        last[which] = number
    for file in files:
        for which in random.choices(range(blocks), k=16):
            found = read(*file, which * block)
            wanted = last[which].to_bytes(8, 'little') * (block // 8)
            assert found == wanted, (which, found[:8], found[-8:], last[which], file)
    rounds += 1
    open(report, 'w').write(str(rounds))
for file in files:
    os.fsync(file[0])
    closed(*file)
";

/// The running program.
struct Program {
    child: Child,
    report: PathBuf,
    stop: PathBuf,
}

impl Program {
    fn start(volume: &Path, dir: &Path, seed: u64) -> Self {
        let (report, stop) = (dir.join("rounds"), dir.join("stop"));
        let child = start(
            Command::new("python3")
                .args(["-c", PROGRAM, arg(volume), arg(&report), arg(&stop), &seed.to_string()])
                .stdin(Stdio::null()),
        );
        Self { child, report, stop }
    }

    fn rounds(&self) -> u64 {
        let report = fs::read_to_string(&self.report).unwrap_or_default();
        report.parse().unwrap_or_default()
    }

    fn wait_for_progress(&mut self) {
        let enough = self.rounds() + 2;
        wait_for("a round of the program", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the program ended with {ended:?}");
            self.rounds() >= enough
        });
    }

    fn finish(mut self) {
        self.wait_for_progress();
        fs::write(&self.stop, "").unwrap();
        let deadline = Instant::now() + Duration::from_secs(END_SECONDS_MAX);
        let ended = wait_until(&mut self.child, deadline).expect("the program ends");
        assert!(ended.success(), "the program saw an error: {ended}");
        println!("{} rounds of the program", self.rounds());
    }
}

fn switched_under_load<M: Manager>(row: &str, times: u64) {
    let cluster = Cluster::mini();
    let disks = Disks::make(&cluster, Plan::SHARED);
    let shared = cluster.vdi("shared", 4 * MIB);
    let names = [&disks.names()[..], &[shared.as_str()]].concat();
    let mut served = Served::<M>::start(&cluster, &names, &["-k"]);
    let mut random = Random::announced();
    let seed = random.within(0..1 << 32);
    let mut program = Program::start(&served.volume(&shared), served.scratch(), seed);
    let mut load = Load::start(&served, &disks);
    let mut on = true;
    for round in 0..times {
        for _ in 0..SWITCHES_PER_ROUND {
            on = !on;
            served.write("config/page_cache", if on { b"1" } else { b"0" }).unwrap();
            random_while(&mut random, INSTANT_MAX);
            program.wait_for_progress();
        }
        load.wait_for_progress();
        load.fault();
        if round % 2 == 0 {
            served.take_over(Signal::SIGKILL);
        } else {
            wait_until_serving(&served);
            let before = served.count("swaps_worker_died");
            kill(served.worker().expect("a worker serves"), Signal::SIGKILL).unwrap();
            wait_for_swap(&served, "swaps_worker_died", before);
        }
        load.witness.check(&served);
        assert_eq!(served.read("config/page_cache").trim(), if on { "1" } else { "0" });
    }
    program.finish();
    load.finish(row, &served, &cluster);
    assert_eq!(served.count("takeovers"), times.div_ceil(2));
}

#[test]
fn the_page_cache_may_be_switched_under_load() {
    switched_under_load::<Lives>("switch-page-cache", rounds(6, 100));
}

#[test]
fn the_page_cache_may_be_switched_under_the_keeper() {
    switched_under_load::<Keeper>("switch-page-cache-keeper", rounds(2, 50));
}
