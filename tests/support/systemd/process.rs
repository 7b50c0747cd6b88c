//! What /proc tells of processes.

use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};

/// The processes that are in a mount namespace.
pub fn users_of(namespace: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let uses = |process: &PathBuf| {
        fs::read_link(process.join("ns/mnt")).is_ok_and(|link| link == namespace)
    };
    processes.filter(uses).collect()
}

/// The name of a process's program; empty when it is gone.
pub fn name_of(pid: Pid) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// When a process was started, in the kernel's ticks.
pub fn started_at(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; the time is the 20th word behind it.
    let ticks = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19));
    ticks.map_or(u64::MAX, |ticks| ticks.parse().unwrap())
}

/// Whether a process has `file` open.
pub fn has_open(pid: Pid, file: &str) -> bool {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets.any(|target| target == Path::new(file))
}

/// The id of a process in the innermost PID namespace that it has one in.
pub fn id_inside(pid: Pid) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().last().map(str::to_owned)
}

/// Whether any thread of a process is in an uninterruptible wait.
pub fn in_state_d(pid: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.rsplit_once(") ").is_some_and(|(_, s)| s.starts_with('D')))
}
