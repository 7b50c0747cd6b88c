//! The instrument: a systemd that would be the machine's own, or that left things behind, would
//! prove nothing and do harm.

use crate::systemd::System;
use std::fs;
use std::path::PathBuf;

/// Where this process finds the namespaces and the root directory that all share.
fn machine(what: &str) -> PathBuf {
    fs::read_link(format!("/proc/self/{what}")).unwrap()
}

#[test]
fn it_is_a_systemd_of_its_own() {
    let system = System::boot();
    let ours = |what: &str| fs::read_link(format!("/proc/{}/{what}", system.init())).unwrap();
    for private in ["ns/mnt", "ns/pid", "ns/cgroup", "ns/uts", "ns/ipc"] {
        assert_ne!(ours(private), machine(private), "{private}");
    }
    assert_eq!(ours("ns/net"), machine("ns/net"), "sheep on loopback must be reached");
    assert_eq!(system.succeed(&["readlink", "/proc/1/exe"]).trim(), "/usr/lib/systemd/systemd");
    let groups = system.succeed(&["cat", "/proc/1/cgroup"]);
    assert!(groups.lines().any(|line| line == "0::/init.scope"), "{groups}");
    let failed = system.succeed(&["systemctl", "list-units", "--failed", "--no-legend"]);
    assert_eq!(failed, "");
}

#[test]
fn what_it_writes_is_not_the_machines() {
    let system = System::boot();
    let path = "/usr/lib/systemd/sheepfs-test-was-here";
    system.write(path, "yes");
    assert_eq!(system.succeed(&["cat", path]), "yes");
    assert!(!fs::exists(path).unwrap());
    let sysctl = system.run(&["sh", "-c", "echo 1 >/proc/sys/fs/nr_open"]);
    assert!(!sysctl.status.success(), "the kernel's settings are everybody's");
}

#[test]
fn services_run_and_the_journal_has_their_words() {
    let system = System::boot();
    let run = ["systemd-run", "--unit=speaker", "--property=Type=oneshot", "--remain-after-exit"];
    system.succeed(&[&run[..], &["echo", "a word for the journal"]].concat());
    system.succeed(&["journalctl", "--sync"]);
    assert!(system.journal("speaker.service").contains("a word for the journal\n"));
    assert_eq!(system.property("speaker.service", "MainPID"), "0");
    assert_eq!(system.main_process("speaker.service"), None);
    system.succeed(&["systemd-run", "--unit=sleeper", "--property=Type=exec", "sleep", "infinity"]);
    let process = system.main_process("sleeper.service").unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{process}/comm")).unwrap(), "sleep\n");
    assert_eq!(system.processes_of("sleeper.service"), [process]);
    assert_eq!(system.uninterruptible(), []);
}

/// What goes with it: its processes, its control groups and its directory; its mounts go with
/// the last process that is in their namespace, which its end waits for.
#[test]
fn nothing_is_left_of_it() {
    let system = System::boot();
    let traces = [system.scratch().to_owned(), system.control_group().to_owned()];
    system.succeed(&["systemd-run", "--unit=sleeper", "sleep", "infinity"]);
    let process = system.main_process("sleeper.service").unwrap();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(traces.iter().all(|trace| trace.exists()));
    let leaks = |mounts: &str| mounts.contains(traces[0].to_str().unwrap());
    assert!(!leaks(&mounts()), "its mounts are seen outside");
    drop(system);
    assert!(!traces.iter().any(|trace| trace.exists()), "{traces:?}");
    assert!(!fs::exists(format!("/proc/{process}")).unwrap());
    assert!(!leaks(&mounts()));
}
