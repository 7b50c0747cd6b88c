//! The arena: memory that the supervisor and the worker share for payload.
//!
//! It is a memfd of a fixed size, sealed against shrinking and growing, so that
//! neither process can make the other fault on it (hazard 17). Who may touch
//! which part is decided by messages: the supervisor leases a span to a request,
//! the worker uses it from the request's message to its answer, and only then
//! does the supervisor read it or lease it again. A new worker gets a new arena,
//! so a dying one can't write into a slot that is in use again (hazard 4).
//!
//! A process may have an *annex* besides: memory of its own, of which no message can
//! speak, for payload that the other process has no part in. Its spans are used as all
//! others are.
//!
//! A [`Span`] can only be made by the arena it lies in, which checks the raw
//! numbers once; everything else here relies on that.
#![expect(unsafe_code, reason = "shared memory is reached through raw pointers")]

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// The arena's usual size: enough for 32 requests of 1 MiB.
pub const ARENA_LEN: u32 = 32 << 20;

/// A place in the arena as a message names it: an allegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RawSpan {
    /// First byte.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// A place that is known to lie in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    offset: u32,
    len: u32,
}

impl Span {
    /// Bytes.
    #[must_use]
    pub fn len(self) -> u32 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// A part of the span; cut at its end.
    #[must_use]
    pub fn part(self, from: u32, len: u32) -> Self {
        let from = from.min(self.len);
        Self { offset: self.offset + from, len: len.min(self.len - from) }
    }
}

/// The shared memory, mapped.
#[derive(Debug)]
pub struct Arena {
    memory: File,
    map: MmapRaw,
    len: u32,
    /// Its spans begin where those of the shared memory end.
    annex: OnceLock<MmapRaw>,
}

impl Arena {
    /// Makes a new arena of `len` bytes of zeros.
    ///
    /// # Errors
    /// When the kernel gives no memory or no descriptor.
    pub fn create(len: u32) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memory = File::from(memfd_create("sheepfs-arena", flags)?);
        memory.set_len(u64::from(len))?;
        fcntl(&memory, FcntlArg::F_ADD_SEALS(wanted_seals()))?;
        Self::map(memory, len)
    }

    /// Maps an arena that another process made.
    ///
    /// # Errors
    /// When it is not sealed, larger than 4 GiB, or can't be mapped.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let memory = File::from(fd);
        let seals = SealFlag::from_bits_truncate(fcntl(&memory, FcntlArg::F_GET_SEALS)?);
        let len = u32::try_from(memory.metadata()?.len()).map_err(io::Error::other)?;
        if !seals.contains(wanted_seals()) {
            return Err(io::Error::other("the arena is not sealed against a change of size"));
        }
        Self::map(memory, len)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Checks what a message says.
    #[must_use]
    pub fn check(&self, raw: RawSpan) -> Option<Span> {
        let end = raw.offset.checked_add(raw.len)?;
        (end <= self.len).then_some(Span { offset: raw.offset, len: raw.len })
    }

    /// Memory of this process alone, of zeros at first: `len` bytes, of which those that are
    /// never written take no memory. Later calls give the same, cut to `len`.
    ///
    /// # Errors
    /// When the kernel gives none.
    pub fn annex(&self, len: u32) -> io::Result<Span> {
        self.len.checked_add(len).ok_or(io::ErrorKind::OutOfMemory)?;
        if self.annex.get().is_none() {
            let map = MmapOptions::new().len(len as usize).map_anon()?;
            // Somebody else's is as good.
            let _ = self.annex.set(map.into());
        }
        let there = self.annex.get().map_or(0, MmapRaw::len);
        Ok(Span { offset: self.len, len: u32::try_from(there).map_or(len, |there| there.min(len)) })
    }

    /// Copies `bytes` to the front of `span`, as many as fit.
    pub fn fill(&self, span: Span, bytes: &[u8]) {
        let mut target = self.io_slice_mut(span);
        let len = bytes.len().min(target.len());
        target[..len].copy_from_slice(&bytes[..len]);
    }

    /// Sets all of `span` to zero.
    pub fn zero(&self, span: Span) {
        self.io_slice_mut(span).fill(0);
    }

    /// The bytes of `span`, to be sent or copied by whoever has its lease.
    #[must_use]
    pub fn bytes(&self, span: Span) -> &[u8] {
        // SAFETY: `span` was checked against this arena, or is of its annex, the
        // mappings live as long as `self`, the size of the shared one is sealed,
        // and bytes have no invalid values.
        // The lease (see the module) keeps the other process and other requests
        // of this one from writing here; a worker that breaks it can only make
        // the kernel copy other bytes, since no decision is taken on them.
        unsafe { std::slice::from_raw_parts(self.at(span), span.len as usize) }
    }

    /// Makes sure that the bytes of `span` are within this process's reach at once, also
    /// when another one has written them: the kernel does not copy from pages that are
    /// not, when the process is being killed.
    pub fn touch(&self, span: Span) {
        const PAGE_LEN: usize = 4096;
        for byte in self.bytes(span).iter().step_by(PAGE_LEN).chain(self.bytes(span).last()) {
            std::hint::black_box(*byte);
        }
    }

    /// `span` as the source of a vectored write.
    #[must_use]
    pub fn io_slice(&self, span: Span) -> IoSlice<'_> {
        IoSlice::new(self.bytes(span))
    }

    /// `span` as the target of a vectored read.
    #[must_use]
    pub fn io_slice_mut(&self, span: Span) -> IoSliceMut<'_> {
        // SAFETY: as in `bytes`; whoever has the lease of a span is the only one
        // to touch it, so this is the only reference to these bytes.
        IoSliceMut::new(unsafe { std::slice::from_raw_parts_mut(self.at(span), span.len as usize) })
    }

    fn map(memory: File, len: u32) -> io::Result<Self> {
        let map = MmapOptions::new().len(len as usize).map_raw(&memory)?;
        Ok(Self { memory, map, len, annex: OnceLock::new() })
    }

    fn at(&self, span: Span) -> *mut u8 {
        let (map, offset) = match (span.offset.checked_sub(self.len), self.annex.get()) {
            (Some(offset), Some(annex)) => (annex, offset),
            (Some(_) | None, _) => (&self.map, span.offset),
        };
        // SAFETY: `check` made sure that the offset is at most the shared mapping's
        // length, `annex` that it lies behind that and in the annex, and parts of a
        // span stay inside it. An empty span at that length may be of either.
        unsafe { map.as_mut_ptr().add(offset as usize) }
    }
}

