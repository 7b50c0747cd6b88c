//! What the control loop knows and every thread may ask: the sheep in use, the
//! two caches, how the worker fares, the last error.
//!
//! The control loop writes it; FUSE threads read it for the files under
//! `config/`, which therefore answer without the worker, and even when no sheep
//! is alive (hazard 37). The page cache's switch is an atomic of its own, since
//! each open of a volume reads it.

use crate::allocations::Allocations;
use crate::catalog::Catalog;
use crate::state::{SavedControl, Slab};
use crate::status::{self, Data};
use crate::volumes::Volumes;
use serde::{Deserialize, Serialize};
use sheepfs::ipc::{CacheUsage, Route, Routed};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    /// `config/route`.
    Route,
}

/// How the worker fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WorkerState {
    /// Started, connecting, or taking up the volumes.
    #[default]
    Starting,
    /// Requests are served.
    Serving,
    /// It is to be replaced, and ends what it was told.
    Draining,
    /// It, or its sheep, is gone; its process is waited for.
    Lost,
    /// All candidates were tried in vain; they are tried again after a pause.
    BackingOff,
    /// Ended for good, since the mount ends.
    Stopped,
}

impl WorkerState {
    /// As people and scripts read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Lost => "lost",
            Self::BackingOff => "backing_off",
            Self::Stopped => "stopped",
        }
    }
}

/// How the spare worker fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SpareState {
    /// There is none.
    #[default]
    None,
    /// Its process was started.
    Starting,
    /// It waits for an address.
    Ready,
}

/// Why a worker was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Its process ended.
    WorkerDied,
    /// It did not answer us.
    WorkerSilent,
    /// Its sheep was gone.
    SheepLost,
    /// Its sheep did not answer.
    SheepSilent,
    /// Another sheep was wished for.
    Failover,
}

/// How often, for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swaps {
    /// [`Swap::WorkerDied`]
    pub worker_died: u64,
    /// [`Swap::WorkerSilent`]
    pub worker_silent: u64,
    /// [`Swap::SheepLost`]
    pub sheep_lost: u64,
    /// [`Swap::SheepSilent`]
    pub sheep_silent: u64,
    /// [`Swap::Failover`]
    pub failover: u64,
}

/// What the control loop writes down.
#[derive(Clone, Debug)]
pub struct Known {
    /// The sheep in use, or the one that is tried.
    pub sheep: SocketAddr,
    /// Which worker is in use.
    pub generation: u64,
    /// How it fares.
    pub worker: WorkerState,
    /// When it was told that sheep's address.
    pub since: Instant,
    /// How the spare fares.
    pub spare: SpareState,
    /// How often a successor took the mount over.
    pub takeovers: u64,
    /// Workers that were replaced.
    pub swaps: Swaps,
    /// The cluster's epoch, as far as it is known; else 0.
    pub epoch: u32,
    /// How many sheep can be tried.
    pub candidates: usize,
    /// What was tried, on what, what happened; on one line.
    pub last_error: Option<String>,
    /// How the object cache of the worker in use fares, by what it says.
    pub cache: CacheUsage,
    /// Whom objects are asked of.
    pub route: Route,
    /// How requests were sent in this session.
    pub routed: Routed,
}

impl Known {
    /// At the start.
    pub fn new(sheep: SocketAddr) -> Self {
        Self {
            sheep,
            generation: 0,
            worker: WorkerState::default(),
            since: Instant::now(),
            spare: SpareState::default(),
            takeovers: 0,
            swaps: Swaps::default(),
            epoch: 0,
            candidates: 1,
            last_error: None,
            cache: CacheUsage::default(),
            route: Route::default(),
            routed: Routed::default(),
        }
    }

    /// One more worker is replaced.
    pub fn count(&mut self, swap: Swap) {
        let swaps = &mut self.swaps;
        let count = match swap {
            Swap::WorkerDied => &mut swaps.worker_died,
            Swap::WorkerSilent => &mut swaps.worker_silent,
            Swap::SheepLost => &mut swaps.sheep_lost,
            Swap::SheepSilent => &mut swaps.sheep_silent,
            Swap::Failover => &mut swaps.failover,
        };
        *count += 1;
    }
}

