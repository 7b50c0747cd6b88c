//! `sheepfs-worker`: speaks to a sheep for the supervisor.
//!
//! It is started by `sheepfs` with two inherited descriptors, the channel and the
//! arena, and is of no use by itself. It holds what may be lost: connections,
//! indexes that were read, the object cache. See the library's documentation for
//! how the processes fit together.
#![forbid(unsafe_code)]

mod ahead;
mod alias;
mod attach;
mod cache;
mod connection;
mod context;
mod copies;
mod deadlines;
mod departure;
mod detection;
mod engine;
mod errands;
mod facts;
#[cfg(test)]
mod fake;
mod frame;
mod index_pages;
mod life;
mod link;
mod locks;
mod members;
mod poller;
mod privileges;
mod query;
mod resume;
mod room;
mod routing;
mod search;
mod session;
mod sheep;
#[cfg(test)]
mod simulation;
mod turns;
mod vdis;
mod verdict;
mod volume;
mod watch;

use link::Link;
use nix::errno::Errno;
use room::Room;
use session::{End, Ended};
use sheep::Loss;
use sheepfs::ipc::message::BUILD;
use sheepfs::ipc::{Arena, ChannelError, FromWorker, WorkerEnd};
use sheepfs::logging::{self, Filter, Sink};
use std::process::ExitCode;
use tracing::{debug, error};

fn main() -> ExitCode {
    let parent = nix::unistd::getppid();
    // It is started from a descriptor, which the kernel would name it after.
    let _ = nix::sys::prctl::set_name(c"sheepfs-worker");
    logging::start(Sink::from_environment(), Filter::new(false, None));
    let Some((channel, memory)) = sheepfs::ipc::inherited::take() else {
        eprintln!(
            "sheepfs-worker: it is started by sheepfs, with its descriptors; run `sheepfs --help`"
        );
        return ExitCode::from(64);
    };
    if let Err(errno) = privileges::drop_all(parent) {
        if errno == Errno::ESRCH {
            debug!("the supervisor has died meanwhile");
            return ExitCode::SUCCESS;
        }
        error!(errno = errno as i32, "the worker could not give up its privileges: {errno}");
        return ExitCode::from(77);
    }
    match Arena::from_fd(memory) {
        Ok(arena) => serve(Link::new(WorkerEnd::from_fd(channel), arena)),
        Err(error) => {
            error!(
                errno = error.raw_os_error(),
                "the arena that the supervisor made cannot be used: {error}"
            );
            ExitCode::from(70)
        }
    }
}

/// Waits for a sheep, serves it, and says why it ends.
fn serve(mut link: Link) -> ExitCode {
    link.say([FromWorker::Hello { build: BUILD.to_owned() }]);
    let (mut link, end) = loop {
        let Ended { link: left, end, connected } = match Room::new(link).wait() {
            Ok(session) => session.run(),
            Err(left) => break *left,
        };
        link = left;
        match end {
            // Nothing was promised yet: another sheep may do.
            End::Sheep(Loss { reason, .. }) if !connected => {
                link.say([FromWorker::Unreached { reason }]);
            }
            end => break (link, end),
        }
    };
    match end {
        End::Supervisor(ChannelError::Closed) => debug!("the supervisor is gone"),
        End::Sheep(Loss { reason, node }) => {
            link.say([FromWorker::Lost { reason, node }]);
            let _ = link.send_all();
        }
        End::Supervisor(_) | End::Poll(_) => {
            error!("the worker ends: {end}");
            return ExitCode::from(70);
        }
    }
    ExitCode::SUCCESS
}
