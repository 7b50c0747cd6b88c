//! The bitmaps of vids that READ_VDIS and READ_DEL_VDIS answer with (protocol 12.4).

use std::fmt;

use super::LayoutError;
use crate::wire::oid::{VDI_ID_COUNT, VdiId};

/// The `data_length` of READ_VDIS and READ_DEL_VDIS, exactly.
pub const VDI_BITMAP_LEN: usize = 1 << 21;

const _: () = assert!(VDI_BITMAP_LEN * 8 == VDI_ID_COUNT as usize);

/// A set of vids.
#[derive(Clone, PartialEq, Eq)]
pub struct VdiBitmap {
    bytes: Vec<u8>,
}

impl VdiBitmap {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: vec![0; VDI_BITMAP_LEN] }
    }

    /// Takes the payload of READ_VDIS or READ_DEL_VDIS.
    ///
    /// # Errors
    /// [`LayoutError::Length`] for another length than [`VDI_BITMAP_LEN`].
    pub fn decode(bytes: Vec<u8>) -> Result<Self, LayoutError> {
        if bytes.len() == VDI_BITMAP_LEN {
            return Ok(Self { bytes });
        }
        Err(LayoutError::Length {
            what: "a bitmap of vids",
            expected: VDI_BITMAP_LEN,
            found: bytes.len(),
        })
    }

    /// The payload of a READ_VDIS or READ_DEL_VDIS reply.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether `vid` is in the set.
    #[must_use]
    pub fn contains(&self, vid: VdiId) -> bool {
        let (byte, bit) = place(vid);
        self.bytes[byte] & bit != 0
    }

    /// Adds `vid`.
    pub fn insert(&mut self, vid: VdiId) {
        let (byte, bit) = place(vid);
        self.bytes[byte] |= bit;
    }

    /// Takes `vid` out.
    pub fn remove(&mut self, vid: VdiId) {
        let (byte, bit) = place(vid);
        self.bytes[byte] &= !bit;
    }

    /// The vids of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = VdiId> + '_ {
        (0..).step_by(64).zip(self.words()).flat_map(|(first, word)| bits(first, word))
    }

    /// The vids of the set from `start` on without a gap, round the end to the beginning: what a
    /// server looks through for a name that hashes to `start` (protocol 20).
    pub fn run_of(&self, start: u32) -> impl Iterator<Item = VdiId> + '_ {
        let round = (start..VDI_ID_COUNT).chain(1..start);
        round.map_while(|vid| VdiId::new(vid).filter(|vid| self.contains(*vid)))
    }

    /// The vids which are here and not in `deleted`, ascending: with both bitmaps of a cluster,
    /// the VDIs to list.
    pub fn without<'a>(&'a self, deleted: &'a Self) -> impl Iterator<Item = VdiId> + 'a {
        let words = self.words().zip(deleted.words());
        (0..).step_by(64).zip(words).flat_map(|(first, (used, gone))| bits(first, used & !gone))
    }

    /// The set 64 vids at a time: nearly all words are 0, and a byte at a time would be slow.
    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let (words, _) = self.bytes.as_chunks::<8>();
        words.iter().map(|word| u64::from_le_bytes(*word))
    }
}

impl Default for VdiBitmap {
    fn default() -> Self {
        Self::new()
    }
}

/// The vids themselves, rather than two million bytes.
impl fmt::Debug for VdiBitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The byte and the bit in it that stand for `vid`, which has 24 bits.
fn place(vid: VdiId) -> (usize, u8) {
    (vid.get() as usize >> 3, 1 << (vid.get() & 7))
}

/// The vids whose bits are set in `word`, counted from `first`. Bit 0 of the whole map is nobody's.
fn bits(first: u32, mut word: u64) -> impl Iterator<Item = VdiId> {
    let numbers = std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(first + bit)
    });
    numbers.filter_map(VdiId::new)
}
