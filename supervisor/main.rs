//! `sheepfs`: mounts a Sheepdog cluster as a directory.
//!
//! Only wiring: what the modules do is said there, and the whole in the library's
//! documentation.

mod allocations;
mod attr;
mod background;
mod cache_size;
mod candidates;
mod catalog;
mod census;
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
mod handles;
mod inflight;
mod keeper;
mod kernel_limits;
mod link;
mod local;
mod mount;
mod mount_helper;
mod notify;
mod pages;
mod predecessor;
mod programs;
mod residence;
mod session;
mod settings;
mod signals;
mod spawn;
mod start;
mod state;
mod status;
mod steps;
mod succession;
mod texts;
mod tree;
mod uniques;
mod vdi_tree;
mod volumes;
mod words;

use background::Role;
use cli::Options;
use exit::{Failed, Status};
use sheepfs::logging::{self, Sink};
use std::process;

fn main() {
    if Role::of_this_process() == Role::Starting {
        // Before descriptors are kept from what it starts: those are for it.
        process::exit(say(&keeper::become_supervisor().into()) as i32);
    }
    descriptors::keep_from_children();
    if let Err(cause) = descriptors::reserve(notify::STORED_COUNT) {
        process::exit(say(&Failed::Inherited(cause)) as i32);
    }
    if mount_helper::is_called() {
        process::exit(mount_helper::run().into());
    }
    let status = match Options::read(std::env::args_os()) {
        Err(error) => say_usage(&error),
        Ok(options) if options.check_state => {
            succession::check_state().map_or_else(|failed| say(&failed), |()| Status::Ok)
        }
        Ok(options) => start::start(&options).unwrap_or_else(|failed| say(&failed)),
    };
    // Not by returning: nothing may be dropped that the kernel waits for.
    process::exit(status.with(notify::was_given_descriptors()) as i32);
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
    // A manager reads the log, which has a priority for it; a caller reads stderr.
    match logging::sink() {
        Sink::Stderr => eprintln!("sheepfs: {failed}"),
        Sink::Prefixed | Sink::Journal => tracing::error!("{failed}"),
        Sink::Background => {
            eprintln!("sheepfs: {failed}");
            tracing::error!("{failed}");
        }
    }
    failed.status()
}
