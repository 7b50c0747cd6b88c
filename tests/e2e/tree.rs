//! What the tree shows, and to whom.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::tools::{arg, output, run, succeed};
use sheepfs::wire::Request;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

/// Files whose text is the same each time it is asked for, on a cluster that nobody else uses.
const STEADY: [&str; 7] = [
    "vdi/list",
    "cluster/info",
    "node/list",
    "config/sheep_info",
    "config/page_cache",
    "config/object_cache",
    "config/route",
];

fn names(mount: &Mount, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(mount.path(dir)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn it_is_the_tree_of_the_original_and_what_it_lacks() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    assert_eq!(names(&mount, ""), ["cluster", "config", "node", "vdi", "volume"]);
    assert_eq!(names(&mount, "cluster"), ["info"]);
    assert_eq!(names(&mount, "node"), ["info", "list"]);
    let vdi = [
        "clone", "create", "delete", "list", "mount", "resize", "rollback", "snapshot", "tree",
        "unmount",
    ];
    assert_eq!(names(&mount, "vdi"), vdi);
    let config = ["object_cache", "page_cache", "route", "sheep_info", "status"];
    assert_eq!(names(&mount, "config"), config);
    assert!(names(&mount, "volume").is_empty());
}

#[test]
fn volumes_come_and_go_in_the_listing() {
    let cluster = Cluster::start();
    let disks = ["one", "two", "three"].map(|name| cluster.vdi(name, MIB));
    let mount = Mount::start(&cluster, &["--attach", &disks[0], "--attach", &disks[1]]);
    mount.attach(&disks[2]);
    let mut sorted = disks.to_vec();
    sorted.sort();
    assert_eq!(names(&mount, "volume"), sorted);
    mount.detach(&disks[0]);
    assert!(!mount.volume(&disks[0]).exists());
    assert_eq!(names(&mount, "volume").len(), 2);
}

/// Control files say size 0 like those of procfs, and every program reads all of them.
#[test]
fn every_program_reads_the_same() {
    let cluster = Cluster::start();
    for number in 0..40 {
        cluster.vdi(&format!("disk{number}"), MIB);
    }
    let mount = Mount::start(&cluster, &[]);
    // On a real cluster others make VDIs at the same time.
    for file in &STEADY[usize::from(cluster.is_real())..] {
        let path = mount.path(file);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0, "{file}");
        let text = mount.read(file);
        assert!(text.ends_with('\n'), "{file}: {text:?}");
        check_readers(arg(&path), &text);
        let copy = mount.scratch().join("copy");
        run("cp", &[arg(&path), arg(&copy)]);
        assert_eq!(fs::read_to_string(&copy).unwrap(), text, "cp {file}");
    }
    assert!(mount.read("node/info").lines().count() > 1);
}

fn check_readers(path: &str, text: &str) {
    assert_eq!(run("cat", &[path]), text);
    assert_eq!(run("head", &["-c", "3", path]), text[..3.min(text.len())]);
    assert_eq!(run("tail", &["-n", "1", path]), text.split_inclusive('\n').next_back().unwrap());
    let count = run("wc", &["-c", path]);
    assert_eq!(count.split(' ').next().unwrap(), text.len().to_string());
    assert_eq!(run("dd", &["bs=7", "status=none", &format!("if={path}")]), text);
    assert_eq!(run("grep", &["-c", "", path]).trim_end(), text.lines().count().to_string());
    let script = "import sys; sys.stdout.write(open(sys.argv[1]).read())";
    assert_eq!(run("python3", &["-c", script, path]), text);
    let script =
        "import os,sys; f=os.open(sys.argv[1],0); os.lseek(f,2,0); os.write(1,os.read(f,99))";
    let from_two = &text.as_bytes()[2.min(text.len())..];
    let got = run("python3", &["-c", script, path]);
    assert_eq!(got.as_bytes(), &from_two[..from_two.len().min(99)]);
}

#[test]
fn the_lists_name_what_is_there() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    cluster.snapshot(&disk, "before");
    let mount = Mount::start(&cluster, &[]);
    let list = mount.read("vdi/list");
    let of_disk: Vec<_> = list.lines().filter(|line| line.contains(&disk)).collect();
    assert_eq!(of_disk.len(), 2, "{list}");
    assert!(of_disk.iter().any(|line| line.starts_with('s') && line.contains("before")));
    assert!(of_disk.iter().all(|line| line.contains("12 MB")));
    assert!(mount.read("cluster/info").starts_with("Cluster status: running"));
    let info = mount.read("config/sheep_info");
    assert_eq!(info, format!("{}\n", cluster.address()));
    assert!(mount.read("node/list").contains(cluster.address()));
}

