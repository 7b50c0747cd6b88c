//! From the command line to a running mount: what is made in which order, in the
//! foreground, and by which process in the background.

use crate::attr::Look;
use crate::background::{self, Outcome, Role};
use crate::cache_size;
use crate::candidates::{self, Candidates, Dice, ResolveError, oddity};
use crate::cli::Options;
use crate::control::run::{Parts, Shell};
use crate::control::{Wishes, volumes_of};
use crate::descriptors;
use crate::events::Events;
use crate::exit::{Failed, Status};
use crate::handles::Handles;
use crate::keeper;
use crate::kernel_limits;
use crate::local::Local;
use crate::mount::{MountOptions, MountPoint};
use crate::notify::{self, Manager};
use crate::residence;
use crate::settings::Shared;
use crate::signals;
use crate::spawn::Workers;
use crate::state::{Saved, SavedControl, State};
use crate::succession::{self, Estate};
use crate::volumes::Volumes;
use nix::unistd::{getgid, getuid};
use sheepfs::logging::{self, Filter, Sink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

/// Runs the command to its end, or until the mount is ready in the background.
pub fn start(options: &Options) -> Result<Status, Failed> {
    if options.in_foreground() {
        let sink = Sink::of_foreground();
        start_log(options, sink)?;
        return serve(options, sink);
    }
    match Role::of_this_process() {
        Role::First => start_again(),
        Role::Keeper => keeper::run(options),
        Role::Starting | Role::Supervisor => {
            let options = options.below(Path::new(&background::directory_of_paths()));
            start_log(&options, Sink::Background)?;
            // In a later life nobody has our stderr any more.
            serve(&options, Sink::Background).inspect_err(|failed| tracing::error!("{failed}"))
        }
    }
}

fn start_again() -> Result<Status, Failed> {
    match background::start_again()? {
        Outcome::Ready => Ok(Status::Ok),
        // It has said why on stderr, which it shares with us.
        Outcome::Ended(Some(code)) => Ok(Status::of_code(code)),
        Outcome::Ended(None) => Err(Failed::Killed),
    }
}

fn serve(options: &Options, sink: Sink) -> Result<Status, Failed> {
    residence::become_flusher();
    let (sender, receiver) = mpsc::channel();
    let events = Events(sender);
    let may_take_over = notify::was_given_descriptors();
    if may_take_over {
        // A mount that is there is to be unmounted when a signal asks for that.
        signals::watch(events.clone()).map_err(Failed::Signals)?;
    }
    let inherited = notify::inherited().map_err(Failed::Inherited)?;
    let estate = succession::estate(inherited, options.mount_point())?;
    // What was kept and is of no use has left its numbers.
    descriptors::reserve(notify::STORED_COUNT).map_err(Failed::Inherited)?;
    let point = match &estate {
        None => MountPoint::check(options.mount_point())?,
        Some(estate) => MountPoint::of_predecessor(estate.legacy.mount.point().to_owned()),
    };
    let local = start_local(options)?;
    let before = estate.as_ref().map(|estate| &estate.saved.control);
    let candidates = candidates(options, local.as_ref(), before)?;
    if !may_take_over {
        // Until here a signal ends us, and with us the minisheep; from here on the
        // control loop listens.
        signals::watch(events.clone()).map_err(Failed::Signals)?;
    }
    if options.unsafe_fence_off {
        tracing::error!("nothing is fenced: a failover can lose data that was written");
    }
    if options.no_lock {
        tracing::warn!(
            "VDIs are attached without the cluster's lock, as --no-lock says; two clients that \
             write one VDI destroy it"
        );
    }
    let wishes = wishes(options, candidates);
    let (state, saved, legacy) = match estate {
        Some(Estate { state, saved, legacy }) => (state, saved, Some(legacy)),
        None => {
            let control = SavedControl {
                page_cache: options.page_cache,
                object_cache: options.object_cache,
                route: options.route,
                sheep: Some(wishes.candidates.current()),
                ..SavedControl::default()
            };
            let state = State::create().map_err(Failed::NoState)?;
            (state, Saved { control, ..Saved::default() }, None)
        }
    };
    let minisheep = local.as_ref().and_then(Local::process);
    let parts = Parts { minisheep, ..parts(options, sink, events, point, state, &saved.control) };
    let shell = match legacy {
        None => Shell::new(parts, wishes),
        Some(legacy) => Shell::take_over(parts, wishes, saved, legacy, local.is_some())?,
    };
    let outcome = shell.run(&receiver);
    drop(local);
    outcome.map(|()| Status::Ok)
}

/// What the shell works with, as it was left before.
fn parts(
    options: &Options,
    sink: Sink,
    events: Events,
    point: MountPoint,
    state: State,
    before: &SavedControl,
) -> Parts {
    let volumes = Arc::new(Volumes::default());
    for volume in volumes_of(before) {
        volumes.add(volume);
    }
    let shared = Arc::new(Shared::new(before, Arc::clone(&volumes), state.allocations()));
    Parts {
        shared,
        handles: Arc::new(Handles::new(volumes, state.handles())),
        state,
        minisheep: None,
        manager: Manager::from_environment(),
        may_resend: !options.no_resend,
        panic_at: options.panic_at_parked,
        events,
        workers: Workers::new(sink),
        io_timeout: options.io_timeout,
        connections_max: options.max_connections,
        fence_time: options.fence_time(),
        point,
        options: mount_options(options),
        look: look(options),
        in_background: sink == Sink::Background,
    }
}

fn wishes(options: &Options, candidates: Candidates) -> Wishes {
    Wishes {
        candidates,
        attach: options.attach.clone(),
        cache_len: options.cache_size.unwrap_or_else(cache_size::default),
        cache_on: options.object_cache,
        io_timeout: options.io_timeout,
        route: options.route,
        on_outage: kernel_limits::fitted(options.on_outage),
        locking: options.locking(),
    }
}

/// Opens the log as the options want it.
pub fn start_log(options: &Options, sink: Sink) -> Result<(), Failed> {
    let file = options.log_filter_file.as_deref().map(absolute).transpose()?;
    logging::start(sink, Filter::new(options.debug, file));
    Ok(())
}

fn start_local(options: &Options) -> Result<Option<Local>, Failed> {
    let Some(dir) = &options.local else { return Ok(None) };
    Ok(Some(Local::start(&absolute(dir)?, &options.create)?))
}

/// The working directory is left when the mount is ready.
fn absolute(path: &Path) -> Result<PathBuf, Failed> {
    std::path::absolute(path).map_err(|cause| Failed::Path { path: path.to_owned(), cause })
}

/// Where the user says that the sheep are. A mount that is there already does not wait
/// for a resolver: its predecessor has asked it.
fn candidates(
    options: &Options,
    local: Option<&Local>,
    before: Option<&SavedControl>,
) -> Result<Candidates, Failed> {
    if let Some(local) = local {
        return Ok(Candidates::one(local.address));
    }
    let found = match before {
        Some(before) if options.address.ip().is_none() => before.configured.clone(),
        _ => candidates::look_up(&options.address, options.sheep_port())?,
    };
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
