//! The contestants that are mounted: sheepfs in each of its modes, the original, and the file
//! system that does nothing. fio is their client. A volume is attached for each measurement and
//! detached after it, so no two of them have it at once, and each begins with empty caches.

use crate::cases::{Case, Direction, Heat};
use crate::fio::Job;
use crate::null;
use crate::program::Program;
use crate::results::{Failure, Group, Outcome};
use crate::site::Site;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// sheepfs with all requests through one gateway.
pub const GATEWAY: &str = "mount gateway";
/// sheepfs with requests sent to holders.
pub const REPLICA: &str = "mount replica";
/// sheepfs with the kernel's page cache.
pub const PAGES: &str = "mount -k";
/// sheepfs with its object cache.
pub const OBJECTS: &str = "mount -o";
/// The original sheepfs.
pub const ORIGINAL: &str = "original";
/// The file system that does nothing.
pub const NULL: &str = "null";

/// How long a volume may stay busy after its last close, which the kernel tells late.
const BUSY_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(2);
/// What cold and warm measurements use of a volume: it fits in every cache.
const CACHED_BYTES: u64 = 64 << 20;

/// Whether there is a cache, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    None,
    Kernel,
    Worker,
}

/// The original sheepfs, if it is to be measured.
pub fn original() -> Option<PathBuf> {
    std::env::var_os("ORIGINAL_SHEEPFS").map(PathBuf::from)
}

/// A mounted contestant.
#[derive(Debug)]
pub struct Mounted {
    name: &'static str,
    program: Program,
    cache: Cache,
    /// The volume below the mount, or the one file that is always there.
    volume: PathBuf,
    attaches: bool,
    vdi: String,
}

impl Mounted {
    /// All that there are on a site; `with` are more options for sheepfs.
    pub fn all(site: &Site, with: &[String]) -> Result<Vec<Self>, Failure> {
        let mut all = Self::routes(site, with)?;
        let route = if has_option("--route")? { &["--route=replica"][..] } else { &[] };
        all.push(Self::sheepfs(PAGES, Cache::Kernel, site, &[route, &["-k"]].concat(), with)?);
        all.push(Self::sheepfs(OBJECTS, Cache::Worker, site, &[route, &["-o"]].concat(), with)?);
        if let Some(path) = original() {
            all.push(Self::original(&path, site)?);
        }
        all.push(Self::null(site)?);
        Ok(all)
    }

    /// sheepfs without caches: through one gateway, and as holders are.
    pub fn routes(site: &Site, with: &[String]) -> Result<Vec<Self>, Failure> {
        if !has_option("--route")? {
            return Ok(vec![Self::sheepfs(GATEWAY, Cache::None, site, &[], with)?]);
        }
        Ok(vec![
            Self::sheepfs(GATEWAY, Cache::None, site, &["--route=gateway"], with)?,
            Self::sheepfs(REPLICA, Cache::None, site, &["--route=replica"], with)?,
        ])
    }

    fn sheepfs(
        name: &'static str,
        cache: Cache,
        site: &Site,
        options: &[&str],
        with: &[String],
    ) -> Result<Self, Failure> {
        let program = Program::start(|point| {
            let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_sheepfs")));
            command.args(["--foreground", "--address", site.gateway()]);
            command.args(options).args(with).arg(point);
            command
        });
        let program = program.map_err(|failure| format!("{name}: {failure}"))?;
        let (vdi, volume) = (site.vdi().to_owned(), Path::new("volume").join(site.vdi()));
        Ok(Self { name, program, cache, volume, attaches: true, vdi })
    }

    /// It runs `dog` for its control files, which is taken from where it is itself, too.
    fn original(path: &Path, site: &Site) -> Result<Self, Failure> {
        let (host, port) = site.gateway().rsplit_once(':').ok_or("no port")?;
        let own = path.parent().unwrap_or(Path::new(""));
        let search = std::env::var("PATH").unwrap_or_default();
        let program = Program::start(|point| {
            let mut command = site.command(path);
            command.env("PATH", format!("{}:{search}", own.display()));
            command.args(["-f", "-a", host, "-p", port]).arg(point);
            command
        });
        let program = program.map_err(|failure| format!("{}: {failure}", path.display()))?;
        let (vdi, volume) = (site.vdi().to_owned(), Path::new("volume").join(site.vdi()));
        Ok(Self { name: ORIGINAL, program, cache: Cache::None, volume, attaches: true, vdi })
    }

