//! Times as `dog` prints them: local, in layouts of C's `strftime` (protocol 16).
//!
//! A peer can send any number as a time; what lies beyond the year 9999 is shown as the last
//! moment that has a date.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// When a cluster was made, from seconds << 32 | nanoseconds: `Sun Nov 22 01:32:34 2026`.
pub(super) fn created(ctime: u64, zone: &TimeZone) -> String {
    local(ctime >> 32, zone).strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// When an epoch began, from seconds: `2026-11-22 01:32:34`.
pub(super) fn epoch(seconds: u64, zone: &TimeZone) -> String {
    local(seconds, zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// When a VDI was made, from seconds << 32 | nanoseconds: `2026-11-22 01:32`.
pub(super) fn vdi(create_time: u64, zone: &TimeZone) -> String {
    local(create_time >> 32, zone).strftime("%Y-%m-%d %H:%M").to_string()
}

/// A moment, from seconds << 32 | nanoseconds, as date(1) takes it: `2026-11-22 01:32:34 +0100`.
pub(super) fn moment(time: u64, zone: &TimeZone) -> String {
    local(time >> 32, zone).strftime("%Y-%m-%d %H:%M:%S %z").to_string()
}

fn local(seconds: u64, zone: &TimeZone) -> Zoned {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    time.to_zoned(zone.clone())
}
