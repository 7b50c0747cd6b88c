//! `mount.sheepfs`: the program under the name by which mount(8) calls it for
//! `mount -t sheepfs` and for lines of /etc/fstab.
//!
//! It only translates: what mount(8) hands over ("External helpers" there) becomes
//! a command line of `sheepfs`, which is run and waited for, so that its mounts are
//! like any other, and the exit status is one that mount(8) understands. An option
//! of the mount is a long option of `sheepfs` without the dashes; which there are
//! is asked of the one parser that knows them.

mod words;

use crate::cli::Options;
use crate::exit::Status;
use clap::{ArgAction, Parser};
use nix::sched::{CloneFlags, setns};
use sheepfs::address::{AddressError, SheepAddress};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use thiserror::Error;
use words::{Words, WordsError};

/// The name.
const NAME: &str = "mount.sheepfs";

/// Exit statuses of mount(8).
const INVOCATION: u8 = 1;
const SYSTEM: u8 = 2;
const MOUNT: u8 = 32;

/// Mount a Sheepdog cluster on behalf of mount(8).
#[derive(Clone, Debug, Parser)]
#[command(name = NAME, version)]
struct Call {
    /// Sheep to talk to: an IP address or host name, perhaps with :PORT
    source: String,

    /// Directory to mount on
    dir: PathBuf,

    /// Options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,

    /// Check the options, and don't mount
    #[arg(short)]
    fake: bool,

    /// Nothing: there is no /etc/mtab to be written
    #[arg(short)]
    no_mtab: bool,

    /// Ignore unknown options
    #[arg(short)]
    sloppy: bool,

    /// Show the command that mounts
    #[arg(short, action = ArgAction::Count)]
    verbose: u8,

    /// Mount for reading only
    #[arg(short)]
    read_only: bool,

    /// Mount for reading and writing, the default
    #[arg(short = 'w', overrides_with = "read_only")]
    read_write: bool,

    /// Nothing: the type is known
    #[arg(short = 't', value_name = "TYPE")]
    fstype: Option<String>,

    /// Mount in that mount namespace
    #[arg(short = 'N', value_name = "FILE")]
    namespace: Option<PathBuf>,
}

/// Why it did not mount, when `sheepfs` itself did not say so.
#[derive(Debug, Error)]
enum HelperError {
    /// What was to be mounted is no sheep.
    #[error("cannot mount \"{source_name}\": {why}; the source is the address of a sheep")]
    Source {
        /// What was written.
        source_name: String,
        /// What is wrong with it.
        why: AddressError,
    },
    /// An option can't be translated.
    #[error(transparent)]
    Words(#[from] WordsError),
    /// `sheepfs` would refuse the value of an option.
    #[error("{0}")]
    Refused(String),
    /// The namespace can't be entered.
    #[error("cannot enter the mount namespace {path}: {cause}")]
    Namespace {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// `sheepfs` can't be run.
    #[error("cannot run {NAME} again as sheepfs: {0}")]
    Run(io::Error),
}

impl HelperError {
    fn status(&self) -> u8 {
        match self {
            Self::Source { .. } | Self::Words(_) | Self::Refused(_) => INVOCATION,
            Self::Namespace { .. } | Self::Run(_) => SYSTEM,
        }
    }
}

/// Whether the program was called by that name.
pub fn is_called() -> bool {
    env::args_os().next().is_some_and(|name| is_name(&name))
}

fn is_name(name: &OsStr) -> bool {
    Path::new(name).file_name() == Some(OsStr::new(NAME))
}

/// Does what mount(8) wants; its exit status.
pub fn run() -> u8 {
    let call = match Call::try_parse() {
        Ok(call) => call,
        Err(error) => {
            let status = if error.use_stderr() { INVOCATION } else { 0 };
            return if error.print().is_ok() { status } else { SYSTEM };
        }
    };
    mount(&call).unwrap_or_else(|error| {
        eprintln!("{NAME}: {error}");
        error.status()
    })
}

fn mount(call: &Call) -> Result<u8, HelperError> {
    let arguments = arguments(call)?;
    if call.verbose > 0 {
        eprintln!("{NAME}: {}", shown(&arguments));
    }
    if call.fake {
        return Ok(0);
    }
    let program = env::current_exe().map_err(HelperError::Run)?;
    if let Some(path) = &call.namespace {
        enter(path)?;
    }
    let status = Command::new(program)
        .arg0("sheepfs")
        .args(arguments.into_iter().skip(1))
        .status()
        .map_err(HelperError::Run)?;
    Ok(exit_status(status.code()))
}

/// The command line of `sheepfs`, checked by its own parser.
fn arguments(call: &Call) -> Result<Vec<OsString>, HelperError> {
    let invalid = |why| HelperError::Source { source_name: call.source.clone(), why };
    let address: SheepAddress = call.source.parse().map_err(invalid)?;
    let mut arguments = vec!["sheepfs".to_owned()];
    arguments.push(format!("--address={address}"));
    arguments.push(format!("--source={}", call.source));
    let words = Words::of(&call.options, call.sloppy)?;
    if call.read_only || (words.read_only && !call.read_write) {
        arguments.push("--read-only".to_owned());
    }
    arguments.extend(words.arguments);
    arguments.push("--".to_owned());
    let mut arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    arguments.push(call.dir.clone().into());
    match Options::read(arguments.clone()) {
        Ok(_) => Ok(arguments),
        Err(error) => Err(HelperError::Refused(first_paragraph(&error))),
    }
}

/// What is wrong, without the hints at the use of `sheepfs`.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let words = text.split("\n\n").next().unwrap_or_default();
    words.trim_start_matches("error: ").trim_end().replace('\n', " ")
}

/// As one could type it.
fn shown(arguments: &[OsString]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn enter(namespace: &Path) -> Result<(), HelperError> {
    let failed = |cause| HelperError::Namespace { path: namespace.to_owned(), cause };
    let file = File::open(namespace).map_err(failed)?;
    setns(file, CloneFlags::CLONE_NEWNS).map_err(|errno| failed(errno.into()))
}

/// From the exit code of `sheepfs`; a signal leaves none.
fn exit_status(code: Option<i32>) -> u8 {
    match code.map(Status::of_code) {
        Some(Status::Ok) => 0,
        Some(Status::NoPermission) => INVOCATION,
        Some(Status::Internal | Status::Left) | None => SYSTEM,
        // The options are known to be good: this is about what they name.
        Some(Status::Usage | Status::Unavailable | Status::Configuration) => MOUNT,
    }
}

#[cfg(test)]
mod tests;
