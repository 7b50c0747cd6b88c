//! The tree of a mount, as programs see it, whoever serves it.

use crate::tools::holds_in_time;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A tree.
#[derive(Clone, Debug)]
pub struct Tree {
    point: PathBuf,
}

impl Tree {
    /// The tree that is, or will be, mounted at `point`.
    pub fn at(point: &Path) -> Self {
        Self { point: point.to_owned() }
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// A path in the tree.
    pub fn path(&self, below: &str) -> PathBuf {
        self.point.join(below)
    }

    /// The file of an attached volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.path("volume").join(name)
    }

    /// Opens a volume for reading and writing.
    pub fn open(&self, name: &str) -> File {
        File::options().read(true).write(true).open(self.volume(name)).unwrap()
    }

    /// Reads a control file.
    pub fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Writes to a control file in one piece.
    pub fn write(&self, below: &str, bytes: &[u8]) -> io::Result<usize> {
        let mut file = File::options().write(true).open(self.path(below))?;
        io::Write::write(&mut file, bytes)
    }

    /// Attaches a volume, which must succeed.
    pub fn attach(&self, name: &str) {
        let written = self.write("vdi/mount", name.as_bytes());
        let written = written.unwrap_or_else(|e| panic!("attach {name}: {e}"));
        assert_eq!(written, name.len());
    }

    /// Detaches a volume, which must succeed. It may be open for a moment longer: the kernel
    /// tells of a close after the program that closed has gone on.
    pub fn detach(&self, name: &str) {
        let mut error = None;
        let done = holds_in_time(|| {
            error = self.write("vdi/unmount", name.as_bytes()).err();
            error.as_ref().is_none_or(|e| e.kind() != io::ErrorKind::ResourceBusy)
        });
        assert!(done && error.is_none(), "detach {name}: {error:?}");
    }

    /// Detaches a volume and attaches it again.
    pub fn reattach(&self, name: &str) {
        self.detach(name);
        self.attach(name);
    }

    /// What `config/status` says of `key`.
    pub fn status(&self, key: &str) -> Option<String> {
        let status = self.read("config/status");
        let mut pairs = status.lines().filter_map(|line| line.split_once(' '));
        pairs.find(|(found, _)| *found == key).map(|(_, value)| value.to_owned())
    }

    /// The number that `config/status` gives for `key`.
    ///
    /// # Panics
    /// When it gives none.
    pub fn count(&self, key: &str) -> u64 {
        let value = self.status(key);
        let number = value.as_ref().and_then(|value| value.parse().ok());
        number.unwrap_or_else(|| panic!("no number {key} in {}", self.read("config/status")))
    }
}
