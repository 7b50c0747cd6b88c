//! The tests' stand-in for systemd as a manager: the test says when the next life begins, which
//! program it is and with which options.

use super::{Manager, assert_success, point_in};
use crate::apart::Apart;
use crate::mount::{is_alive, pid_of};
use crate::notify::Store;
use crate::tools::{arg, start, wait_until};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const END_SECONDS_MAX: u64 = 60;

/// Lives of a supervisor in the foreground.
#[derive(Debug)]
pub struct Lives {
    store: Apart<Store>,
    how: How,
    child: Child,
}

/// How a life is started.
#[derive(Clone, Debug)]
struct How {
    program: PathBuf,
    options: Vec<String>,
    point: PathBuf,
    log: PathBuf,
}

impl Lives {
    /// Starts the first one as the program at `program`.
    pub fn start_as(program: &Path, dir: &Path, options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let (point, log) = (point_in(dir), dir.join("log"));
        let how = How { program: program.to_owned(), options, point, log };
        let store = Apart::make(Store::start);
        let child = spawn(&store, &how);
        let lives = Self { store, how, child };
        lives.store().wait_until_said("READY=1", 1);
        lives
    }

    /// What was said, and the names of what is kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Does something with descriptors that are kept.
    pub fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> T {
        self.store.with(work)
    }

    /// A copy of what is kept under that name.
    pub fn keep_aside(&self, name: &'static str) -> Apart<OwnedFd> {
        self.store.with(|store| Apart::here(store.descriptor(name).expect("it is kept")))
    }

    /// Keeps that under that name, and nothing else.
    pub fn put_back(&self, name: &'static str, fd: &Apart<OwnedFd>) {
        let fd = fd.with(|fd| Apart::here(fd.try_clone().unwrap()));
        self.store.with(move |store| store.replace(name, fd.into_inner()));
    }

    /// Makes the lives to come ones of another program.
    pub fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.how.program);
    }

    /// Gives the lives to come one more option.
    pub fn add_option(&mut self, option: &str) {
        self.how.options.push(option.to_owned());
    }

    /// Takes that option from the lives to come.
    pub fn drop_option(&mut self, option: &str) {
        let before = self.how.options.len();
        self.how.options.retain(|found| found != option);
        assert!(self.how.options.len() < before, "no option {option}");
    }

    /// Begins the next life, and does not wait for anything.
    pub fn spawn(&mut self) {
        self.child = spawn(&self.store, &self.how);
    }

    /// Waits until the present life has ended.
    pub fn bury(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(END_SECONDS_MAX);
        let ended = wait_until(&mut self.child, deadline);
        ended.unwrap_or_else(|| panic!("no end in {END_SECONDS_MAX} s"))
    }

    /// Whether the mount is kept for a next life.
    pub fn is_kept(&self) -> bool {
        !self.store().names().is_empty()
    }
}

impl Manager for Lives {
    fn start(dir: &Path, options: &[&str]) -> Self {
        Self::start_as(Path::new(env!("CARGO_BIN_EXE_sheepfs")), dir, options)
    }

    fn supervisor(&self) -> Option<Pid> {
        Some(pid_of(&self.child))
    }

    fn start_next(&mut self, before: Pid) {
        assert_eq!(self.supervisor(), Some(before));
        self.bury();
        assert!(self.is_kept(), "nothing is kept");
        self.spawn();
    }

    fn assert_ended(&mut self) {
        let ended = self.bury();
        assert_success(ended, &self.log());
        assert!(!self.is_kept(), "kept still: {:?}", self.store().names());
    }

    fn abandon(&mut self) {
        if is_alive(pid_of(&self.child)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.how.log).unwrap_or_default()
    }
}

fn spawn(store: &Apart<Store>, how: &How) -> Child {
    let how = how.clone();
    store.with(move |store| {
        let log = File::options().create(true).append(true).open(&how.log).unwrap();
        start(
            store
                // A test run that is killed takes its mounts with it.
                .command("setpriv")
                .args(["--pdeathsig", "TERM", arg(&how.program), "-f"])
                .args(&how.options)
                .arg(&how.point)
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log),
        )
    })
}
