//! The package for Debian: built with `cargo deb` from the programs under test, looked into, and
//! installed, upgraded, removed and purged by the machine's own dpkg, on the machine's root
//! directory under an overlay in memory, in a mount namespace of the test's own.
//!
//! There `systemctl` only writes down what it is asked for: which requests come in which order
//! is what keeps or loses a mount (hazard 34).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses the part of the support that it needs")]

#[path = "support/deb.rs"]
mod deb;
#[path = "support/mntns.rs"]
mod mntns;
#[path = "support/tools.rs"]
mod tools;

use mntns::in_own_namespace;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use tools::{arg, run, succeed};

/// What it brings, with the modes of files as `dpkg-deb --contents` shows them.
const CONTENTS: [&str; 12] = [
    "-rw-r--r-- ./etc/default/sheepfs",
    "-rw-r--r-- ./usr/lib/systemd/system/sheepfs@.service",
    "-rw-r--r-- ./usr/share/doc/sheepfs/CHANGELOG.md",
    "-rw-r--r-- ./usr/share/doc/sheepfs/README.md",
    "-rw-r--r-- ./usr/share/doc/sheepfs/copyright",
    "-rw-r--r-- ./usr/share/man/man8/mount.sheepfs.8.gz",
    "-rw-r--r-- ./usr/share/man/man8/sheepfs.8.gz",
    "-rw-r--r-- ./usr/share/man/man8/sheepfs.service.8.gz",
    "-rwxr-xr-x ./usr/bin/minisheep",
    "-rwxr-xr-x ./usr/bin/sheepfs",
    "-rwxr-xr-x ./usr/bin/sheepfs-worker",
    "lrwxrwxrwx ./usr/sbin/mount.sheepfs -> ../bin/sheepfs",
];

/// The machine's root directory, on which everything can be changed and nothing is.
struct Root(PathBuf);

impl Root {
    /// Only in a namespace of the test's own.
    fn new(dir: &Path) -> Self {
        let memory = dir.join("memory");
        fs::create_dir(&memory).unwrap();
        attach("tmpfs", &memory, Some("tmpfs"), MsFlags::empty(), "mode=755");
        let [upper, work, root] = ["upper", "work", "root"].map(|name| memory.join(name));
        for dir in [&upper, &work, &root] {
            fs::create_dir(dir).unwrap();
        }
        let data = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        attach("overlay", &root, Some("overlay"), MsFlags::empty(), &data);
        for name in ["proc", "dev"] {
            let (from, to) = (Path::new("/").join(name), root.join(name));
            attach(arg(&from), &to, None, MsFlags::MS_BIND | MsFlags::MS_REC, "");
        }
        let root = Self(root);
        root.stand_in_for_systemctl();
        root
    }

    fn stand_in_for_systemctl(&self) {
        fs::create_dir_all(self.path("/run/systemd/system")).unwrap();
        let program = self.path("/usr/bin/systemctl");
        let _ = fs::remove_file(&program);
        fs::write(&program, "#!/bin/sh\necho \"$*\" >>/asked\n").unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.join(inside.trim_start_matches('/'))
    }

    fn exists(&self, inside: &str) -> bool {
        self.path(inside).symlink_metadata().is_ok()
    }

    fn write(&self, inside: &str, text: &str) {
        fs::write(self.path(inside), text).unwrap();
    }

    /// Runs a program inside, which must succeed.
    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new("chroot");
        command.arg(&self.0).args(words).env("DEBIAN_FRONTEND", "noninteractive");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        succeed(&mut command)
    }

    /// Has dpkg do something; what systemctl was asked for meanwhile.
    fn dpkg(&self, words: &[&str]) -> Vec<String> {
        self.write("/asked", "");
        self.run(&[&["dpkg"], words].concat());
        let asked = fs::read_to_string(self.path("/asked")).unwrap();
        asked.lines().map(str::to_owned).collect()
    }

    fn install(&self, package: &Path) -> Vec<String> {
        fs::copy(package, self.path("/package.deb")).unwrap();
        self.dpkg(&["--install", "/package.deb"])
    }
}

