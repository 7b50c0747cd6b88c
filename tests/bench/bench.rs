//! The project's yardstick. Against one cluster, in one run, the same requests are made by
//! clients that only speak the protocol and by fio through mounted volumes: sheepfs in each of
//! its modes, the original where the environment names it, and a file system that does nothing.
//! They take turns, several times, so that a machine that is busy for a while is busy for all;
//! what is reported are medians, spread, ratios, processor time and memory. The volume is filled
//! first, so that reads find objects. See `README.md` beside this file.
//!
//! `cargo bench --bench mount -- --help` lists the options.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "the support modules panic")]
#![allow(clippy::cast_possible_truncation, reason = "offsets in small volumes, on 64-bit machines")]
#![allow(dead_code, reason = "the support modules serve tests as well")]

mod cases;
mod connection;
mod contest;
mod control;
mod fio;
mod lane;
#[path = "../support/minisheep.rs"]
mod minisheep;
mod mounted;
mod namespace;
mod narrow;
mod null;
mod places;
mod proc;
mod program;
mod report;
mod results;
mod scene;
mod site;
mod stats;
#[path = "../support/wire.rs"]
mod support_wire;
#[path = "../support/tools.rs"]
mod tools;
mod wire;

use cases::Case;
use clap::{Parser, ValueEnum};
use contest::{Contest, Pace};
use mounted::Mounted;
use narrow::Namespaces;
use results::{Failure, Results};
use site::Site;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use wire::Wire;

/// Compares mounts with bare clients of the wire protocol, and with each other.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench mount --")]
struct Options {
    /// A sheep to measure instead of minisheep of our own.
    #[arg(long, value_name = "HOST:PORT", requires = "vdi")]
    sheep: Option<String>,
    /// A VDI on that sheep; everything in it is overwritten.
    #[arg(long, value_name = "NAME", requires = "sheep")]
    vdi: Option<String>,
    /// What to measure (repeatable) [default: data, control and idle]
    #[arg(long, alias = "case", value_name = "GROUP")]
    group: Vec<Group>,
    /// All sizes, depths, orders and directions.
    #[arg(long)]
    full: bool,
    /// Only the cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// How much of the volume to use, in MiB.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..))]
    mib: u32,
    /// How often each measurement is made.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// How long each takes, in seconds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Connections of the bare client to each sheep, at most one for each request in flight.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// VDIs to be listed [default: 1000 on minisheep of our own, else none are made]
    #[arg(long, value_name = "COUNT")]
    listed: Option<u32>,
    /// An option for sheepfs, for example --with=--io-timeout=9 (repeatable).
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    with: Vec<String>,
    /// Where to leave the table, the results as JSON and the chart.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// Be the file system that does nothing.
    #[arg(long, hide = true)]
    serve_null: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Reads and writes, cold and warm caches.
    Data,
    /// Attaching, listing.
    Control,
    /// Nothing to do for ten seconds.
    Idle,
    /// Four nodes behind 100 Mbit/s each.
    Narrow,
}

/// VDIs to be listed in a cluster of our own.
const LISTED: u32 = 1000;
/// 32 requests of 1 MiB take three seconds on one link, and those under way at the end don't count.
const NARROW_TIME: Duration = Duration::from_secs(10);
const NARROW_MIB: u32 = 128;
const NARROW_PLACE: &str = "four nodes behind 100 Mbit/s";

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.serve_null {
        Some(point) => null::serve(point, u64::from(options.mib) << 20),
        None => run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let mut results = Results::default();
    scene::begin(&mut results.scene)?;
    if [Group::Data, Group::Control, Group::Idle].iter().any(|group| options.wants(*group)) {
        measure_site(options, &mut results)?;
    }
    if options.wants(Group::Narrow) {
        measure_narrow(options, &mut results)?;
    }
    scene::end(&mut results.scene);
    print!("{}", report::table::render(&results));
    report::write(&results, &options.out)?;
    eprintln!("table.md, results.json and chart.svg are in {}", options.out.display());
    Ok(())
}

fn measure_site(options: &Options, results: &mut Results) -> Result<(), Failure> {
    let site = match (&options.sheep, &options.vdi) {
        (Some(sheep), Some(vdi)) => Site::named(sheep, vdi, options.mib),
        _ => Site::own(options.mib)?,
    };
    results.scene.facts.push(("cluster", site.describe()));
    let mounts = Mounted::all(&site, &options.with)?;
    if options.wants(Group::Data) {
        let wire = fill(&site, &mounts)?;
        let contest = Contest::new(&site, &wire, &mounts, options.pace());
        for case in options.cases() {
            contest.hold(&case, None, results)?;
            // What a run has found so far survives its end.
            report::write(results, &options.out)?;
        }
    }
    if options.wants(Group::Control) {
        results.figures.push(control::attach(&mounts, options.repeats)?);
        let count = options.listed.unwrap_or(if site.is_own() { LISTED } else { 0 });
        if count > 0 {
            results.figures.push(control::list(&site, &mounts, count, options.repeats)?);
        }
    }
    if options.wants(Group::Idle) {
        results.figures.push(control::idle(&mounts)?);
    }
    Ok(())
}

fn measure_narrow(options: &Options, results: &mut Results) -> Result<(), Failure> {
    let namespaces = Namespaces::start(NARROW_MIB)?;
    let site = Site::narrow(namespaces, narrow::VDI, NARROW_MIB);
    results.scene.facts.push(("narrow", site.describe()));
    let mounts = Mounted::routes(&site, &options.with)?;
    let wire = fill(&site, &mounts)?;
    site.namespaces().ok_or("no namespaces")?.limit()?;
    let pace = Pace { time: options.pace().time.max(NARROW_TIME), ..options.pace() };
    let contest = Contest::new(&site, &wire, &mounts, pace);
    cases::streams().iter().try_for_each(|case| contest.hold(case, Some(NARROW_PLACE), results))
}

/// Makes all objects, through a mount, and then looks at them from the wire.
fn fill(site: &Site, mounts: &[Mounted]) -> Result<Wire, Failure> {
    let first = mounts.first().ok_or("nothing is mounted")?;
    first.attach()?;
    first.fill(site.bytes())?;
    first.detach()?;
    let open = || Wire::open(site.gateway(), site.vdi(), site.bytes());
    match site.namespaces() {
        None => open(),
        Some(namespaces) => namespaces.inside(open),
    }
}

impl Options {
    fn wants(&self, group: Group) -> bool {
        match self.group.is_empty() {
            true => group != Group::Narrow,
            false => self.group.contains(&group),
        }
    }

    fn cases(&self) -> Vec<Case> {
        let all = if self.full { cases::full() } else { cases::usual() };
        all.into_iter().filter(|case| case.name().contains(&self.only)).collect()
    }

    fn pace(&self) -> Pace {
        let time = Duration::from_secs(self.seconds.into());
        Pace { time, repeats: self.repeats, connections: self.connections }
    }
}
