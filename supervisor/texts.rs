//! The texts of open control files: made when a file is opened, read from until
//! it is closed.
//!
//! So a reader sees one state of the cluster from beginning to end, however
//! many reads it takes, and a file's size is known only by reading it: control
//! files are opened for direct I/O and announce size 0, like those of procfs.
//!
//! A text does not outlive this process. A handle that a predecessor gave has none
//! until somebody reads from it; then it gets a new one.

use fuser::{FileHandle, FopenFlags};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// The handle of a file that has no text: a volume, or a file only to be written.
pub const NO_TEXT: FileHandle = FileHandle(0);
/// How every control file is opened: nothing of it is ever cached.
pub const CONTROL_OPEN: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

/// All open texts.
#[derive(Debug, Default)]
pub struct Texts {
    by_handle: RwLock<HashMap<u64, Arc<[u8]>>>,
}

impl Texts {
    /// Keeps a text until [`Texts::close`]. A handle that has one keeps that.
    pub fn open(&self, handle: FileHandle, text: impl Into<Vec<u8>>) -> Arc<[u8]> {
        let text: Vec<u8> = text.into();
        let mut map = self.by_handle.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(map.entry(handle.0).or_insert_with(|| Arc::from(text)))
    }

    /// The text of a handle.
    pub fn get(&self, handle: FileHandle) -> Option<Arc<[u8]>> {
        let map = self.by_handle.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&handle.0).cloned()
    }

    /// Lets go of a text.
    pub fn close(&self, handle: FileHandle) {
        self.by_handle.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
    }

    /// How many are open.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_handle.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The part of a text that a read asks for; short or empty at its end.
pub fn slice(text: &[u8], range: Range<u64>) -> &[u8] {
    let inside = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
    let (from, to) = (inside(range.start), inside(range.end));
    &text[from..to.max(from)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_the_same_until_its_own_handle_is_closed() {
        let texts = Texts::default();
        let (first, second) = (FileHandle(1), FileHandle(2));
        texts.open(first, "one");
        texts.open(second, "two");
        assert_eq!(&*texts.open(second, "other"), b"two");
        texts.close(first);
        assert_eq!((texts.get(first), texts.get(second).as_deref()), (None, Some(&b"two"[..])));
        texts.close(second);
        assert_eq!(texts.len(), 0);
    }

    #[test]
    fn slices_end_where_the_text_does() {
        assert_eq!(slice(b"sheep", 1..3), b"he");
        assert_eq!(slice(b"sheep", 3..103), b"ep");
        assert_eq!(slice(b"sheep", 5..6), b"");
        assert_eq!(slice(b"sheep", u64::MAX - 1..u64::MAX), b"");
    }
}
