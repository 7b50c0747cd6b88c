//! The shell of the control loop: events in, deeds out. It decides nothing.
//!
//! It runs on the main thread, which lives as long as the process, since the
//! children's parent-death signals are bound to the thread that started them
//! (hazard 33). The only things it waits for are the next event or deadline, and
//! at the very end the worker.

use super::parked::Parked;
use super::waits::Caller;
use super::{Control, Effect, Input, Wishes};
use crate::attr::Look;
use crate::background;
use crate::datapath::{DataPath, ParkedReply};
use crate::events::{Event, Events};
use crate::exit::Failed;
use crate::fs::SheepFs;
use crate::link::Link;
use crate::mount::{Mount, MountOptions, MountPoint};
use crate::session::Session;
use crate::settings::Shared;
use crate::spawn::{SpawnError, Worker};
use crate::texts::Texts;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often it looks whether data in flight has come to its end.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// How long the end waits for an unmounting whose data is cut off.
const UNMOUNT_TIME: Duration = Duration::from_secs(2);
/// How long the worker may take to end by itself.
const WORKER_STOP_SECONDS: u64 = 5;

/// What the shell works with.
#[derive(Debug)]
pub struct Parts {
    /// The facts that all threads share.
    pub shared: Arc<Shared>,
    /// The way into the loop.
    pub events: Events,
    /// The worker's process.
    pub worker: Worker,
    /// Where to mount.
    pub point: MountPoint,
    /// How to mount.
    pub options: MountOptions,
    /// Whose the files are.
    pub look: Look,
    /// Whether somebody waits to be told that the mount is ready.
    pub in_background: bool,
}

/// The shell.
#[derive(Debug)]
pub struct Shell {
    parts: Parts,
    control: Control,
    data: Arc<DataPath<ParkedReply>>,
    texts: Arc<Texts>,
    link: Option<Arc<Link>>,
    mount: Option<Arc<Mount>>,
    unmounting: Option<JoinHandle<()>>,
    parked: HashMap<u64, Parked>,
    last_caller: u64,
    outcome: Option<Result<(), Failed>>,
}

impl Shell {
    /// Nothing runs yet.
    pub fn new(parts: Parts, wishes: Wishes) -> Self {
        Self {
            control: Control::new(Arc::clone(&parts.shared), wishes, Instant::now()),
            parts,
            data: Arc::default(),
            texts: Arc::default(),
            link: None,
            mount: None,
            unmounting: None,
            parked: HashMap::new(),
            last_caller: 0,
            outcome: None,
        }
    }

    /// Runs until the mount has ended.
    pub fn run(mut self, events: &Receiver<Event>) -> Result<(), Failed> {
        self.apply(Input::Tick);
        loop {
            if let Some(outcome) = self.outcome.take() {
                return outcome;
            }
            let input = self.next(events);
            self.apply(input);
        }
    }

    fn next(&mut self, events: &Receiver<Event>) -> Input {
        if self.control.awaits_drained() && self.is_drained() {
            return Input::Drained;
        }
        let until = self.control.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let longest = if self.control.awaits_drained() { DRAIN_POLL } else { Duration::MAX };
        match events.recv_timeout(until.unwrap_or(Duration::MAX).min(longest)) {
            Ok(event) => self.input(event),
            // It can't be disconnected: the parts hold a sender.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Input::Tick,
        }
    }

    fn is_drained(&self) -> bool {
        self.unmounting.as_ref().is_none_or(JoinHandle::is_finished) && self.data.is_idle()
    }

    fn input(&mut self, event: Event) -> Input {
        match event {
            Event::OpenReport { file, reply } => Input::Open(self.park(Parked::Open(reply)), file),
            Event::ControlWrite { file, bytes, reply } => {
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                Input::Write(self.park(Parked::Write(reply, len)), file, bytes)
            }
            Event::StatFs { reply } => Input::Space(self.park(Parked::Space(reply))),
            Event::Worker { generation, message } => Input::Worker(generation, message),
            Event::WorkerGone { generation } => Input::WorkerGone(generation),
            Event::Closed => Input::Closed,
            Event::Unmounted => Input::Unmounted,
            Event::Stop => Input::Stop,
        }
    }

