//! Objects as sparse files.
//!
//! An object is the file `objects/<16 hex digits>`; what was never written reads as zeros, also
//! behind the file's end. An object appears whole or not at all: it is written under a temporary
//! name and renamed. An answered write therefore survives the death of this process, because the
//! page cache does; nothing is synced, so it need not survive the death of the machine.
//!
//! Open files are kept in a cache. The lock of a stripe makes "look up, open, remember" one step
//! against "replace or remove, forget", so the cache never holds a file that is not the object.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek64};
use quick_cache::sync::Cache;

use crate::wire::ObjectId;

const STRIPES: usize = 64;
/// Zeros shorter than this are written rather than left out of a sparse file.
const PAGE_LEN: usize = 4096;
/// A copy goes in pieces of this size, so that no object is ever held in memory.
const COPY_LEN: usize = 4 << 20;
static ZEROS: [u8; PAGE_LEN] = [0; PAGE_LEN];
const TEMPORARY: &str = "tmp-";

/// The objects of this node.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    files: Cache<u64, Arc<File>>,
    stripes: [RwLock<()>; STRIPES],
    temporaries: AtomicU64,
}

impl Store {
    /// Opens the store in `dir`, makes it if it is missing, and clears what an interrupted
    /// create left behind. At most `open_max` files are kept open.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(dir: &Path, open_max: usize) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let store = Self {
            dir: dir.to_owned(),
            files: Cache::new(open_max),
            stripes: std::array::from_fn(|_| RwLock::new(())),
            temporaries: AtomicU64::new(0),
        };
        for name in store.names()?.filter(|name| name.starts_with(TEMPORARY)) {
            fs::remove_file(store.dir.join(name))?;
        }
        Ok(store)
    }

    /// All objects, in no order.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list(&self) -> io::Result<Vec<ObjectId>> {
        let raws = self.names()?.filter_map(|name| u64::from_str_radix(&name, 16).ok());
        Ok(raws.map(ObjectId::from_raw).collect())
    }

    /// Fills `out` from `offset` on; zeros where nothing is stored.
    ///
    /// # Errors
    /// `NotFound` when there is no such object.
    pub fn read(&self, oid: ObjectId, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.file(oid)?;
        let mut done = 0;
        while done < out.len() {
            match file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out[done..].fill(0);
        Ok(())
    }

    /// Overwrites a part of an object.
    ///
    /// # Errors
    /// `NotFound` when there is no such object.
    pub fn write(&self, oid: ObjectId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(oid)?.write_all_at(bytes, offset)
    }

    /// Makes an object, or replaces it: zeros, or the content of `base`, and `bytes` over that.
    ///
    /// # Errors
    /// `NotFound` when there is no such base; then nothing is made.
    pub fn create(
        &self,
        oid: ObjectId,
        base: Option<ObjectId>,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let base = base.map(|base| self.file(base)).transpose()?;
        self.replace(oid, |file| {
            if let Some(base) = base {
                copy_sparse(&base, file)?;
            }
            file.write_all_at(bytes, offset)
        })
    }

    /// Makes an object of `bytes`, or replaces it, leaving pages of zeros out.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create_sparse(&self, oid: ObjectId, bytes: &[u8]) -> io::Result<()> {
        self.replace(oid, |file| {
            let pages = bytes.chunks(PAGE_LEN).zip((0_u64..).step_by(PAGE_LEN));
            // Compared as a whole: an inode has 12 MiB, and tests make thousands of them.
            for (page, offset) in pages.filter(|(page, _)| *page != &ZEROS[..page.len()]) {
                file.write_all_at(page, offset)?;
            }
            file.set_len(bytes.len() as u64)
        })
    }

    /// Removes an object.
    ///
    /// # Errors
    /// `NotFound` when there is no such object.
    pub fn remove(&self, oid: ObjectId) -> io::Result<()> {
        let _guard = self.stripe(oid).write().unwrap_or_else(PoisonError::into_inner);
        self.files.remove(&oid.raw());
        fs::remove_file(self.path(oid))
    }

    /// Whether there is such an object.
    #[must_use]
    pub fn exists(&self, oid: ObjectId) -> bool {
        self.files.get(&oid.raw()).is_some() || self.path(oid).exists()
    }

    /// How many bytes of the object are stored; the rest reads as zeros.
    ///
    /// # Errors
    /// `NotFound` when there is no such object.
    pub fn stored_len(&self, oid: ObjectId) -> io::Result<u64> {
        Ok(self.file(oid)?.metadata()?.len())
    }

    /// Removes all objects.
    ///
    /// # Errors
    /// What the file system says.
    pub fn clear(&self) -> io::Result<()> {
        for oid in self.list()? {
            self.remove(oid)?;
        }
        Ok(())
    }

    /// The directory of the objects.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn names(&self) -> io::Result<impl Iterator<Item = String>> {
        let entries = fs::read_dir(&self.dir)?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()))
    }

    fn path(&self, oid: ObjectId) -> PathBuf {
        self.dir.join(oid.to_string())
    }

    fn stripe(&self, oid: ObjectId) -> &RwLock<()> {
        // Neighbouring blocks fall on different stripes.
        &self.stripes[oid.index() as usize % STRIPES]
    }

    fn file(&self, oid: ObjectId) -> io::Result<Arc<File>> {
        if let Some(file) = self.files.get(&oid.raw()) {
            return Ok(file);
        }
        let _guard = self.stripe(oid).read().unwrap_or_else(PoisonError::into_inner);
        let file = OpenOptions::new().read(true).write(true).open(self.path(oid))?;
        let file = Arc::new(file);
        self.files.insert(oid.raw(), Arc::clone(&file));
        Ok(file)
    }

    fn replace(&self, oid: ObjectId, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join(format!("{TEMPORARY}{number}"));
        let file = new_file(&temporary)?;
        let made = fill(&file).and_then(|()| self.put(oid, &temporary, file));
        if made.is_err() {
            // Nothing more can be done about it than what is done at the next start.
            let _ = fs::remove_file(&temporary);
        }
        made
    }

    fn put(&self, oid: ObjectId, temporary: &Path, file: File) -> io::Result<()> {
        let _guard = self.stripe(oid).write().unwrap_or_else(PoisonError::into_inner);
        fs::rename(temporary, self.path(oid))?;
        self.files.insert(oid.raw(), Arc::new(file));
        Ok(())
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}

