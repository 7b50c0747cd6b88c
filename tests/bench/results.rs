//! What a run has found out, as the reports take it.

use crate::cases::Case;
use crate::stats::Samples;
use std::error::Error;
use std::time::Duration;

/// Anything that ends a measurement; its words are all that is needed of it.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Whose processor time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// fio, or the bare client.
    Client,
    /// sheepfs, or the one process of another file system.
    Supervisor,
    /// sheepfs-worker, the spare one too.
    Worker,
    /// All sheep that run on this machine.
    Sheep,
}

/// All groups, in the order of the table.
pub const GROUPS: [Group; 4] = [Group::Client, Group::Supervisor, Group::Worker, Group::Sheep];

impl Group {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Supervisor => "supervisor",
            Self::Worker => "worker",
            Self::Sheep => "sheep",
        }
    }
}

/// One repeat of one case by one contestant.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests answered.
    pub requests: u64,
    /// Requests per second.
    pub per_second: f64,
    /// Processor time, user and system.
    pub cpu: Vec<(Group, Duration)>,
}

/// All repeats of one case by one contestant.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The contestant.
    pub side: String,
    /// In the case's unit.
    pub rate: Samples,
    /// Microseconds of processor time for each request.
    pub cpu: Vec<(Group, Samples)>,
}

/// One case, measured.
#[derive(Clone, Debug)]
pub struct Row {
    /// On which cluster, where it is not the run's own.
    pub place: Option<&'static str>,
    /// What was measured.
    pub case: Case,
    /// By whom.
    pub lines: Vec<Line>,
}

/// Something else that was measured, as a time.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What takes so long.
    pub name: String,
    /// Of what the values are so many.
    pub unit: &'static str,
    /// By whom.
    pub lines: Vec<(String, Samples)>,
}

/// What a process had of memory; the largest seen, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The most that was ever resident.
    pub peak: u64,
    /// Resident, of no file.
    pub anonymous: u64,
    /// Resident, of files: mostly the program.
    pub file: u64,
    /// Resident and shared: the arenas.
    pub shared: u64,
}

/// A process that was watched.
#[derive(Clone, Debug)]
pub struct Process {
    /// Of which contestant.
    pub side: String,
    /// What it is there.
    pub group: Group,
    /// Its memory.
    pub memory: Memory,
}

/// Where and when it was measured.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// Words and values, in order.
    pub facts: Vec<(&'static str, String)>,
}

/// All of a run.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The circumstances.
    pub scene: Scene,
    /// Rates.
    pub rows: Vec<Row>,
    /// Times.
    pub figures: Vec<Figure>,
    /// Memory.
    pub processes: Vec<Process>,
}

impl Line {
    /// One without repeats yet.
    pub fn of(side: &str) -> Self {
        Self { side: side.to_owned(), ..Self::default() }
    }
}

impl Row {
    /// What it is called.
    pub fn name(&self) -> String {
        match self.place {
            Some(place) => format!("{}, {place}", self.case.name()),
            None => self.case.name(),
        }
    }

    /// The line of a contestant.
    pub fn line(&self, side: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.side == side)
    }

    /// How many times as much the one reached as the other.
    pub fn ratio(&self, of: &str, to: &str) -> Option<f64> {
        let (of, to) = (self.line(of)?.rate.median(), self.line(to)?.rate.median());
        (to > 0.0).then(|| of / to)
    }

    /// Takes one repeat.
    pub fn push(&mut self, side: &str, outcome: &Outcome) {
        let scaled = self.case.scaled(outcome.per_second);
        let found = self.lines.iter().position(|line| line.side == side);
        let at = found.unwrap_or_else(|| {
            self.lines.push(Line::of(side));
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        line.rate.push(scaled);
        #[expect(clippy::cast_precision_loss, reason = "a count of seconds' requests")]
        let requests = outcome.requests.max(1) as f64;
        for (group, time) in &outcome.cpu {
            let each = time.as_secs_f64() * 1e6 / requests;
            match line.cpu.iter_mut().find(|(found, _)| found == group) {
                Some((_, samples)) => samples.push(each),
                None => {
                    let mut samples = Samples::default();
                    samples.push(each);
                    line.cpu.push((*group, samples));
                }
            }
        }
    }
}

impl Results {
    /// Keeps the largest that was seen of a process.
    pub fn note(&mut self, side: &str, group: Group, memory: Memory) {
        let known = |process: &&mut Process| process.side == side && process.group == group;
        let Some(process) = self.processes.iter_mut().find(known) else {
            let side = side.to_owned();
            return self.processes.push(Process { side, group, memory });
        };
        let old = process.memory;
        process.memory = Memory {
            peak: old.peak.max(memory.peak),
            anonymous: old.anonymous.max(memory.anonymous),
            file: old.file.max(memory.file),
            shared: old.shared.max(memory.shared),
        };
    }
}
