//! The tree: which directories and control files there are, their names, fixed
//! inode numbers and modes. Pure; the volumes below `volume/` are handed in.
//!
//! Inode numbers follow from what they name, so that the kernel's view of the
//! tree stays valid across supervisors and versions: a number once given to a
//! file here is never given to another one.

use crate::events::{LifeFile, ReportFile, WritableFile};
use crate::settings::LocalFile;
use fuser::FileType;
use sheepfs::ipc::Query;

/// A directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// The mount point.
    Root,
    /// `cluster/`
    Cluster,
    /// `node/`
    Node,
    /// `vdi/`
    Vdi,
    /// `vdi/tree/`; what is in it is [`crate::vdi_tree`]'s.
    VdiTree,
    /// `volume/`; its files are the attached volumes.
    Volume,
    /// `config/`
    Config,
}

/// A control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// A report about the cluster.
    Report(ReportFile),
    /// A text of the supervisor's own.
    Local(LocalFile),
    /// `vdi/mount`
    Mount,
    /// `vdi/unmount`
    Unmount,
    /// What changes which VDIs there are.
    Life(LifeFile),
}

impl File {
    /// The name of the file as a target of writes, when it is one.
    pub fn writable(self) -> Option<WritableFile> {
        match self {
            Self::Mount => Some(WritableFile::Mount),
            Self::Unmount => Some(WritableFile::Unmount),
            Self::Life(file) => Some(WritableFile::Life(file)),
            Self::Local(LocalFile::PageCache) => Some(WritableFile::PageCache),
            Self::Local(LocalFile::ObjectCache) => Some(WritableFile::ObjectCache),
            Self::Local(LocalFile::Route) => Some(WritableFile::Route),
            Self::Local(LocalFile::SheepInfo) => Some(WritableFile::SheepInfo),
            Self::Local(LocalFile::Status) | Self::Report(_) => None,
        }
    }

    /// Whether it has a text to read.
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Report(_) | Self::Local(_))
    }
}

/// What a fixed inode number names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A directory.
    Dir(Dir),
    /// A control file.
    File(File),
}

impl Node {
    /// What a fixed inode number names. `None`: a volume, or nothing.
    pub fn of(ino: u64) -> Option<Self> {
        TREE.iter().find(|item| item.ino == ino).map(|item| item.node)
    }

    /// File or directory.
    pub fn kind(self) -> FileType {
        match self {
            Self::Dir(_) => FileType::Directory,
            Self::File(_) => FileType::RegularFile,
        }
    }

    /// Permission bits. What they don't grant to the owner, nobody gets, root
    /// neither: see [`crate::fs`].
    pub fn mode(self) -> u16 {
        match self {
            Self::Dir(_) => 0o755,
            // Whose sheep is used is nobody else's business.
            Self::File(File::Local(LocalFile::SheepInfo)) => 0o600,
            Self::File(file) => match (file.is_readable(), file.writable().is_some()) {
                (true, true) => 0o644,
                (true, false) => 0o444,
                (false, _) => 0o200,
            },
        }
    }
}

/// A directory's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Where a listing goes on behind this entry. Follows from the entry and not
    /// from its place, so that nothing is skipped when volumes come and go.
    pub cookie: u64,
    /// Inode number.
    pub ino: u64,
    /// File or directory.
    pub kind: FileType,
    /// Name.
    pub name: String,
}

/// The inode number of a name in a directory of the fixed tree.
pub fn lookup(parent: u64, name: &str) -> Option<u64> {
    TREE.iter()
        .find(|item| item.ino != ROOT_INO && item.parent == parent && item.name == name)
        .map(|item| item.ino)
}

/// Everything in a directory behind `cookie`, in order of cookies. `volumes` are
/// inode numbers and names, for `volume/` only. `None`: not a directory.
pub fn entries(
    ino: u64,
    volumes: impl Iterator<Item = (u64, String)>,
    cookie: u64,
) -> Option<Vec<DirEntry>> {
    let dir = TREE.iter().find(|item| item.ino == ino)?;
    let Node::Dir(which) = dir.node else { return None };
    let mut all = vec![dots(1, dir.ino, "."), dots(2, dir.parent, "..")];
    all.extend(TREE.iter().filter(|item| item.parent == ino && item.ino != ROOT_INO).map(child));
    if which == Dir::Volume {
        all.extend(volumes.map(volume));
    }
    all.retain(|entry| entry.cookie > cookie);
    all.sort_by_key(|entry| entry.cookie);
    Some(all)
}

const ROOT_INO: u64 = 1;
/// The inode number of `vdi/`.
pub const VDI_INO: u64 = 4;
/// The inode number of `vdi/tree/`.
pub const VDI_TREE_INO: u64 = 7;
/// The inode number of `volume/`.
pub const VOLUME_INO: u64 = 5;

struct Item {
    ino: u64,
    parent: u64,
    name: &'static str,
    node: Node,
}

const fn dir(ino: u64, name: &'static str, dir: Dir) -> Item {
    Item { ino, parent: ROOT_INO, name, node: Node::Dir(dir) }
}

const fn file(ino: u64, parent: u64, name: &'static str, file: File) -> Item {
    Item { ino, parent, name, node: Node::File(file) }
}

