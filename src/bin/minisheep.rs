//! The program `minisheep`: reads the command line, serves, and says how that ended.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use sheepfs::minisheep::{Config, FormatConfig, Gateway, GatewayConfig, ServeError, Server};
use sheepfs::size::parse_size;
use sheepfs::wire::VdiName;
use tracing_subscriber::EnvFilter;

/// Serves DIR as a Sheepdog cluster of one node, over loopback, for trying and testing.
///
/// This is not a cluster: one copy, no replication, nothing synced to the disk.
///
/// With --gateway-of it keeps nothing itself, but stands in front of a minisheep as one node of a
/// cluster: start several, kill and stop them, and see what clients do.
#[derive(Debug, Parser)]
#[command(name = "minisheep", version)]
struct Arguments {
    /// The loopback address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The port to listen on; 0 takes any that is free.
    #[arg(long, default_value_t = 7000)]
    port: u16,
    /// Format the cluster if it was never formatted.
    #[arg(long)]
    format: bool,
    /// With --format: the copies that VDIs claim to have; there is never more than one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=31))]
    copies: u8,
    /// With --format: log2 of the block size of VDIs.
    #[arg(long, value_name = "N", default_value_t = 22, value_parser = clap::value_parser!(u8).range(9..=31))]
    block_size_shift: u8,
    /// With --format: VDIs can be locked.
    #[arg(long)]
    lock: bool,
    /// With --format: the numbers of deleted VDIs are used again.
    #[arg(long)]
    recycle: bool,
    /// Make this VDI if it is missing; SIZE as 10G or 512M. May be repeated.
    #[arg(long, value_name = "NAME:SIZE", value_parser = name_and_size)]
    create: Vec<(VdiName, u64)>,
    /// End when that process does, which must be the one that starts this.
    #[arg(long, value_name = "PID")]
    with_parent: Option<i32>,
    /// Be a gateway to the minisheep that listens there (as 127.0.0.1:7000), instead of serving
    /// a directory.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        conflicts_with_all = ["dir", "format", "copies", "block_size_shift", "lock", "recycle", "create"],
    )]
    gateway_of: Option<SocketAddr>,
    /// A Unix socket on which tests ask for faults.
    #[arg(long, value_name = "PATH", hide = true)]
    control: Option<PathBuf>,
    /// Where the objects are kept; made if it is missing.
    #[arg(required_unless_present = "gateway_of")]
    dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .init();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    if let Some(parent) = arguments.with_parent
        && !dies_with(parent)
    {
        eprintln!("minisheep: process {parent} is not, or no longer, the one that started this");
        return ExitCode::from(64);
    }
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("minisheep: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Has the kernel end this process with its parent. `false`: that is gone already,
/// or was another one.
fn dies_with(parent: i32) -> bool {
    prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && getppid().as_raw() == parent
}

fn serve(arguments: Arguments) -> Result<(), ServeError> {
    let (address, control) =
        (SocketAddr::new(arguments.address, arguments.port), arguments.control.clone());
    if let Some(behind) = arguments.gateway_of {
        let gateway = Gateway::open(&GatewayConfig { address, behind, control })?;
        greet(gateway.address());
        gateway.run();
        return Ok(());
    }
    let server = Server::open(&arguments.into())?;
    greet(server.address());
    eprintln!(
        "minisheep: not a cluster: one node, one copy, no replication, nothing synced; \
         for trying and testing only"
    );
    server.run()
}

fn greet(address: SocketAddr) {
    // Whoever started this may have stopped listening; serving goes on.
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "minisheep: listening on {address}");
    let _ = stdout.flush();
}

/// Help and version are successes; anything else is a usage error.
fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to tell when even that can't be printed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS }
}

/// As in sysexits.h: 64 usage, 69 unavailable, 70 internal, 77 no permission, 78 configuration.
fn exit_code(error: &ServeError) -> u8 {
    match error {
        ServeError::NotLoopback(_) => 64,
        ServeError::InUse(_) | ServeError::Join { .. } => 69,
        ServeError::Create { .. } => 78,
        ServeError::System { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => 77,
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => 69,
            io::ErrorKind::InvalidData | io::ErrorKind::NotADirectory => 78,
            io::ErrorKind::AlreadyExists => 78,
            _ => 70,
        },
    }
}

fn name_and_size(text: &str) -> Result<(VdiName, u64), String> {
    let (name, size) = text.rsplit_once(':').ok_or("write it as NAME:SIZE, such as disk:10G")?;
    let name = VdiName::new(name).map_err(|error| error.to_string())?;
    let size = parse_size(size).map_err(|error| error.to_string())?;
    Ok((name, size))
}

impl From<Arguments> for Config {
    fn from(arguments: Arguments) -> Self {
        let format = FormatConfig {
            copies: arguments.copies,
            block_size_shift: arguments.block_size_shift,
            lock: arguments.lock,
            recycle: arguments.recycle,
        };
        Self {
            address: SocketAddr::new(arguments.address, arguments.port),
            // Without one there is --gateway-of, which is no such configuration.
            dir: arguments.dir.unwrap_or_default(),
            format: arguments.format.then_some(format),
            create: arguments.create,
            control: arguments.control,
        }
    }
}
