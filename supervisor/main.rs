//! `sheepfs`: mounts a Sheepdog cluster as a directory.
//!
//! Only wiring: what the modules do is said there, and the whole in the library's
//! documentation.

mod attr;
mod background;
mod candidates;
mod claims;
mod cli;
mod control;
mod datapath;
mod descriptors;
mod events;
mod exit;
#[cfg(test)]
mod fake;
mod fence;
mod fs;
mod inflight;
mod kernel_limits;
mod link;
mod local;
mod mount;
mod mount_helper;
mod programs;
mod session;
mod settings;
mod signals;
mod spawn;
mod start;
mod status;
mod texts;
mod tree;
mod volumes;
mod words;

use cli::Options;
use exit::{Failed, Status};
use std::process;

fn main() {
    descriptors::keep_from_children();
    if mount_helper::is_called() {
        process::exit(mount_helper::run().into());
    }
    let status = match Options::read(std::env::args_os()) {
        Err(error) => say_usage(&error),
        Ok(options) => start::start(&options).unwrap_or_else(|failed| say(&failed)),
    };
    // Not by returning: nothing may be dropped that the kernel waits for.
    process::exit(status as i32);
}

/// Usage errors, and the help and version texts, which clap treats alike.
fn say_usage(error: &clap::Error) -> Status {
    let status = if error.use_stderr() { Status::Usage } else { Status::Ok };
    match error.print() {
        Ok(()) => status,
        Err(_) => Status::Internal,
    }
}

fn say(failed: &Failed) -> Status {
    eprintln!("sheepfs: {failed}");
    failed.status()
}
