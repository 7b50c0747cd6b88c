//! Which files of the volumes are open, by the handles that the kernel was given.
//!
//! A handle is the kernel's own number of the request that opened the file. So an
//! open that is delivered twice, since its answer was lost with a predecessor, is one
//! handle, and a handle that a predecessor gave is never given again. They are
//! recorded before they are given, so that a successor knows whose volume is open.

use crate::pages::Opened;
use crate::state::Slab;
use crate::volumes::{Volume, Volumes};
use fuser::{FileHandle, RequestId};
use sheepfs::ipc::VolumeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Set in the number of a request that the kernel delivers again
/// (`FUSE_UNIQUE_RESEND` of the kernel).
const RESENT: u64 = 1 << 63;
/// Set in a record, above the volume's number, when it was opened in the page cache.
const CACHED: u64 = 1 << 32;

/// The kernel's number of a request, however often it is delivered.
pub fn number_of(request: RequestId) -> u64 {
    request.0 & !RESENT
}

/// The handle that an open request is answered with; never 0.
pub fn handle_of(request: RequestId) -> FileHandle {
    FileHandle(number_of(request))
}

/// There is no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// All of them.
#[derive(Debug)]
pub struct Handles {
    volumes: Arc<Volumes>,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    by_number: HashMap<u64, (VolumeId, usize)>,
    records: Slab<2>,
}

impl Handles {
    /// Those that are recorded, counted in their volumes.
    pub fn new(volumes: Arc<Volumes>, records: Slab<2>) -> Self {
        let mut by_number = HashMap::new();
        for (place, [number, volume]) in records.records().all() {
            let id = VolumeId(u32::try_from(volume & !CACHED).unwrap_or_default());
            let cached = volume & CACHED != 0;
            if by_number.insert(number, (id, place)).is_none()
                && let Some(volume) = volumes.by_id(id)
            {
                volume.pages.open(true, cached);
                volume.opened();
            }
        }
        Self { volumes, open: Mutex::new(Open { by_number, records }) }
    }

    /// A volume is opened, and counted unless that is known already; in the page cache
    /// if that is `wanted`, unless it is open the other way.
    ///
    /// # Errors
    /// When there are too many.
    pub fn open(
        &self,
        handle: FileHandle,
        volume: &Volume,
        wanted: bool,
    ) -> Result<Opened, TooMany> {
        let mut open = self.lock();
        let opened = volume.pages.open(!volume.is_open(), wanted);
        if open.by_number.contains_key(&handle.0) {
            return Ok(opened);
        }
        let cached = if volume.pages.is_cached() { CACHED } else { 0 };
        let record = [handle.0, u64::from(volume.id.0) | cached];
        let place = open.records.add(record).ok_or(TooMany)?;
        open.by_number.insert(handle.0, (volume.id, place));
        volume.opened();
        Ok(opened)
    }

    /// A handle is closed. `true`: nobody has its volume open now. `None`: it is no
    /// volume's.
    pub fn close(&self, handle: FileHandle) -> Option<bool> {
        let mut open = self.lock();
        let (id, place) = open.by_number.remove(&handle.0)?;
        open.records.remove(place);
        Some(self.volumes.by_id(id).is_some_and(|volume| volume.closed()))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;
    use crate::state::State;

    #[test]
    fn an_open_or_close_that_comes_twice_counts_once() {
        let state = State::create().unwrap();
        let disk = || {
            let volumes = Arc::new(Volumes::default());
            let volume = fake::volume(1, "disk", 4096, false);
            volumes.add(volume.clone());
            (volumes, volume)
        };
        let (volumes, volume) = disk();
        let handles = Handles::new(volumes, state.handles());
        for unique in [8, 8 | RESENT, 10, 12] {
            assert_eq!(
                handles.open(handle_of(RequestId(unique)), &volume, true),
                Ok(Opened::Fresh)
            );
        }
        assert_eq!(handles.close(FileHandle(8)), Some(false));
        assert_eq!(handles.close(FileHandle(8)), None);

        let (volumes, volume) = disk();
        let handles = Handles::new(volumes, state.handles());
        assert!(volume.is_open());
        let again = handles.open(handle_of(RequestId(12 | RESENT)), &volume, false);
        assert_eq!(again, Ok(Opened::Fresh), "it is open in the page cache");
        assert_eq!(handles.close(FileHandle(10)), Some(false));
        assert_eq!(handles.close(FileHandle(12)), Some(true));
        assert!(!volume.is_open());
        assert!(state.handles().records().all().is_empty());
    }
}