static TREE: [Item; 24] = [
    dir(ROOT_INO, "", Dir::Root),
    dir(2, "cluster", Dir::Cluster),
    dir(3, "node", Dir::Node),
    dir(VDI_INO, "vdi", Dir::Vdi),
    dir(VOLUME_INO, "volume", Dir::Volume),
    dir(6, "config", Dir::Config),
    Item { ino: VDI_TREE_INO, parent: VDI_INO, name: "tree", node: Node::Dir(Dir::VdiTree) },
    file(16, 2, "info", File::Report(Query::Cluster)),
    file(17, 3, "list", File::Report(Query::Nodes)),
    file(18, 3, "info", File::Report(Query::Space)),
    file(19, 4, "list", File::Report(Query::Vdis)),
    file(20, 4, "mount", File::Mount),
    file(21, 4, "unmount", File::Unmount),
    file(22, 6, "sheep_info", File::Local(LocalFile::SheepInfo)),
    file(23, 6, "page_cache", File::Local(LocalFile::PageCache)),
    file(24, 6, "object_cache", File::Local(LocalFile::ObjectCache)),
    file(25, 6, "status", File::Local(LocalFile::Status)),
    file(26, 6, "route", File::Local(LocalFile::Route)),
    file(30, 4, "create", File::Life(LifeFile::Create)),
    file(31, 4, "delete", File::Life(LifeFile::Delete)),
    file(32, 4, "snapshot", File::Life(LifeFile::Snapshot)),
    file(33, 4, "clone", File::Life(LifeFile::Clone)),
    file(34, 4, "rollback", File::Life(LifeFile::Rollback)),
    file(35, 4, "resize", File::Life(LifeFile::Resize)),
];

fn dots(cookie: u64, ino: u64, name: &str) -> DirEntry {
    DirEntry { cookie, ino, kind: FileType::Directory, name: name.to_owned() }
}

/// Cookies of the fixed tree are its inode numbers and two, behind `.` and `..`.
fn child(item: &Item) -> DirEntry {
    let (ino, kind) = (item.ino, item.node.kind());
    DirEntry { cookie: ino + 2, ino, kind, name: item.name.to_owned() }
}

/// Cookies of volumes are their inode numbers, which lie far above.
fn volume((ino, name): (u64, String)) -> DirEntry {
    DirEntry { cookie: ino, ino, kind: FileType::RegularFile, name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names(ino: u64, cookie: u64) -> Vec<String> {
        let volumes = [(1 << 32 | 7, "alpha".to_owned()), (2 << 32 | 7, "alpha:one".to_owned())];
        let entries = entries(ino, volumes.into_iter(), cookie).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn it_is_the_tree_of_the_original_and_what_it_lacks() {
        assert_eq!(names(1, 0), [".", "..", "cluster", "node", "vdi", "volume", "config"]);
        assert_eq!(names(2, 0), [".", "..", "info"]);
        assert_eq!(names(3, 0), [".", "..", "list", "info"]);
        let life = ["create", "delete", "snapshot", "clone", "rollback", "resize"];
        assert_eq!(
            names(4, 0),
            [&[".", "..", "tree", "list", "mount", "unmount"], &life[..]].concat()
        );
        assert_eq!(names(5, 0), [".", "..", "alpha", "alpha:one"]);
        let config = [".", "..", "sheep_info", "page_cache", "object_cache", "status", "route"];
        assert_eq!(names(6, 0), config);
        assert!(entries(16, std::iter::empty(), 0).is_none());
        assert!(entries(999, std::iter::empty(), 0).is_none());
    }

    #[test]
    fn a_listing_goes_on_behind_the_cookie_it_ended_with() {
        assert_eq!(names(5, 2), ["alpha", "alpha:one"]);
        assert_eq!(names(5, 1 << 32 | 7), ["alpha:one"]);
        // The volume of that cookie may be gone by now.
        assert_eq!(names(5, 1 << 32 | 5), ["alpha", "alpha:one"]);
        assert!(names(1, 8).is_empty());
    }

    #[test]
    fn names_lead_to_the_numbers_and_numbers_are_unique() {
        let unique: BTreeSet<u64> = TREE.iter().map(|item| item.ino).collect();
        assert_eq!(unique.len(), TREE.len());
        for item in TREE.iter().filter(|item| item.ino != ROOT_INO) {
            assert_eq!(lookup(item.parent, item.name), Some(item.ino));
            assert!(matches!(Node::of(item.parent), Some(Node::Dir(_))));
        }
        assert_eq!(lookup(1, ""), None);
        assert_eq!(lookup(2, "list"), None);
        assert_eq!(Node::of(1 << 32), None);
    }

    #[test]
    fn modes_say_who_may_do_what() {
        let mode = |parent, name| Node::of(lookup(parent, name).unwrap()).unwrap().mode();
        assert_eq!(mode(1, "volume"), 0o755);
        assert_eq!((mode(2, "info"), mode(6, "status")), (0o444, 0o444));
        assert_eq!((mode(4, "mount"), mode(4, "unmount")), (0o200, 0o200));
        assert_eq!((mode(4, "create"), mode(4, "delete")), (0o200, 0o200));
        assert_eq!((mode(6, "page_cache"), mode(6, "object_cache")), (0o644, 0o644));
        assert_eq!(mode(6, "route"), 0o644);
        assert_eq!(mode(6, "sheep_info"), 0o600);
    }
}
