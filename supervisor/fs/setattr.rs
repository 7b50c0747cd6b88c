//! Which changes of attributes succeed. Pure.
//!
//! Nothing of a file in the tree can be changed, so a change succeeds when it
//! asks for what is so already, and else fails. Two exceptions are made for what
//! every program does: setting times succeeds without effect (`touch`, `cp -p`),
//! and so does truncating a volume to 0, as on a block device (`>`, `dd`). Truncating it
//! to more than it has lets its VDI grow, which the cluster does.

use fuser::{Errno, FileAttr};

/// What somebody wants to change; times apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// File type and permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
}

/// How a file takes a change of its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// A control file: any size, without effect.
    Any,
    /// A volume: 0 and its own size, without effect; more lets it grow.
    Grows,
    /// A snapshot: none.
    ReadOnly,
}

impl Change {
    /// Whether it succeeds on a file that now has these attributes, and the size to which
    /// that is to grow.
    pub fn check(self, attr: &FileAttr, sizing: Sizing) -> Result<Option<u64>, Errno> {
        let mode = self.mode.is_some_and(|mode| mode & 0o7777 != u32::from(attr.perm));
        let uid = self.uid.is_some_and(|uid| uid != attr.uid);
        let gid = self.gid.is_some_and(|gid| gid != attr.gid);
        if mode || uid || gid {
            return Err(Errno::EPERM);
        }
        match (self.size, sizing) {
            (None, _) | (Some(_), Sizing::Any) => Ok(None),
            (Some(size), Sizing::Grows) if size == 0 || size == attr.size => Ok(None),
            (Some(size), Sizing::Grows) if size > attr.size => Ok(Some(size)),
            (Some(_), Sizing::Grows) => Err(Errno::EPERM),
            (Some(_), Sizing::ReadOnly) => Err(Errno::EROFS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Look;
    use crate::tree::Node;
    use std::time::UNIX_EPOCH;

    fn file(size: u64) -> FileAttr {
        let attr = Look::of_user(7, 8).of_node(24, Node::of(24).unwrap(), UNIX_EPOCH);
        FileAttr { size, ..attr }
    }

    fn size(size: u64) -> Change {
        Change { size: Some(size), ..Change::default() }
    }

    #[test]
    fn a_volume_grows_and_never_shrinks() {
        for same in [0, 4096] {
            assert_eq!(size(same).check(&file(4096), Sizing::Grows), Ok(None));
        }
        assert_eq!(size(4097).check(&file(4096), Sizing::Grows), Ok(Some(4097)));
        for other in [1, 4095] {
            assert_eq!(size(other).check(&file(4096), Sizing::Grows), Err(Errno::EPERM));
        }
        assert_eq!(size(4096).check(&file(4096), Sizing::ReadOnly), Err(Errno::EROFS));
        assert_eq!(size(99).check(&file(0), Sizing::Any), Ok(None));
    }

    #[test]
    fn owner_and_mode_stay_and_times_are_not_refused() {
        let check = |change: Change| change.check(&file(0), Sizing::Grows);
        assert_eq!(check(Change::default()), Ok(None));
        let same = Change { mode: Some(0o100_644), uid: Some(7), gid: Some(8), size: None };
        assert_eq!(check(same), Ok(None));
        assert_eq!(check(Change { mode: Some(0o100_666), ..same }), Err(Errno::EPERM));
        assert_eq!(check(Change { uid: Some(0), ..same }), Err(Errno::EPERM));
        assert_eq!(check(Change { gid: Some(0), ..same }), Err(Errno::EPERM));
    }
}
