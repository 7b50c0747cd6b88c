//! What the shell does with workers: their start, what they are told, their end.

use super::{DRAIN_POLL, Shell};
use crate::candidates;
use crate::control::{Effect, Input};
use crate::events::Event;
use crate::link::Link;
use crate::spawn::{SpawnError, Started};
use nix::errno::Errno;
use sheepfs::address::SheepAddress;
use sheepfs::ipc::ToWorker;
use sheepfs::ipc::message::{BUILD, WATCHED_MAX};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long the end waits for an unmounting whose data is cut off.
const UNMOUNT_TIME: Duration = Duration::from_secs(2);
/// How long the workers may take to end by themselves.
pub(super) const WORKER_STOP_SECONDS: u64 = 5;

impl Shell {
    pub(super) fn start_worker(&mut self, generation: u64) -> Result<(), SpawnError> {
        let Started { channel, arena, pidfd } = self.parts.workers.start(generation)?;
        let listening = Link::new(generation, channel, arena, pidfd)
            .map_err(std::io::Error::from)
            .and_then(|link| self.listen(Arc::new(link)));
        listening.map_err(|cause| {
            // Nobody would hear of its end.
            self.parts.workers.kill(generation);
            self.parts.workers.bury(generation);
            SpawnError::Link(cause)
        })
    }

    pub(super) fn listen(&mut self, link: Arc<Link>) -> std::io::Result<()> {
        let (reader, data) = (Arc::clone(&link), Arc::clone(&self.data));
        let events = self.parts.events.clone();
        let read = move || reader.run(&data, &events);
        thread::Builder::new().name(format!("link {}", link.generation())).spawn(read)?;
        self.links.insert(link.generation(), link);
        Ok(())
    }

    /// Tells a worker. The detach of a volume gives its lock back, and whoever gets
    /// that must not meet changes of ours that may still run on an abandoned gateway:
    /// so it waits for the volume's fences.
    pub(super) fn send(&mut self, generation: u64, message: ToWorker) {
        match &message {
            ToWorker::Detach { volume, .. } if self.data.is_fenced(*volume) => {
                tracing::info!(volume_id = volume.0, "a detach waits for the volume's fences");
                self.unripe_detaches.push((generation, message));
            }
            _ => self.tell(generation, message),
        }
    }

    /// Tells of detaches whose volumes are not fenced any more. Those meant for a
    /// worker that is gone are forgotten: the control loop says them again.
    pub(super) fn send_ripe_detaches(&mut self) {
        for (generation, message) in std::mem::take(&mut self.unripe_detaches) {
            if self.links.contains_key(&generation) {
                self.send(generation, message);
            }
        }
    }

    fn tell(&self, generation: u64, message: ToWorker) {
        if let Some(link) = self.links.get(&generation) {
            link.send(message);
        }
    }

    /// Opens the log anew, with the filter that is to be used now; workers too.
    pub(super) fn reload_log(&self) {
        let filter = sheepfs::logging::reload();
        for generation in self.links.keys() {
            self.tell(*generation, ToWorker::LogFilter { filter: filter.clone() });
        }
    }

    /// Carries out [`Effect::Connect`].
    pub(super) fn connect(&self, effect: Effect) {
        let Effect::Connect { generation, sheep, cache_bytes, left, route, avoid } = effect else {
            return;
        };
        let mut watch = self.data.watched();
        watch.extend(self.control.watched());
        watch.sort_unstable();
        watch.dedup();
        if watch.len() > WATCHED_MAX {
            // The fences of those that are not watched end with their time.
            tracing::warn!(gateways = watch.len(), "too many gateways to watch them all");
            watch.truncate(WATCHED_MAX);
        }
        let io_timeout_ms = u32::try_from(self.parts.io_timeout.as_millis()).unwrap_or(u32::MAX);
        let build = BUILD.to_owned();
        let connections_max = self.parts.connections_max;
        self.tell(
            generation,
            ToWorker::Connect {
                build,
                sheep,
                cache_bytes,
                io_timeout_ms,
                generation,
                watch,
                left,
                route,
                connections_max,
                avoid,
            },
        );
    }

    /// On a thread of its own, since a resolver may take its time.
    pub(super) fn resolve(&self, number: u64, address: SheepAddress, port: u16) -> Option<Input> {
        let events = self.parts.events.clone();
        let host = address.host.clone();
        let look_up = move || {
            let found = candidates::look_up(&address, port);
            events.tell(Event::Resolved { number, found });
        };
        let started = thread::Builder::new().name("resolver".to_owned()).spawn(look_up);
        started.err().map(|cause| {
            Input::Resolved(number, Err(candidates::ResolveError::LookUp { host, cause }))
        })
    }

    pub(super) fn fail_data(&self) {
        self.data.refuse_new(true);
        match self.data.fail_all() {
            0 => {}
            failed => tracing::error!(
                failed,
                errno = Errno::EIO as i32,
                "requests failed with an input/output error"
            ),
        }
    }

    /// Workers end when their channels do.
    pub(super) fn stop_workers(&mut self) {
        self.fail_data();
        for (_, link) in self.links.drain() {
            link.hang_up();
        }
        self.parts.workers.end_all(WORKER_STOP_SECONDS);
        // Data is cut off, so nothing holds an unmounting back any more.
        let until = Instant::now() + UNMOUNT_TIME;
        while self.unmounting.as_ref().is_some_and(|thread| !thread.is_finished())
            && Instant::now() < until
        {
            thread::sleep(DRAIN_POLL);
        }
    }
}
