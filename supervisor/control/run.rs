//! The shell of the control loop: events in, deeds out. It decides nothing.
//!
//! It runs on the main thread, which lives as long as the process, since the
//! children's parent-death signals are bound to the thread that started them
//! (hazard 33). The only things it waits for are the next event or deadline, and
//! at the very end the worker.

mod keep;
mod leave;
mod mounting;
mod save;
mod workers;

use super::parked::Parked;
use super::waits::Caller;
use super::{Control, Effect, Input, Leave, Wishes};
use crate::attr::Look;
use crate::datapath::{DataPath, ParkedReply};
use crate::events::{Event, Events};
use crate::exit::Failed;
use crate::handles::{Handles, number_of};
use crate::link::Link;
use crate::mount::{Mount, MountOptions, MountPoint};
use crate::notify::Manager;
use crate::settings::Shared;
use crate::spawn::Workers;
use crate::state::{SavedProcess, State};
use crate::texts::Texts;
use crate::uniques::{Noted, Uniques};
use fuser::Notifier;
use keep::Keep;
use sheepfs::ipc::{Tag, ToWorker};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it looks whether data in flight has come to its end.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// How often it looks whether the worker that is to be replaced has answered all.
const SWAP_POLL: Duration = Duration::from_millis(2);

/// What the shell works with.
#[derive(Debug)]
pub struct Parts {
    /// The facts that all threads share.
    pub shared: Arc<Shared>,
    /// The way into the loop.
    pub events: Events,
    /// The workers' processes.
    pub workers: Workers,
    /// How long a request may be on the wire without progress.
    pub io_timeout: Duration,
    /// TCP connections that a worker may make.
    pub connections_max: u32,
    /// How long changes may be fenced; `None` is never.
    pub fence_time: Option<Duration>,
    /// Where to mount.
    pub point: MountPoint,
    /// How to mount.
    pub options: MountOptions,
    /// Whose the files are.
    pub look: Look,
    /// Whether somebody waits to be told that the mount is ready.
    pub in_background: bool,
    /// What a successor will find.
    pub state: State,
    /// A minisheep of our own.
    pub minisheep: Option<SavedProcess>,
    /// The open files of volumes.
    pub handles: Arc<Handles>,
    /// Who keeps descriptors for a successor.
    pub manager: Option<Manager>,
    /// For tests: how many requests in flight are too many for this process to live.
    pub panic_at: Option<usize>,
    /// Whether the kernel is asked to deliver requests again.
    pub may_resend: bool,
}

/// The shell.
#[derive(Debug)]
pub struct Shell {
    parts: Parts,
    control: Control,
    data: Arc<DataPath<ParkedReply>>,
    texts: Arc<Texts>,
    /// By generation, as long as its process lives.
    links: HashMap<u64, Arc<Link>>,
    /// Detaches of volumes that are fenced still, and for which worker.
    unripe_detaches: Vec<(u64, ToWorker)>,
    mount: Option<Arc<Mount>>,
    keep: Keep,
    unmounting: Option<JoinHandle<()>>,
    /// By caller; the second part is dropped with the answer.
    parked: HashMap<u64, (Parked, Noted)>,
    uniques: Arc<Uniques>,
    /// Where the kernel is told what is void, while a mount is served.
    notifier: Option<Notifier>,
    last_caller: u64,
    /// Whether something is still to be saved, when there is nothing else to do.
    is_unsaved: bool,
    outcome: Option<Result<(), Failed>>,
}

impl Shell {
    /// Nothing runs yet.
    pub fn new(parts: Parts, wishes: Wishes) -> Self {
        let mut control = Control::new(Arc::clone(&parts.shared), wishes, Instant::now());
        control.set_fence_time(parts.fence_time);
        Self::with(parts, control)
    }

    fn with(parts: Parts, control: Control) -> Self {
        let allocations = Arc::clone(parts.shared.allocations());
        let data = DataPath::new(parts.fence_time, parts.state.told(), allocations);
        let data = data.with_panic_at(parts.panic_at);
        Self {
            control,
            data: Arc::new(data),
            keep: Keep::new(parts.manager.as_ref()),
            parts,
            texts: Arc::default(),
            links: HashMap::new(),
            unripe_detaches: Vec::new(),
            mount: None,
            unmounting: None,
            parked: HashMap::new(),
            uniques: Arc::default(),
            notifier: None,
            last_caller: 0,
            is_unsaved: false,
            outcome: None,
        }
    }

    /// Runs until the mount has ended.
    pub fn run(mut self, events: &Receiver<Event>) -> Result<(), Failed> {
        self.apply(Input::Tick);
        loop {
            if let Some(outcome) = self.outcome.take() {
                self.keep_nothing();
                return outcome;
            }
            let input = self.next(events);
            self.apply(input);
        }
    }

    fn next(&mut self, events: &Receiver<Event>) -> Input {
        let now = Instant::now();
        self.data.tick(now);
        self.send_ripe_detaches();
        self.tell_manager(now);
        self.control.set_fenced_until(self.data.deadline());
        if self.control.awaits_drained() && self.is_drained() {
            return Input::Drained;
        }
        if self.control.awaits_leave() && self.data.outstanding() == 0 {
            return Input::Quiesced;
        }
        if self.control.awaits_drain() && self.data.outstanding() == 0 {
            return Input::DataDrained;
        }
        let own = [self.control.deadline(), self.data.deadline(), self.keep.deadline()];
        let own = own.into_iter().flatten().min();
        let until = own.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
        match self.event(events, until.min(self.poll_time())) {
            Some(event) => self.input(event),
            None => Input::Tick,
        }
    }

