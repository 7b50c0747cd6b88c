//! Medians and the table. Small requests are counted by the second, large ones in MiB.

use crate::cases::Case;
use std::fmt::Write;

/// Requests per second, once for each repeat.
#[derive(Debug, Default)]
pub struct Samples(Vec<f64>);

/// One case, measured.
#[derive(Debug)]
pub struct Row {
    /// What was measured.
    pub case: Case,
    /// By the bare client.
    pub on_wire: Samples,
    /// By fio on the mount.
    pub on_mount: Samples,
}

impl Samples {
    /// Takes one repeat's rate.
    pub fn push(&mut self, per_second: f64) {
        self.0.push(per_second);
        self.0.sort_by(f64::total_cmp);
    }

    fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => 0.0,
            len if len % 2 == 1 => self.0[middle],
            _ => f64::midpoint(self.0[middle - 1], self.0[middle]),
        }
    }

    /// The median, and the smallest and largest in parentheses.
    fn text(&self) -> String {
        let ends = (self.0.first().copied(), self.0.last().copied());
        let (least, most) = (ends.0.unwrap_or_default(), ends.1.unwrap_or_default());
        format!("{:.0} ({least:.0}-{most:.0})", self.median())
    }
}

/// The table, in Markdown, so that it can be pasted where it is needed.
pub fn render(rows: &[Row]) -> String {
    let mut out = String::from(
        "| case | unit | wire: median (min-max) | mount: median (min-max) | mount/wire |\n\
         | --- | --- | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let unit = if row.case.len < 1 << 20 { "requests/s" } else { "MiB/s" };
        let ratio = row.on_mount.median() / row.on_wire.median();
        let (wire, mount) = (row.on_wire.text(), row.on_mount.text());
        let _ = writeln!(out, "| {} | {unit} | {wire} | {mount} | {ratio:.2} |", row.case.name());
    }
    out
}