/// Copies what is stored in `from`, holes as holes, without a buffer.
fn copy_sparse(from: &File, to: &File) -> io::Result<()> {
    let len = i64::try_from(from.metadata()?.len()).map_err(io::Error::other)?;
    let mut at = 0;
    while at < len {
        let Some(data) = next(from, at, Whence::SeekData)? else { break };
        let end = next(from, data, Whence::SeekHole)?.unwrap_or(len);
        copy_range(from, to, data, end)?;
        at = end;
    }
    Ok(())
}

/// The next data or hole at or behind `at`; `None` when there is none.
fn next(file: &File, at: i64, whence: Whence) -> io::Result<Option<i64>> {
    match lseek64(file, at, whence) {
        Ok(found) => Ok(Some(found)),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn copy_range(from: &File, to: &File, start: i64, end: i64) -> io::Result<()> {
    let (mut from_at, mut to_at) = (start, start);
    while from_at < end {
        let len = usize::try_from(end - from_at).unwrap_or(COPY_LEN).min(COPY_LEN);
        if copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), len)? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 8).unwrap();
        (dir, store)
    }

    fn oid(index: u64) -> ObjectId {
        ObjectId::from_raw(7 << 32 | index)
    }

    fn read(store: &Store, oid: ObjectId, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0xee; len];
        store.read(oid, offset, &mut out).map(|()| out)
    }

    #[test]
    fn what_was_not_written_reads_as_zeros() {
        let (_dir, store) = store();
        store.create(oid(1), None, 5, b"abc").unwrap();
        assert_eq!(read(&store, oid(1), 4, 6).unwrap(), b"\0abc\0\0");
        assert_eq!(read(&store, oid(1), 1 << 30, 2).unwrap(), b"\0\0");
        assert_eq!(read(&store, oid(2), 0, 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_create_replaces_and_a_cached_file_does_not_outlive_it() {
        let (_dir, store) = store();
        store.create(oid(1), None, 0, b"old").unwrap();
        assert_eq!(read(&store, oid(1), 0, 3).unwrap(), b"old");
        store.create(oid(1), None, 1, b"n").unwrap();
        assert_eq!(read(&store, oid(1), 0, 3).unwrap(), b"\0n\0");
        store.remove(oid(1)).unwrap();
        assert!(!store.exists(oid(1)));
        assert!(store.write(oid(1), 0, b"x").is_err());
    }

    #[test]
    fn a_copy_keeps_content_and_holes() {
        let (_dir, store) = store();
        store.create(oid(1), None, 9 << 20, b"far").unwrap();
        store.write(oid(1), 3, b"near").unwrap();
        store.create(oid(2), Some(oid(1)), 4, b"XX").unwrap();
        assert_eq!(read(&store, oid(2), 0, 8).unwrap(), b"\0\0\0nXXr\0");
        assert_eq!(read(&store, oid(2), 9 << 20, 3).unwrap(), b"far");
        use std::os::unix::fs::MetadataExt;
        assert!(fs::metadata(store.path(oid(2))).unwrap().blocks() < 100);
        assert!(store.create(oid(3), Some(oid(9)), 0, b"").is_err());
        assert!(!store.exists(oid(3)));
    }

    #[test]
    fn a_start_clears_what_an_interrupted_create_left() {
        let (dir, store) = store();
        store.create(oid(1), None, 0, b"x").unwrap();
        fs::write(dir.path().join("tmp-9"), b"half").unwrap();
        let again = Store::open(dir.path(), 8).unwrap();
        assert_eq!(again.list().unwrap(), [oid(1)]);
        assert!(!dir.path().join("tmp-9").exists());
    }

    #[test]
    fn zeros_are_left_out_of_sparse_objects() {
        let (_dir, store) = store();
        let mut bytes = vec![0; 1 << 20];
        bytes[PAGE_LEN * 3 + 1] = 9;
        store.create_sparse(oid(1), &bytes).unwrap();
        assert_eq!(read(&store, oid(1), 0, 1 << 20).unwrap(), bytes);
        assert_eq!(store.stored_len(oid(1)).unwrap(), 1 << 20);
    }
}