    /// How soon it must look again for what nobody tells.
    fn poll_time(&self) -> Duration {
        let swapping = self.control.awaits_drain() || self.control.awaits_leave();
        match (swapping, self.control.awaits_drained()) {
            (true, _) => SWAP_POLL,
            (false, true) => DRAIN_POLL,
            (false, false) => Duration::MAX,
        }
    }

    fn is_drained(&self) -> bool {
        self.unmounting.as_ref().is_none_or(JoinHandle::is_finished) && self.data.is_idle()
    }

    fn input(&mut self, event: Event) -> Input {
        match event {
            Event::OpenReport { file, handle, noted, reply } => {
                Input::Open(self.park(Parked::Open(reply, handle), noted), file)
            }
            Event::ReadReport { file, handle, range, noted, reply } => {
                Input::Open(self.park(Parked::Read(reply, handle, range), noted), file)
            }
            Event::ControlWrite { file, bytes, request, noted, reply } => {
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let parked = Parked::Write(reply, len, request);
                match self.answered_before(request) {
                    Some(answer) => {
                        parked.complete(answer, &self.texts);
                        Input::Tick
                    }
                    None => {
                        let line = (file, number_of(request));
                        Input::Write(self.park(parked, noted), line, bytes)
                    }
                }
            }
            Event::Grow { volume, size, request, noted, reply, look } => {
                let name = volume.name.clone();
                let caller = self.park(Parked::Grow(reply, volume, look), noted);
                Input::Grow(caller, (name, size), number_of(request))
            }
            Event::Browse { search, is_afresh, browse, noted } => {
                Input::Search(self.park(Parked::Browse(browse), noted), search, is_afresh)
            }
            Event::StatFs { unit, noted, reply } => {
                Input::Space(self.park(Parked::Space(reply, unit), noted))
            }
            Event::Worker { generation, message } => Input::Worker(generation, message),
            Event::WorkerBroken { generation, nonsense } => {
                Input::WorkerBroken { generation, nonsense }
            }
            Event::WorkerGone { generation } => {
                self.links.remove(&generation);
                Input::WorkerGone(generation, self.parts.workers.bury(generation))
            }
            Event::Resolved { number, found } => Input::Resolved(number, found),
            Event::Closed => Input::Closed,
            Event::Unmounted => Input::Unmounted,
            Event::Stop => Input::Stop,
            Event::Hangup => {
                self.reload_log();
                Input::Tick
            }
            Event::Leave => self.may_leave(),
            Event::Upgrade => self.check_upgrade(),
            Event::UpgradeChecked(accepted) => self.upgrade_checked(accepted),
        }
    }

    fn park(&mut self, parked: Parked, noted: Noted) -> Caller {
        self.last_caller += 1;
        self.parked.insert(self.last_caller, (parked, noted));
        Caller::Program(self.last_caller)
    }

    /// Applies an input, does what follows from it, and what follows from that.
    fn apply(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let weight = input.weight();
            let effects = self.control.apply(input, Instant::now());
            self.note_answers(&effects);
            self.save_before(&effects, weight);
            for effect in effects {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::StartWorker(generation) => {
                let started = self.start_worker(generation);
                return started.err().map(|cause| Input::NotStarted(generation, cause));
            }
            Effect::Send(generation, message) => self.send(generation, message),
            effect @ Effect::Connect { .. } => self.connect(effect),
            Effect::KillWorker(generation) => self.parts.workers.kill(generation),
            Effect::Resolve { number, address, port } => {
                return self.resolve(number, address, port);
            }
            Effect::Answer(caller, answer) => {
                if let Some((parked, _noted)) = self.parked.remove(&caller) {
                    parked.complete(answer, &self.texts);
                }
            }
            Effect::Mount => {
                return Some(self.mount().map_or_else(Input::NotMounted, |()| Input::Mounted));
            }
            Effect::Unmount => self.unmount(),
            Effect::End(outcome) => {
                self.stop_workers();
                self.outcome = Some(outcome);
            }
            Effect::DataLost { generation, gateways, death } => {
                let tags: Vec<Tag> = self.data.lost(generation, &gateways, Instant::now());
                self.save();
                return Some(Input::Unanswered(death, tags));
            }
            Effect::Leave(how) => self.leave(how),
            // It is noted before the state is saved.
            Effect::Answered { .. } => {}
            other => self.perform_on_data(other),
        }
        None
    }

    /// What concerns the data path alone.
    fn perform_on_data(&self, effect: Effect) {
        match effect {
            Effect::ConnectData { generation, pace } => {
                if let Some(link) = self.links.get(&generation) {
                    self.data.connect(Arc::clone(link), pace);
                }
            }
            Effect::HoldData => self.data.hold(),
            Effect::ReleaseData => self.data.release(),
            Effect::Quiet { generation, gateway, how } => self.data.quiet(gateway, generation, how),
            Effect::VolumeAttached(id, name) => self.data.volume_attached(id, name),
            Effect::VolumeAbsent(id, absent) => self.data.volume_absent(id, absent),
            Effect::VolumeReplaced(id) => self.volume_replaced(id),
            Effect::VolumeGrown(id) => self.volume_grown(id),
            Effect::Poison(tag) => self.data.poison(tag),
            Effect::RefuseNew(refuse) => self.data.refuse_new(refuse),
            Effect::FailData => self.fail_data(),
            other => tracing::error!(?other, "this does not concern the data path"),
        }
    }
}
