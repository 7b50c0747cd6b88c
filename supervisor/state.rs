//! What a successor of this process must know, in memory that outlives it.
//!
//! The memory is a memfd. Whoever keeps the mount's device for us, systemd or the
//! keeper, keeps this as well, and gives both to the next supervisor. So nothing is
//! written to disk, nothing is asked of the system for each request, and a machine
//! that goes down takes the state with the mount that it belongs to.
//!
//! | what | how | written by |
//! | --- | --- | --- |
//! | volumes, locks, sheep, fences, the mount ([`Saved`]) | as a whole, two copies in turn | the control thread, before it acts on what has changed |
//! | writes that a worker was told of | a record for each slot of its arena | the data path, before the worker is told |
//! | files that are open | a record each | FUSE threads, before the answer |
//! | index entries written lately | a record each | the link, before the write's answer is passed on |
//! | requests in flight | a record each, only for kernels that can't resend | FUSE threads |
//!
//! It has a version. A build that does not know it refuses to take over, and says so.

mod clock;
mod memory;
mod records;
mod saved;
mod snapshot;

pub use clock::Clock;
pub use memory::MemoryError;
pub use records::{Records, Slab};
pub use saved::{Saved, SavedControl, SavedFences, SavedMount, SavedProcess, SavedVolume};
pub use snapshot::SnapshotError;

use memory::Memory;
use sheepfs::ipc::arena::ARENA_LEN;
use sheepfs::ipc::slots::PAGE_LEN;
use snapshot::Snapshot;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// The version of everything here. It counts up with each change of a layout, of a
/// type in [`Saved`], or of what one of them means.
pub const VERSION: u64 = 1;

/// Says that this is ours: "sheepfs\n".
const MAGIC: u64 = u64::from_be_bytes(*b"sheepfs\n");
/// Words of the head: the magic number, the version, the current copy.
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 1;
const CURRENT_AT: usize = 2;
const HEAD_LEN: usize = 512;

/// Words of one copy of [`Saved`]: 4 MiB.
const COPY_LEN: usize = 1 << 19;
/// Bytes by which it seldom grows at once.
const SLACK_LEN: usize = 4096;
/// Writes that a worker can have been told of: each has at least a page.
const TOLD_COUNT: usize = (ARENA_LEN / PAGE_LEN) as usize;
/// Open files.
const HANDLES_COUNT: usize = 1 << 16;
/// Index entries written lately. A cluster that allocates three thousand objects a
/// second fills that in the time after which they are forgotten.
const ALLOCATIONS_COUNT: usize = 1 << 18;
/// Requests in flight.
const UNIQUES_COUNT: usize = 1 << 16;

const COPIES_AT: usize = HEAD_LEN;
const TOLD_AT: usize = COPIES_AT + 2 * COPY_LEN;
const HANDLES_AT: usize = TOLD_AT + TOLD_COUNT * 3;
const ALLOCATIONS_AT: usize = HANDLES_AT + HANDLES_COUNT * 2;
const UNIQUES_AT: usize = ALLOCATIONS_AT + ALLOCATIONS_COUNT * 2;
const LEN: usize = UNIQUES_AT + UNIQUES_COUNT;

/// Why a state can't be taken over.
#[derive(Debug, Error)]
pub enum StateError {
    /// It can't be reached.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// It is something else.
    #[error("it is not the state of a sheepfs")]
    NotOurs,
    /// Of another version.
    #[error(
        "it is of version {0}, and this build knows version {VERSION} only; use the build that made it"
    )]
    Version(u64),
    /// Of another size.
    #[error("it has {found} bytes where {} are wanted", LEN * memory::WORD_LEN)]
    Length {
        /// How many it has.
        found: usize,
    },
    /// Its snapshot can't be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its snapshot makes no sense.
    #[error("it is damaged: {0}")]
    Decode(#[from] bincode::error::DecodeError),
}

impl From<io::Error> for StateError {
    fn from(cause: io::Error) -> Self {
        Self::Memory(cause.into())
    }
}

/// The state.
#[derive(Debug)]
pub struct State {
    memory: Arc<Memory>,
    copies: Mutex<Copies>,
}

#[derive(Debug)]
struct Copies {
    snapshot: Snapshot,
    /// What was written last, so that nothing is written twice.
    last: Vec<u8>,
}

impl State {
    /// A new one, empty.
    ///
    /// # Errors
    /// When the kernel gives no memory.
    pub fn create() -> io::Result<Self> {
        let memory = Memory::create(LEN)?;
        memory.words(VERSION_AT, 1)[0].store(VERSION, Ordering::Release);
        memory.words(MAGIC_AT, 1)[0].store(MAGIC, Ordering::Release);
        Ok(Self::over(memory))
    }

