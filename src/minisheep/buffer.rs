//! Buffers for payloads, used again instead of being freed.
//!
//! A fresh buffer of a megabyte costs the kernel 256 page faults, which is more than reading it
//! from the page cache. So a dropped buffer goes to a small heap of spare ones.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// At most so many spare buffers are kept.
const SPARE_MAX: usize = 64;
/// Larger ones are freed.
const SPARE_LEN_MAX: usize = 4 << 20;

static SPARE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes of a request or of an answer.
#[derive(Debug, Default)]
pub struct Buffer {
    /// May be longer than `len`: what was used once stays initialised.
    bytes: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` bytes with any content.
    #[must_use]
    pub fn with_len(len: usize) -> Self {
        if len == 0 {
            return Self::default();
        }
        let mut bytes = spare(len).unwrap_or_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Self { bytes, len }
    }

    /// Makes it longer by `more` bytes with any content.
    pub fn grow(&mut self, more: usize) {
        self.len += more;
        if self.bytes.len() < self.len {
            self.bytes.resize(self.len, 0);
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { bytes, len }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() || bytes.len() > SPARE_LEN_MAX {
            return;
        }
        let mut spares = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARE_MAX {
            spares.push(bytes);
        }
    }
}

/// A spare buffer, preferably one that is long enough without wasting much.
fn spare(len: usize) -> Option<Vec<u8>> {
    let mut spares = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |bytes: &Vec<u8>| bytes.len() >= len && bytes.len() / 16 <= len;
    let found = spares.iter().rposition(fits)?;
    Some(spares.swap_remove(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_has_the_length_asked_for() {
        for len in [0, 1, 4096, 5 << 20] {
            let mut buffer = Buffer::with_len(len);
            assert_eq!(buffer.len(), len);
            buffer.fill(7);
            buffer.grow(3);
            assert_eq!(buffer.len(), len + 3);
            assert!(buffer[..len].iter().all(|byte| *byte == 7));
        }
    }
}
