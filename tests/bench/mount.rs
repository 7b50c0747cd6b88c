//! The other side: sheepfs itself, started as a user would start it, and fio on its volume.

use crate::Failure;
use crate::cases::Case;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READY_WITHIN: Duration = Duration::from_secs(60);
const LOCAL_VDI: &str = "bench";

/// A running sheepfs with one volume attached. Unmounted and ended when dropped.
#[derive(Debug)]
pub struct Mount {
    child: Child,
    vdi: String,
    dir: TempDir,
}

impl Mount {
    /// On a sheep that is there already.
    pub fn on_sheep(sheep: &str, vdi: &str, with: &[String]) -> Result<Self, Failure> {
        let options = ["--address", sheep].map(str::to_owned);
        Self::start(tempfile::tempdir()?, vdi, &[&options, with].concat())
    }

    /// On a minisheep of its own, with a new VDI of `mib` MiB.
    pub fn on_minisheep(mib: u32, with: &[String]) -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let store = dir.path().join("store").display().to_string();
        let create = format!("{LOCAL_VDI}:{mib}M");
        let options = ["--local", &store, "--create", &create].map(str::to_owned);
        Self::start(dir, LOCAL_VDI, &[&options, with].concat())
    }

    fn start(dir: TempDir, vdi: &str, options: &[String]) -> Result<Self, Failure> {
        fs::create_dir(dir.path().join("mount"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_sheepfs"))
            .args(["--foreground", "--attach", vdi])
            .args(options)
            .arg(dir.path().join("mount"))
            .spawn()?;
        let mut mount = Self { child, vdi: vdi.to_owned(), dir };
        mount.wait_until_ready()?;
        Ok(mount)
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.volume().exists() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("sheepfs ended: {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} did not appear", self.volume().display()).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join("mount").join(below)
    }

    fn volume(&self) -> PathBuf {
        self.path("volume").join(&self.vdi)
    }

    /// The volume's name.
    pub fn vdi(&self) -> &str {
        &self.vdi
    }

    /// The sheep's `ip:port`, asked of the mount.
    pub fn sheep(&self) -> Result<String, Failure> {
        Ok(fs::read_to_string(self.path("config/sheep_info"))?.trim().to_owned())
    }

    /// Writes the first `bytes`, so that every object exists.
    pub fn fill(&self, bytes: u64) -> Result<(), Failure> {
        let mut file = fs::OpenOptions::new().write(true).open(self.volume())?;
        let piece = vec![0xa5; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&piece)?;
        }
        Ok(file.sync_all()?)
    }

    /// Requests per second over `time`, by fio's own count.
    pub fn measure(&self, case: &Case, time: Duration, bytes: u64) -> Result<f64, Failure> {
        // One at a time, system calls that wait are what applications use and cost least.
        let engine = if case.depth == 1 { "psync" } else { "libaio" };
        let output = Command::new("fio")
            .args(["--name=mount", "--output-format=json", "--direct=1", "--time_based"])
            .args(["--norandommap", "--randrepeat=0", "--thread"])
            .arg(format!("--filename={}", self.volume().display().to_string().replace(':', "\\:")))
            .arg(format!("--rw={}", case.fio_mode()))
            .arg(format!("--bs={}", case.len))
            .arg(format!("--ioengine={engine}"))
            .arg(format!("--iodepth={}", case.depth))
            .arg(format!("--size={bytes}"))
            .arg(format!("--runtime={}", time.as_secs()))
            .output()
            .map_err(|error| format!("fio: {error} (tests/setup installs it)"))?;
        if !output.status.success() {
            return Err(format!("fio: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let direction = if case.write { "write" } else { "read" };
        report["jobs"][0][direction]["iops"]
            .as_f64()
            .filter(|rate| *rate > 0.0)
            .ok_or_else(|| "fio reported nothing".into())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
