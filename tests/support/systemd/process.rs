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
