//! The tree and its control files, as programs see them.

use super::*;
use std::fs::{File, OpenOptions, read, read_dir, read_to_string, write};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

fn line(rig: &Rig) -> String {
    rig.lines.recv_timeout(Duration::from_secs(60)).unwrap()
}

#[test]
fn the_tree_is_listed_and_every_name_in_it_is_there() {
    let rig = Rig::new();
    let listed = rig.sh("cd $M; find . | LC_ALL=C sort | tr '\\n' ' '");
    assert_eq!(
        listed,
        ". ./cluster ./cluster/info ./config ./config/object_cache ./config/page_cache \
         ./config/route ./config/sheep_info ./config/status ./node ./node/info ./node/list ./vdi \
         ./vdi/clone ./vdi/create ./vdi/delete ./vdi/list ./vdi/mount ./vdi/resize ./vdi/rollback \
         ./vdi/snapshot \
         ./vdi/tree ./vdi/tree/vm ./vdi/tree/vm/1 ./vdi/tree/vm/1/block_size_shift \
         ./vdi/tree/vm/1/copies ./vdi/tree/vm/1/created ./vdi/tree/vm/1/frozen ./vdi/tree/vm/1/id \
         ./vdi/tree/vm/1/parent ./vdi/tree/vm/1/shared ./vdi/tree/vm/1/size ./vdi/tree/vm/1/tag \
         ./vdi/tree/vm/1/used ./vdi/tree/vm/1/vid ./vdi/tree/vm/block_size_shift \
         ./vdi/tree/vm/copies ./vdi/tree/vm/created ./vdi/tree/vm/frozen ./vdi/tree/vm/id \
         ./vdi/tree/vm/parent ./vdi/tree/vm/shared ./vdi/tree/vm/size ./vdi/tree/vm/tag \
         ./vdi/tree/vm/used ./vdi/tree/vm/vid ./vdi/unmount ./volume ./volume/disk ./volume/disk:old "
    );
    for entry in read_dir(rig.path("volume")).unwrap().map(Result::unwrap) {
        use std::os::unix::fs::DirEntryExt;
        assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
    }
    assert!(rig.path("volume/..").join("cluster").is_dir());
    assert!(!rig.path("volume/none").exists());
    assert_eq!(
        rig.sh("cat $M/vdi/tree/vm/vid $M/vdi/tree/vm/1/vid $M/vdi/tree/vm/1/id"),
        "9\n7\n1\n"
    );
    // Of what is there each directory has all; of what is not, a directory knows.
    for none in ["vdi/tree/none", "vdi/tree/vm/2", "vdi/tree/vm/1/1", "vdi/tree/vm/01"] {
        assert!(!rig.path(none).exists(), "{none}");
    }
}

/// What is read is what there is, whoever reads: the files announce no size.
#[test]
fn every_program_reads_reports_whole() {
    let rig = Rig::new();
    let text = "Nodes\n".repeat(20_000);
    let path = rig.path("node/list");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert_eq!(read_to_string(&path).unwrap(), text);
    for command in [
        "cat $M/node/list",
        "cp $M/node/list $T/copy; cat $T/copy",
        "dd if=$M/node/list bs=1000 status=none",
        "grep Nodes $M/node/list",
        "head -c 120000 $M/node/list",
        "tail -n +1 $M/node/list",
        "cat < $M/node/list",
        "python3 -c 'import sys; sys.stdout.write(open(sys.argv[1]).read())' $M/node/list",
        "python3 -c 'import os, sys; sys.stdout.write(os.read(os.open(sys.argv[1], 0), 1 << 20).decode())' $M/node/list",
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let command = command.replace("$T", scratch.path().to_str().unwrap());
        assert!(rig.sh(&command) == text, "{command}");
    }
    assert_eq!(rig.sh("wc -c < $M/node/list").trim(), "120000");
    assert_eq!(rig.sh("head -c 7 $M/cluster/info"), "Cluster");
    assert_eq!(rig.sh("head -n 1 $M/node/info"), "Space\n");
    assert_eq!(rig.sh("tail -c 5 $M/vdi/list"), "Vdis\n");
}