fn attach(from: &str, to: &Path, kind: Option<&str>, flags: MsFlags, data: &str) {
    mount(Some(from), to, kind, flags, Some(data))
        .unwrap_or_else(|errno| panic!("mounting {from} on {}: {errno}", to.display()));
}

fn assert_holds_what_belongs_in_it(package: &Path) {
    let listed = run("dpkg-deb", &["--contents", arg(package)]);
    let mut files: Vec<String> = listed
        .lines()
        .filter(|line| !line.starts_with('d'))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[1], "0/0", "{line}");
            [&[words[0]], &words[5..]].concat().join(" ")
        })
        .collect();
    files.sort();
    assert_eq!(files, CONTENTS);
    let field = |name| run("dpkg-deb", &["--field", arg(package), name]).trim_end().to_owned();
    assert_eq!(field("Package"), "sheepfs");
    assert_eq!(field("Version"), format!("{}-1", env!("CARGO_PKG_VERSION")));
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));
    assert_eq!(run("dpkg-deb", &["--info", arg(package), "conffiles"]), "/etc/default/sheepfs\n");
}

/// One test, since building the package takes long.
#[test]
fn the_package_can_be_looked_into_installed_upgraded_removed_and_purged() {
    in_own_namespace(|| {
        let dir = TempDir::new().unwrap();
        let package = deb::build(dir.path());
        assert_holds_what_belongs_in_it(&package);
        let later = deb::later(&package, dir.path());
        let root = Root::new(dir.path());

        assert_eq!(root.install(&package), ["daemon-reload"]);
        let version = format!("sheepfs {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(root.run(&["sheepfs", "--version"]), version);
        // Through the link, which mount(8) finds in /sbin.
        root.run(&["mount", "-f", "-t", "sheepfs", "-o", "attach=disk", "sheep:7000", "/mnt"]);
        assert!(root.run(&["dpkg", "--search", "/usr/sbin/mount.sheepfs"]).contains("sheepfs"));
        let unit = fs::read(root.path("/usr/lib/systemd/system/sheepfs@.service")).unwrap();
        assert_eq!(unit, include_bytes!("../systemd/sheepfs@.service"));

        let enabled = "/etc/systemd/system/multi-user.target.wants/sheepfs@mnt-sheep.service";
        fs::create_dir_all(root.path(enabled).parent().unwrap()).unwrap();
        symlink("/usr/lib/systemd/system/sheepfs@.service", root.path(enabled)).unwrap();
        root.write("/etc/default/sheepfs", "SHEEPFS_OPTIONS=--pagecache\n");
        root.write("/etc/sheepfs/mnt-sheep.conf", "SHEEPFS_OPTIONS=--objectcache\n");

        // Nothing stops on the way.
        assert_eq!(root.install(&later), ["daemon-reload", "try-restart sheepfs@*.service"]);
        let options = fs::read_to_string(root.path("/etc/default/sheepfs")).unwrap();
        assert_eq!(options, "SHEEPFS_OPTIONS=--pagecache\n");

        assert_eq!(
            root.dpkg(&["--remove", "sheepfs"]),
            ["stop sheepfs@*.service", "daemon-reload"]
        );
        assert!(!root.exists("/usr/bin/sheepfs") && !root.exists("/usr/sbin/mount.sheepfs"));
        assert!(root.exists("/etc/default/sheepfs") && root.exists(enabled));

        assert_eq!(root.dpkg(&["--purge", "sheepfs"]), ["daemon-reload"]);
        assert!(!root.exists("/etc/default/sheepfs") && !root.exists(enabled));
        assert!(root.exists("/etc/sheepfs/mnt-sheep.conf"), "the administrator's own file");

        root.install(&package);
        fs::remove_file(root.path("/etc/sheepfs/mnt-sheep.conf")).unwrap();
        root.dpkg(&["--purge", "sheepfs"]);
        assert!(!root.exists("/etc/sheepfs") && !root.exists("/usr/share/doc/sheepfs"));
    });
}