impl AsFd for Arena {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

fn wanted_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_see_the_same_bytes() {
        let ours = Arena::create(8192).unwrap();
        let theirs = Arena::from_fd(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let raw = RawSpan { offset: 4096, len: 5 };
        ours.fill(ours.check(raw).unwrap(), b"sheep");
        assert_eq!(theirs.bytes(theirs.check(raw).unwrap()), b"sheep");
    }

    #[test]
    fn spans_outside_are_refused_and_parts_stay_inside() {
        let arena = Arena::create(8192).unwrap();
        assert!(arena.check(RawSpan { offset: 8192, len: 1 }).is_none());
        assert!(arena.check(RawSpan { offset: u32::MAX, len: 2 }).is_none());
        let span = arena.check(RawSpan { offset: 8000, len: 192 }).unwrap();
        assert_eq!(span.part(100, 200).len(), 92);
        assert!(span.part(500, 1).is_empty());
    }

    #[test]
    fn an_annex_is_memory_of_its_own() {
        let ours = Arena::create(8192).unwrap();
        let theirs = Arena::from_fd(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let annex = theirs.annex(16_384).unwrap();
        assert_eq!(theirs.annex(16_384).unwrap(), annex);
        assert_eq!(theirs.annex(100).unwrap().len(), 100);
        assert!(theirs.bytes(annex).iter().all(|byte| *byte == 0));
        theirs.fill(annex.part(4096, 5), b"sheep");
        theirs.fill(annex.part(16_380, 100), b"sheep");
        assert_eq!(theirs.bytes(annex.part(4095, 7)), b"\0sheep\0");
        assert_eq!(theirs.bytes(annex.part(16_380, 100)), b"shee");
        let all = ours.check(RawSpan { offset: 0, len: 8192 }).unwrap();
        assert!(ours.bytes(all).iter().all(|byte| *byte == 0), "nothing of it is shared");
        assert!(theirs.check(RawSpan { offset: 8192, len: 1 }).is_none(), "nor can be named");
        assert!(theirs.annex(u32::MAX).is_err());
    }

    #[test]
    fn nobody_can_change_its_size() {
        let arena = Arena::create(8192).unwrap();
        assert!(arena.memory.set_len(0).is_err());
        assert!(arena.memory.set_len(1 << 20).is_err());
        let loose = File::from(memfd_create("loose", MFdFlags::MFD_CLOEXEC).unwrap());
        assert!(Arena::from_fd(loose.into()).is_err());
    }
}
