//! The control loop's decisions, driven without a socket: what happens goes in,
//! what must be done comes out, and time is what the test says it is.

use super::outage::OnOutage;
use super::*;
use crate::candidates::ResolveError;
use crate::control::poison::Exit;
use crate::events::{ReportFile, WritableFile};
use crate::settings::WorkerState;
use crate::spawn::SpawnError;
use nix::errno::Errno;
use sheepfs::ipc::message::{BUILD, LostReason};
use sheepfs::ipc::{
    Allocation, ClusterFacts, Failure, FromWorker, Gateways, Labels, Locking, Query, QuietReason,
    Report, VolumeFacts,
};

mod beating;
mod failing_over;
mod gateways;
mod given_up;
mod managing;
mod poisoned;
mod replayed;
mod searching;
mod starting;
mod stopping;
mod succeeding;
mod volumes;
mod workers;

/// As `kill -9` leaves a process.
const KILLED: Exit = Exit::Signal(9);
/// As a segmentation fault leaves it.
const CRASHED: Exit = Exit::Signal(11);
/// When the cluster of all tests was formatted.
const CTIME: u64 = 1_700_000_000 << 32;

/// A control loop and a clock.
struct Loop {
    control: Control,
    shared: Arc<Shared>,
    now: Instant,
    done: Vec<Effect>,
    callers: u64,
    /// Whether workers say that they live when they are asked.
    answers_pings: bool,
}

fn sheep(port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], port))
}

fn cluster(ctime: u64) -> ClusterFacts {
    ClusterFacts { ctime, epoch: 3, running: true, has_locks: true, ..ClusterFacts::default() }
}

fn name(text: &str) -> VolumeName {
    VolumeName::parse(text.as_bytes()).unwrap()
}

fn facts(vid: u32) -> VolumeFacts {
    VolumeFacts {
        vid,
        size: 1 << 30,
        create_time: u64::from(vid) << 32,
        copies: 1,
        copy_policy: 0,
        block_size_shift: 22,
        snap_id: 1,
        snapshot: false,
        hyper: false,
        locked: true,
        labels: Labels::default(),
    }
}

/// How long changes may be fenced.
const FENCE: Duration = Duration::from_secs(30);

fn wishes(sheep_ports: &[u16], attach: &[&str]) -> Wishes {
    Wishes {
        candidates: Candidates::several(sheep_ports.iter().copied().map(sheep)).unwrap(),
        attach: attach.iter().map(|text| name(text)).collect(),
        cache_len: 1 << 20,
        cache_on: false,
        io_timeout: Duration::from_secs(5),
        on_outage: OnOutage::Hold,
        locking: Locking::Take,
        route: sheepfs::ipc::Route::Replica,
    }
}

impl Loop {
    fn new(sheep_ports: &[u16], attach: &[&str]) -> Self {
        Self::with(wishes(sheep_ports, attach))
    }

    fn with(wishes: Wishes) -> Self {
        let volumes = Arc::new(Volumes::default());
        let sheep = wishes.candidates.current();
        let shared = Arc::new(Shared::alone(sheep, volumes));
        let now = Instant::now();
        let mut control = Control::new(Arc::clone(&shared), wishes, now);
        control.set_fence_time(Some(FENCE));
        let mut new =
            Self { control, shared, now, done: Vec::new(), callers: 0, answers_pings: true };
        new.apply(Input::Tick);
        new
    }

    /// Mounted, with a worker of generation 1, a ready spare of generation 2, and
    /// nothing attached.
    fn running() -> Self {
        Self::running_at(&[7000])
    }

    fn running_at(sheep_ports: &[u16]) -> Self {
        let mut running = Self::new(sheep_ports, &[]);
        running.connect();
        running.apply(Input::Mounted);
        running.spare_ready();
        running.done.clear();
        running
    }

    fn apply(&mut self, input: Input) {
        let effects = self.control.apply(input, self.now);
        self.done.extend(effects);
    }

    /// Lets time pass; workers that are asked whether they live say so.
    fn later(&mut self, time: Duration) {
        self.now += time;
        self.apply(Input::Tick);
        let mut asked = Vec::new();
        if self.answers_pings {
            self.done.retain(|effect| match effect {
                Effect::Send(generation, ToWorker::Ping { number }) => {
                    asked.push((*generation, *number));
                    false
                }
                _ => true,
            });
        }
        for (generation, number) in asked {
            self.apply(Input::Worker(generation, FromWorker::Pong { number }));
        }
    }

    /// The worker in use says something.
    fn says(&mut self, message: FromWorker) {
        if let FromWorker::Allocated { volume, allocation } = message {
            // As the link does.
            self.shared.allocations().heard(volume, allocation, self.now);
        }
        self.apply(Input::Worker(self.worker(), message));
    }

    fn worker(&self) -> u64 {
        self.control.life.worker().unwrap()
    }