    /// The one that a predecessor left, and what is in its snapshot.
    ///
    /// # Errors
    /// When this build can't make sense of it.
    pub fn open(fd: OwnedFd) -> Result<(Self, Saved), StateError> {
        let memory = Memory::open(fd)?;
        let found = memory.len() * memory::WORD_LEN;
        if memory.len() < HEAD_LEN {
            return Err(StateError::Length { found });
        }
        let word = |at| memory.words(at, 1)[0].load(Ordering::Acquire);
        match (word(MAGIC_AT), word(VERSION_AT)) {
            (MAGIC, VERSION) if memory.len() == LEN => {}
            (MAGIC, VERSION) => return Err(StateError::Length { found }),
            (MAGIC, version) => return Err(StateError::Version(version)),
            _ => return Err(StateError::NotOurs),
        }
        let state = Self::over(memory);
        let bytes = state.lock().snapshot.read()?;
        let (saved, _) = bincode::serde::decode_from_slice(&bytes, bincode::config::standard())?;
        Ok((state, saved))
    }

    fn over(memory: Memory) -> Self {
        let memory = Arc::new(memory);
        let snapshot = Snapshot::new(Arc::clone(&memory), CURRENT_AT, COPIES_AT, COPY_LEN);
        let copies = Mutex::new(Copies { snapshot, last: Vec::new() });
        Self { memory, copies }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the snapshot, unless nothing has changed.
    pub fn save(&self, saved: &Saved) {
        let mut copies = self.lock();
        // It is about as long as the last time.
        let mut bytes = Vec::with_capacity(copies.last.len() + SLACK_LEN);
        let config = bincode::config::standard();
        if let Err(error) = bincode::serde::encode_into_std_write(saved, &mut bytes, config) {
            return tracing::error!("the state can't be written: {error}");
        }
        if copies.last == bytes {
            return;
        }
        match copies.snapshot.write(&bytes) {
            Ok(()) => copies.last = bytes,
            Err(error) => {
                tracing::error!(
                    "the state can't be written: {error}; a successor would not know of the last changes"
                );
            }
        }
    }

    /// Writes that a worker was told of: generation, volume, first and last block.
    pub fn told(&self) -> Records<3> {
        Records::new(Arc::clone(&self.memory), TOLD_AT, TOLD_COUNT)
    }

    /// Open files: the number of the open, and the volume.
    pub fn handles(&self) -> Slab<2> {
        Slab::new(Records::new(Arc::clone(&self.memory), HANDLES_AT, HANDLES_COUNT))
    }

    /// Index entries written lately: volume and block, owner and time.
    pub fn allocations(&self) -> Slab<2> {
        Slab::new(Records::new(Arc::clone(&self.memory), ALLOCATIONS_AT, ALLOCATIONS_COUNT))
    }

    /// Requests in flight, by the kernel's number.
    pub fn uniques(&self) -> Slab<1> {
        Slab::new(Records::new(Arc::clone(&self.memory), UNIQUES_AT, UNIQUES_COUNT))
    }
}

impl AsFd for State {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Saved {
        Saved { takeovers: 3, answered: vec![(8, 0)], ..Saved::default() }
    }

    fn left(state: &State) -> OwnedFd {
        state.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn a_successor_finds_what_was_saved() {
        let state = State::create().unwrap();
        assert!(matches!(
            State::open(left(&state)),
            Err(StateError::Snapshot(SnapshotError::Empty))
        ));
        state.save(&Saved::default());
        state.save(&some());
        state.told().set(5, [1, 2, 3]);
        let (next, saved) = State::open(left(&state)).unwrap();
        assert_eq!(saved, some());
        assert_eq!(next.told().all(), [(5, [1, 2, 3])]);
    }

    #[test]
    fn what_this_build_does_not_know_is_refused_in_words() {
        let state = State::create().unwrap();
        state.save(&some());
        for (version, words) in [(VERSION + 1, "version 2"), (0, "version 0")] {
            state.memory.words(VERSION_AT, 1)[0].store(version, Ordering::Relaxed);
            let error = State::open(left(&state)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        state.memory.words(MAGIC_AT, 1)[0].store(7, Ordering::Relaxed);
        assert!(matches!(State::open(left(&state)), Err(StateError::NotOurs)));
        let short = State::over(Memory::create(HEAD_LEN).unwrap());
        short.memory.words(VERSION_AT, 1)[0].store(VERSION, Ordering::Relaxed);
        short.memory.words(MAGIC_AT, 1)[0].store(MAGIC, Ordering::Relaxed);
        assert!(matches!(State::open(left(&short)), Err(StateError::Length { found: 4096 })));
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let state = State::create().unwrap();
        state.save(&some());
        let copy = state.memory.words(COPIES_AT + COPY_LEN, COPY_LEN);
        copy[3].fetch_xor(1 << 9, Ordering::Relaxed);
        assert!(matches!(
            State::open(left(&state)),
            Err(StateError::Snapshot(SnapshotError::Damaged))
        ));
    }
}