#[test]
fn an_open_text_stays_and_is_let_go() {
    let rig = Rig::new();
    let mut file = File::open(rig.path("config/page_cache")).unwrap();
    rig.shared.set_page_cache(true);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "0\n");
    file.seek(SeekFrom::Start(1)).unwrap();
    text.clear();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\n");
    assert_eq!(rig.texts.len(), 1);
    drop(file);
    assert_eq!(read(rig.path("config/page_cache")).unwrap(), b"1\n");
    // The kernel tells of the last close in its own time.
    while rig.texts.len() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn lines_arrive_whole_and_an_error_has_its_number() {
    let rig = Rig::new();
    write(rig.path("vdi/mount"), "one\n").unwrap();
    assert_eq!(line(&rig), "Mount one");
    rig.sh(
        "echo two > $M/vdi/mount; printf three >> $M/vdi/unmount; echo 1 > $M/config/page_cache",
    );
    assert_eq!([line(&rig), line(&rig), line(&rig)], ["Mount two", "Unmount three", "PageCache 1"]);
    rig.sh("{ echo four; echo five; } > $M/vdi/mount; echo 0 | tee $M/config/object_cache");
    assert_eq!([line(&rig), line(&rig), line(&rig)], ["Mount four", "Mount five", "ObjectCache 0"]);
    rig.sh("printf ' six ' | dd of=$M/vdi/mount status=none; echo [::1]:7 > $M/config/sheep_info");
    assert_eq!([line(&rig), line(&rig)], ["Mount six", "SheepInfo [::1]:7"]);
    let refused = write(rig.path("vdi/mount"), "refuse").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(nix::libc::EHOSTUNREACH));
    assert_eq!(line(&rig), "Mount refuse");
    let long = write(rig.path("vdi/mount"), "x".repeat(5000)).unwrap_err();
    let said = read_to_string(rig.path("config/status")).unwrap();
    assert!(said.contains("write 5000 bytes to vdi/mount: a line has at most 4096"), "{said}");
    assert_eq!(long.raw_os_error(), Some(nix::libc::EINVAL));
    assert!(rig.lines.try_recv().is_err());
}

/// Root too, whom the kernel lets past the modes.
#[test]
fn nothing_is_opened_for_more_than_its_mode_says() {
    let rig = Rig::new();
    let refused = |options: &OpenOptions, name: &str| {
        assert_eq!(
            options.open(rig.path(name)).unwrap_err().raw_os_error(),
            Some(nix::libc::EACCES)
        );
    };
    for name in ["cluster/info", "config/status", "vdi/list"] {
        refused(OpenOptions::new().write(true), name);
        assert_eq!(std::fs::metadata(rig.path(name)).unwrap().mode(), 0o100_444);
    }
    for name in ["vdi/mount", "vdi/unmount"] {
        refused(OpenOptions::new().read(true), name);
        refused(OpenOptions::new().read(true).write(true), name);
        assert_eq!(std::fs::metadata(rig.path(name)).unwrap().mode(), 0o100_200);
    }
    OpenOptions::new().read(true).write(true).open(rig.path("config/page_cache")).unwrap();
    OpenOptions::new().read(true).write(true).open(rig.path("config/sheep_info")).unwrap();
    assert_eq!(std::fs::metadata(rig.path("config/sheep_info")).unwrap().mode(), 0o100_600);
}

#[test]
fn df_shows_the_space_that_the_control_loop_says() {
    let rig = Rig::new();
    let line = rig.sh("df -B1 --output=size,avail,target $M | tail -1");
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields[..2], ["4096000", "1638400"]);
}

/// Hazard 29: a child with the device would keep the connection from ending.
#[test]
fn no_child_inherits_the_device_or_the_arena() {
    let rig = Rig::new();
    let open = rig.sh("ls -l /proc/self/fd");
    assert!(open.contains("-> /proc/"), "{open}");
    for kept in ["/dev/fuse", "memfd:", "socket:", "eventfd"] {
        assert!(!open.contains(kept), "{open}");
    }
}
