//! A thread whose open files are its own, for all that starts processes or keeps descriptors
//! while nobody serves a mount.
//!
//! A new process closes its copies of the files that its parent had open, and to close a file of
//! a mount is to wait for whoever serves it. So a program with such files can't start the
//! supervisor that is to serve them. systemd and the keeper have none; a test has, and so it
//! leaves these things to a thread that has unshared its files before any test opened one. And
//! when a test run is killed, the descriptors that keep its mounts alive go at once, and with
//! them the calls that wait.

use nix::sched::{CloneFlags, unshare};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

static THREAD: LazyLock<Sender<Work>> = LazyLock::new(|| {
    let (sender, receiver) = channel::<Work>();
    let (ready, is_ready) = channel();
    thread::spawn(move || {
        unshare(CloneFlags::CLONE_FILES).unwrap();
        ready.send(()).unwrap();
        receiver.into_iter().for_each(|work| work());
    });
    is_ready.recv().unwrap();
    sender
});

/// Does `work` on that thread. Descriptors that it opens are closed there only, and have no
/// meaning elsewhere.
pub fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let work = move || drop(sender.send(catch_unwind(AssertUnwindSafe(work))));
    THREAD.send(Box::new(work)).unwrap();
    receiver.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
}
