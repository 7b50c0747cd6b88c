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
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
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

/// Something whose descriptors are that thread's. Whatever touches those is to be done by
/// [`Apart::with`].
#[derive(Debug)]
pub struct Apart<T: Send + Sync + 'static>(Option<Arc<T>>);

impl<T: Send + Sync + 'static> Apart<T> {
    /// What `make` makes there.
    pub fn make(make: impl FnOnce() -> T + Send + 'static) -> Self {
        Self(Some(apart(|| Arc::new(make()))))
    }

    /// What was made there just now.
    pub fn here(value: T) -> Self {
        Self(Some(Arc::new(value)))
    }

    /// Gives it up, there.
    pub fn into_inner(mut self) -> T {
        let inner = self.0.take().and_then(Arc::into_inner);
        inner.expect("nobody else has it")
    }

    /// Does something with it there.
    pub fn with<U: Send + 'static>(&self, work: impl FnOnce(&T) -> U + Send + 'static) -> U {
        let inner = self.0.clone().expect("there until the end");
        apart(move || work(&inner))
    }
}

impl<T: Send + Sync + 'static> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("there until the end")
    }
}

impl<T: Send + Sync + 'static> Drop for Apart<T> {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            apart(move || drop(inner));
        }
    }
}
