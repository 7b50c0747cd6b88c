//! The circumstances of a run, without which its numbers say little.

use crate::results::{Failure, Scene};
use nix::sys::utsname::uname;
use std::fs;
use std::process::Command;
use std::thread;

/// What is known before.
pub fn begin(scene: &mut Scene) -> Result<(), Failure> {
    let kernel = uname()?.release().to_string_lossy().into_owned();
    let processors = thread::available_parallelism()?.to_string();
    scene.facts.extend([
        ("sheepfs", version(env!("CARGO_BIN_EXE_sheepfs"))?),
        ("fio", version("fio")?),
        ("kernel", kernel),
        ("processors", processors),
        ("load average before", load_average()),
    ]);
    Ok(())
}

/// What is known after.
pub fn end(scene: &mut Scene) {
    scene.facts.push(("load average after", load_average()));
}

fn version(program: &str) -> Result<String, Failure> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| format!("{program}: {error} (tests/setup installs it)"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