    fn null(site: &Site) -> Result<Self, Failure> {
        let own = std::env::current_exe()?;
        let program = Program::start(|point| {
            let mut command = site.command(&own);
            command.arg("--serve-null").arg(point).args(["--mib", &site.mib().to_string()]);
            command
        })?;
        let volume = null::FILE.into();
        let (name, vdi) = (NULL, String::new());
        Ok(Self { name, program, cache: Cache::None, volume, attaches: false, vdi })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the case is one for it: caches are measured cold and warm, everything else where
    /// they don't matter, and the two routes are not told apart by what is cold.
    pub fn takes(&self, case: &Case) -> bool {
        let cached = self.cache != Cache::None;
        match case.heat {
            Heat::Steady => !cached,
            Heat::Cold => case.direction == Direction::Read && self.name != NULL,
            Heat::Warm => case.direction == Direction::Read,
        }
    }

    /// Its processes that live.
    pub fn processes(&self) -> Vec<(Group, Pid)> {
        self.program.processes()
    }

    /// One repeat of a case.
    pub fn measure(&self, case: &Case, time: Duration, bytes: u64) -> Result<Outcome, Failure> {
        let bytes = if case.heat == Heat::Steady { bytes } else { bytes.min(CACHED_BYTES) };
        let file = self.file();
        let buffered = self.cache == Cache::Kernel;
        let outcome = Job { file: &file, bytes, buffered, time }.run(case);
        outcome.map_err(|failure| format!("{}, {}: {failure}", self.name, case.name()).into())
    }

    /// Writes the first `bytes`, so that every object exists.
    pub fn fill(&self, bytes: u64) -> Result<(), Failure> {
        let mut file = fs::OpenOptions::new().write(true).open(self.file())?;
        let piece = vec![0xa5; 1 << 20];
        for _ in 0..bytes >> 20 {
            io::Write::write_all(&mut file, &piece)?;
        }
        Ok(file.sync_all()?)
    }

    /// Attaches the volume, if that is something it does; how long that took.
    pub fn attach(&self) -> Result<Option<Duration>, Failure> {
        if !self.attaches {
            return Ok(None);
        }
        let start = Instant::now();
        self.tell("vdi/mount")?;
        let took = start.elapsed();
        let there = self.file();
        match there.exists() {
            true => Ok(Some(took)),
            false => Err(format!("{}: {} did not appear", self.name, there.display()).into()),
        }
    }

    /// Detaches it again.
    pub fn detach(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + BUSY_WITHIN;
        while self.attaches
            && let Err(failure) = self.tell("vdi/unmount")
        {
            if Instant::now() > deadline {
                return Err(failure);
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// The cluster's list of VDIs.
    pub fn list(&self) -> Result<Option<String>, Failure> {
        if !self.attaches {
            return Ok(None);
        }
        let path = self.program.point().join("vdi/list");
        Ok(Some(fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?))
    }

    fn file(&self) -> PathBuf {
        self.program.point().join(&self.volume)
    }

    fn tell(&self, below: &str) -> Result<(), Failure> {
        let path = self.program.point().join(below);
        // As `echo` writes it: the original reads on behind a name without its end.
        let line = format!("{}\n", self.vdi);
        let told = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, line.as_bytes()));
        told.map_err(|error| format!("{}: {}: {error}", self.name, path.display()).into())
    }
}

/// Whether this build's sheepfs offers an option.
fn has_option(option: &str) -> Result<bool, Failure> {
    let output = Command::new(env!("CARGO_BIN_EXE_sheepfs")).arg("--help").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).contains(option))
}
