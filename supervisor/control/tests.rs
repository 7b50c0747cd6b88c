//! The control loop's decisions, driven without a socket: what happens goes in,
//! what must be done comes out, and time is what the test says it is.

use super::*;
use crate::settings::WorkerState;
use sheepfs::ipc::message::{BUILD, LostReason};
use sheepfs::ipc::{Failure, Query, Report, Tag, VolumeFacts};
use std::time::Duration;

mod starting;
mod stopping;
mod volumes;
mod workers;

/// A control loop and a clock.
struct Loop {
    control: Control,
    shared: Arc<Shared>,
    now: Instant,
    done: Vec<Effect>,
    callers: u64,
}

fn sheep(port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::from(([127, 0, 0, 1], port))
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
    }
}

impl Loop {
    fn new(sheep_ports: &[u16], attach: &[&str]) -> Self {
        let candidates = Candidates::several(sheep_ports.iter().copied().map(sheep)).unwrap();
        let volumes = Arc::new(Volumes::default());
        let shared = Arc::new(Shared::new(candidates.current(), false, false, volumes));
        let wishes = Wishes {
            candidates,
            attach: attach.iter().map(|text| name(text)).collect(),
            cache_len: 1 << 20,
            cache_on: false,
        };
        let now = Instant::now();
        let control = Control::new(Arc::clone(&shared), wishes, now);
        let mut new = Self { control, shared, now, done: Vec::new(), callers: 0 };
        new.apply(Input::Tick);
        new
    }

    /// Mounted, with a worker of generation 1 and nothing attached.
    fn running() -> Self {
        let mut running = Self::new(&[7000], &[]);
        running.connect();
        running.apply(Input::Mounted);
        running.done.clear();
        running
    }

    fn apply(&mut self, input: Input) {
        let effects = self.control.apply(input, self.now);
        self.done.extend(effects);
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
        self.apply(Input::Tick);
    }

    fn says(&mut self, message: FromWorker) {
        self.apply(Input::Worker(self.control.generation, message));
    }

    /// The newest worker says hello and reaches its sheep.
    fn connect(&mut self) {
        self.says(FromWorker::Hello { build: BUILD.to_owned() });
        self.says(FromWorker::Connected);
    }

    fn caller(&mut self) -> Caller {
        self.callers += 1;
        Caller::Program(self.callers)
    }

    fn write(&mut self, file: WritableFile, text: &str) -> u64 {
        let caller = self.caller();
        self.apply(Input::Write(caller, file, text.as_bytes().to_vec()));
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
            Effect::Send(message) => {
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
