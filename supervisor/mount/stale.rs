//! Whether somebody serves a mount of FUSE, found out without touching it: a mount whose
//! requests are held would not answer (hazard 22).
//!
//! The kernel says of an open `/dev/fuse` which connection it is, and a
//! connection's number is the minor number of its mount's device. A process that can't
//! be looked into, or an older kernel, leaves the question open.

use super::mountinfo::MountInfo;
use std::fs;
use std::path::Path;

/// What is known of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Some process has its device.
    Yes,
    /// No process has.
    No,
    /// Nobody can tell.
    Unknown,
}

/// Whether somebody serves it.
pub fn is_served(info: &MountInfo) -> Served {
    let Some(minor) = info.device.split_once(':').map(|(_, minor)| minor) else {
        return Served::Unknown;
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Served::Unknown };
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let pids = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut served = Served::No;
    for pid in pids.filter(|name| is_number(name)) {
        match has_device(&Path::new("/proc").join(pid), minor) {
            Served::Yes => return Served::Yes,
            Served::Unknown => served = Served::Unknown,
            Served::No => {}
        }
    }
    served
}

fn has_device(process: &Path, minor: &str) -> Served {
    // One that ended meanwhile has nothing; one that may not be looked into may have.
    let fds = match fs::read_dir(process.join("fd")) {
        Ok(fds) => fds,
        Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            return Served::Unknown;
        }
        Err(_) => return Served::No,
    };
    let mut served = Served::No;
    for fd in fds.flatten() {
        if fs::read_link(fd.path()).is_ok_and(|file| file == Path::new(super::DEVICE)) {
            let info = process.join("fdinfo").join(fd.file_name());
            match connection(&fs::read_to_string(info).unwrap_or_default()) {
                Some(number) if number == minor => return Served::Yes,
                Some(_) => {}
                None => served = Served::Unknown,
            }
        }
    }
    served
}

/// The connection that an open device belongs to, from its /proc/PID/fdinfo.
fn connection(fdinfo: &str) -> Option<&str> {
    fdinfo.lines().find_map(|line| line.strip_prefix("fuse_connection:")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connection_is_read_from_what_the_kernel_says() {
        assert_eq!(connection("pos:\t0\nfuse_connection:\t39\n"), Some("39"));
        assert_eq!(connection("pos:\t0\nflags:\t02100002\n"), None);
    }
}