    fn spare(&self) -> u64 {
        self.control.spare.worker().unwrap()
    }

    fn greet(&mut self) {
        self.says(FromWorker::Hello { build: BUILD.to_owned() });
    }

    fn spare_says(&mut self, message: FromWorker) {
        self.apply(Input::Worker(self.spare(), message));
    }

    fn spare_ready(&mut self) {
        self.spare_says(FromWorker::Hello { build: BUILD.to_owned() });
    }

    /// The sheep that the worker in use was sent to answers.
    fn reach(&mut self) {
        self.says(FromWorker::Connected { cluster: cluster(CTIME) });
    }

    /// The newest worker says hello and reaches its sheep.
    fn connect(&mut self) {
        self.greet();
        self.reach();
    }

    /// The process of the worker in use turns out to be gone.
    fn is_gone(&mut self, exit: Exit) {
        self.apply(Input::WorkerGone(self.worker(), exit));
    }

    /// The worker in use loses its sheep, and its process is gone.
    fn lose(&mut self, reason: LostReason) {
        self.says(FromWorker::Lost { reason, node: self.control.candidates.current() });
        self.is_gone(KILLED);
    }

    fn caller(&mut self) -> Caller {
        self.callers += 1;
        Caller::Program(self.callers)
    }

    fn write(&mut self, file: WritableFile, text: &str) -> u64 {
        let caller = self.caller();
        self.apply(Input::Write(caller, (file, self.callers), text.as_bytes().to_vec()));
        self.callers
    }

    fn open(&mut self, file: ReportFile) -> u64 {
        let caller = self.caller();
        self.apply(Input::Open(caller, file));
        self.callers
    }

    /// What was said to the worker since the last look.
    fn sent(&mut self) -> Vec<ToWorker> {
        let mut sent = Vec::new();
        self.done.retain(|effect| match effect {
            Effect::Send(_, message) => {
                sent.push(message.clone());
                false
            }
            _ => true,
        });
        sent
    }

    /// The tags of the attaches since the last look.
    fn attach_tags(&mut self) -> Vec<Tag> {
        let tag = |message| match message {
            ToWorker::Attach { tag, .. } => Some(tag),
            _ => None,
        };
        self.sent().into_iter().filter_map(tag).collect()
    }

    /// The tags of the volumes that were to be taken up again since the last look.
    fn resume_tags(&mut self) -> Vec<Tag> {
        let tag = |message| match message {
            ToWorker::Resume { tag, .. } => Some(tag),
            _ => None,
        };
        self.sent().into_iter().filter_map(tag).collect()
    }

    /// The tags of the detaches since the last look.
    fn detach_tags(&mut self) -> Vec<Tag> {
        let tag = |message| match message {
            ToWorker::Detach { tag, .. } => Some(tag),
            _ => None,
        };
        self.sent().into_iter().filter_map(tag).collect()
    }

    /// Takes out what a caller got.
    fn answer(&mut self, caller: u64) -> Option<Answer> {
        let at = self
            .done
            .iter()
            .position(|effect| matches!(effect, Effect::Answer(to, _) if *to == caller))?;
        match self.done.remove(at) {
            Effect::Answer(_, answer) => Some(answer),
            _ => None,
        }
    }

    /// Where workers were sent since the last look: which one, and to which port.
    fn connects(&mut self) -> Vec<(u64, u16)> {
        let mut connects = Vec::new();
        self.done.retain(|effect| match effect {
            Effect::Connect { generation, sheep, .. } => {
                connects.push((*generation, sheep.port()));
                false
            }
            _ => true,
        });
        connects
    }

    /// Whether that must be done, in the words of its name.
    fn does(&self, what: &str) -> bool {
        self.done.iter().any(|effect| format!("{effect:?}").starts_with(what))
    }

    /// Takes out everything else that must be done.
    fn effects(&mut self) -> Vec<String> {
        let words = self.done.iter().map(|effect| format!("{effect:?}")).collect();
        self.done.clear();
        words
    }

    /// Attaches a volume of that vid, from the write to its answer.
    fn attached(&mut self, text: &str, vid: u32) -> Arc<crate::volumes::Volume> {
        let caller = self.write(WritableFile::Mount, text);
        let tag = self.attach_tags()[0];
        self.says(FromWorker::Attached { tag, facts: facts(vid) });
        assert_eq!(self.answer(caller), Some(Answer::Done));
        self.shared.volumes().by_name(text).unwrap()
    }

    fn state(&self) -> WorkerState {
        self.shared.known().worker
    }

    fn last_error(&self) -> Option<String> {
        self.shared.known().last_error.clone()
    }

    /// How the loop ended, if it did.
    fn end(&mut self) -> Option<Result<(), Failed>> {
        let at = self.done.iter().position(|effect| matches!(effect, Effect::End(_)))?;
        match self.done.remove(at) {
            Effect::End(outcome) => Some(outcome),
            _ => None,
        }
    }
}
