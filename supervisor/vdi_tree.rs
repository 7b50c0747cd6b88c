//! `vdi/tree/`: every VDI as a directory of small files, its snapshots as directories in it.
//! Pure.
//!
//! ```text
//! vdi/tree/NAME/size …       facts of the working VDI
//! vdi/tree/NAME/3/size …     facts of its snapshot 3
//! ```
//!
//! Inode numbers are a vid and what is meant of it, so they mean the same under every
//! supervisor, and nothing has to be remembered of what the kernel was told. After a
//! snapshot the name's directory is that of another vid; whoever stands in the old one still
//! finds the family there, and the facts of the vid that it was.
//!
//! A directory is read on behind a cookie that follows from the name of the entry, not from its
//! vid, which snapshots change: so nothing is skipped or shown twice that is there all the time.
//! (Two names with one hash could be, with one chance in some 10^11 for 10,000 VDIs.)

use fuser::FileType;
use sheepfs::text::VdiFact;
use sheepfs::wire::VdiId;
use sheepfs::wire::oid::fnv1a;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// The longest file name.
const NAME_LEN_MAX: usize = 255;
/// What a number stands for is in its upper half. Volumes have 1 and 2.
const NAME: u64 = 3;
const REMNANT: u64 = 4;
const SNAPSHOT: u64 = 5;
/// The first fact's; a fact's number here is its place in this list, for ever.
const FACTS: u64 = 16;
const BY_NUMBER: [VdiFact; 11] = [
    VdiFact::Vid,
    VdiFact::Size,
    VdiFact::Used,
    VdiFact::Shared,
    VdiFact::Copies,
    VdiFact::BlockSizeShift,
    VdiFact::Created,
    VdiFact::Frozen,
    VdiFact::Parent,
    VdiFact::Tag,
    VdiFact::Id,
];

/// What is below `vdi/tree/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The directory of a name, by the vid of its working VDI.
    Name(VdiId),
    /// The directory of a name without a working VDI, by the vid of its newest snapshot.
    Remnant(VdiId),
    /// The directory of a snapshot.
    Snapshot(VdiId),
    /// A file.
    Fact(VdiId, VdiFact),
}

impl Place {
    /// What an inode number names, whether or not it is there.
    pub fn of(ino: u64) -> Option<Self> {
        let vid = VdiId::new(u32::try_from(ino & 0xffff_ffff).ok()?)?;
        match ino >> 32 {
            NAME => Some(Self::Name(vid)),
            REMNANT => Some(Self::Remnant(vid)),
            SNAPSHOT => Some(Self::Snapshot(vid)),
            number => {
                let at = usize::try_from(number.checked_sub(FACTS)?).ok()?;
                BY_NUMBER.get(at).map(|fact| Self::Fact(vid, *fact))
            }
        }
    }

    /// Its inode number.
    pub fn ino(self) -> u64 {
        let number = match self {
            Self::Name(_) => NAME,
            Self::Remnant(_) => REMNANT,
            Self::Snapshot(_) => SNAPSHOT,
            Self::Fact(_, fact) => FACTS + number_of(fact),
        };
        number << 32 | u64::from(self.vid().get())
    }

    /// Whose it is.
    pub fn vid(self) -> VdiId {
        match self {
            Self::Name(vid) | Self::Remnant(vid) | Self::Snapshot(vid) | Self::Fact(vid, _) => vid,
        }
    }

    /// File or directory.
    pub fn kind(self) -> FileType {
        match self {
            Self::Name(_) | Self::Remnant(_) | Self::Snapshot(_) => FileType::Directory,
            Self::Fact(..) => FileType::RegularFile,
        }
    }

    /// Permission bits: nothing here can be written.
    pub fn mode(self) -> u16 {
        match self.kind() {
            FileType::Directory => 0o555,
            _ => 0o444,
        }
    }

    /// Whether its directory has files.
    pub fn has_facts(self) -> bool {
        matches!(self, Self::Name(_) | Self::Snapshot(_))
    }

    /// Whether its directory has the snapshots of a name.
    pub fn has_snapshots(self) -> bool {
        matches!(self, Self::Name(_) | Self::Remnant(_))
    }
}

fn number_of(fact: VdiFact) -> u64 {
    (0..).zip(BY_NUMBER).find(|(_, found)| *found == fact).map_or(0, |(number, _)| number)
}

/// What a name in such a directory means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// A file.
    Fact(VdiFact),
    /// The snapshot of that number.
    Snapshot(u32),
}

