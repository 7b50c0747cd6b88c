//! A volume in memory, as programs map it: what is in it is copied in and out, never borrowed.

#![expect(unsafe_code, reason = "mapped memory is changed by others, so it is copied by pointer")]

use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::io;

/// A mapped file.
#[derive(Debug)]
pub struct Mapping(MmapRaw);

impl Mapping {
    /// All of a file, shared with everybody.
    pub fn shared(file: &File) -> io::Result<Self> {
        MmapOptions::new().map_raw(file).map(Self)
    }

    /// As [`Mapping::shared`], of another length than the file has.
    pub fn shared_of(file: &File, len: usize) -> io::Result<Self> {
        MmapOptions::new().len(len).map_raw(file).map(Self)
    }

    /// All of a file, shared with everybody, only to be read.
    pub fn shared_read_only(file: &File) -> io::Result<Self> {
        MmapOptions::new().map_raw_read_only(file).map(Self)
    }

    /// All of a file; what is written stays here.
    pub fn private(file: &File) -> io::Result<Self> {
        // SAFETY: no reference to the memory is ever made; `read` and `write` copy.
        let map = unsafe { MmapOptions::new().map_copy(file) }?;
        Ok(Self(map.into()))
    }

    /// How many bytes are mapped.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What is there now.
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let at = self.check(at, len);
        let mut bytes = vec![0; len];
        // SAFETY: `check` has seen that the source lies in the mapping, the target is as long
        // and our own, and bytes have no invalid values.
        unsafe { self.0.as_ptr().add(at).copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        bytes
    }

    /// Changes what is there; the mapping must be writable.
    pub fn write(&self, at: u64, bytes: &[u8]) {
        let at = self.check(at, bytes.len());
        // SAFETY: `check` has seen that the target lies in the mapping, to which nobody has a
        // reference.
        unsafe {
            self.0.as_mut_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
    }

    /// `msync(2)`: returns when all is where it belongs.
    pub fn sync(&self) -> io::Result<()> {
        self.0.flush()
    }

    fn check(&self, at: u64, len: usize) -> usize {
        let at = at as usize;
        assert!(at + len <= self.len(), "{at}, {len} is not in {} bytes", self.len());
        at
    }
}
