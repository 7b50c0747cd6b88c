//! What is known of one VDI, each fact as the text of a file of its own: numbers in units that
//! need no unit, so that scripts can take them as they are.

use jiff::tz::TimeZone;

use super::report::VdiReport;
use super::time;
use super::vdi::{copies, object_bytes};
use crate::wire::inode::InodeHeader;

/// One fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VdiFact {
    /// Its vid, in hexadecimal.
    Vid,
    /// Bytes.
    Size,
    /// Bytes of the objects that it owns.
    Used,
    /// Bytes of the objects that it shares with what it was made from.
    Shared,
    /// Replicas, or data and parity strips.
    Copies,
    /// log2 of the size of its objects.
    BlockSizeShift,
    /// When it was made.
    Created,
    /// When it became a snapshot.
    Frozen,
    /// What it was made from.
    Parent,
    /// Its tag, if it is a snapshot.
    Tag,
    /// The number of the snapshot, 0 for the working VDI.
    Id,
}

impl VdiFact {
    /// All, in the order in which they are listed.
    pub const ALL: [Self; 11] = [
        Self::Id,
        Self::Tag,
        Self::Vid,
        Self::Size,
        Self::Used,
        Self::Shared,
        Self::Copies,
        Self::BlockSizeShift,
        Self::Created,
        Self::Frozen,
        Self::Parent,
    ];

    /// The name of its file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vid => "vid",
            Self::Size => "size",
            Self::Used => "used",
            Self::Shared => "shared",
            Self::Copies => "copies",
            Self::BlockSizeShift => "block_size_shift",
            Self::Created => "created",
            Self::Frozen => "frozen",
            Self::Parent => "parent",
            Self::Tag => "tag",
            Self::Id => "id",
        }
    }
}

/// The text of a fact, which is one line; an empty one where there is nothing to say.
///
/// `parent` is what it was made from, where that is still there.
#[must_use]
pub fn vdi_fact(
    fact: VdiFact,
    vdi: &VdiReport,
    parent: Option<&InodeHeader>,
    zone: &TimeZone,
) -> Vec<u8> {
    let header = &vdi.header;
    let bytes = |objects| object_bytes(objects, header.block_size_shift).to_string().into_bytes();
    let mut text = match fact {
        VdiFact::Vid => format!("{:x}", header.vdi_id).into_bytes(),
        VdiFact::Size => header.vdi_size.to_string().into_bytes(),
        VdiFact::Used => bytes(vdi.usage.own),
        VdiFact::Shared => bytes(vdi.usage.shared),
        VdiFact::Copies => copies(header).into_bytes(),
        VdiFact::BlockSizeShift => header.block_size_shift.to_string().into_bytes(),
        VdiFact::Created => time::moment(header.create_time, zone).into_bytes(),
        VdiFact::Frozen if !header.is_snapshot() => Vec::new(),
        VdiFact::Frozen => time::moment(header.snap_ctime, zone).into_bytes(),
        VdiFact::Parent => parent_text(header, parent),
        // The working VDI's is what the next snapshot will be called, or nothing.
        VdiFact::Tag if !header.is_snapshot() => Vec::new(),
        VdiFact::Tag => header.tag.clone(),
        VdiFact::Id if !header.is_snapshot() => b"0".to_vec(),
        VdiFact::Id => header.snap_id.to_string().into_bytes(),
    };
    text.push(b'\n');
    text
}

/// The parent's vid, and behind a blank its name and number as `vdi/mount` takes them.
fn parent_text(header: &InodeHeader, parent: Option<&InodeHeader>) -> Vec<u8> {
    if header.parent_vdi_id == 0 {
        return Vec::new();
    }
    let mut text = format!("{:x}", header.parent_vdi_id).into_bytes();
    if let Some(parent) = parent {
        text.push(b' ');
        text.extend_from_slice(&parent.name);
        text.extend_from_slice(format!(":{}", parent.snap_id).as_bytes());
    }
    text
}
