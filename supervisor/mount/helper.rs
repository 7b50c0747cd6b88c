//! Mounting for a user who is not root: `fusermount3` mounts, and hands the device
//! over a Unix socket whose number it finds in `_FUSE_COMMFD` (fusermount3(1)).

use super::{MountError, MountOptions, Unmounted};
use crate::descriptors;
use crate::notify;
use command_fds::{CommandFdExt, FdMapping};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const HELPER: &str = "fusermount3";
/// The number of the socket in the helper.
const SOCKET: i32 = 3;

/// Mounts, and returns the device.
pub fn mount(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(|cause| failed(point, cause))?;
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(words_of(options)).arg("--").arg(point);
    command.env("_FUSE_COMMFD", SOCKET.to_string());
    command
        .fd_mappings(vec![FdMapping { parent_fd: theirs.into(), child_fd: SOCKET }])
        .map_err(|cause| failed(point, io::Error::other(cause)))?;
    let output = run(&mut command, point)?;
    drop(command);
    match descriptors::receive(&ours) {
        Ok(Some(device)) if output.status.success() => Ok(device),
        Ok(_) => Err(refused(point, &output)),
        Err(cause) => Err(failed(point, cause)),
    }
}

/// Unmounts; a mount in use is detached.
pub fn unmount(point: &Path) -> Result<Unmounted, MountError> {
    let unmount = |flag: &str| run(Command::new(HELPER).args([flag, "--"]).arg(point), point);
    if unmount("-u")?.status.success() {
        return Ok(Unmounted::Clean);
    }
    let output = unmount("-uz")?;
    if output.status.success() { Ok(Unmounted::Detached) } else { Err(refused(point, &output)) }
}

fn words_of(options: &MountOptions) -> String {
    let source = escaped(&options.source);
    let others = if options.allow_other { ",allow_other" } else { "" };
    let access = if options.read_only { "ro" } else { "rw" };
    format!(
        "{access},nosuid,nodev,noexec,default_permissions,fsname={source},subtype=sheepfs{others}"
    )
}

/// A comma would end the option.
fn escaped(source: &str) -> String {
    source.replace('\\', "\\\\").replace(',', "\\,")
}

fn run(command: &mut Command, point: &Path) -> Result<Output, MountError> {
    notify::hide_from(command).stdin(Stdio::null()).output().map_err(|cause| match cause.kind() {
        ErrorKind::NotFound => MountError::NoHelper,
        _ => failed(point, cause),
    })
}

fn failed(point: &Path, cause: io::Error) -> MountError {
    MountError::system("running fusermount3 on", point, cause)
}

fn refused(point: &Path, output: &Output) -> MountError {
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    MountError::Helper { point: point.to_owned(), words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_ours_and_a_source_cannot_add_any() {
        let options =
            MountOptions { source: "a,dev\\".to_owned(), allow_other: true, read_only: false };
        let expected = "rw,nosuid,nodev,noexec,default_permissions,fsname=a\\,dev\\\\,subtype=sheepfs,allow_other";
        assert_eq!(words_of(&options), expected);
        let options = MountOptions { allow_other: false, read_only: true, ..options };
        let expected =
            "ro,nosuid,nodev,noexec,default_permissions,fsname=a\\,dev\\\\,subtype=sheepfs";
        assert_eq!(words_of(&options), expected);
    }
}
