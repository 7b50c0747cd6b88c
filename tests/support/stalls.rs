//! How long things took, a row for each kind of fault: printed for the reader, judged by nobody.

use std::fmt;
use std::time::Duration;

/// Durations of one row.
#[derive(Clone, Debug)]
pub struct Stalls {
    row: String,
    all: Vec<Duration>,
}

impl Stalls {
    /// A row without durations.
    pub fn new(row: &str) -> Self {
        Self { row: row.to_owned(), all: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, stall: Duration) {
        self.all.push(stall);
    }

    /// Adds many.
    pub fn extend(&mut self, stalls: impl IntoIterator<Item = Duration>) {
        self.all.extend(stalls);
    }

    /// Prints the row.
    pub fn print(&self) {
        println!("{self}");
    }

    /// The smallest duration that `percent` of all don't exceed, in milliseconds.
    fn percentile(sorted: &[Duration], percent: usize) -> f64 {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).map_or(0.0, |stall| stall.as_secs_f64() * 1000.0)
    }
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let at = |percent| Self::percentile(&sorted, percent);
        write!(f, "row {} n={} stall ms ", self.row, sorted.len())?;
        write!(f, "p50={:.1} p90={:.1} p99={:.1} max={:.1}", at(50), at(90), at(99), at(100))
    }
}
