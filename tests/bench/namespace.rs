//! Network namespaces without names: each lives as long as its descriptor here and the programs
//! in it.

use crate::results::Failure;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{self, Command};
use std::thread;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one, in which only loopback is up.
    pub fn new() -> Result<Self, Failure> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| format!("a network namespace: {errno} (it needs root)"))?;
            Ok::<_, Failure>(File::open("/proc/thread-self/ns/net")?)
        });
        let namespace = Self(made.join().map_err(|_| "no namespace")??);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A path that leads to it for as long as this is there.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// The words that start a program in it; mounts it makes are seen by all.
    pub fn enter(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", self.path())]
    }

    /// Runs `ip` with those words in it.
    pub fn ip(&self, words: &str) -> Result<(), Failure> {
        self.run("ip", words)
    }

    /// Runs a program in it.
    pub fn run(&self, program: &str, words: &str) -> Result<(), Failure> {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path()))
            .arg(program)
            .args(words.split_whitespace())
            .output()
            .map_err(|error| format!("nsenter: {error} (tests/setup installs it)"))?;
        if output.status.success() {
            return Ok(());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} {words}: {}", error.trim()).into())
    }

    /// Runs `work` with a thread of it, and what that starts, in the namespace.
    pub fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        let enter = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join().map_err(|_| "a thread panicked")?)
    }

    /// Lets it pass packets on, and use addresses of 127.0.0.0/8 that are not its own: minisheep
    /// serves no others. Only on the devices that are there.
    pub fn open_up(&self) -> Result<(), Failure> {
        self.inside(|| {
            for switch in ["conf/all/route_localnet", "conf/default/route_localnet", "ip_forward"] {
                let path = Path::new("/proc/sys/net/ipv4").join(switch);
                std::fs::write(&path, "1").map_err(|e| format!("{}: {e}", path.display()))?;
            }
            Ok(())
        })
    }
}
