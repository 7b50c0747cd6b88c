//! The check of a mount point, before anything is started.
//!
//! A path is resolved down to its last part, then looked up in mountinfo, and
//! only then touched: a stale mount would answer "transport endpoint is not
//! connected", and one whose requests are held would not answer at all.

use super::stale::{self, Served};
use super::{FSTYPE, MountError, detach, mountinfo};
use std::fs::{canonicalize, read_dir, read_link, symlink_metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// How often a last part may be a symbolic link; the kernel's own limit.
const LINKS_MAX: usize = 40;

/// A directory that can be mounted on: absolute, without links, empty, no mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint(PathBuf);

impl MountPoint {
    /// Checks what the user wrote.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(written: &Path) -> Result<Self, MountError> {
        let mut path = absolute(written)?;
        for _ in 0..LINKS_MAX {
            let resolved = resolve_parent(&path)?;
            clear(&resolved)?;
            let kind = symlink_metadata(&resolved).map_err(|cause| refusal(&path, cause))?;
            if kind.is_symlink() {
                path = follow(&resolved)?;
            } else if kind.is_dir() {
                refuse_full(&resolved)?;
                return Ok(Self(resolved));
            } else {
                return Err(MountError::NotADirectory(resolved));
            }
        }
        Err(refusal(written, nix::errno::Errno::ELOOP.into()))
    }

    /// Where a predecessor of this process has mounted.
    pub fn of_predecessor(path: PathBuf) -> Self {
        Self(path)
    }

    /// Whether a path that the user wrote means this one. Its last part is not touched.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn is_meant_by(&self, written: &Path) -> Result<bool, MountError> {
        Ok(resolve_parent(&absolute(written)?)? == self.0)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn absolute(written: &Path) -> Result<PathBuf, MountError> {
    std::path::absolute(written).map_err(|cause| match cause.kind() {
        ErrorKind::InvalidInput => MountError::Missing(written.to_owned()),
        _ => refusal(written, cause),
    })
}

/// Resolves all but the last part, if there is one.
fn resolve_parent(path: &Path) -> Result<PathBuf, MountError> {
    let resolve = |path: &Path| canonicalize(path).map_err(|cause| refusal(path, cause));
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(resolve(parent)?.join(name)),
        _ => resolve(path),
    }
}

fn follow(link: &Path) -> Result<PathBuf, MountError> {
    let target = read_link(link).map_err(|cause| refusal(link, cause))?;
    Ok(link.parent().unwrap_or(link).join(target))
}

/// Refuses a mount that is in the way, unless it is one of a sheepfs that died: that is
/// detached.
fn clear(path: &Path) -> Result<(), MountError> {
    while let Some(info) = mountinfo::find(path)? {
        if info.fstype != FSTYPE || stale::is_served(&info) != Served::No {
            let fstype = info.fstype;
            return Err(MountError::AlreadyMounted { point: path.to_owned(), fstype });
        }
        tracing::warn!(point = %path.display(), "a mount that no process serves any more is in the way; it is detached");
        detach(path)?;
    }
    Ok(())
}

fn refuse_full(path: &Path) -> Result<(), MountError> {
    let mut entries = read_dir(path).map_err(|cause| refusal(path, cause))?;
    if entries.next().is_some() { Err(MountError::NotEmpty(path.to_owned())) } else { Ok(()) }
}

fn refusal(path: &Path, cause: io::Error) -> MountError {
    match cause.kind() {
        ErrorKind::NotFound => MountError::Missing(path.to_owned()),
        ErrorKind::NotADirectory => MountError::NotADirectory(path.to_owned()),
        ErrorKind::PermissionDenied => MountError::NoPermission(path.to_owned()),
        _ => MountError::system("looking at", path, cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir};
    use std::os::unix::fs::symlink;

    #[test]
    fn an_empty_directory_will_do_and_links_to_it_too() {
        let dir = tempfile::tempdir().unwrap();
        let real = canonicalize(dir.path()).unwrap();
        create_dir(real.join("point")).unwrap();
        symlink("point", real.join("link")).unwrap();
        symlink(real.join("link"), real.join("link to link")).unwrap();
        for name in ["point", "point/", "./point", "link", "link to link", "link/../point"] {
            assert_eq!(MountPoint::check(&real.join(name)).unwrap().path(), real.join("point"));
        }
    }

    #[test]
    fn everything_else_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let check = |name: &str| MountPoint::check(&root.join(name)).unwrap_err();
        create_dir(root.join("full")).unwrap();
        File::create(root.join("full/file")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        assert!(matches!(check("missing"), MountError::Missing(_)));
        assert!(matches!(check("missing/below"), MountError::Missing(_)));
        assert!(matches!(check("dangling"), MountError::Missing(_)));
        assert!(matches!(check("full"), MountError::NotEmpty(_)));
        assert!(matches!(check("full/file"), MountError::NotADirectory(_)));
        assert!(matches!(check("full/file/below"), MountError::NotADirectory(_)));
        assert!(matches!(check("loop"), MountError::System { .. }));
        assert!(matches!(MountPoint::check(Path::new("")), Err(MountError::Missing(_))));
        let root = MountPoint::check(Path::new("/")).unwrap_err();
        assert!(matches!(root, MountError::AlreadyMounted { .. }), "{root}");
    }
}
