//! `sheepfs-worker`: speaks to a sheep for the supervisor.
//!
//! It is started by `sheepfs` with two inherited descriptors, the channel and the
//! arena, and is of no use by itself. It holds what may be lost: connections,
//! indexes that were read, the object cache. See the library's documentation for
//! how the processes fit together.
#![forbid(unsafe_code)]

mod attach;
mod cache;
mod connection;
mod context;
mod engine;
mod frame;
mod privileges;
mod query;
mod session;
mod sheep;
#[cfg(test)]
mod simulation;
mod vdis;
mod verdict;
mod volume;

use session::{End, Session};
use sheepfs::ipc::message::BUILD;
use sheepfs::ipc::{Arena, ChannelError, FromWorker, ToWorker, WorkerEnd};
use sheepfs::logging::Sink;
use std::process::ExitCode;
use tracing::{debug, error};

fn main() -> ExitCode {
    let parent = nix::unistd::getppid();
    sheepfs::logging::start(Sink::from_environment(), false);
    let Some((channel, memory)) = sheepfs::ipc::inherited::take() else {
        eprintln!(
            "sheepfs-worker: it is started by sheepfs, with its descriptors; run `sheepfs --help`"
        );
        return ExitCode::from(64);
    };
    if let Err(errno) = privileges::drop_all(parent) {
        error!("the worker could not give up its privileges: {errno}");
        return ExitCode::from(77);
    }
    match Arena::from_fd(memory) {
        Ok(arena) => serve(WorkerEnd::from_fd(channel), arena),
        Err(error) => {
            error!("the arena that the supervisor made cannot be used: {error}");
            ExitCode::from(70)
        }
    }
}

/// Waits for an address, serves its sheep, and says why it ends.
fn serve(channel: WorkerEnd, arena: Arena) -> ExitCode {
    let (channel, end) = match wait_for_address(&channel) {
        Ok((address, cache_bytes)) => match Session::open(channel, arena, address, cache_bytes) {
            Ok(session) => session.run(),
            Err((channel, end)) => (channel, end),
        },
        Err(end) => (channel, end),
    };
    match end {
        End::Supervisor(ChannelError::Closed) => debug!("the supervisor is gone"),
        End::Sheep(reason) => {
            let _ = channel.send(&FromWorker::Lost { reason });
        }
        End::Supervisor(_) | End::Poll(_) => {
            error!("the worker ends: {end}");
            return ExitCode::from(70);
        }
    }
    ExitCode::SUCCESS
}

fn wait_for_address(channel: &WorkerEnd) -> Result<(std::net::SocketAddr, u64), End> {
    channel.send(&FromWorker::Hello { build: BUILD.to_owned() })?;
    loop {
        match session::next_message(channel)? {
            ToWorker::Connect { build, sheep, cache_bytes } if build == BUILD => {
                return Ok((sheep, cache_bytes));
            }
            other => debug!(?other, "a message before the address is dropped"),
        }
    }
}
