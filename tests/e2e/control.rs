//! What control files take, and with which errno they refuse.

use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::random::Random;
use crate::tools::{arg, output, run};
use crate::{KIB, MIB};
use nix::errno::Errno;
use sheepfs::wire::request::NewVdi;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

/// The files that can be written.
const WRITABLE: [&str; 4] =
    ["vdi/mount", "vdi/unmount", "config/page_cache", "config/object_cache"];

/// The errno of a failure.
pub fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_raw(error.raw_os_error().unwrap()))
}

/// Redirects what `command` prints into a control file, as a user does in a shell.
fn shell(mount: &Mount, command: &str, file: &str) -> bool {
    let script = format!("{command} > '{}'", arg(&mount.path(file)));
    output(Command::new("bash").args(["-c", &script])).status.success()
}

#[test]
fn names_are_taken_as_shells_write_them() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    for command in [
        format!("echo {disk}"),
        format!("echo -n {disk}"),
        format!("printf {disk}"),
        format!("printf '{disk}\\n'"),
        format!("printf '  {disk} \\t\\n'"),
        // The shell's own printf writes line by line, the program all at once.
        format!("env printf '\\n{disk}\\r\\n'"),
    ] {
        assert!(shell(&mount, &command, "vdi/mount"), "{command}\n{}", mount.log());
        assert!(mount.volume(&disk).exists(), "{command}");
        assert!(shell(&mount, &command, "vdi/unmount"), "{command}\n{}", mount.log());
        assert!(!mount.volume(&disk).exists(), "{command}");
    }
    assert!(!shell(&mount, "echo no-such-vdi", "vdi/mount"));
}

/// The original passes the name to a shell; here it is a name and nothing else.
#[test]
fn a_name_is_never_a_command() {
    let cluster = Cluster::start();
    let odd = cluster.vdi("a 'b'; $(touch x) \"c\"", MIB);
    let mount = Mount::with_volume(&cluster, &odd, &[]);
    assert_eq!(fs::metadata(mount.volume(&odd)).unwrap().len(), MIB);
    mount.detach(&odd);
}

#[test]
fn each_cause_has_its_errno() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    let attach = |bytes: &[u8]| errno(mount.write("vdi/mount", bytes));
    let detach = |bytes: &[u8]| errno(mount.write("vdi/unmount", bytes));
    let (longest, too_long) = ([b'x'; 255], [b'x'; 256]);
    for nonsense in [&b"\n"[..], b" ", b"\xff\xfe", b"a\0b", b"a/b", b"..", &too_long] {
        assert_eq!(attach(nonsense), Some(Errno::EINVAL), "{nonsense:?}");
        assert_eq!(detach(nonsense), Some(Errno::EINVAL), "{nonsense:?}");
    }
    for missing in [&b"no-such-vdi"[..], b"no-such-vdi:tag", &longest] {
        assert_eq!(attach(missing), Some(Errno::ENOENT), "{missing:?}");
        assert_eq!(detach(missing), Some(Errno::ENOENT), "{missing:?}");
    }
    for snapshot in ["no-such-tag", "77"] {
        assert_eq!(attach(format!("{disk}:{snapshot}").as_bytes()), Some(Errno::ENOENT));
    }
    assert_eq!(detach(disk.as_bytes()), Some(Errno::ENOENT));
    for nonsense in [&b"2"[..], b"on", b"", b"00", b"-1", b"1 1"] {
        for file in ["config/page_cache", "config/object_cache"] {
            let expected = if nonsense.is_empty() { None } else { Some(Errno::EINVAL) };
            assert_eq!(errno(mount.write(file, nonsense)), expected, "{nonsense:?}");
        }
    }
}

#[test]
fn an_empty_name_is_refused() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    assert!(!shell(&mount, "echo", "vdi/mount"));
    assert!(!shell(&mount, "echo ' '", "vdi/unmount"));
    assert!(!shell(&mount, "echo", "config/page_cache"));
}

#[test]
fn a_file_is_used_for_what_it_is_there() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    let refused = Some(Errno::EACCES);
    for file in ["vdi/mount", "vdi/unmount"] {
        assert_eq!(errno(File::open(mount.path(file))), refused, "{file}");
    }
    for file in ["cluster/info", "node/list", "node/info", "vdi/list", "config/status"] {
        assert_eq!(errno(mount.write(file, b"1")), refused, "{file}");
    }
}

#[test]
fn attaching_twice_is_success_and_one_volume() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let before = fs::metadata(mount.volume(&disk)).unwrap();
    mount.attach(&disk);
    assert_eq!(fs::read_dir(mount.path("volume")).unwrap().count(), 1);
    assert_eq!(fs::metadata(mount.volume(&disk)).unwrap().ino(), before.ino());
}

#[test]
fn an_open_volume_stays_attached() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    let open = File::open(mount.volume(&disk)).unwrap();
    assert_eq!(errno(mount.write("vdi/unmount", disk.as_bytes())), Some(Errno::EBUSY));
    assert!(mount.volume(&disk).exists());
    drop(open);
    mount.detach(&disk);
}

