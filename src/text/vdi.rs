//! The list of VDIs (protocol 16.1). Longer values push the rest of their line to the right,
//! nothing is cut.

use jiff::tz::TimeZone;

use super::report::VdiReport;
use super::{size_text, time};
use crate::wire::inode::InodeHeader;

const HEADING: &str = concat!(
    "  Name        Id    Size    Used  Shared    Creation time   VDI id",
    "  Copies  Tag   Block Size Shift\n"
);

/// The contents of `vdi/list`; `reports` are by ascending vid, without deleted VDIs.
#[must_use]
pub fn vdi_list(reports: &[VdiReport], zone: &TimeZone) -> Vec<u8> {
    let mut text = HEADING.as_bytes().to_vec();
    for report in reports {
        push_line(&mut text, report, zone);
    }
    text
}

fn push_line(text: &mut Vec<u8>, report: &VdiReport, zone: &TimeZone) {
    let header = &report.header;
    text.extend_from_slice(&[kind(header), b' ']);
    text.extend_from_slice(&header.name);
    pad(text, 8, header.name.len());
    text.extend_from_slice(columns(report, zone).as_bytes());
    pad(text, 13, header.tag.len());
    text.extend_from_slice(&header.tag);
    text.extend_from_slice(format!(" {:>3}\n", header.block_size_shift).as_bytes());
}

/// The columns between name and tag, with the blanks around them.
fn columns(report: &VdiReport, zone: &TimeZone) -> String {
    let header = &report.header;
    let id = if header.is_snapshot() { header.snap_id } else { 0 };
    let size = size_text(header.vdi_size);
    let [used, shared] = [report.usage.own, report.usage.shared]
        .map(|objects| size_text(object_bytes(objects, header.block_size_shift)));
    let date = time::vdi(header.create_time, zone);
    let (vid, copies) = (header.vdi_id, copies(header));
    format!(" {id:>5} {size:>7} {used:>7} {shared:>7} {date}  {vid:>7x} {copies:>6} ")
}

/// Whether the line is that of a snapshot, of a clone, or of neither.
fn kind(header: &InodeHeader) -> u8 {
    match (header.is_snapshot(), header.snap_id, header.parent_vdi_id) {
        (true, ..) => b's',
        (false, 1, parent) if parent != 0 => b'c',
        _ => b' ',
    }
}

/// `3` replicas, or `2:1` data and parity strips (protocol 6.1).
pub(super) fn copies(header: &InodeHeader) -> String {
    let policy = u32::from(header.copy_policy);
    match policy {
        0 => header.nr_copies.to_string(),
        _ => format!("{}:{}", (policy >> 4) * 2, policy & 0xf),
    }
}

/// Bytes of so many whole objects.
pub(super) fn object_bytes(objects: u64, shift: u8) -> u64 {
    let size = 1_u64.checked_shl(shift.into()).unwrap_or(u64::MAX);
    objects.saturating_mul(size)
}

/// The blanks that a field of `width` bytes needs beside a value of `length` bytes.
fn pad(text: &mut Vec<u8>, width: usize, length: usize) {
    text.resize(text.len() + width.saturating_sub(length), b' ');
}
