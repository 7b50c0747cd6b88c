//! How long does a volume stall when something dies? A mount is put under the load of the
//! register checker, which also proves that nothing is lost, and hit by a fault again and again.
//! What is printed is the distribution of stalls: for each fault the longest time for which some
//! call that was under way had no answer.
//!
//! `cargo bench --bench recovery -- --help` lists the options; `README.md` beside this file says
//! how a real cluster is hit.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "offsets in small volumes, on 64-bit machines")]
#![allow(dead_code, reason = "the support modules serve tests as well")]

#[path = "../support/cluster.rs"]
mod cluster;
#[path = "../support/minisheep.rs"]
mod minisheep;
#[path = "../support/mount.rs"]
mod mount;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/register.rs"]
mod register;
#[path = "../support/stalls.rs"]
mod stalls;
#[path = "../support/tools.rs"]
mod tools;
#[path = "../support/wire.rs"]
mod wire;

use clap::Parser;
use cluster::Cluster;
use minisheep::Minisheep;
use mount::Mount;
use nix::sys::signal::{Signal, kill};
use random::Random;
use register::Registers;
use register::plan::Plan;
use sheepfs::wire::request::NewVdi;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tools::wait_for;

/// Measures stalls when a worker, or whatever a command hits, dies under load.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench recovery --")]
struct Options {
    /// A sheep to use instead of a minisheep of our own; a VDI is made there, and deleted.
    #[arg(long, value_name = "HOST:PORT")]
    sheep: Option<String>,
    /// How often the fault comes.
    #[arg(long, default_value_t = 100)]
    times: u32,
    /// A shell command that is the fault, instead of a SIGKILL of the worker; the sheep in use is
    /// in $SHEEP, the worker's process in $WORKER. It may go on after the fault, to mend it.
    #[arg(long, value_name = "COMMAND")]
    fault: Option<String>,
    /// Objects that are made while the faults come, instead of a few that exist.
    #[arg(long)]
    creates: bool,
    /// An option for sheepfs, for example --with=--fence=fast (repeatable).
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    with: Vec<String>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The longest pause between a swap and the next fault, so that it comes at any instant.
const PAUSE_MAX: Duration = Duration::from_millis(40);

/// What is printed of `config/status` at the end.
const COUNTERS: [&str; 16] = [
    "worker_generation",
    "swaps_worker_died",
    "swaps_worker_silent",
    "swaps_sheep_lost",
    "swaps_sheep_silent",
    "swaps_failover",
    "replayed",
    "fenced",
    "released_drained",
    "released_gone",
    "released_not_member",
    "released_time",
    "poisoned",
    "short_writes",
    "longest_stall_ms",
    "last_error",
];

fn main() {
    let options = Options::parse();
    let cluster = match &options.sheep {
        Some(address) => Cluster::named(address),
        None => Cluster::Mini(Minisheep::start(&["--format"])),
    };
    let plan = if options.creates { Plan::CREATES } else { Plan::SHARED };
    let block_size_shift = plan.object_shift();
    let new = NewVdi { size: plan.size(), block_size_shift, ..NewVdi::default() };
    let disk = cluster.vdi_with("recovery", &new);
    let with: Vec<&str> = options.with.iter().map(String::as_str).collect();
    let mount = Mount::with_volume(&cluster, &disk, &with);
    let load = Registers::start(&mount.volume(&disk), plan);
    let mut random = Random::announced();
    let mut faults = Vec::new();
    for _ in 0..options.times {
        load.wait_for_progress();
        thread::sleep(Duration::from_micros(random.within(0..PAUSE_MAX.as_micros() as u64)));
        let before = mount.count("worker_generation");
        faults.push(Instant::now());
        hit(options.fault.as_deref(), &mount);
        wait_for("the next worker", || {
            load.check();
            mount.count("worker_generation") > before
                && mount.status("worker_state").as_deref() == Some("serving")
        });
    }
    load.wait_for_progress();
    let report = load.finish();
    let row = options.fault.as_deref().unwrap_or("SIGKILL of the worker");
    report.print_stalls(row, &faults);
    report.print_by_fence(row, &faults);
    for counter in COUNTERS {
        println!("{counter} {}", mount.status(counter).unwrap_or_default());
    }
    report.compare(&cluster.content(&disk));
    println!("{} registers, no error, nothing lost", report.touched());
}

fn hit(fault: Option<&str>, mount: &Mount) {
    let worker = mount.worker();
    let Some(command) = fault else { return kill(worker, Signal::SIGKILL).unwrap() };
    let sheep = mount.status("sheep").unwrap();
    let status = Command::new("sh")
        .args(["-ec", command])
        .env("SHEEP", sheep)
        .env("WORKER", worker.to_string())
        .status();
    assert!(status.unwrap().success(), "the fault failed: {command}");
}