    fn park(&mut self, parked: Parked) -> Caller {
        self.last_caller += 1;
        self.parked.insert(self.last_caller, parked);
        Caller::Program(self.last_caller)
    }

    /// Applies an input, does what follows from it, and what follows from that.
    fn apply(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.control.apply(input, Instant::now()) {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::StartWorker(generation) => {
                return self.start_worker(generation).err().map(Input::NotStarted);
            }
            Effect::Send(message) => {
                if let Some(link) = &self.link {
                    link.send(message);
                }
            }
            Effect::ConnectData => {
                if let Some(link) = &self.link {
                    self.data.connect(Arc::clone(link));
                }
            }
            Effect::KillWorker => self.kill_worker(),
            Effect::Answer(caller, answer) => {
                if let Some(parked) = self.parked.remove(&caller) {
                    parked.complete(answer, &self.texts);
                }
            }
            Effect::Mount => {
                return Some(self.mount().map_or_else(Input::NotMounted, |()| Input::Mounted));
            }
            Effect::Unmount => self.unmount(),
            Effect::End(outcome) => {
                self.stop_worker();
                self.outcome = Some(outcome);
            }
        }
        None
    }

    fn start_worker(&mut self, generation: u64) -> Result<(), SpawnError> {
        let (channel, arena) = self.parts.worker.start()?;
        let link = Link::new(generation, channel, arena);
        let link = Arc::new(link.map_err(|errno| SpawnError::Link(errno.into()))?);
        let (reader, data) = (Arc::clone(&link), Arc::clone(&self.data));
        let events = self.parts.events.clone();
        let read = move || reader.run(&data, &events);
        let name = format!("link {generation}");
        thread::Builder::new().name(name).spawn(read).map_err(SpawnError::Link)?;
        self.link = Some(link);
        Ok(())
    }

    fn kill_worker(&mut self) {
        self.parts.worker.kill();
        self.cut_data_off();
        self.link = None;
    }

    fn cut_data_off(&self) {
        match self.data.disconnect() {
            0 => {}
            lost => tracing::error!(lost, "requests in flight failed with an input/output error"),
        }
    }

    /// The worker ends when its channel does.
    fn stop_worker(&mut self) {
        self.cut_data_off();
        if let Some(link) = self.link.take() {
            link.hang_up();
        }
        self.parts.worker.wait_or_kill(WORKER_STOP_SECONDS);
        // Data is cut off, so nothing holds an unmounting back any more.
        let until = Instant::now() + UNMOUNT_TIME;
        while self.unmounting.as_ref().is_some_and(|thread| !thread.is_finished())
            && Instant::now() < until
        {
            thread::sleep(DRAIN_POLL);
        }
    }

    fn mount(&mut self) -> Result<(), Failed> {
        let (mount, device) = Mount::new(&self.parts.point, &self.parts.options)?;
        let filesystem = SheepFs {
            shared: Arc::clone(&self.parts.shared),
            data: Arc::clone(&self.data),
            texts: Arc::clone(&self.texts),
            events: self.parts.events.clone(),
            look: self.parts.look,
        };
        let events = self.parts.events.clone();
        let ready = Session::start(&device, filesystem)
            .and_then(|session| session.serve(events))
            .map_err(Failed::from)
            .and_then(|_| {
                mount.raise_read_ahead();
                self.say_ready(&mount)
            });
        if ready.is_err() {
            drop(device);
            if let Err(error) = mount.unmount() {
                tracing::error!("{error}");
            }
        }
        self.mount = Some(Arc::new(mount));
        ready
    }

    fn say_ready(&self, mount: &Mount) -> Result<(), Failed> {
        tracing::info!(point = %mount.point().display(), "mounted");
        if self.parts.in_background {
            background::say_ready()?;
        }
        Ok(())
    }

    /// On a thread of its own: the kernel may want to write back, and then waits
    /// for the data path.
    fn unmount(&mut self) {
        let Some(mount) = self.mount.clone() else { return };
        let unmount = move || match mount.unmount() {
            Ok(how) => tracing::info!(?how, "unmounted"),
            Err(error) => tracing::error!("{error}"),
        };
        match thread::Builder::new().name("unmount".to_owned()).spawn(unmount) {
            Ok(thread) => self.unmounting = Some(thread),
            Err(error) => tracing::error!("cannot unmount: {error}"),
        }
    }
}
