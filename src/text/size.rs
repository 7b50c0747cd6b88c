//! Sizes as `dog` prints them (protocol 16).

const UNITS: [&str; 6] = ["MB", "GB", "TB", "PB", "EB", "ZB"];

/// `bytes` in the largest unit that keeps it at 1 or above, but never below MB; one decimal below
/// 10, none from there on: `0.0 MB`, `4.0 MB`, `64 MB`, `1.0 GB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    let mut size = bytes as f64 / f64::from(1 << 20);
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while size >= 1024.0 {
        size /= 1024.0;
        unit = units.next();
    }
    let unit = unit.copied().unwrap_or_default();
    if size >= 10.0 { format!("{size:.0} {unit}") } else { format!("{size:.1} {unit}") }
}