/// The reference for the four reports is `dog`; minisheep's are compared with its recorded
/// output elsewhere, those of a real cluster here with the `dog` on this machine.
#[test]
fn on_a_real_cluster_the_reports_are_those_of_dog() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 12 * MIB);
    let mount = Mount::start(&cluster, &[]);
    if !cluster.is_real() {
        assert!(mount.read("node/list").starts_with("  Id   Host:Port"));
        return;
    }
    let (host, port) = cluster.address().rsplit_once(':').unwrap();
    let dog = |what: &str, of: &str| run("dog", &[what, of, "-a", host, "-p", port]);
    assert_eq!(mount.read("cluster/info"), dog("cluster", "info"));
    assert_eq!(mount.read("node/list"), dog("node", "list"));
    // Others make VDIs and fill them at the same time.
    let ours = |list: String| -> Vec<String> {
        list.lines().filter(|line| line.contains(&disk)).map(str::to_owned).collect()
    };
    assert_eq!(ours(mount.read("vdi/list")), ours(dog("vdi", "list")));
    let names = |info: String| info.lines().next().map(str::to_owned);
    assert_eq!(names(mount.read("node/info")), names(dog("node", "info")));
}

#[test]
fn df_shows_the_clusters_space() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    let table = run("df", &["--output=size", "-B1", arg(&mount.path(""))]);
    let shown: u64 = table.lines().nth(1).unwrap().trim().parse().unwrap();
    let (reply, _) = cluster.wire().done(&Request::stat_sheep(), &[]);
    let node = reply.node().store_size;
    if cluster.is_real() {
        assert!(shown >= node, "{shown} is less than one node's {node}");
    } else {
        // A block's rounding; and the free part of the store's file system changes.
        assert!(shown.abs_diff(node) < node / 10, "{shown} is not {node}");
    }
}

/// Another user's attempt to read the first bytes of a volume: the words of the failure.
fn read_as_nobody(mount: &Mount, path: &std::path::Path) -> Result<(), String> {
    let open_way = fs::Permissions::from_mode(0o755);
    fs::set_permissions(mount.scratch(), open_way).unwrap();
    let result =
        output(
            Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .args(["head", "-c", "1", arg(path)]),
        );
    if result.status.success() { Ok(()) } else { Err(result.stderr) }
}

#[test]
fn nobody_else_opens_a_volume_of_mode_0600() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["--allow-other"]);
    assert_eq!(fs::metadata(mount.volume(&disk)).unwrap().mode() & 0o7777, 0o600);
    let refused = read_as_nobody(&mount, &mount.volume(&disk)).unwrap_err();
    assert!(refused.contains("Permission denied"), "{refused}");
    assert_eq!(read_as_nobody(&mount, &mount.path("vdi/list")), Ok(()));
    let refused = succeed_as_nobody_writing(&mount, "vdi/mount");
    assert!(refused.contains("Permission denied"), "{refused}");
}

fn succeed_as_nobody_writing(mount: &Mount, file: &str) -> String {
    let script = format!("echo disk > {}", arg(&mount.path(file)));
    let result = output(Command::new("setpriv").args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "sh",
        "-c",
        &script,
    ]));
    assert!(!result.status.success());
    result.stderr
}

#[test]
fn owner_group_and_mode_can_be_chosen() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let options = ["--allow-other", "--uid", "65534", "--gid", "7", "--mode", "0640"];
    let mount = Mount::with_volume(&cluster, &disk, &options);
    let found = fs::metadata(mount.volume(&disk)).unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65534, 7, 0o640));
    assert_eq!(read_as_nobody(&mount, &mount.volume(&disk)), Ok(()));
}

#[test]
fn without_allow_other_nobody_else_sees_anything() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::with_volume(&cluster, &disk, &["--mode", "0644"]);
    let refused = read_as_nobody(&mount, &mount.path("config/status")).unwrap_err();
    assert!(refused.contains("Permission denied"), "{refused}");
}

#[test]
fn the_command_returns_when_the_mount_is_ready() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let dir = tempfile::tempdir().unwrap();
    let point = arg(dir.path());
    // Without -f: when it returns, the volume is there.
    let program = env!("CARGO_BIN_EXE_sheepfs");
    succeed(Command::new(program).args(["-a", cluster.address(), "--attach", &disk, point]));
    assert_eq!(fs::metadata(dir.path().join("volume").join(&disk)).unwrap().len(), MIB);
    run("umount", &[point]);
    // The lock is given back and the VDI can be attached again, once the processes are gone.
    let again = Mount::start(&cluster, &[]);
    crate::tools::wait_for("the lock", || again.write("vdi/mount", disk.as_bytes()).is_ok());
}
