//! A mount namespace of the test's own: what it mounts there nobody else sees, not
//! even over directories of the system, and it ends with the last process in it.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::panic;
use std::path::Path;
use std::thread;

/// Runs `test` in a new namespace, and whatever it starts too.
///
/// # Panics
/// As `test` does, and without the rights of root.
pub fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
    // A thread of its own, since one can't come back.
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        test();
    });
    if let Err(words) = thread.join() {
        panic::resume_unwind(words);
    }
}

/// Lays `upper` over `dir` in this namespace: what is in both is that of `upper`.
pub fn lay_over(dir: &Path, upper: &Path) {
    // /sbin is a link to /usr/sbin.
    let dir = dir.canonicalize().unwrap();
    let data = format!("lowerdir={}:{}", upper.display(), dir.display());
    mount(Some("overlay"), &dir, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .unwrap_or_else(|errno| panic!("overlay on {}: {errno}", dir.display()));
}

/// The mounts at `point` in this thread's namespace, as lines of mountinfo; never touches them.
pub fn mounts_at(point: &Path) -> Vec<String> {
    let mountinfo = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let at = |line: &&str| line.split(' ').nth(4) == point.to_str();
    mountinfo.lines().filter(at).map(str::to_owned).collect()
}
