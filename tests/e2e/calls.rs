//! Every system call on every kind of file. None may be answered ENOSYS by sheepfs: the kernel
//! remembers that for the life of the mount, across upgrades, and hides it from programs. So it
//! is not the programs' errors that are looked at here, but the replies that sheepfs writes to
//! /dev/fuse, through strace.

use crate::MIB;
use crate::cluster::Cluster;
use crate::mount::Mount;
use crate::tools::{arg, output, start, wait_for};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The calls that Python knows; each is tried on the paths given, and its failure is not ours
/// to judge. A hole at the end is not left out: some calls work only on some files.
const SCRIPT: &str = r#"
import fcntl, os, select, stat, struct, sys

def attempt(call, *args):
    try:
        return call(*args)
    except OSError as error:
        print(call.__name__, args[:1], error.strerror)

def calls_on_path(path, flags):
    for call in (os.stat, os.lstat, os.statvfs, os.listxattr, os.readlink):
        attempt(call, path)
    for mode in (os.R_OK, os.W_OK, os.X_OK):
        attempt(os.access, path, mode)
    attempt(os.getxattr, path, "user.sheepdog.vid")
    attempt(os.getxattr, path, "security.capability")
    attempt(os.getxattr, path, "system.posix_acl_access")
    attempt(os.setxattr, path, "user.x", b"1")
    attempt(os.removexattr, path, "user.x")
    attempt(os.chmod, path, 0o600)
    attempt(os.chown, path, 0, 0)
    attempt(os.utime, path)
    attempt(os.link, path, path + ".link")
    attempt(os.rename, path, path + ".new")
    file = attempt(os.open, path, flags)
    if file is not None:
        calls_on_file(file)
        attempt(os.close, file)