/// The facts that all threads share.
#[derive(Debug)]
pub struct Shared {
    page_cache: AtomicBool,
    object_cache: AtomicBool,
    known: Mutex<Known>,
    volumes: Arc<Volumes>,
    allocations: Arc<Allocations>,
    catalog: Catalog,
}

impl Shared {
    /// The facts at the start, as they were before. Index entries written lately go to
    /// `records`.
    pub fn new(before: &SavedControl, volumes: Arc<Volumes>, records: Slab<2>) -> Self {
        let sheep = before.sheep.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
        let allocations = Arc::new(Allocations::new(Arc::clone(&volumes), records));
        Self {
            page_cache: AtomicBool::new(before.page_cache),
            object_cache: AtomicBool::new(before.object_cache),
            known: Mutex::new(Known { route: before.route, ..Known::new(sheep) }),
            volumes,
            allocations,
            catalog: Catalog::default(),
        }
    }

    /// For tests: with a state of its own.
    #[cfg(test)]
    pub fn alone(sheep: SocketAddr, volumes: Arc<Volumes>) -> Self {
        let state = crate::state::State::create().unwrap();
        let before = SavedControl { sheep: Some(sheep), ..SavedControl::default() };
        Self::new(&before, volumes, state.allocations())
    }

    /// Whether volumes use the kernel's page cache: one that nobody has open, from its next
    /// open on.
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

    /// Whether the worker caches objects.
    pub fn object_cache(&self) -> bool {
        self.object_cache.load(Ordering::Relaxed)
    }

    /// Index entries that were written lately.
    pub fn allocations(&self) -> &Arc<Allocations> {
        &self.allocations
    }

    /// What was found of the cluster's VDIs.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The attached volumes.
    pub fn volumes(&self) -> &Arc<Volumes> {
        &self.volumes
    }

    /// What is known, to be read or changed; not to be held across anything that waits.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text of a local file; `data` is how the data path fares.
    pub fn text_of(&self, file: LocalFile, data: &Data) -> Vec<u8> {
        let text = match file {
            LocalFile::SheepInfo => format!("{}\n", self.known().sheep),
            LocalFile::PageCache => switch_text(self.page_cache()),
            LocalFile::ObjectCache => switch_text(self.object_cache()),
            LocalFile::Route => format!("{}\n", self.known().route),
            LocalFile::Status => {
                status::text(&self.known().clone(), data, &self.volumes, Instant::now())
            }
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
        let shared = Shared::alone(sheep, Arc::new(Volumes::default()));
        shared.set_object_cache(true);
        shared
    }

    #[test]
    fn switches_show_as_0_or_1_and_follow_what_is_set() {
        let shared = shared();
        assert_eq!(shared.text_of(LocalFile::PageCache, &Data::default()), b"0\n");
        assert_eq!(shared.text_of(LocalFile::ObjectCache, &Data::default()), b"1\n");
        shared.set_page_cache(true);
        shared.set_object_cache(false);
        assert_eq!(shared.text_of(LocalFile::PageCache, &Data::default()), b"1\n");
        assert_eq!(shared.text_of(LocalFile::ObjectCache, &Data::default()), b"0\n");
    }

    #[test]
    fn the_route_shows_as_a_word() {
        let shared = shared();
        assert_eq!(shared.text_of(LocalFile::Route, &Data::default()), b"replica\n");
        shared.known().route = Route::Gateway;
        assert_eq!(shared.text_of(LocalFile::Route, &Data::default()), b"gateway\n");
    }

    #[test]
    fn the_sheep_shows_as_address_and_port() {
        let shared = shared();
        assert_eq!(shared.text_of(LocalFile::SheepInfo, &Data::default()), b"127.0.0.1:7000\n");
        shared.known().sheep = "[::1]:7001".parse().unwrap();
        assert_eq!(shared.text_of(LocalFile::SheepInfo, &Data::default()), b"[::1]:7001\n");
    }
}
