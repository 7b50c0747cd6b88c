//! What a test has left open on its mount: by looking, since the mount itself can't tell it
//! from what a child of another test has open for a moment.
//!
//! A child has copies of all our descriptors until it has executed its program: also for a
//! moment after `spawn` has returned, since the kernel lets the parent go on before it
//! closes those that are closed at that point. A mount whose last file was just closed here
//! is then still busy.

use super::*;
use std::fs::{File, read_dir, read_link, read_to_string};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

/// Files below `point` that this process has open or mapped.
pub(super) fn below(point: &Path) -> Vec<PathBuf> {
    let entries = read_dir("/proc/self/fd").unwrap();
    // What is closed meanwhile is another test's.
    let open = entries.filter_map(|entry| read_link(entry.unwrap().path()).ok());
    let maps = BufReader::new(File::open("/proc/self/maps").unwrap()).lines();
    let mapped = maps.filter_map(|line| {
        line.unwrap().split_once('/').map(|(_, path)| format!("/{path}").into())
    });
    open.chain(mapped).filter(|path: &PathBuf| path.starts_with(point)).collect()
}

#[test]
#[should_panic(expected = "is still open")]
fn a_file_that_is_left_open_fails_its_test() {
    let rig = Rig::new();
    let _file = File::open(rig.disk()).unwrap();
    drop(rig);
}

#[test]
fn a_file_that_a_child_has_is_waited_for() {
    let rig = Rig::new();
    let file = File::options().write(true).open(rig.disk()).unwrap();
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(file).spawn().unwrap();
    let point = rig.dir.path().to_str().unwrap().to_owned();
    let end = spawn(move || drop(rig));
    while read_to_string("/proc/self/mountinfo").unwrap().contains(&point) {
        assert!(!end.is_finished(), "the mount ended under a user");
        std::thread::yield_now();
    }
    assert!(!end.is_finished(), "the session ended before the last user");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    end.join().unwrap();
}
