//! What the control files say: byte for byte what `dog` prints on the same cluster without `-r`,
//! as the original's files do (protocol 16).
//!
//! Pure functions from a [`report`] and a time zone to bytes. The output is bytes rather than
//! text because names and tags of VDIs may be any bytes, and `dog` prints them as they are.

mod fact;
pub mod report;
mod size;
mod status;
mod time;
mod vdi;

use jiff::tz::TimeZone;

use crate::wire::cluster::{EpochRecord, Node};
use crate::wire::status::Status;
use report::{ClusterReport, NodeReport, SpaceReport, StoreSpace};

pub use fact::{VdiFact, vdi_fact};
pub use size::size_text;
pub use status::status_text;
pub use vdi::vdi_list;

/// The contents of `cluster/info` (protocol 16.4).
#[must_use]
pub fn cluster_info(report: &ClusterReport, zone: &TimeZone) -> Vec<u8> {
    let mut text = format!("Cluster status: {}\n\n", cluster_state(report));
    if let Some(newest) = report.epochs.first() {
        let created = time::created(newest.ctime, zone);
        text += &format!("Cluster created at {created}\n\n");
        text += "Epoch Time           Version [Host:Port:V-Nodes,,,]\n";
    }
    text.extend(report.epochs.iter().map(|epoch| epoch_line(epoch, zone)));
    text.into_bytes()
}

fn cluster_state(report: &ClusterReport) -> String {
    let manual = report.epochs.first().is_some_and(|newest| newest.disable_recovery);
    match Status::from_code(report.status) {
        Status::Success if manual => "running, auto-recovery disabled".to_owned(),
        Status::Success => "running, auto-recovery enabled".to_owned(),
        other => status_text(other),
    }
}

fn epoch_line(record: &EpochRecord, zone: &TimeZone) -> String {
    let time = time::epoch(record.time, zone);
    let member = |node: &Node| format!("{}:{}", node.id, node.nr_vnodes);
    let members: Vec<String> = record.nodes.iter().map(member).collect();
    format!("{time} {:>6} [{}]\n", record.epoch, members.join(", "))
}

/// The contents of `node/list` (protocol 16.2).
#[must_use]
pub fn node_list(report: &NodeReport) -> Vec<u8> {
    let mut text = "  Id   Host:Port         V-Nodes       Zone\n".to_owned();
    text.extend(report.nodes.iter().enumerate().map(|(i, node)| node_line(i, node)));
    text.into_bytes()
}

fn node_line(i: usize, node: &Node) -> String {
    let address = node.id.to_string();
    format!("{i:>4}   {address:<20}\t{:>2}{:>11}\n", node.nr_vnodes, node.zone)
}

/// The contents of `node/info` (protocol 16.3).
///
/// Only nodes that answered are counted and numbered; when none did, `dog` gives up behind the
/// heading, and so does this.
#[must_use]
pub fn node_info(report: &SpaceReport) -> Vec<u8> {
    let mut text = "Id\tSize\tUsed\tAvail\tUse%\n".to_owned();
    let answers: Vec<StoreSpace> = report.nodes.iter().flatten().copied().collect();
    text.extend(
        answers.iter().enumerate().map(|(i, space)| space_line(&format!("{i:>2}"), *space)),
    );
    if !answers.is_empty() {
        let virtual_size = size_text(report.virtual_bytes);
        text += &space_line("Total", total(&answers));
        text += &format!("\nTotal virtual image size\t{virtual_size}\n");
    }
    text.into_bytes()
}

fn total(answers: &[StoreSpace]) -> StoreSpace {
    answers.iter().fold(StoreSpace { size: 0, free: 0 }, |sum, space| StoreSpace {
        size: sum.size.saturating_add(space.size),
        free: sum.free.saturating_add(space.free),
    })
}

fn space_line(label: &str, space: StoreSpace) -> String {
    let used = space.size.saturating_sub(space.free);
    let [size, taken, avail] = [space.size, used, space.free].map(size_text);
    let percent = percent(used, space.size);
    format!("{label}\t{size}\t{taken}\t{avail}\t{percent:>3}%\n")
}

/// In floating point and cut, as `dog` does it: 29 of 100 are 28 %.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is meant to be dropped")]
fn percent(part: u64, whole: u64) -> i64 {
    if whole == 0 { 0 } else { (part as f64 / whole as f64 * 100.0) as i64 }
}

#[cfg(test)]
mod tests;
