//! The package for Debian, built with `cargo deb` from the programs under test.

use crate::tools::{arg, run, succeed};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version of [`later`].
pub const LATER: &str = "99.0.0-1";

/// Builds the package, as for a release, with the programs under test in the place of those.
pub fn build(dir: &Path) -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_sheepfs")).parent().unwrap();
    let target = dir.join("target");
    fs::create_dir(&target).unwrap();
    symlink(programs, target.join("release")).unwrap();
    let package = dir.join("sheepfs.deb");
    let mut command = Command::new("cargo-deb");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", &target);
    command.args(["--locked", "--offline", "--no-build", "--no-strip", "--no-dbgsym"]);
    command.args(["--no-separate-debug-symbols", "--fast", "-o"]).arg(&package);
    succeed(&mut command);
    package
}

/// The same package with a later version.
pub fn later(package: &Path, dir: &Path) -> PathBuf {
    let (tree, later) = (dir.join("tree"), dir.join("later.deb"));
    run("dpkg-deb", &["--raw-extract", arg(package), arg(&tree)]);
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let version = format!("Version: {}-1\n", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "{text}");
    fs::write(&control, text.replace(&version, &format!("Version: {LATER}\n"))).unwrap();
    run("dpkg-deb", &["-Znone", "--build", arg(&tree), arg(&later)]);
    later
}
