//! What changes rarely, written as a whole: two copies in turn, of which one is
//! valid at any instant.
//!
//! A copy is written where the one before the last was, then its number is made the
//! current one, with one store. Who reads finds the last complete one, and its
//! checksum tells whether somebody else has written there.

use super::memory::{Memory, WORD_LEN};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use thiserror::Error;

/// Words before a copy's bytes: its number, their length, their checksum.
const HEAD: usize = 3;

/// A copy may be written anew while it is read, when its owner lives.
const ATTEMPTS_MAX: usize = 100;

/// Why there is no copy to be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SnapshotError {
    /// None was ever written.
    #[error("nothing was ever written to it")]
    Empty,
    /// It is not what was written.
    #[error("it is damaged: its checksum is wrong")]
    Damaged,
    /// It does not fit.
    #[error("{0} bytes are too many for it")]
    TooLong(usize),
}

/// Two copies, and the word that says which is the current one.
#[derive(Debug)]
pub struct Snapshot {
    memory: Arc<Memory>,
    current: usize,
    copies: [usize; 2],
    /// Words of each copy.
    len: usize,
}

impl Snapshot {
    /// With the number of the current copy in the word `current`, and two copies of
    /// `len` words each from `at` on.
    pub fn new(memory: Arc<Memory>, current: usize, at: usize, len: usize) -> Self {
        Self { memory, current, copies: [at, at + len], len }
    }

    /// Writes a new copy. The one before stays valid until this is complete.
    ///
    /// # Errors
    /// When it is too long; the one before stays.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        if bytes.len() > (self.len - HEAD) * WORD_LEN {
            return Err(SnapshotError::TooLong(bytes.len()));
        }
        let current = &self.memory.words(self.current, 1)[0];
        let number = current.load(Ordering::Acquire) + 1;
        let words = self.memory.words(self.copy(number), self.len);
        words[0].store(0, Ordering::Release);
        words[1].store(bytes.len() as u64, Ordering::Release);
        words[2].store(u64::from(crc32fast::hash(bytes)), Ordering::Release);
        for (word, piece) in words[HEAD..].iter().zip(bytes.chunks(WORD_LEN)) {
            let mut padded = [0; WORD_LEN];
            padded[..piece.len()].copy_from_slice(piece);
            word.store(u64::from_le_bytes(padded), Ordering::Release);
        }
        words[0].store(number, Ordering::Release);
        current.store(number, Ordering::Release);
        Ok(())
    }

    /// Reads the current copy, also while its owner goes on writing.
    ///
    /// # Errors
    /// When there is none, or it is not what was written.
    pub fn read(&self) -> Result<Vec<u8>, SnapshotError> {
        let damaged = Err(SnapshotError::Damaged);
        let mut attempts = (0..ATTEMPTS_MAX).map(|_| self.read_once());
        attempts.find(|read| *read != damaged).unwrap_or(damaged)
    }

    fn read_once(&self) -> Result<Vec<u8>, SnapshotError> {
        let number = self.memory.words(self.current, 1)[0].load(Ordering::Acquire);
        if number == 0 {
            return Err(SnapshotError::Empty);
        }
        let words = self.memory.words(self.copy(number), self.len);
        let head: [u64; HEAD] = std::array::from_fn(|at| words[at].load(Ordering::Acquire));
        let len = usize::try_from(head[1]).map_err(|_| SnapshotError::Damaged)?;
        if head[0] != number || len > (self.len - HEAD) * WORD_LEN {
            return Err(SnapshotError::Damaged);
        }
        let body = words[HEAD..].iter().take(len.div_ceil(WORD_LEN));
        let mut bytes: Vec<u8> =
            body.flat_map(|word| word.load(Ordering::Acquire).to_le_bytes()).collect();
        bytes.truncate(len);
        let is_whole = u64::from(crc32fast::hash(&bytes)) == head[2];
        if is_whole { Ok(bytes) } else { Err(SnapshotError::Damaged) }
    }

    fn copy(&self, number: u64) -> usize {
        self.copies[usize::from(number % 2 == 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn snapshot(memory: &Arc<Memory>) -> Snapshot {
        Snapshot::new(Arc::clone(memory), 2, 8, 64)
    }

    #[test]
    fn the_last_complete_copy_is_found() {
        let memory = Arc::new(Memory::create(512).unwrap());
        let mut ours = snapshot(&memory);
        assert_eq!(ours.read(), Err(SnapshotError::Empty));
        for text in ["", "one", "a longer text than one word", "x"] {
            ours.write(text.as_bytes()).unwrap();
            assert_eq!(snapshot(&memory).read().unwrap(), text.as_bytes());
        }
        assert_eq!(ours.write(&[1; 489]), Err(SnapshotError::TooLong(489)));
        assert_eq!(ours.read().unwrap(), b"x");
        ours.write(&[1; 488]).unwrap();
        assert_eq!(ours.read().unwrap(), [1; 488]);
    }

    #[test]
    fn a_copy_that_is_half_written_does_not_count() {
        let memory = Arc::new(Memory::create(512).unwrap());
        let mut ours = snapshot(&memory);
        ours.write(b"before").unwrap();
        // The second copy goes to the first place: all its words but the last store.
        for word in memory.words(8, 64) {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(snapshot(&memory).read().unwrap(), b"before");
        ours.write(b"after").unwrap();
        assert_eq!(snapshot(&memory).read().unwrap(), b"after");
    }

    proptest! {
        #[test]
        fn no_flipped_bit_is_taken_for_what_was_written(
            bytes in proptest::collection::vec(any::<u8>(), 1..200), bit in 0usize..64, at in 0usize..20
        ) {
            let memory = Arc::new(Memory::create(512).unwrap());
            let mut ours = snapshot(&memory);
            ours.write(&bytes).unwrap();
            let used = HEAD + bytes.len().div_ceil(WORD_LEN);
            let word = &memory.words(8 + 64, 64)[at % used];
            word.fetch_xor(1 << bit, Ordering::Relaxed);
            match ours.read() {
                // Only the padding behind the last byte counts for nothing.
                Ok(read) => prop_assert_eq!(read, bytes),
                Err(error) => prop_assert_eq!(error, SnapshotError::Damaged),
            }
        }
    }
}
