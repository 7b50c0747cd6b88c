//! Who has what open, as /proc says.

use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// Where the descriptors of a process lead.
pub fn targets(process: Pid) -> Vec<String> {
    links(process).into_iter().map(|(_, target)| target).collect()
}

/// All processes that have the device of that connection open.
///
/// # Panics
/// When the kernel does not say of which connection a device is.
pub fn holders(connection: u32) -> BTreeSet<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_it = |process: &Pid| {
        let devices = links(*process).into_iter().filter(|(_, target)| target == "/dev/fuse");
        let mut infos = devices.filter_map(|(info, _)| fs::read_to_string(info).ok());
        infos.any(|info| connection_of(&info) == Some(connection))
    };
    processes.map(Pid::from_raw).filter(has_it).collect()
}

/// For each descriptor, the file that describes it and where it leads.
fn links(process: Pid) -> Vec<(PathBuf, String)> {
    // A process may end while we look.
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { return Vec::new() };
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let info = format!("/proc/{process}/fdinfo/{}", entry.file_name().to_str()?);
        Some((info.into(), target.display().to_string()))
    };
    entries.flatten().filter_map(link).collect()
}

fn connection_of(info: &str) -> Option<u32> {
    let line = info.lines().find_map(|line| line.strip_prefix("fuse_connection:"));
    // One that was never mounted has none.
    line?.trim().parse().ok()
}
