//! The unit under the load of registers, and what must be so after whatever was done to it:
//! no error, no wrong block, the same mount, and descriptors that were open still are.

use crate::cluster::Cluster;
use crate::random::Random;
use crate::register::Registers;
use crate::register::plan::Plan;
use crate::service::{MountLine, Service};
use crate::systemd::System;
use crate::tools::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
/// Where no register of [`Plan::SHARED`] lies.
const BESIDE: u64 = 64 << 10;
const INSTANT_MAX: Duration = Duration::from_millis(40);

/// The unit under load.
pub struct Scene<'a> {
    /// The unit.
    pub service: &'a Service<'a>,
    /// Where random instants come from.
    pub random: Random,
    /// When what was done.
    faults: Vec<Instant>,
    load: Registers,
    disk: &'a str,
    /// Open since before the first fault.
    open: File,
    mount: MountLine,
}

/// Boots a system with the unit on a minisheep, and puts it under load; `row` names what `body`
/// then does to it.
pub fn under_load(row: &str, body: impl FnOnce(&mut Scene)) {
    let cluster = Cluster::mini();
    let address = cluster.address().to_owned();
    under_load_on(&cluster, &address, row, body);
}

/// As [`under_load`], on a cluster that is reached at `address`.
pub fn under_load_on(cluster: &Cluster, address: &str, row: &str, body: impl FnOnce(&mut Scene)) {
    let system = System::boot();
    let service = started_under_load(&system, cluster, address, row, body);
    service.systemctl("stop");
    service.assert_ended();
}

/// As [`under_load_on`], on a system that is there; the unit runs on without load.
pub fn started_under_load<'a>(
    system: &'a System,
    cluster: &Cluster,
    address: &str,
    row: &str,
    body: impl FnOnce(&mut Scene),
) -> Service<'a> {
    let disk = cluster.vdi("registers", Plan::SHARED.size());
    let service = Service::start(system, address, &disk);
    let mut scene = Scene::start(&service, &disk);
    body(&mut scene);
    scene.finish(row, cluster);
    service
}

impl<'a> Scene<'a> {
    fn start(service: &'a Service<'a>, disk: &'a str) -> Self {
        let open = service.open(disk);
        open.write_all_at(&[1; BLOCK], BESIDE).unwrap();
        Self {
            service,
            random: Random::announced(),
            faults: Vec::new(),
            load: Registers::start(&service.volume(disk), Plan::SHARED),
            disk,
            open,
            mount: service.mount(),
        }
    }

    /// Does `hit` at a random instant of the load.
    pub fn at_any_instant<T>(&mut self, hit: impl FnOnce(&Service) -> T) -> T {
        self.load.wait_for_progress();
        // Not to wait for anything, but so that a fault comes at any instant.
        let micros = self.random.within(0..INSTANT_MAX.as_micros() as u64);
        thread::sleep(Duration::from_micros(micros));
        self.faults.push(Instant::now());
        hit(self.service)
    }

    /// Does `hit`, after which another supervisor must serve the same mount.
    pub fn replaced_by(&mut self, hit: impl FnOnce(&Service)) {
        let before = self.service.supervisor();
        self.at_any_instant(hit);
        self.service.wait_for_another_than(before);
        self.check();
    }

    /// As [`Scene::replaced_by`], for what takes its time before it has systemd do that: the
    /// fault is when the supervisor was told to go.
    pub fn replaced_in_the_course_of(&mut self, work: impl FnOnce(&Service)) {
        let before = self.service.supervisor();
        self.load.wait_for_progress();
        work(self.service);
        self.service.wait_for_another_than(before);
        self.faults.push(self.service.left_at());
        self.check();
    }

    /// Fails the test unless all goes on as before.
    pub fn check(&self) {
        self.load.wait_for_progress();
        assert_eq!(self.service.mount(), self.mount);
    }

    /// The descriptor that was there first is as good as a new one.
    fn check_descriptors(&self) {
        let new = self.service.open(self.disk);
        assert_eq!(self.open.metadata().unwrap().ino(), new.metadata().unwrap().ino());
        let mut room = [0; BLOCK];
        self.open.read_exact_at(&mut room, BESIDE).unwrap();
        assert_eq!(room, [1; BLOCK]);
        self.open.write_all_at(&[2; BLOCK], BESIDE).unwrap();
        new.read_exact_at(&mut room, BESIDE).unwrap();
        assert_eq!(room, [2; BLOCK]);
        self.open.sync_all().unwrap();
    }

    fn finish(self, row: &str, cluster: &Cluster) {
        self.check();
        self.check_descriptors();
        let report = self.load.finish();
        report.print_stalls(row, &self.faults);
        let hit = self.faults.iter().filter(|fault| report.stall_at(**fault).is_some());
        assert!(hit.count() > 0, "no fault met a request");
        report.compare(&cluster.content(self.disk));
    }
}

/// Kills a process as `kill -9` does.
pub fn sigkill(process: Pid) {
    kill(process, Signal::SIGKILL).unwrap();
}

/// What differs between two programs that one process ran one after the other: an exec puts
/// everything to other addresses, and this file tells some of them.
pub fn image_of(process: Pid) -> Vec<u8> {
    fs::read(format!("/proc/{process}/auxv")).unwrap()
}

/// Waits until a process runs another program, or the same anew, than the one with that image.
pub fn wait_for_exec(process: Pid, image: &[u8]) {
    wait_for("a new image of the process", || {
        let now = image_of(process);
        !now.is_empty() && now != image
    });
}
