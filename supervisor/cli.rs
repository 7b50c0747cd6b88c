//! The command line: that of the original, and what we add.

use crate::control::outage::OnOutage;
use crate::mount::SOURCE;
use clap::{Parser, ValueEnum};
use sheepfs::address::{DEFAULT_PORT, SheepAddress, parse_port};
use sheepfs::ipc::route::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX, CONNECTIONS_MIN};
use sheepfs::ipc::{Locking, Route};
use sheepfs::size::parse_size;
use sheepfs::wire::name::{NameError, VdiName, VolumeName};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The longest I/O time-out, in seconds.
const IO_TIMEOUT_MAX: f64 = 3600.0;
/// How long changes to an object are fenced, at most.
const FENCE_STRICT: Duration = Duration::from_secs(30);
const FENCE_FAST: Duration = Duration::from_secs(2);

/// Show a Sheepdog cluster as a directory, and its virtual disks as files.
#[derive(Clone, Debug, Parser)]
#[command(name = "sheepfs", version, override_usage = "sheepfs [OPTIONS] <MOUNTPOINT>")]
pub struct Options {
    /// Sheep to talk to: an IP address or host name, perhaps with :PORT
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1")]
    pub address: SheepAddress,

    /// Port of the sheep [default: 7000]
    #[arg(short, long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,

    /// Log every request; implies -f
    #[arg(short, long)]
    pub debug: bool,

    /// Read from FILE what to log: a level such as debug, or directives
    #[arg(long, value_name = "FILE")]
    pub log_filter_file: Option<PathBuf>,

    /// Stay in the foreground, and log to stderr unless that leads to the journal
    #[arg(short, long)]
    pub foreground: bool,

    /// Use the kernel's page cache for volumes
    #[arg(short = 'k', long = "pagecache")]
    pub page_cache: bool,

    /// Use the object cache
    #[arg(short = 'o', long = "objectcache")]
    pub object_cache: bool,

    /// Attach the VDI as soon as mounted; may be repeated
    #[arg(long, value_name = "NAME", value_parser = parse_volume)]
    pub attach: Vec<VolumeName>,

    /// Start a minisheep that keeps its data in DIR, and use it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["address", "port"])]
    pub local: Option<PathBuf>,

    /// With --local, make that VDI unless it is there; may be repeated
    #[arg(long, value_name = "NAME:SIZE", requires = "local", value_parser = parse_new_vdi)]
    pub create: Vec<NewVdi>,

    /// Let other users into the mount, as far as the volumes' mode lets them
    #[arg(long)]
    pub allow_other: bool,

    /// Owner of the volumes [default: the caller]
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,

    /// Group of the volumes [default: the caller's]
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,

    /// Permissions of the volumes, in octal [default: 600, of snapshots 444]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub mode: Option<u16>,

    /// Memory for the object cache [default: a sixteenth of all, at most 1G]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub cache_size: Option<u64>,

    /// While no sheep serves: hold requests for ever, or error-after=SECONDS
    #[arg(long, value_name = "POLICY", default_value = "hold", value_parser = parse_on_outage)]
    pub on_outage: OnOutage,

    /// Seconds without progress after which a sheep is probed
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_io_timeout)]
    pub io_timeout: Duration,

    /// After a failover, wait for the old sheep as long as is safe, or only briefly
    #[arg(long, value_name = "HOW", default_value = "strict", hide_possible_values = true)]
    pub fence: Fence,

    /// Take a VDI's lock from the client that holds it, which must be dead
    #[arg(long)]
    pub steal_lock: bool,

    /// Attach VDIs without their locks, whoever holds them
    #[arg(long, conflicts_with = "steal_lock")]
    pub no_lock: bool,

    /// Mount for reading only, volumes and control files
    #[arg(long)]
    pub read_only: bool,

    /// What the system shows as the source of the mount
    #[arg(long, value_name = "WORDS", default_value = SOURCE, value_parser = parse_source)]
    pub source: String,

    /// Ask a node that holds a replica for objects, or always the sheep: replica or gateway
    #[arg(long, value_name = "WAY", default_value = "replica")]
    pub route: Route,

    /// TCP connections at most, in all
    #[arg(long, value_name = "COUNT", default_value_t = CONNECTIONS_DEFAULT,
          value_parser = parse_connections)]
    pub max_connections: u32,

    /// Check whether this build can take over the state of another on stdin
    #[arg(long, exclusive = true)]
    pub check_state: bool,

    /// For tests: end by a panic when so many requests are in flight
    #[arg(long, value_name = "COUNT", hide = true)]
    pub panic_at_parked: Option<usize>,

    /// For tests: as with a kernel that can't deliver requests again
    #[arg(long, hide = true)]
    pub no_resend: bool,

    /// For tests: don't fence at all, which loses data
    #[arg(long, hide = true)]
    pub unsafe_fence_off: bool,

    /// Directory to mount on
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "check_state")]
    mount_point: Option<PathBuf>,
}

/// How long changes to an object wait after a failover, when nothing is known of
/// the sheep through which an earlier one was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fence {
    /// As long as a sheep that hangs may take to wake up.
    Strict,
    /// Only as long as a busy sheep may take.
    Fast,
}

/// A VDI that `--create` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVdi {
    /// Its name.
    pub name: VdiName,
    /// Bytes.
    pub size: u64,
}

