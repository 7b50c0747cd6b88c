//! A real mount of /dev/fuse, driven by ordinary system calls and programs, over
//! a worker that is a `Vec<u8>` and a control loop of a few lines.

mod control;
mod left_open;
mod refused;
mod volumes;

use super::*;
use crate::census::{Census, found};
use crate::datapath::Pace;
use crate::events::fuse_errno;
use crate::fake::{self, FakeWorker};
use crate::link::Link;
use crate::mount::{Mount, MountOptions, MountPoint, SOURCE, Unmounted};
use crate::session::Session;
use crate::state::State;
use crate::texts::CONTROL_OPEN;
use crate::volumes::{Volume, Volumes};
use sheepfs::ipc::arena::ARENA_LEN;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use tempfile::TempDir;

/// The size of the disk; no multiple of a page.
const DISK_LEN: u64 = 8 << 20 | 1536;

/// A mount. Files on it must be closed before this is dropped.
struct Rig {
    dir: TempDir,
    mount: Mount,
    shared: Arc<Shared>,
    data: Arc<DataPath<ParkedReply>>,
    texts: Arc<Texts>,
    link: Arc<Link>,
    worker: Option<FakeWorker>,
    threads: Vec<JoinHandle<()>>,
    lines: Receiver<String>,
}

impl Rig {
    /// With a worker that serves.
    fn new() -> Self {
        let mut rig = Self::silent();
        rig.wake_worker();
        rig
    }

    /// With a worker that says nothing yet.
    fn silent() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Arc::new(Volumes::default());
        volumes.add(fake::volume(1, "disk", DISK_LEN, false));
        volumes.add(fake::volume(2, "disk:old", DISK_LEN, true));
        let sheep = "127.0.0.1:7000".parse().unwrap();
        let shared = Arc::new(Shared::alone(sheep, volumes));
        let (tell, told) = channel();
        let filesystem = SheepFs {
            shared: shared.clone(),
            data: Arc::default(),
            texts: Arc::default(),
            uniques: Arc::default(),
            handles: Arc::new(Handles::new(
                shared.volumes().clone(),
                State::create().unwrap().handles(),
            )),
            events: Events(tell),
            look: Look::of_user(0, 0),
        };
        let (data, texts) = (filesystem.data.clone(), filesystem.texts.clone());
        let events = filesystem.events.clone();
        let (link, worker) = fake::link(1, ARENA_LEN, usize::try_from(DISK_LEN).unwrap());
        data.connect(link.clone(), Pace::All);
        let point = MountPoint::check(dir.path()).unwrap();
        let options =
            MountOptions { source: SOURCE.to_owned(), allow_other: true, read_only: false };
        let (mount, device) = Mount::new(&point, &options).unwrap();
        let (session, _) = Session::start(&device, filesystem).unwrap();
        mount.raise_read_ahead().unwrap();
        drop(device);
        let (line, lines) = channel();
        let control = Control { texts: texts.clone(), line };
        let threads = vec![
            session.serve(events.clone()).unwrap(),
            spawn({
                let (link, data) = (link.clone(), data.clone());
                move || link.run(&data, &events)
            }),
            spawn(move || assert!(told.into_iter().any(|event| control.ends_with(event)))),
        ];
        let worker = Some(worker);
        Self { dir, mount, shared, data, texts, link, worker, threads, lines }
    }

    fn wake_worker(&mut self) {
        let worker = self.worker.take().unwrap();
        self.threads.push(spawn(move || drop(worker.serve_all().join())));
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn disk(&self) -> PathBuf {
        self.path("volume/disk")
    }

    fn volume(&self) -> Arc<Volume> {
        self.shared.volumes().by_name("disk").unwrap()
    }

    /// The output of a shell command that finds the mount in `$M`.
    fn sh(&self, script: &str) -> String {
        let output = Command::new("sh").args(["-ec", script]).env("M", self.dir.path()).output();
        let output = output.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.data.fail_all();
        self.worker = None;
        self.link.hang_up();
        let left_open = left_open::below(self.dir.path());
        let ended = self.mount.unmount();
        if left_open.is_empty() {
            // Also until children that other tests have just started have let go.
            for thread in self.threads.drain(..) {
                thread.join().unwrap();
            }
        }
        if !std::thread::panicking() {
            assert!(left_open.is_empty(), "is still open: {left_open:?}");
            assert_ne!(ended.unwrap(), Unmounted::Gone, "somebody else has unmounted");
        }
    }
}

/// A control loop: reports say what they are, lines are passed on and accepted,
/// but for `refuse`.
struct Control {
    texts: Arc<Texts>,
    line: std::sync::mpsc::Sender<String>,
}

impl Control {
    /// Whether the mount has ended.
    fn ends_with(&self, event: Event) -> bool {
        match event {
            Event::OpenReport { file, handle, reply, .. } => {
                // Long enough to take several reads.
                let text = format!("{file:?}\n").repeat(20_000);
                self.texts.open(handle, text);
                reply.opened(handle, CONTROL_OPEN);
            }
            Event::ControlWrite { file, bytes, reply, .. } => {
                let text = String::from_utf8_lossy(&bytes);
                self.line.send(format!("{file:?} {}", text.trim())).unwrap();
                match text.trim() {
                    "refuse" => reply.error(fuse_errno(nix::errno::Errno::EHOSTUNREACH)),
                    _ => reply.written(u32::try_from(bytes.len()).unwrap()),
                }
            }
            Event::Grow { volume, size, reply, look, .. } => {
                volume.set_facts(sheepfs::ipc::VolumeFacts { size, ..volume.facts() });
                reply.attr(&crate::attr::volume_ttl(&volume), &look.of_volume(&volume));
            }
            // One VDI with one snapshot, whatever is asked for.
            Event::Browse { browse, .. } => {
                let vdis = vec![found(7, b"vm", 1), found(9, b"vm", 0)];
                browse.complete(&Census::new(vdis), &self.texts);
            }
            Event::StatFs { reply, .. } => reply.statfs(1000, 400, 400, 0, 0, 4096, 255, 4096),
            Event::Unmounted => return true,
            Event::WorkerBroken { .. } | Event::WorkerGone { .. } | Event::Closed => {}
            other => panic!("{other:?}"),
        }
        false
    }
}

fn spawn(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(run)
}
