//! How much memory the object cache may use when nobody says: a part of what there is.
//!
//! What there is follows from /proc/meminfo, and from the control groups that this
//! process is in, whichever is less (`memory.max`, the kernel's cgroup-v2.rst).

use std::fs;
use std::path::Path;

/// What part of the memory.
const PART: u64 = 16;
/// Bytes at most: a cache helps once, and the kernel's own caches want memory too.
const LEN_MAX: u64 = 1 << 30;
/// Bytes where nothing can be learnt.
const LEN_UNKNOWN: u64 = 256 << 20;

/// The size, in bytes.
pub fn default() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let total = total_of(&read("/proc/meminfo"));
    size(total, group_limit(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup")))
}

fn size(total: Option<u64>, group: Option<u64>) -> u64 {
    let memory = total.into_iter().chain(group).min();
    memory.map_or(LEN_UNKNOWN, |memory| (memory / PART).min(LEN_MAX))
}

fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the group and those that it is in.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |path: &Path| fs::read_to_string(root.join(path).join("memory.max")).ok();
    let limits = Path::new(group).ancestors().filter_map(limit);
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_sixteenth_of_the_lesser_and_bounded() {
        assert_eq!(size(Some(8 << 30), None), 512 << 20);
        assert_eq!(size(Some(8 << 30), Some(1 << 30)), 64 << 20);
        assert_eq!(size(Some(1 << 40), Some(1 << 39)), 1 << 30);
        assert_eq!(size(None, None), 256 << 20);
    }

    #[test]
    fn the_kernel_says_how_much_there_is() {
        let text = "MemTotal:       24683520 kB\nMemFree:         6088704 kB\n";
        assert_eq!(total_of(text), Some(24_683_520 << 10));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert!(total_of(&fs::read_to_string("/proc/meminfo").unwrap()).is_some());
    }

    #[test]
    fn a_limit_of_any_group_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("system.slice/sheepfs.service");
        fs::create_dir_all(&inner).unwrap();
        let groups = "1:name=systemd:/other\n0::/system.slice/sheepfs.service\n";
        assert_eq!(group_limit(root.path(), groups), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        assert_eq!(group_limit(root.path(), groups), None);
        fs::write(inner.join("../memory.max"), "1048576\n").unwrap();
        assert_eq!(group_limit(root.path(), groups), Some(1 << 20));
        fs::write(inner.join("memory.max"), "4096\n").unwrap();
        assert_eq!(group_limit(root.path(), groups), Some(4096));
        assert_eq!(group_limit(root.path(), "4:memory:/old\n"), None);
    }
}
