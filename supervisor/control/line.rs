//! The lines that the files of `vdi/` take, which change what VDIs there are. Pure.
//!
//! | file | line |
//! | --- | --- |
//! | `create` | `NAME SIZE [copies=N\|X:Y] [block_size_shift=N] [hyper]` |
//! | `delete` | `NAME[:TAG]` |
//! | `snapshot` | `NAME TAG` |
//! | `clone` | `NAME:TAG NEW` |
//! | `rollback` | `NAME:TAG` |
//! | `resize` | `NAME SIZE` |
//!
//! A name may hold spaces, as it may for `vdi/mount`, since everything that follows it has
//! none: lines are read from their ends.

use crate::events::LifeFile;
use sheepfs::ipc::{Errand, NewShape};
use sheepfs::size::{SizeError, parse_size};
use sheepfs::wire::name::{Generation, NameError, VdiName, VdiRef, VdiTag, VolumeName};
use thiserror::Error;

/// The most replicas that a cluster knows.
const COPIES_MAX: u8 = 31;
/// The most parity strips of an erasure code (protocol 6.1).
const PARITY_MAX: u8 = 15;
/// What `dog` takes as a block size.
const SHIFTS: std::ops::RangeInclusive<u8> = 20..=31;

/// How options begin.
const OPTIONS: [&str; 2] = ["copies=", "block_size_shift="];

/// Why a line is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LineError {
    /// A word is missing.
    #[error("{} is wanted", form(*.0))]
    Form(LifeFile),
    /// A name can't be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The size can't be one.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A VDI of no bytes.
    #[error("a VDI has at least one byte")]
    NoBytes,
    /// What follows the size is no option.
    #[error("the options are copies=N, copies=X:Y, block_size_shift=N and hyper")]
    Option,
    /// Neither a size nor an option, where one of them is wanted.
    #[error(
        "a size, such as 10G, follows the name, and then what there is of copies=N, copies=X:Y, \
         block_size_shift=N and hyper"
    )]
    NoSize,
    /// Such copies can't be.
    #[error(
        "copies are 1 to 31, or X:Y for an erasure code of X data strips (2, 4, 8 or 16) \
         and Y parity strips (1 to 15)"
    )]
    Copies,
    /// Such a block size can't be.
    #[error("block_size_shift is 20 to 31")]
    Shift,
    /// An option where the end of the name is: the VDI would have it in its name.
    #[error("options follow the size, as in NAME SIZE copies=2")]
    OptionFirst,
    /// The tag can't be one.
    #[error("no tag: {0}")]
    Tag(NameError),
    /// `NAME:7` means the seventh generation of a VDI, so no tag is a number.
    #[error("a tag cannot be a number, since that means the id of a snapshot")]
    TagIsNumber,
    /// The tag is what stands behind the last colon.
    #[error("a tag cannot hold a colon")]
    TagHasColon,
    /// A VDI where a snapshot is wanted.
    #[error("a snapshot is wanted, as NAME:TAG or NAME:ID")]
    NoSnapshot,
}

fn form(file: LifeFile) -> &'static str {
    match file {
        LifeFile::Create => "NAME SIZE [copies=N|X:Y] [block_size_shift=N] [hyper]",
        LifeFile::Delete => "NAME or NAME:TAG",
        LifeFile::Snapshot => "NAME TAG",
        LifeFile::Clone => "NAME:TAG NEW",
        LifeFile::Rollback => "NAME:TAG",
        LifeFile::Resize => "NAME SIZE",
    }
}

