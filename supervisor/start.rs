//! From the command line to a running mount: what is made in which order, in the
//! foreground and in the background.

use crate::attr::Look;
use crate::background::{self, Outcome};
use crate::candidates::{self, Candidates, Dice, ResolveError, oddity};
use crate::cli::Options;
use crate::control::Wishes;
use crate::control::run::{Parts, Shell};
use crate::events::Events;
use crate::exit::{Failed, Status};
use crate::kernel_limits;
use crate::local::Local;
use crate::mount::{MountOptions, MountPoint};
use crate::settings::Shared;
use crate::signals;
use crate::spawn::Workers;
use crate::volumes::Volumes;
use nix::unistd::{getgid, getuid};
use sheepfs::logging::{self, Sink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

/// Runs the command to its end, or until the mount is ready in the background.
pub fn start(options: &Options) -> Result<Status, Failed> {
    if options.in_foreground() {
        logging::start(Sink::Stderr, options.debug);
        return serve(options, Sink::Stderr);
    }
    if background::is_second() {
        background::leave_session()?;
        logging::start(Sink::Journal, options.debug);
        return serve(options, Sink::Journal);
    }
    match background::start_again()? {
        Outcome::Ready => Ok(Status::Ok),
        // It has said why on stderr, which it shares with us.
        Outcome::Ended(Some(code)) => Ok(Status::of_code(code)),
        Outcome::Ended(None) => Err(Failed::Killed),
    }
}

fn serve(options: &Options, sink: Sink) -> Result<Status, Failed> {
    let point = MountPoint::check(&options.mount_point)?;
    let (sender, receiver) = mpsc::channel();
    let events = Events(sender);
    let local = start_local(options)?;
    let candidates = candidates(options, local.as_ref())?;
    // Until here a signal ends us, and with us the minisheep; from here on the
    // control loop listens.
    signals::watch(events.clone()).map_err(Failed::Signals)?;
    let shared = Arc::new(Shared::new(
        candidates.current(),
        options.page_cache,
        options.object_cache,
        Arc::new(Volumes::default()),
    ));
    let parts = Parts {
        shared,
        events,
        workers: Workers::new(sink, options.debug),
        io_timeout: options.io_timeout,
        fence_time: options.fence_time(),
        point,
        options: mount_options(options),
        look: look(options),
        in_background: sink == Sink::Journal,
    };
    let wishes = Wishes {
        candidates,
        attach: options.attach.clone(),
        cache_len: options.cache_size,
        cache_on: options.object_cache,
        io_timeout: options.io_timeout,
        on_outage: kernel_limits::fitted(options.on_outage),
    };
    if options.unsafe_fence_off {
        tracing::error!("nothing is fenced: a failover can lose data that was written");
    }
    let outcome = Shell::new(parts, wishes).run(&receiver);
    drop(local);
    outcome.map(|()| Status::Ok)
}

fn start_local(options: &Options) -> Result<Option<Local>, Failed> {
    let Some(dir) = &options.local else { return Ok(None) };
    Ok(Some(Local::start(&absolute(dir)?, &options.create)?))
}

/// The working directory is left when the mount is ready.
fn absolute(path: &Path) -> Result<PathBuf, Failed> {
    std::path::absolute(path).map_err(|cause| Failed::Path { path: path.to_owned(), cause })
}

fn candidates(options: &Options, local: Option<&Local>) -> Result<Candidates, Failed> {
    if let Some(local) = local {
        return Ok(Candidates::one(local.address));
    }
    let found = candidates::look_up(&options.address, options.sheep_port())?;
    let none = || ResolveError::NoAddress(options.address.host.clone());
    let candidates = Candidates::several(found).ok_or_else(none)?;
    let candidates = candidates.with_dice(Dice::of_this_process());
    let sheep = candidates.current();
    if let Some(oddity) = oddity(sheep.ip()) {
        tracing::warn!(%sheep, "an odd address for a sheep: {oddity}");
    }
    Ok(candidates)
}

fn mount_options(options: &Options) -> MountOptions {
    MountOptions {
        source: options.source.clone(),
        allow_other: options.allow_other,
        read_only: options.read_only,
    }
}

/// Everything belongs to the caller, unless the options give the volumes to
/// somebody else.
fn look(options: &Options) -> Look {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    Look {
        volume_uid: options.uid.unwrap_or(uid),
        volume_gid: options.gid.unwrap_or(gid),
        volume_mode: options.mode,
        ..Look::of_user(uid, gid)
    }
}
