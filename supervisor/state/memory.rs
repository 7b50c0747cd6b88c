//! The memory behind the state: a memfd of a fixed size, mapped, sealed against a
//! change of size, and reached as atomic words only.
//!
//! Words make it safe to look at what a process that was killed in the middle of
//! something has left: each word is the old or the new one, and those that it wrote
//! first are there if those that it wrote later are.
#![expect(unsafe_code, reason = "shared memory is reached through raw pointers")]

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use thiserror::Error;

/// Bytes of a word.
pub const WORD_LEN: usize = 8;

/// Why memory that another process left can't be used.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The system failed.
    #[error("mapping it failed: {0}")]
    Map(#[from] io::Error),
    /// It could be cut under us.
    #[error("it is not sealed against a change of size")]
    NotSealed,
}

/// The memory.
#[derive(Debug)]
pub struct Memory {
    file: File,
    map: MmapRaw,
    words: usize,
}

impl Memory {
    /// New memory of zeros.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn create(words: usize) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("sheepfs-state", flags)?);
        file.set_len((words * WORD_LEN) as u64)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals()))?;
        Self::map(file, words)
    }

    /// What another process made.
    ///
    /// # Errors
    /// See [`MemoryError`].
    pub fn open(fd: OwnedFd) -> Result<Self, MemoryError> {
        let file = File::from(fd);
        let has = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| MemoryError::NotSealed)?;
        if !SealFlag::from_bits_truncate(has).contains(seals()) {
            return Err(MemoryError::NotSealed);
        }
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok(Self::map(file, len / WORD_LEN)?)
    }

    fn map(file: File, words: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(words * WORD_LEN).map_raw(&file)?;
        Ok(Self { file, map, words })
    }

    /// How many words it has.
    pub fn len(&self) -> usize {
        self.words
    }

    /// `count` words from `at` on.
    ///
    /// # Panics
    /// When they are not all inside.
    pub fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
        assert!(at.checked_add(count).is_some_and(|end| end <= self.words), "outside the state");
        // SAFETY: the range is inside the mapping, which lives as long as `self` and
        // begins at a page, so it is aligned; its size is sealed. Atomic words have no
        // invalid values, and nothing else ever reaches this memory but as such words.
        unsafe {
            let first = self.map.as_mut_ptr().cast::<AtomicU64>().add(at);
            std::slice::from_raw_parts(first, count)
        }
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_process_wrote_the_next_one_finds() {
        let first = Memory::create(1024).unwrap();
        first.words(1000, 24)[23].store(77, Ordering::Relaxed);
        let fd = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        let second = Memory::open(fd).unwrap();
        assert_eq!(second.len(), 1024);
        assert_eq!(second.words(1023, 1)[0].load(Ordering::Relaxed), 77);
    }

    #[test]
    fn what_is_not_sealed_is_refused() {
        let loose = memfd_create("loose", MFdFlags::MFD_CLOEXEC).unwrap();
        assert!(matches!(Memory::open(loose), Err(MemoryError::NotSealed)));
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(Memory::open(file.into()), Err(MemoryError::NotSealed)));
    }
}
