//! VDI names and tags, and how a user writes them.
//!
//! On the wire both are 256 bytes, padded with NUL (protocol 4.1, 7.2). A user
//! writes `NAME` for the working VDI and `NAME:TAG` or `NAME:ID` for a snapshot,
//! as QEMU does. sheepfs shows an attached VDI as a file of that very text, so
//! what can't be a file name is refused here.

use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use thiserror::Error;

/// The length of the name and of the tag field.
pub const NAME_FIELD_LEN: usize = 256;
/// The longest name: the field keeps room for a NUL.
pub const NAME_LEN_MAX: usize = NAME_FIELD_LEN - 1;

/// Why a text is not a VDI's name or a reference to a VDI.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was written.
    #[error("the name is empty")]
    Empty,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("the name is longer than {NAME_LEN_MAX} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// `.`, `..`, or with a slash, a NUL or a line break inside.
    #[error("the name cannot be a file name: it is . or .., or has a slash, a NUL or a line break")]
    NotAFileName,
}

/// A VDI's name: 1 to 255 bytes of UTF-8 without NUL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VdiName(String);

impl VdiName {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`NameError`] says what a name may not be.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_LEN_MAX {
            return Err(NameError::TooLong);
        }
        let forbidden = |c: char| c == '/' || c == '\0' || c == '\n';
        if text == "." || text == ".." || text.contains(forbidden) {
            return Err(NameError::NotAFileName);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as the wire wants it, padded with NUL.
    #[must_use]
    pub fn field(&self) -> [u8; NAME_FIELD_LEN] {
        padded(self.0.as_bytes())
    }
}

impl fmt::Display for VdiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A snapshot's tag: 1 to 255 bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VdiTag(String);

impl VdiTag {
    /// Checks `text`; a tag obeys the rules of a name.
    ///
    /// # Errors
    /// [`NameError`], as for a name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        VdiName::new(text).map(|name| Self(name.0))
    }

    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag as the wire wants it.
    #[must_use]
    pub fn field(&self) -> [u8; NAME_FIELD_LEN] {
        padded(self.0.as_bytes())
    }
}

/// Which generation of a name is meant (protocol 7.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Generation {
    /// The one that can be written.
    Working,
    /// The snapshot of that number.
    SnapId(u32),
    /// The newest snapshot of that tag.
    Tag(VdiTag),
}

/// A VDI as a user names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VdiRef {
    /// The name.
    pub name: VdiName,
    /// Working or which snapshot.
    pub generation: Generation,
}

/// A checked line from a user: what it may mean, most likely first, and the
/// file name that stands for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeName(String);

/// So that maps by name can be asked with the text alone, which is compared and hashed alike.
impl Borrow<str> for VolumeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl VolumeName {
    /// Takes what `echo` or `printf` wrote: white space around it is dropped.
    ///
    /// # Errors
    /// [`NameError`] when no VDI can be meant.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let text = std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
        VdiName::new(text.trim()).map(|name| Self(name.0))
    }

    /// The text, which is also the name of the file under `volume/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the text may mean, in the order in which it should be tried: the
    /// whole as the name of a working VDI, since names may hold colons; then
    /// split at the last colon, a number as id before a number as tag.
    #[must_use]
    pub fn meanings(&self) -> Vec<VdiRef> {
        let whole = VdiRef { name: VdiName(self.0.clone()), generation: Generation::Working };
        let mut found = vec![whole];
        if let Some((name, tag)) = self.0.rsplit_once(':')
            && let (Ok(name), Ok(tag)) = (VdiName::new(name), VdiTag::new(tag))
        {
            if let Some(id) = snap_id(tag.as_str()) {
                found.push(VdiRef { name: name.clone(), generation: Generation::SnapId(id) });
            }
            found.push(VdiRef { name, generation: Generation::Tag(tag) });
        }
        found
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tag as a snapshot id: a positive decimal number.
fn snap_id(tag: &str) -> Option<u32> {
    let digits = tag.bytes().all(|byte| byte.is_ascii_digit());
    tag.parse().ok().filter(|id| digits && *id > 0)
}

/// Pads to a field. Longer input is cut, which the constructors rule out.
fn padded(bytes: &[u8]) -> [u8; NAME_FIELD_LEN] {
    let mut field = [0; NAME_FIELD_LEN];
    let len = bytes.len().min(NAME_FIELD_LEN);
    field[..len].copy_from_slice(&bytes[..len]);
    field
}

/// The bytes of a field up to its first NUL, or all of them: a tag may be
/// unterminated when it is 256 bytes long (protocol 4.1).
#[must_use]
pub fn field_bytes(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_echo_and_printf_write_is_a_name() {
        for written in [&b"disk"[..], b"disk\n", b"  disk \n", b"\tdisk\n\n"] {
            assert_eq!(VolumeName::parse(written).unwrap().as_str(), "disk");
        }
    }

    #[test]
    fn what_cannot_be_a_vdi_is_refused_by_its_reason() {
        let long = vec![b'x'; NAME_LEN_MAX + 1];
        assert_eq!(VolumeName::parse(b" \n"), Err(NameError::Empty));
        assert_eq!(VolumeName::parse(&long), Err(NameError::TooLong));
        assert_eq!(VolumeName::parse(b"\xff\xfe"), Err(NameError::NotUtf8));
        for name in [&b"a/b"[..], b".", b"..", b"a\0b", b"a\nb"] {
            assert_eq!(VolumeName::parse(name), Err(NameError::NotAFileName));
        }
        assert!(VolumeName::parse(&long[1..]).is_ok());
    }

    #[test]
    fn a_colon_means_a_snapshot_when_no_vdi_has_that_name() {
        let meanings = VolumeName::parse(b"disk:7").unwrap().meanings();
        let generations: Vec<_> = meanings.iter().map(|m| m.generation.clone()).collect();
        let tag = Generation::Tag(VdiTag::new("7").unwrap());
        assert_eq!(generations, [Generation::Working, Generation::SnapId(7), tag]);
        assert_eq!(meanings[0].name.as_str(), "disk:7");
        assert_eq!(meanings[1].name.as_str(), "disk");
        assert_eq!(VolumeName::parse(b"a:b:c").unwrap().meanings()[1].name.as_str(), "a:b");
        assert_eq!(VolumeName::parse(b":x").unwrap().meanings().len(), 1);
    }
}