impl Child {
    /// Reads a name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        if let Some(fact) = VdiFact::ALL.into_iter().find(|fact| fact.name() == text) {
            return Some(Self::Fact(fact));
        }
        let number: u32 = text.parse().ok()?;
        // "+3" and "03" are no names of 3.
        (number.to_string() == text).then_some(Self::Snapshot(number))
    }

    /// Where a listing goes on behind it.
    pub fn cookie(self) -> u64 {
        match self {
            Self::Fact(fact) => FACTS + number_of(fact),
            Self::Snapshot(number) => 1 << 32 | u64::from(number),
        }
    }
}

/// Where a listing of names goes on behind that one: above all other cookies, and positive.
pub fn cookie_of(name: &[u8]) -> u64 {
    1 << 62 | fnv1a(name) >> 2
}

/// The file name of a VDI's name, which may be any bytes but NUL: `%`, `/`, and a name of one or
/// two dots are written as `%25`, `%2F` and `%2E`. `None`: it would be too long.
pub fn file_name(name: &[u8]) -> Option<OsString> {
    let is_dots = matches!(name, b"." | b"..");
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' | b'/' => escaped.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            b'.' if is_dots => escaped.extend_from_slice(b"%2E"),
            byte => escaped.push(*byte),
        }
    }
    (1..=NAME_LEN_MAX).contains(&escaped.len()).then(|| OsString::from_vec(escaped))
}

/// The name behind a file name. `None`: no name is written so.
pub fn vdi_name(file: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(file.len());
    let mut rest = file.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [*rest.next()?, *rest.next()?];
                let text = std::str::from_utf8(&digits).ok()?;
                name.push(u8::from_str_radix(text, 16).ok()?);
            }
            byte => name.push(*byte),
        }
    }
    // Each name has one file name only.
    file_name(&name).filter(|again| again.as_encoded_bytes() == file).map(|_| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn vid(number: u32) -> VdiId {
        VdiId::new(number).unwrap()
    }

    #[test]
    fn each_place_has_a_number_of_its_own_that_leads_back() {
        let mut seen = BTreeSet::new();
        for number in [1, 0x7c_2b25, (1 << 24) - 1] {
            let vid = vid(number);
            let dirs = [Place::Name(vid), Place::Remnant(vid), Place::Snapshot(vid)];
            let facts = VdiFact::ALL.map(|fact| Place::Fact(vid, fact));
            for place in dirs.into_iter().chain(facts) {
                assert!(seen.insert(place.ino()), "{place:?}");
                assert_eq!(Place::of(place.ino()), Some(place));
                assert_eq!(Node::of(place.ino()), None);
                // Volumes.
                assert!(place.ino() >= 3 << 32);
            }
        }
        for nobody in [1, 1 << 32 | 7, 2 << 32 | 7, 6 << 32 | 7, 3 << 32, 27 << 32 | 7] {
            assert_eq!(Place::of(nobody), None, "{nobody:x}");
        }
        // The kernel may hold these over an upgrade.
        assert_eq!(Place::Fact(vid(7), VdiFact::Vid).ino(), 16 << 32 | 7);
        assert_eq!(Place::Fact(vid(7), VdiFact::Id).ino(), 26 << 32 | 7);
    }

    #[test]
    fn names_mean_facts_or_snapshots() {
        assert_eq!(Child::parse(b"size"), Some(Child::Fact(VdiFact::Size)));
        assert_eq!(Child::parse(b"3"), Some(Child::Snapshot(3)));
        for nothing in [&b"03"[..], b"+3", b"-1", b"", b"Size", b"4294967296", b"\xff", b"3 "] {
            assert_eq!(Child::parse(nothing), None);
        }
    }

    #[test]
    fn what_cannot_be_a_file_name_is_escaped() {
        for (name, file) in [
            (&b"disk"[..], "disk"),
            (b"a/b", "a%2Fb"),
            (b"50%", "50%25"),
            (b".", "%2E"),
            (b"..", "%2E%2E"),
            (b"...", "..."),
            (b".hidden", ".hidden"),
        ] {
            assert_eq!(file_name(name).unwrap(), file);
            assert_eq!(vdi_name(file.as_bytes()).as_deref(), Some(name));
        }
        for (file, why) in
            [("a%2fb", "lower case"), ("%41", "needless"), ("%2", "short"), ("%+1", "a sign")]
        {
            assert_eq!(vdi_name(file.as_bytes()), None, "{why}");
        }
        assert_eq!(file_name(&[b'x'; 255]).map(|name| name.len()), Some(255));
        assert_eq!(
            (file_name(&[b'%'; 86]), file_name(&[b'x'; 256]), file_name(b"")),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in proptest::collection::vec(1u8.., 1..80)) {
            let file = file_name(&name).unwrap();
            prop_assert!(!file.as_encoded_bytes().contains(&b'/'));
            prop_assert_eq!(vdi_name(file.as_encoded_bytes()), Some(name.clone()));
            prop_assert!(cookie_of(&name) >> 62 == 1);
        }
    }
}
