//! What the node knows of its cluster of one: whether it was formatted, and how.
//!
//! Kept in the small text file `cluster` beside the objects, replaced by renaming. Everything
//! else that survives a restart is in the inodes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::wire::cluster::ClusterFlags;

/// Copies of a cluster that is formatted without saying how many (protocol 15.7).
const COPIES_DEFAULT: u8 = 3;
/// Block size shift of a cluster that is formatted without saying it.
const SHIFT_DEFAULT: u8 = 22;

/// What the cluster was formatted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// When: seconds << 32 | nanoseconds.
    pub ctime: u64,
    /// Copies of a VDI that asks for none in particular; stored, never made.
    pub copies: u8,
    /// Erasure code of such a VDI.
    pub copy_policy: u8,
    /// Whether locks lock and vids are used again.
    pub flags: ClusterFlags,
    /// log2 of the block size of such a VDI.
    pub block_size_shift: u8,
}

impl Format {
    /// A format with the server's defaults where `copies` or `shift` are 0.
    #[must_use]
    pub fn new(ctime: u64, copies: u8, copy_policy: u8, flags: u16, shift: u8) -> Self {
        Self {
            ctime,
            copies: if copies == 0 { COPIES_DEFAULT } else { copies },
            copy_policy,
            flags: ClusterFlags(flags),
            block_size_shift: if shift == 0 { SHIFT_DEFAULT } else { shift },
        }
    }

    /// When the cluster was formatted, in seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.ctime >> 32
    }

    /// Whether LOCK_VDI really locks.
    #[must_use]
    pub fn uses_locks(&self) -> bool {
        self.flags.contains(ClusterFlags::USE_LOCK)
    }

    /// Whether vids are used again.
    #[must_use]
    pub fn recycles_vids(&self) -> bool {
        self.flags.contains(ClusterFlags::RECYCLE_VID)
    }

    fn to_text(self) -> String {
        let Self { ctime, copies, copy_policy, flags, block_size_shift } = self;
        let flags = flags.0;
        format!(
            "ctime {ctime}\ncopies {copies}\ncopy_policy {copy_policy}\nflags {flags}\n\
             block_size_shift {block_size_shift}\n"
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut words = text.lines().filter_map(|line| line.split_once(' '));
            words.find(|(name, _)| *name == key).map(|(_, value)| value)
        };
        Some(Self {
            ctime: value("ctime")?.parse().ok()?,
            copies: value("copies")?.parse().ok()?,
            copy_policy: value("copy_policy")?.parse().ok()?,
            flags: ClusterFlags(value("flags")?.parse().ok()?),
            block_size_shift: value("block_size_shift")?.parse().ok()?,
        })
    }
}

/// The file that holds the format.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file `cluster` in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { path: dir.join("cluster") }
    }

    /// Reads the format; `None` when there is none yet.
    ///
    /// # Errors
    /// `InvalidData` when the file is not what [`StateFile::save`] wrote.
    pub fn load(&self) -> io::Result<Option<Format>> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "not a minisheep's state");
        Format::from_text(&text).map(Some).ok_or_else(broken)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, format: &Format) -> io::Result<()> {
        let temporary = self.path.with_extension("tmp");
        fs::write(&temporary, format.to_text())?;
        fs::rename(&temporary, &self.path)
    }
}

/// The time as inodes and clusters hold it: seconds << 32 | nanoseconds.
#[must_use]
pub fn now() -> u64 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time.as_secs() << 32 | u64::from(time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_survives_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path());
        assert_eq!(file.load().unwrap(), None);
        let format = Format::new(now(), 0, 0, 0x0c, 0);
        assert_eq!((format.copies, format.block_size_shift), (3, 22));
        file.save(&format).unwrap();
        assert_eq!(file.load().unwrap(), Some(format));
        assert!(format.uses_locks() && !format.recycles_vids());
        fs::write(dir.path().join("cluster"), "ctime x").unwrap();
        assert_eq!(file.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
