//! Memory that must not be missing when the kernel needs it.
//!
//! A process that is killed while the kernel copies a request into a page that is not
//! there loses that request (hazard 16), and under memory pressure the kernel writes
//! back to us, so we must not wait for memory that is written back first (hazard 27).
//! So all memory is locked once it was touched, and the buffers that requests are read
//! into are touched from the beginning: they are fuser's, so the kernel is asked to
//! fill in whatever is mapped while its threads begin. The arena, which workers fill, is
//! touched before the kernel copies from it ([`sheepfs::ipc::Arena::touch`]), and nothing
//! forks after that, which would write-protect it all ([`sheepfs::ipc::inherited`]).

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Lock what is touched, rather than touching all (`MCL_ONFAULT`, Linux 4.4).
const ON_FAULT: MlockAllFlags = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
/// `PR_SET_IO_FLUSHER` of prctl(2), Linux 5.6.
const SET_IO_FLUSHER: libc::c_int = 57;
/// `CAP_IPC_LOCK`.
const CAP_IPC_LOCK: u64 = 1 << 14;
/// The buffer of each of fuser's threads, in KiB.
const BUFFER_KIB: u64 = 16 << 10;
/// How long its threads may take to begin.
const BEGIN_TIME: Duration = Duration::from_secs(2);

/// Says to the kernel that this process, and what it starts, is part of writing back.
/// To be called before there are threads. Not being allowed to is no loss in a machine
/// with memory to spare.
pub fn become_flusher() {
    let (on, none) = (1 as libc::c_ulong, 0 as libc::c_ulong);
    // SAFETY: no memory is touched; the other arguments must be 0.
    #[expect(unsafe_code, reason = "nix has no such prctl")]
    let outcome = unsafe { libc::prctl(SET_IO_FLUSHER, on, none, none, none) };
    if let Err(errno) = Errno::result(outcome) {
        tracing::debug!(errno = errno as i32, "not marked as part of writing back");
    }
}

/// Lets `begin` start as many of fuser's threads, with buffers that are in memory, and
/// keeps everything there.
pub fn keep_resident<T>(threads: u64, begin: impl FnOnce() -> T) -> T {
    if !may_lock() {
        tracing::warn!(
            "memory can't be locked, for want of CAP_IPC_LOCK or an unlimited RLIMIT_MEMLOCK: \
             when sheepfs is killed under memory pressure, a request may fail"
        );
        return begin();
    }
    let filled = mlockall(MlockAllFlags::MCL_FUTURE);
    let before = resident_kib();
    let begun = begin();
    if filled.is_ok() {
        wait_for(before + threads * BUFFER_KIB);
    }
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | ON_FAULT;
    if let Err(errno) = filled.and_then(|()| mlockall(all)) {
        tracing::warn!(errno = errno as i32, "memory can't be locked");
    }
    begun
}

fn wait_for(resident: u64) {
    let until = Instant::now() + BEGIN_TIME;
    while resident_kib() < resident && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A limit would make later allocations fail.
fn may_lock() -> bool {
    let capable = u64::from_str_radix(&status("CapEff"), 16).unwrap_or_default();
    let unlimited =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    capable & CAP_IPC_LOCK != 0 || unlimited
}

/// Memory of our own that is there, in KiB.
fn resident_kib() -> u64 {
    status("RssAnon").trim_end_matches(" kB").parse().unwrap_or_default()
}

/// A line of /proc/self/status (proc_pid_status(5)).
fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_is_there_and_allowed() {
        assert!(resident_kib() > 0);
        assert_eq!(status("CapEff").len(), 16);
    }
}
