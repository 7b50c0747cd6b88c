//! A place inside an object, checked once.
//!
//! What runs over the object's end makes a server write behind its memory (protocol 18). So
//! requests for data take offset and length as an [`Extent`] only, which can't be made
//! without the object's size.

use crate::wire::inode::BLOCK_SHIFT_MAX;

/// The largest piece of an object that one request reads or writes: 4 MiB
/// (protocol 1.5 advises 1 to 4 MiB; a FUSE request has at most 1 MiB).
pub const TRANSFER_LEN_MAX: u32 = 4 << 20;

/// A piece of a data object that is known to lie inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    offset: u32,
    len: u32,
}

impl Extent {
    /// A piece of an object of `1 << shift` bytes; `None` when it does not fit
    /// or is longer than [`TRANSFER_LEN_MAX`].
    #[must_use]
    pub fn new(offset: u32, len: u32, shift: u8) -> Option<Self> {
        let end = u64::from(offset) + u64::from(len);
        let fits = shift <= BLOCK_SHIFT_MAX && end <= 1 << shift && len <= TRANSFER_LEN_MAX;
        fits.then_some(Self { offset, len })
    }

    /// First byte, counted in the object.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.offset
    }

    /// Bytes.
    #[must_use]
    pub fn len(self) -> u32 {
        self.len
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_stays_inside_its_object() {
        assert!(Extent::new(0, 512, 9).is_some());
        assert!(Extent::new(1, 512, 9).is_none());
        assert!(Extent::new(u32::MAX, 2, 31).is_none());
        assert!(Extent::new(0, TRANSFER_LEN_MAX + 1, 31).is_none());
        assert!(Extent::new(0, 1, 32).is_none());
    }
}
