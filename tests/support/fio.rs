//! A load of fio's in the background: run after run over the same bytes of a volume, each with
//! other data at other places, each read back and verified by its checksums before the next.
//! A run that was begun goes to its end, so faults that come meanwhile hit writes and reads
//! of the verification alike, and the load has no end that fio itself would not have checked.

use crate::tools::{arg, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Random writes of 4 to 64 KiB, 16 at a time, past the page cache.
const JOB: [&str; 11] = [
    "--name=load",
    "--rw=randwrite",
    "--bssplit=4k/40:16k/30:64k/30",
    "--ioengine=libaio",
    "--iodepth=16",
    "--direct=1",
    "--randrepeat=0",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--do_verify=1",
    "--output-format=json",
];

/// A load that runs until it is finished.
#[derive(Debug)]
pub struct Fio {
    job: Job,
    stop: Arc<AtomicBool>,
    runs: Arc<AtomicU64>,
    thread: Option<JoinHandle<Report>>,
}

/// What a load has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Runs that ended, all of them verified.
    pub runs: u64,
    /// Bytes that they wrote.
    pub written: u64,
    /// Bytes that they read again.
    pub verified: u64,
    /// The longest that one write took.
    pub longest: Duration,
}

impl Fio {
    /// Starts it over the first `bytes` of `volume`.
    pub fn start(volume: &Path, bytes: u64) -> Self {
        let job = Job { volume: volume.to_owned(), bytes };
        let (stop, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (own_job, own_stop, own_runs) = (job.clone(), Arc::clone(&stop), Arc::clone(&runs));
        let thread = Some(thread::spawn(move || own_job.repeat(&own_stop, &own_runs)));
        Self { job, stop, runs, thread }
    }

    /// How many runs have ended.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Waits for the run under way, and verifies once more what it wrote.
    ///
    /// # Panics
    /// When fio had an error, or found other bytes than it wrote.
    pub fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let report = self.thread.take().unwrap().join().expect("fio saw an error, see above");
        let again = self.job.run(report.runs, &["--verify_only=1"]);
        assert_eq!(again.verified, self.job.bytes, "fio left bytes unverified");
        report
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
struct Job {
    volume: PathBuf,
    bytes: u64,
}

impl Job {
    fn repeat(&self, stop: &AtomicBool, runs: &AtomicU64) -> Report {
        let mut sum = Report::default();
        while !stop.load(Ordering::Relaxed) || sum.runs == 0 {
            let run = self.run(sum.runs + 1, &[]);
            sum.runs += 1;
            sum.written += run.written;
            sum.verified += run.verified;
            sum.longest = sum.longest.max(run.longest);
            runs.store(sum.runs, Ordering::Relaxed);
        }
        sum
    }

    fn run(&self, seed: u64, more: &[&str]) -> Report {
        let scratch = tempfile::tempdir().unwrap();
        let text = succeed(
            Command::new("fio")
                .current_dir(scratch.path())
                .args(JOB)
                .arg(format!("--size={}", self.bytes))
                .arg(format!("--filename={}", arg(&self.volume)))
                .arg(format!("--randseed={seed}"))
                .args(more),
        );
        read_report(&text)
    }
}

/// Reads fio's report of a run of one job, which must be without error. Words before the first
/// brace are notes of fio's.
fn read_report(text: &str) -> Report {
    let json = &text[text.find('{').unwrap_or_else(|| panic!("no report of fio's: {text}"))..];
    let report: Value = serde_json::from_str(json).unwrap();
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "fio saw an error: {text}");
    let number = |of: &Value| of.as_u64().unwrap_or_else(|| panic!("not fio's report: {text}"));
    Report {
        runs: 1,
        written: number(&job["write"]["io_bytes"]),
        verified: number(&job["read"]["io_bytes"]),
        longest: Duration::from_nanos(number(&job["write"]["lat_ns"]["max"])),
    }
}