def calls_on_file(file):
    attempt(os.fstat, file)
    attempt(os.read, file, 4096)
    attempt(os.pread, file, 4096, 8192)
    attempt(os.pwrite, file, b"x", 0)
    for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE):
        attempt(os.lseek, file, 0, whence)
    attempt(os.fsync, file)
    attempt(os.fdatasync, file)
    attempt(os.posix_fallocate, file, 0, 4096)
    attempt(os.posix_fadvise, file, 0, 0, os.POSIX_FADV_DONTNEED)
    attempt(os.copy_file_range, file, file, 4096, 0, 65536)
    attempt(os.sendfile, file, file, 0, 4096)
    attempt(os.ftruncate, file, 4096)
    attempt(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    attempt(fcntl.flock, file, fcntl.LOCK_UN)
    attempt(fcntl.lockf, file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    attempt(fcntl.lockf, file, fcntl.LOCK_UN)
    room = bytearray(64)
    for request in (0x5401, 0x80081272, 0x80086601, 0x40086602, 0xc020660b, 0x5421, 0x1277, 0x40049409):
        attempt(fcntl.ioctl, file, request, room)
    poll = select.poll()
    poll.register(file, select.POLLIN | select.POLLOUT)
    attempt(poll.poll, 0)

def calls_on_dir(path):
    attempt(os.mkdir, path + "/new")
    attempt(os.mknod, path + "/new", stat.S_IFREG | 0o600)
    attempt(os.mknod, path + "/fifo", stat.S_IFIFO | 0o600)
    attempt(os.mknod, path + "/dev", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    attempt(os.symlink, "x", path + "/new")
    attempt(os.unlink, path + "/new")
    attempt(os.rmdir, path + "/new")
    attempt(os.open, path + "/new", os.O_CREAT | os.O_RDWR, 0o600)
    attempt(os.open, path, os.O_TMPFILE | os.O_RDWR, 0o600)
    attempt(os.listdir, path)

root, volume = sys.argv[1:]
for top, dirs, files in os.walk(root):
    calls_on_path(top, os.O_RDONLY | os.O_DIRECTORY)
    calls_on_dir(top)
    for name in files:
        path = os.path.join(top, name)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_DIRECT):
            calls_on_path(path, flags)
os.sync()
"#;

/// Requests that the fuser crate does not know and answers itself, before sheepfs sees them:
/// TMPFILE, STATX and COPY_FILE_RANGE_64, as `linux/fuse.h` numbers them. The kernel then goes on
/// as it did before it had them, and sheepfs offers nothing of theirs. None other may be added.
const UNKNOWN_TO_FUSER: [u8; 3] = [51, 52, 53];

/// The modes of fallocate, which Python does not know.
const FALLOCATE: [&[&str]; 6] = [
    &["--length", "4096"],
    &["--keep-size", "--length", "4096"],
    &["--punch-hole", "--length", "4096"],
    &["--zero-range", "--length", "4096"],
    &["--collapse-range", "--length", "4096"],
    &["--insert-range", "--length", "4096"],
];

#[test]
fn no_call_is_answered_enosys() {
    let cluster = Cluster::start();
    let disk = cluster.vdi("disk", 8 * MIB);
    cluster.snapshot(&disk, "before");
    let mount = Mount::with_volume(&cluster, &disk, &["--allow-other"]);
    mount.attach(&format!("{disk}:before"));
    let log = mount.scratch().join("strace");
    let mut strace = trace(mount.supervisor(), &log);
    let volume = mount.volume(&disk);

    output(Command::new("python3").args(["-c", SCRIPT, arg(&mount.path("")), arg(&volume)]));
    for mode in FALLOCATE {
        output(Command::new("fallocate").args(mode).arg(&volume));
    }
    // Asks for the time of birth, which only statx tells.
    output(Command::new("stat").args(["--format=%w"]).arg(&volume));
    // Acts through statx, renameat2 and FS_IOC_FSGETXATTR, each with flags of its own.
    output(Command::new("mv").args(["--exchange", arg(&volume), arg(&mount.path("vdi/list"))]));
    output(Command::new("lsattr").arg(&volume));
    output(Command::new("sync").args(["--file-system", arg(&volume)]));
    // The last call of all, known by its errno: when it is in the trace, all is.
    output(Command::new("mkdir").arg(mount.path("last")));

    kill(Pid::from_raw(strace.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    let replies = fs::read_to_string(&log).unwrap();
    let refused: Vec<_> = replies.lines().filter(|line| is_reply(line, Errno::EPERM)).collect();
    assert!(refused.len() > 20, "the trace misses what was refused:\n{replies}");
    let unknown: BTreeSet<_> = replies
        .lines()
        .filter(|line| is_reply(line, Errno::ENOSYS))
        .map(|reply| opcode_of(reply, &replies))
        .filter(|opcode| !UNKNOWN_TO_FUSER.contains(opcode))
        .collect();
    assert!(unknown.is_empty(), "these FUSE opcodes were answered ENOSYS: {unknown:?}");
    assert!(mount.volume(&disk).exists());
}

/// Attaches strace to all threads of a process, and waits until it has them.
fn trace(process: Pid, log: &Path) -> Child {
    let words = log.with_extension("stderr");
    let child = start(
        Command::new("strace")
            .args(["-f", "-xx", "-s", "16", "-e", "trace=read,write,writev", "-o", arg(log)])
            .args(["-p", &process.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&words).unwrap()),
    );
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().count();
    wait_for("strace", || {
        let said = fs::read_to_string(&words).unwrap();
        said.contains(&format!("attached with {threads} threads"))
            || said.matches(" attached").count() >= threads
    });
    child
}

/// The opcode of a reply's request: the second four bytes of what was read. The eight bytes
/// after it, in request and reply, tell which belong together.
fn opcode_of(reply: &str, trace: &str) -> u8 {
    let words = reply.split_once("\"\\x10").unwrap().1;
    let unique = &words[4 * 7..4 * 15];
    let request = trace.lines().find(|line| line.contains("read") && line.contains(unique));
    let (_, bytes) = request.unwrap().split_once('"').unwrap();
    u8::from_str_radix(&bytes[4 * 4 + 2..4 * 5], 16).unwrap()
}

/// Whether a line of the trace writes a bare reply of that errno: 16 bytes, of which the second
/// four are the error, negative.
fn is_reply(line: &str, errno: Errno) -> bool {
    let code = (-(errno as i32)).to_le_bytes().map(|byte| format!("\\x{byte:02x}")).concat();
    line.contains(&format!("\"\\x10\\x00\\x00\\x00{code}"))
}
