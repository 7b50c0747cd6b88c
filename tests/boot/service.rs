//! The shipped unit, started on /mnt/sheep of a [`System`].

use crate::systemd::System;
use crate::systemd::process::{name_of, started_at};
use crate::tools::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The instance's name.
pub const UNIT: &str = "sheepfs@mnt-sheep.service";
/// Where its options are.
pub const CONFIGURATION: &str = "/etc/sheepfs/mnt-sheep.conf";
/// What that name means.
pub const POINT: &str = "/mnt/sheep";

/// The unit on a system.
#[derive(Debug)]
pub struct Service<'a> {
    /// Where it runs.
    pub system: &'a System,
}

impl<'a> Service<'a> {
    /// Writes the instance's configuration: the sheep's address, and more options.
    pub fn configure(system: &'a System, address: &str, options: &[&str]) -> Self {
        let options = options.join(" ");
        let line = format!("SHEEPFS_OPTIONS=\"--address {address} {options}\"\n");
        system.write(CONFIGURATION, &line);
        Self { system }
    }

    /// Starts one that serves `volume`.
    pub fn start(system: &'a System, address: &str, volume: &str) -> Self {
        let service = Self::configure(system, address, &["--attach", volume]);
        service.start_again(volume);
        service
    }

    /// Starts it, with the configuration that is there.
    pub fn start_again(&self, volume: &str) {
        self.systemctl("start");
        wait_for("the volume", || self.volume(volume).exists());
    }

    /// Has `systemctl` do something to the unit, which must succeed.
    pub fn systemctl(&self, verb: &str) {
        self.system.succeed(&["systemctl", verb, UNIT]);
    }

    /// As [`Service::systemctl`], for a verb with options.
    pub fn systemctl_with(&self, verb: &[&str]) {
        self.system.succeed(&[&["systemctl"], verb, &[UNIT]].concat());
    }

    /// Adds a drop-in to the unit.
    pub fn amend(&self, section: &str) {
        let file = "/etc/systemd/system/sheepfs@.service.d/test.conf";
        self.system.write(file, section);
        self.system.succeed(&["systemctl", "daemon-reload"]);
    }

    /// The file of an attached volume, as it is seen from outside.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.system.path(POINT).join("volume").join(name)
    }

    /// Opens a volume for reading and writing.
    pub fn open(&self, name: &str) -> File {
        File::options().read(true).write(true).open(self.volume(name)).unwrap()
    }

    /// What systemd knows of it.
    pub fn property(&self, name: &str) -> String {
        self.system.property(UNIT, name)
    }

    /// What `config/status` says of `key`.
    pub fn status(&self, key: &str) -> Option<String> {
        let file = self.system.path(POINT).join("config/status");
        let status = fs::read_to_string(file).unwrap();
        let mut pairs = status.lines().filter_map(|line| line.split_once(' '));
        pairs.find(|(found, _)| *found == key).map(|(_, value)| value.to_owned())
    }

    /// The number that `config/status` gives for `key`.
    ///
    /// # Panics
    /// When it gives none.
    pub fn count(&self, key: &str) -> u64 {
        let value = self.status(key);
        let number = value.as_ref().and_then(|value| value.parse().ok());
        number.unwrap_or_else(|| panic!("no number for {key}: {value:?}"))
    }

    /// The supervisor's process.
    ///
    /// # Panics
    /// When there is none.
    pub fn supervisor(&self) -> Pid {
        let process = self.system.main_process(UNIT);
        process.unwrap_or_else(|| panic!("no supervisor, but {}", self.property("SubState")))
    }

    /// Waits until another process than `before` is the supervisor.
    pub fn wait_for_another_than(&self, before: Pid) {
        wait_for("another supervisor", || {
            self.system.main_process(UNIT).is_some_and(|process| process != before)
        });
    }

    /// When it last was active no longer, to be stopped or restarted.
    pub fn left_at(&self) -> Instant {
        let micros = self.property("ActiveExitTimestampMonotonic").parse().unwrap();
        assert!(micros > 0, "never");
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        Instant::now() - (now - Duration::from_micros(micros))
    }

    /// Kills the worker as `kill -9` does, as soon as there is one: the eldest, since a spare
    /// one was started after it.
    pub fn kill_worker(&self) {
        wait_for("a worker that can be killed", || {
            let mut workers = self.system.processes_of(UNIT);
            workers.retain(|pid| name_of(*pid) == "sheepfs-worker");
            let worker = workers.into_iter().min_by_key(|pid| started_at(*pid));
            worker.is_some_and(|pid| kill(pid, Signal::SIGKILL).is_ok())
        });
    }

    /// How many descriptors systemd holds for it.
    pub fn stored(&self) -> u64 {
        self.property("NFileDescriptorStore").parse().unwrap()
    }

    /// The mount, as mountinfo has it.
    ///
    /// # Panics
    /// Unless there is one, and only one.
    pub fn mount(&self) -> MountLine {
        match &self.system.mounts_at(POINT)[..] {
            [line] => MountLine::read(line),
            other => panic!("one mount is wanted: {other:?}"),
        }
    }

    /// Fails the test unless the service has ended as it should: by itself, with success, and
    /// leaving no mount, no process and nothing that hangs.
    pub fn assert_ended(&self) {
        assert_eq!(self.property("ActiveState"), "inactive");
        // A stop that exceeds its time-out is a failure, with another result.
        assert_eq!(self.property("Result"), "success");
        assert_eq!(self.property("ExecMainStatus"), "0");
        assert_eq!(self.stored(), 0);
        assert_eq!(self.system.mounts_at(POINT), [""; 0]);
        assert_eq!(self.system.processes_of(UNIT), []);
        // Anybody may wait for a disk for a moment.
        wait_for("no process in state D", || self.system.uninterruptible().is_empty());
    }
}

/// What tells one mount from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    /// The mount's id.
    pub id: String,
    /// The device's minor number, which is the connection's name in fusectl.
    pub connection: String,
}

impl MountLine {
    fn read(line: &str) -> Self {
        assert!(line.contains(" - fuse.sheepfs "), "{line}");
        let mut words = line.split(' ');
        let id = words.next().unwrap().to_owned();
        let (_, connection) = words.nth(1).unwrap().split_once(':').unwrap();
        Self { id, connection: connection.to_owned() }
    }
}
