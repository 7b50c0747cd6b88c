//! What the control loop knows and every thread may ask: the sheep in use, the
//! two caches, how the worker fares, the last error.
//!
//! The control loop writes it; FUSE threads read it for the files under
//! `config/`, which therefore answer without the worker, and even when no sheep
//! is alive (hazard 37). The page cache's switch is an atomic of its own, since
//! each open of a volume reads it.

use crate::status;
use crate::volumes::Volumes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file of the tree whose text is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalFile {
    /// `config/sheep_info`.
    SheepInfo,
    /// `config/page_cache`.
    PageCache,
    /// `config/object_cache`.
    ObjectCache,
    /// `config/status`.
    Status,
}

/// How the worker fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WorkerState {
    /// Started or connecting.
    #[default]
    Starting,
    /// Connected; volumes are attached again.
    Attaching,
    /// Connected; requests are served.
    Serving,
    /// Gone; the next one is started after a pause.
    Waiting,
    /// Ended for good, since the mount ends.
    Stopped,
}

/// What the control loop writes down.
#[derive(Clone, Debug)]
pub struct Known {
    /// The sheep in use, or the one that is tried next.
    pub sheep: SocketAddr,
    /// How many workers were started.
    pub generation: u64,
    /// How the newest fares.
    pub worker: WorkerState,
    /// What was tried, on what, what happened; on one line.
    pub last_error: Option<String>,
}

/// The facts that all threads share.
#[derive(Debug)]
pub struct Shared {
    page_cache: AtomicBool,
    object_cache: AtomicBool,
    known: Mutex<Known>,
    volumes: Arc<Volumes>,
}

impl Shared {
    /// The facts at the start.
    pub fn new(
        sheep: SocketAddr,
        page_cache: bool,
        object_cache: bool,
        volumes: Arc<Volumes>,
    ) -> Self {
        let worker = WorkerState::default();
        let known = Known { sheep, generation: 0, worker, last_error: None };
        Self {
            page_cache: AtomicBool::new(page_cache),
            object_cache: AtomicBool::new(object_cache),
            known: Mutex::new(known),
            volumes,
        }
    }

    /// Whether volumes opened from now on use the kernel's page cache.
    pub fn page_cache(&self) -> bool {
        self.page_cache.load(Ordering::Relaxed)
    }

    /// Turns the page cache on or off for opens from now on.
    pub fn set_page_cache(&self, on: bool) {
        self.page_cache.store(on, Ordering::Relaxed);
    }

    /// Notes whether the worker caches objects.
    pub fn set_object_cache(&self, on: bool) {
        self.object_cache.store(on, Ordering::Relaxed);
    }

    /// The attached volumes.
    pub fn volumes(&self) -> &Arc<Volumes> {
        &self.volumes
    }

    /// What is known, to be read or changed; not to be held across anything that waits.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text of a local file. `in_flight` counts the requests that wait for the worker.
    pub fn text_of(&self, file: LocalFile, in_flight: usize) -> Vec<u8> {
        let text = match file {
            LocalFile::SheepInfo => format!("{}\n", self.known().sheep),
            LocalFile::PageCache => switch_text(self.page_cache()),
            LocalFile::ObjectCache => switch_text(self.object_cache.load(Ordering::Relaxed)),
            LocalFile::Status => status::text(&self.known(), &self.volumes, in_flight),
        };
        text.into_bytes()
    }
}

fn switch_text(on: bool) -> String {
    format!("{}\n", u8::from(on))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        let sheep = "127.0.0.1:7000".parse().unwrap();
        Shared::new(sheep, false, true, Arc::new(Volumes::default()))
    }

    #[test]
    fn switches_show_as_0_or_1_and_follow_what_is_set() {
        let shared = shared();
        assert_eq!(shared.text_of(LocalFile::PageCache, 0), b"0\n");
        assert_eq!(shared.text_of(LocalFile::ObjectCache, 0), b"1\n");
        shared.set_page_cache(true);
        shared.set_object_cache(false);
        assert_eq!(shared.text_of(LocalFile::PageCache, 0), b"1\n");
        assert_eq!(shared.text_of(LocalFile::ObjectCache, 0), b"0\n");
    }

    #[test]
    fn the_sheep_shows_as_address_and_port() {
        let shared = shared();
        assert_eq!(shared.text_of(LocalFile::SheepInfo, 0), b"127.0.0.1:7000\n");
        shared.known().sheep = "[::1]:7001".parse().unwrap();
        assert_eq!(shared.text_of(LocalFile::SheepInfo, 0), b"[::1]:7001\n");
    }
}
