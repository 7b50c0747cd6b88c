//! Where our other programs are: beside this one, as they are built and
//! installed, or else in the PATH.
//!
//! A program that must be of the same build as this one is opened when this one starts
//! and started from there, so that it stays that when another version is installed.

#![expect(unsafe_code, reason = "a descriptor is taken from the kernel as a number")]

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use std::env;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Descriptors below are given to children under fixed numbers.
const FD_MIN: i32 = 100;

/// A program that stays what it was, whatever is installed over it.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    file: Option<OwnedFd>,
}

impl Program {
    /// The program of that name as it is now.
    pub fn open(name: &str) -> Self {
        let path = path_of(name);
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let opened = open(&path, flags, Mode::empty());
        let file = opened.and_then(|file| {
            let number = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(FD_MIN))?;
            // SAFETY: the kernel has just made this descriptor for us, so nobody else
            // owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(number) })
        });
        // One that is found in the PATH only, or not at all, is looked for again.
        Self { path, file: file.ok() }
    }

    /// Where it was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts it, when it is spawned.
    pub fn command(&self) -> Command {
        let Some(file) = &self.file else { return Command::new(&self.path) };
        let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        command.arg0(&self.path);
        command
    }
}

/// What the kernel says behind the path of a program whose file was replaced.
const REPLACED: &str = " (deleted)";

/// Where this program is installed, even if that is another version by now.
pub fn own_path() -> PathBuf {
    let path = env::current_exe().unwrap_or_default();
    match path.to_str().and_then(|text| text.strip_suffix(REPLACED)) {
        Some(text) => PathBuf::from(text),
        None => path,
    }
}

/// The path of one of our programs, to be started.
pub fn path_of(name: &str) -> PathBuf {
    let beside = env::current_exe().ok().map(|ours| ours.with_file_name(name));
    match beside {
        Some(path) if path.is_file() => path,
        _ => PathBuf::from(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_stays_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::copy("/bin/true", &path).unwrap();
        let program = Program::open(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::copy("/bin/false", &path).unwrap();
        assert!(program.command().status().unwrap().success());
        assert!(!Command::new(program.path()).status().unwrap().success());
    }

    #[test]
    fn what_is_not_beside_us_is_looked_for_in_the_path() {
        assert_eq!(path_of("no-such-program"), PathBuf::from("no-such-program"));
        let ours = env::current_exe().unwrap();
        let name = ours.file_name().unwrap().to_str().unwrap();
        assert_eq!(path_of(name), ours);
    }
}
