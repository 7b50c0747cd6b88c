//! What does the mount cost over the bare wire? Against one sheep, in one run, the same
//! requests are made twice: by a client that only speaks the protocol and by fio through
//! the mounted volume. The two take turns, several times, so that a machine that is busy for a
//! while is busy for both; what is printed are medians and their ratio. The volume is
//! filled first, so that reads find objects. See `README.md` beside this file.
//!
//! `cargo bench --bench mount -- --help` lists the options.

mod cases;
mod mount;
mod table;
mod wire;

use cases::Case;
use clap::Parser;
use mount::Mount;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use table::{Row, Samples};
use wire::Wire;

/// Compares the mount with a bare client of the wire protocol.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench mount --")]
struct Options {
    /// A sheep to measure instead of a minisheep of our own.
    #[arg(long, value_name = "HOST:PORT", requires = "vdi")]
    sheep: Option<String>,
    /// A VDI on that sheep; everything in it is overwritten.
    #[arg(long, value_name = "NAME", requires = "sheep")]
    vdi: Option<String>,
    /// How much of the volume to use, in MiB.
    #[arg(long, default_value_t = 256)]
    mib: u32,
    /// How often each measurement is made.
    #[arg(long, default_value_t = 5)]
    repeats: u32,
    /// How long each takes, in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Connections of the bare client, at most one for each request in flight.
    #[arg(long, default_value_t = 4)]
    connections: u32,
    /// An option for sheepfs, for example --with=--pagecache (repeatable).
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    with: Vec<String>,
    /// Only the cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Anything that ends a measurement; its words are all that is needed of it.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let mount = start(options)?;
    let bytes = u64::from(options.mib.max(8)) << 20;
    mount.fill(bytes)?;
    let wire = Wire::open(&mount.sheep()?, mount.vdi(), bytes)?;
    eprintln!("{} on {}", mount.vdi(), mount.sheep()?);
    let mut rows = Vec::new();
    for case in cases::ALL.iter().filter(|case| case.name().contains(&options.only)) {
        rows.push(measure(case, &wire, &mount, options)?);
    }
    print!("{}", table::render(&rows));
    Ok(())
}

fn start(options: &Options) -> Result<Mount, Failure> {
    match (&options.sheep, &options.vdi) {
        (Some(sheep), Some(vdi)) => Mount::on_sheep(sheep, vdi, &options.with),
        _ => Mount::on_minisheep(options.mib.max(8), &options.with),
    }
}

/// All repeats of one case; who goes first changes each time.
fn measure(case: &Case, wire: &Wire, mount: &Mount, options: &Options) -> Result<Row, Failure> {
    let time = Duration::from_secs(options.seconds.max(1).into());
    let bare = || wire.measure(case, time, options.connections.max(1));
    let mounted = || mount.measure(case, time, wire.bytes());
    let (mut on_wire, mut on_mount) = (Samples::default(), Samples::default());
    for turn in 0..options.repeats.max(1) {
        if turn % 2 == 0 {
            on_wire.push(bare()?);
            on_mount.push(mounted()?);
        } else {
            on_mount.push(mounted()?);
            on_wire.push(bare()?);
        }
        eprintln!("{}: {} of {}", case.name(), turn + 1, options.repeats.max(1));
    }
    Ok(Row { case: *case, on_wire, on_mount })
}