/// What somebody wrote to one of these files.
///
/// # Errors
/// When it means nothing.
pub fn parse(file: LifeFile, bytes: &[u8]) -> Result<Errand, LineError> {
    let line = std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?.trim();
    let two = || last_word(line).ok_or(LineError::Form(file));
    if line.is_empty() {
        return Err(LineError::Form(file));
    }
    Ok(match file {
        LifeFile::Create => create(line)?,
        LifeFile::Delete => Errand::Delete { name: VolumeName::parse(line.as_bytes())? },
        LifeFile::Snapshot => {
            let (name, tag) = two()?;
            Errand::Snapshot { name: VdiName::new(name)?, tag: new_tag(tag)? }
        }
        LifeFile::Clone => {
            let (from, new) = two()?;
            Errand::Clone { from: snapshots(from)?, new: VdiName::new(new)? }
        }
        LifeFile::Rollback => Errand::Rollback { to: snapshots(line)? },
        LifeFile::Resize => {
            let (name, size) = two()?;
            Errand::Resize { name: VdiName::new(name)?, size: parse_size(size)? }
        }
    })
}

/// What stands before the last word, and that word.
fn last_word(line: &str) -> Option<(&str, &str)> {
    let (before, word) = line.rsplit_once(char::is_whitespace)?;
    Some((before.trim_end(), word))
}

fn create(line: &str) -> Result<Errand, LineError> {
    let mut shape = NewShape::default();
    let mut rest = line;
    loop {
        let (before, word) = last_word(rest).ok_or(LineError::Form(LifeFile::Create))?;
        rest = before;
        match word.split_once('=') {
            Some(("copies", value)) => (shape.copies, shape.copy_policy) = copies(value)?,
            Some(("block_size_shift", value)) => shape.block_size_shift = shift(value)?,
            Some(_) => return Err(LineError::Option),
            None if word == "hyper" => shape.hyper = true,
            None => {
                shape.size = parse_size(word).map_err(|why| match why {
                    SizeError::NoNumber => LineError::NoSize,
                    SizeError::Unit | SizeError::TooLarge => why.into(),
                })?;
                break;
            }
        }
    }
    if shape.size == 0 {
        return Err(LineError::NoBytes);
    }
    // Its tree is made for blocks of one size.
    if shape.hyper && ![0, 22].contains(&shape.block_size_shift) {
        return Err(LineError::Shift);
    }
    let last = rest.rsplit(char::is_whitespace).next();
    if last.is_some_and(|word| OPTIONS.iter().any(|option| word.starts_with(option))) {
        return Err(LineError::OptionFirst);
    }
    Ok(Errand::Create { name: VdiName::new(rest)?, shape })
}

/// Copies and copy policy (protocol 6.1).
fn copies(text: &str) -> Result<(u8, u8), LineError> {
    let number = |text: &str| text.parse::<u8>().map_err(|_| LineError::Copies);
    let Some((data, parity)) = text.split_once(':') else {
        let copies = number(text)?;
        return if (1..=COPIES_MAX).contains(&copies) {
            Ok((copies, 0))
        } else {
            Err(LineError::Copies)
        };
    };
    let (data, parity) = (number(data)?, number(parity)?);
    if ![2, 4, 8, 16].contains(&data) || !(1..=PARITY_MAX).contains(&parity) {
        return Err(LineError::Copies);
    }
    Ok((data + parity, ((data / 2) << 4) | parity))
}

fn shift(text: &str) -> Result<u8, LineError> {
    let shift = text.parse().map_err(|_| LineError::Shift)?;
    if SHIFTS.contains(&shift) { Ok(shift) } else { Err(LineError::Shift) }
}

fn new_tag(text: &str) -> Result<VdiTag, LineError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(LineError::TagIsNumber);
    }
    if text.contains(':') {
        return Err(LineError::TagHasColon);
    }
    VdiTag::new(text).map_err(LineError::Tag)
}

/// The snapshots that a text may mean.
fn snapshots(text: &str) -> Result<Vec<VdiRef>, LineError> {
    let mut meanings = VolumeName::parse(text.as_bytes())?.meanings();
    meanings.retain(|meaning| meaning.generation != Generation::Working);
    if meanings.is_empty() { Err(LineError::NoSnapshot) } else { Ok(meanings) }
}

#[cfg(test)]
mod tests;
