//! Who writes, as far as it matters for whether a write may be taken in part.
//!
//! `write(2)` may be short, and whoever calls it goes on with the rest. Three others
//! write to a file as well, and can't: the kernel's page cache, which would not
//! notice; the kernel's own threads, above all those of the loop device, which take
//! it for an error; and asynchronous writes with `O_DIRECT`, likewise.

use super::SheepFs;
use crate::datapath::{Cut, SHORT_LEN};
use fuser::{OpenFlags, WriteFlags};
use nix::libc::O_DIRECT;
use std::fs;

/// `PF_KTHREAD` of linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// The place of the flags in /proc/PID/stat, behind the name (proc_pid_stat(5)).
const FLAGS_AT: usize = 6;

impl SheepFs {
    /// When a write of `thread` may be cut.
    pub fn cut(&self, write: WriteFlags, open: OpenFlags, thread: u32, len: usize) -> Cut {
        if write.contains(WriteFlags::FUSE_WRITE_CACHE) {
            return Cut::Never;
        }
        if open.0 & O_DIRECT != 0 {
            return Cut::Late;
        }
        let could_be = len > SHORT_LEN as usize && self.data.is_crowded(len);
        if could_be && is_kernels(thread) { Cut::Never } else { Cut::Early }
    }
}

/// Whether a thread is the kernel's, or may be: one that is not known here, since it
/// is of another PID namespace, is taken for such.
fn is_kernels(thread: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).unwrap_or_default();
    flags_of(&stat).is_none_or(|flags| flags & KERNEL_THREAD != 0)
}

/// The flags in a line of /proc/PID/stat, whose second word, the name, may hold
/// anything.
fn flags_of(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    behind_name.split(' ').nth(FLAGS_AT)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_threads_are_told_from_others() {
        assert!(is_kernels(2), "kthreadd");
        assert!(!is_kernels(std::process::id()));
        assert!(is_kernels(0));
        assert_eq!(flags_of("7 (a) b) S 1 2 3 4 5 2097152 0"), Some(KERNEL_THREAD));
        assert_eq!(flags_of("7 (a"), None);
    }
}
