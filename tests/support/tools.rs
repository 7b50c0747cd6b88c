//! Running the programs that the tests borrow: fio, fsx, mkfs, qemu and others.
//!
//! A program that is missing fails the test and says how to get it; no test is ever skipped.
//! Each run has a deadline, so that a hanging mount fails its test instead of stopping the
//! suite: a process that waits for /dev/fuse can't be killed before the mount is.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long one program may run.
const RUN_SECONDS_MAX: u64 = 300;
/// How long a condition may take to come true.
const WAIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs `program` with `args` and returns what it wrote to standard output, as text.
///
/// # Panics
/// When it is missing, does not end, or does not succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    succeed(Command::new(program).args(args))
}

/// As [`run`], for a command that needs more than arguments.
pub fn succeed(command: &mut Command) -> String {
    let output = output(command);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{stdout}\n{}",
        output.status,
        output.stderr
    );
    stdout
}

/// Runs a command to its end, however it ends.
///
/// # Panics
/// When it is missing or does not end in time.
pub fn output(command: &mut Command) -> Output {
    let (mut stdout, mut stderr) = (scratch(), scratch());
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().unwrap())
        .stderr(stderr.try_clone().unwrap());
    let mut child = start(command);
    let deadline = Instant::now() + Duration::from_secs(RUN_SECONDS_MAX);
    let Some(status) = wait_until(&mut child, deadline) else {
        let _ = child.kill();
        panic!("{command:?} still runs after {RUN_SECONDS_MAX} s:\n{}", text(&mut stderr));
    };
    let mut bytes = Vec::new();
    stdout.rewind().unwrap();
    stdout.read_to_end(&mut bytes).unwrap();
    Output { status, stdout: bytes, stderr: text(&mut stderr) }
}

/// Starts a command.
///
/// # Panics
/// With words when the program is missing.
pub fn start(command: &mut Command) -> Child {
    match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("{:?} is not installed: tests/setup does that", command.get_program())
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

/// Waits for a child's end; `None` when `deadline` comes first.
pub fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// With `what` when it does not in time.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_in_time(condition), "waited {} s for {what}", WAIT.as_secs());
}

/// Whether `condition` comes true in time.
pub fn holds_in_time(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + WAIT;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}

/// A path as the text that an argument wants.
pub fn arg(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn scratch() -> File {
    tempfile::tempfile().unwrap()
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