/// Why the value of an option makes no sense.
#[derive(Debug, Error)]
enum ValueError {
    /// `--create` without a colon.
    #[error("a name, a colon and a size are wanted, such as disk:10G")]
    NoSize,
    /// `--on-outage` is neither.
    #[error("hold is wanted, or error-after=SECONDS with a number above 0")]
    OnOutage,
    /// `--io-timeout` is no such time.
    #[error("a number of seconds above 0 and up to {IO_TIMEOUT_MAX} is wanted")]
    IoTimeout,
    /// `--max-connections` is no such number.
    #[error("a number from {CONNECTIONS_MIN} to {CONNECTIONS_MAX} is wanted")]
    Connections,
    /// `--mode` is no mode.
    #[error("an octal number from 0 to 777 is wanted")]
    Mode,
    /// `--create` with a size that can't be made.
    #[error("the size must be at least one byte")]
    Nothing,
    /// `--source` would make systemd unmount it as an orphan device (hazard 35).
    #[error("some words are wanted that don't begin with /dev")]
    Source,
    /// A name that no VDI can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A size that is none.
    #[error(transparent)]
    Size(#[from] sheepfs::size::SizeError),
}

impl Options {
    /// Reads the arguments, of which the first is the program's name.
    ///
    /// # Errors
    /// What is wrong in clap's words; `--help` and `--version` come as errors too.
    pub fn read(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        let options = Self::try_parse_from(args)?;
        match (options.address.port, options.port) {
            (Some(one), Some(other)) if one != other => Err(two_ports(one, other)),
            _ => Ok(options),
        }
    }

    /// Where to mount, as the user wrote it.
    pub fn mount_point(&self) -> &Path {
        self.mount_point.as_deref().unwrap_or(Path::new(""))
    }

    /// The same, with all paths taken as written in `directory`.
    #[must_use]
    pub fn below(&self, directory: &Path) -> Self {
        Self {
            mount_point: self.mount_point.as_ref().map(|point| directory.join(point)),
            local: self.local.as_ref().map(|local| directory.join(local)),
            log_filter_file: self.log_filter_file.as_ref().map(|file| directory.join(file)),
            ..self.clone()
        }
    }

    /// Whether it stays in the foreground.
    pub fn in_foreground(&self) -> bool {
        self.foreground || self.debug
    }

    /// What an attach does about the cluster's lock.
    pub fn locking(&self) -> Locking {
        match (self.no_lock, self.steal_lock) {
            (true, _) => Locking::Without,
            (false, true) => Locking::Steal,
            (false, false) => Locking::Take,
        }
    }

    /// How long changes may be fenced; `None` is never.
    pub fn fence_time(&self) -> Option<Duration> {
        match self.fence {
            _ if self.unsafe_fence_off => None,
            Fence::Strict => Some(FENCE_STRICT),
            Fence::Fast => Some(FENCE_FAST),
        }
    }

    /// The sheep's port.
    pub fn sheep_port(&self) -> u16 {
        self.address.port.or(self.port).unwrap_or(DEFAULT_PORT)
    }
}

fn two_ports(one: u16, other: u16) -> clap::Error {
    let words = format!("the address names port {one}, and -p names port {other}\n");
    clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, words)
}

fn parse_volume(text: &str) -> Result<VolumeName, NameError> {
    VolumeName::parse(text.as_bytes())
}

fn parse_new_vdi(text: &str) -> Result<NewVdi, ValueError> {
    let (name, size) = text.rsplit_once(':').ok_or(ValueError::NoSize)?;
    match parse_size(size)? {
        0 => Err(ValueError::Nothing),
        size => Ok(NewVdi { name: VdiName::new(name)?, size }),
    }
}

fn parse_on_outage(text: &str) -> Result<OnOutage, ValueError> {
    if text == "hold" {
        return Ok(OnOutage::Hold);
    }
    let seconds = text.strip_prefix("error-after=").ok_or(ValueError::OnOutage)?;
    seconds_of(seconds).map(OnOutage::ErrorAfter).ok_or(ValueError::OnOutage)
}

fn parse_io_timeout(text: &str) -> Result<Duration, ValueError> {
    let time = seconds_of(text).ok_or(ValueError::IoTimeout)?;
    // The worker is told in milliseconds.
    let sensible = Duration::from_millis(1)..=Duration::from_secs_f64(IO_TIMEOUT_MAX);
    if sensible.contains(&time) { Ok(time) } else { Err(ValueError::IoTimeout) }
}

fn parse_connections(text: &str) -> Result<u32, ValueError> {
    let count = text.parse().map_err(|_| ValueError::Connections)?;
    let sensible = (CONNECTIONS_MIN..=CONNECTIONS_MAX).contains(&count);
    if sensible { Ok(count) } else { Err(ValueError::Connections) }
}

/// A time above 0, in seconds, perhaps with a fraction.
fn seconds_of(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero())
}

fn parse_source(text: &str) -> Result<String, ValueError> {
    let sensible = !text.is_empty() && !text.starts_with("/dev") && !text.contains('\0');
    if sensible { Ok(text.to_owned()) } else { Err(ValueError::Source) }
}

fn parse_mode(text: &str) -> Result<u16, ValueError> {
    match u16::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
        _ => Err(ValueError::Mode),
    }
}

#[cfg(test)]
mod tests;