#[test]
fn the_caches_are_switched_and_shown() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &["-k"]);
    assert_eq!(mount.read("config/page_cache"), "1\n");
    assert_eq!(mount.read("config/object_cache"), "0\n");
    for file in ["config/page_cache", "config/object_cache"] {
        for (word, shown) in [("0", "0\n"), ("1\n", "1\n"), (" 0 \n", "0\n"), ("1", "1\n")] {
            mount.write(file, word.as_bytes()).unwrap();
            assert_eq!(mount.read(file), shown, "{file}");
        }
    }
    let mount = Mount::start(&cluster, &["-o"]);
    assert_eq!(mount.read("config/page_cache"), "0\n");
    assert_eq!(mount.read("config/object_cache"), "1\n");
}

#[test]
fn the_status_tells_the_last_error_in_words() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    assert_eq!(mount.status("sheep").as_deref(), Some(cluster.address()));
    assert_eq!(mount.count("volumes"), 1);
    assert_eq!(errno(mount.write("vdi/mount", b"no-such-vdi")), Some(Errno::ENOENT));
    let words = mount.status("last_error").unwrap();
    assert!(words.contains("no-such-vdi"), "{words}");
}

#[test]
fn a_snapshot_is_attached_by_tag_or_number_and_cannot_be_written() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    cluster.snapshot(&disk, "before");
    let mount = Mount::start(&cluster, &[]);
    for name in [format!("{disk}:before"), format!("{disk}:1")] {
        mount.attach(&name);
        let path = mount.volume(&name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
        assert_eq!(fs::read(&path).unwrap().len(), 1 << 20);
        let opened = File::options().write(true).open(&path);
        assert_eq!(errno(opened), Some(Errno::EROFS), "{name}");
        mount.detach(&name);
    }
}

#[test]
fn a_bare_name_is_the_working_vdi_also_when_snapshots_exist() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::with_volume(&cluster, &disk, &[]);
    mount.open(&disk).write_all_at(b"old", 5).unwrap();
    mount.detach(&disk);
    cluster.snapshot(&disk, "one");
    mount.attach(&disk);
    mount.open(&disk).write_all_at(b"new", 5).unwrap();
    mount.attach(&format!("{disk}:one"));
    let text = |name: &str| fs::read(mount.volume(name)).unwrap()[5..8].to_vec();
    assert_eq!(text(&disk), b"new");
    assert_eq!(text(&format!("{disk}:one")), b"old");
    mount.reattach(&disk);
    assert_eq!(text(&disk), b"new");
}

#[test]
fn random_bytes_do_no_harm() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", MIB);
    let mount = Mount::start(&cluster, &[]);
    let mut random = Random::announced();
    for file in WRITABLE {
        for _ in 0..1000 {
            // Often short, sometimes longer than any name, now and then of letters only.
            let limit = [4, 300, 5000][usize::try_from(random.within(0..3)).unwrap()];
            let len = usize::try_from(random.within(0..limit)).unwrap();
            let mut bytes = random.bytes(len);
            if random.within(0..2) == 0 {
                bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
            }
            let failed = errno(mount.write(file, &bytes));
            let refused = [Errno::EINVAL, Errno::ENOENT].map(Some);
            assert!(failed.is_none() || refused.contains(&failed), "{file} {bytes:?}: {failed:?}");
        }
    }
    mount.attach(&disk);
    assert_eq!(fs::read(mount.volume(&disk)).unwrap().len(), 1 << 20);
    assert!(mount.read("cluster/info").starts_with("Cluster status: running"));
}

#[test]
fn what_cannot_be_used_is_refused_as_not_supported() {
    let cluster = Cluster::start();
    // Larger than any hyper volume can be.
    let size = (1 << 54) + KIB;
    let hyper = cluster.hyper("hyper", &NewVdi { size, ..NewVdi::default() });
    let mount = Mount::start(&cluster, &[]);
    assert_eq!(errno(mount.write("vdi/mount", hyper.as_bytes())), Some(Errno::EOPNOTSUPP));
    // Larger than an index of 4 MiB blocks can name.
    let large = cluster.vdi("large", (4 << 40) + KIB);
    assert_eq!(errno(mount.write("vdi/mount", large.as_bytes())), Some(Errno::EOPNOTSUPP));
    // The lock that the attempt took is given back.
    let vid = cluster.wire().vid(&large);
    assert!(cluster.wire().lock(&large).is_success());
    cluster.wire().release(vid);
}

#[test]
fn a_second_mount_point_and_bad_ones_are_refused_in_words() {
    let cluster = Cluster::start();
    let mount = Mount::start(&cluster, &[]);
    let missing = mount.scratch().join("missing");
    let file = mount.scratch().join("file");
    fs::write(&file, "").unwrap();
    for (point, words) in
        [(missing, "does not exist"), (file, "not a directory"), (mount.path(""), "mount")]
    {
        let result = output(Command::new(env!("CARGO_BIN_EXE_sheepfs")).args([
            "-f",
            "--address",
            cluster.address(),
            arg(&point),
        ]));
        assert_eq!(result.status.code(), Some(64), "{}", result.stderr);
        assert!(result.stderr.contains(words), "{}", result.stderr);
    }
    run("ls", &[arg(&mount.path(""))]);
}
