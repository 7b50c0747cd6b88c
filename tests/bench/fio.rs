//! fio on a file: which arguments a case becomes, and what its report says.

use crate::cases::{Case, Direction, Heat, READS_PERCENT};
use crate::results::{Failure, Group, Outcome};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The file of a volume, and how it is used.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The file.
    pub file: &'a Path,
    /// So much of it.
    pub bytes: u64,
    /// Through the kernel's page cache.
    pub buffered: bool,
    /// How long, unless each block is requested once.
    pub time: Duration,
}

impl Job<'_> {
    /// Runs it.
    pub fn run(&self, case: &Case) -> Result<Outcome, Failure> {
        let output = Command::new("fio")
            .args(self.arguments(case))
            .output()
            .map_err(|error| format!("fio: {error} (tests/setup installs it)"))?;
        if !output.status.success() {
            return Err(format!("fio: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        read_report(&String::from_utf8_lossy(&output.stdout))
    }

    /// fio's command line.
    pub fn arguments(&self, case: &Case) -> Vec<String> {
        let lanes = self.lanes(case);
        let part = self.bytes / u64::from(lanes);
        // A cached read has no asynchronous form; one at a time, calls that wait are what
        // applications use and cost least.
        let waits = self.buffered || case.depth == 1;
        let mut arguments: Vec<String> =
            ["--name=mount", "--output-format=json", "--randrepeat=0", "--thread"]
                .map(str::to_owned)
                .into();
        arguments.extend([
            format!("--filename={}", self.file.display().to_string().replace(':', "\\:")),
            format!("--rw={}", mode(case)),
            format!("--bs={}", case.len),
            format!("--direct={}", u8::from(!self.buffered)),
            format!("--ioengine={}", if waits { "psync" } else { "libaio" }),
            format!("--iodepth={}", if waits { 1 } else { case.depth }),
            format!("--numjobs={lanes}"),
            format!("--offset_increment={part}"),
            format!("--size={part}"),
            format!("--rwmixread={READS_PERCENT}"),
            "--group_reporting".to_owned(),
            // Else fio drops what the kernel's cache holds before it begins.
            "--invalidate=0".to_owned(),
        ]);
        if case.heat != Heat::Cold {
            arguments.push("--time_based".to_owned());
            arguments.push("--norandommap".to_owned());
            arguments.push(format!("--runtime={}", self.time.as_secs()));
        }
        arguments
    }

    /// Threads. A stream through the page cache has the kernel's read-ahead for its depth.
    fn lanes(&self, case: &Case) -> u32 {
        if self.buffered && case.random { case.depth } else { 1 }
    }
}

/// fio's word for direction and order.
fn mode(case: &Case) -> &'static str {
    match (case.random, case.direction) {
        (true, Direction::Write) => "randwrite",
        (true, Direction::Read) => "randread",
        (true, Direction::Mixed) => "randrw",
        (false, Direction::Write) => "write",
        (false, Direction::Read) => "read",
        (false, Direction::Mixed) => "readwrite",
    }
}

/// Reads a report. Words before the first brace are notes of fio's.
///
/// # Errors
/// When it is none, tells of an error, or of nothing done.
pub fn read_report(text: &str) -> Result<Outcome, Failure> {
    let start = text.find('{').ok_or_else(|| format!("no report of fio's: {text}"))?;
    let report: Value = serde_json::from_str(&text[start..])?;
    let job = &report["jobs"][0];
    if job["error"] != 0 {
        return Err(format!("fio saw error {}: {text}", job["error"]).into());
    }
    let of = |direction: &str, key: &str| job[direction][key].as_f64().unwrap_or_default();
    let per_second = of("read", "iops") + of("write", "iops");
    let counts = ["read", "write"].map(|way| job[way]["total_ios"].as_u64().unwrap_or_default());
    if per_second <= 0.0 || counts == [0, 0] {
        return Err(format!("fio reported nothing done: {text}").into());
    }
    let percent = |key: &str| job[key].as_f64().unwrap_or_default() / 100.0;
    let time = job["job_runtime"].as_f64().unwrap_or_default() / 1e3;
    let cpu = Duration::try_from_secs_f64((percent("usr_cpu") + percent("sys_cpu")) * time)?;
    Ok(Outcome { requests: counts.iter().sum(), per_second, cpu: vec![(Group::Client, cpu)] })
}
