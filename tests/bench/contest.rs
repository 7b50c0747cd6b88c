//! Contestants take turns on a case, each repeat in another order, so that a machine that is busy
//! for a while is busy for all of them.

use crate::cases::{Case, Heat};
use crate::mounted::Mounted;
use crate::proc;
use crate::results::{Failure, Group, Line, Outcome, Results, Row};
use crate::site::Site;
use crate::wire::{Whom, Wire};
use nix::unistd::Pid;
use std::time::Duration;

/// The bare client on one gateway.
pub const WIRE: &str = "wire";
/// The bare client that asks a holder of each object.
pub const ROUTED: &str = "wire routed";

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For each measurement.
    pub time: Duration,
    /// Measurements of each contestant in each case.
    pub repeats: u32,
    /// Connections of the bare client.
    pub connections: u32,
}

/// All that is needed for a turn.
#[derive(Debug)]
pub struct Contest<'a> {
    site: &'a Site,
    wire: &'a Wire,
    mounts: &'a [Mounted],
    sheep: Vec<Pid>,
    pace: Pace,
}

#[derive(Clone, Copy, Debug)]
enum Side<'a> {
    Bare(&'static str, Whom),
    Mounted(&'a Mounted),
}

impl<'a> Contest<'a> {
    /// Between the bare clients and `mounts`.
    pub fn new(site: &'a Site, wire: &'a Wire, mounts: &'a [Mounted], pace: Pace) -> Self {
        Self { site, wire, mounts, sheep: site.sheep(wire), pace }
    }

    /// All repeats of one case.
    pub fn hold(
        &self,
        case: &Case,
        place: Option<&'static str>,
        results: &mut Results,
    ) -> Result<(), Failure> {
        let mut row = Row { place, case: *case, lines: Vec::new() };
        let sides = self.sides(case);
        // So that the lines stand in one order, whoever goes first.
        row.lines.extend(sides.iter().map(|side| Line::of(side.name())));
        for turn in 0..self.pace.repeats as usize {
            for step in 0..sides.len() {
                let side = &sides[(turn + step) % sides.len()];
                let outcome = self.turn(side, case, results)?;
                row.push(side.name(), &outcome);
            }
            eprintln!("{}: {} of {}", row.name(), turn + 1, self.pace.repeats);
        }
        results.rows.push(row);
        Ok(())
    }

    fn sides(&self, case: &Case) -> Vec<Side<'a>> {
        let bare = [Side::Bare(WIRE, Whom::Gateway), Side::Bare(ROUTED, Whom::Holder)];
        let bare = bare.into_iter().filter(|_| case.heat == Heat::Steady);
        bare.chain(self.mounts.iter().filter(|side| side.takes(case)).map(Side::Mounted)).collect()
    }

    fn turn(&self, side: &Side, case: &Case, results: &mut Results) -> Result<Outcome, Failure> {
        match side {
            Side::Bare(_, whom) => self.bare(*whom, case),
            Side::Mounted(mounted) => self.mounted(mounted, case, results),
        }
    }

    fn bare(&self, whom: Whom, case: &Case) -> Result<Outcome, Failure> {
        let meter = self.meter(Vec::new())?;
        let run = || self.wire.measure(case, whom, self.pace.time, self.pace.connections);
        let mut outcome = match self.site.namespaces() {
            None => run()?,
            Some(namespaces) => namespaces.inside(run)?,
        };
        outcome.cpu.extend(meter.stop()?);
        Ok(outcome)
    }

    fn mounted(
        &self,
        mounted: &Mounted,
        case: &Case,
        results: &mut Results,
    ) -> Result<Outcome, Failure> {
        mounted.attach()?;
        if case.heat == Heat::Warm {
            mounted.measure(&Case { heat: Heat::Cold, ..*case }, self.pace.time, self.bytes())?;
        }
        let meter = self.meter(mounted.processes())?;
        let outcome = mounted.measure(case, self.pace.time, self.bytes());
        let cpu = meter.stop();
        let workers = mounted.processes();
        for (group, pid) in first_of_each(&workers) {
            if let Some(memory) = proc::memory_of(pid) {
                results.note(mounted.name(), group, memory);
            }
        }
        mounted.detach()?;
        let mut outcome = outcome?;
        outcome.cpu.extend(cpu?);
        Ok(outcome)
    }

    fn bytes(&self) -> u64 {
        self.site.bytes()
    }

    fn meter(&self, mut processes: Vec<(Group, Pid)>) -> Result<Meter, Failure> {
        processes.extend(self.sheep.iter().map(|pid| (Group::Sheep, *pid)));
        Meter::start(processes)
    }
}

impl Side<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Bare(name, _) => name,
            Self::Mounted(mounted) => mounted.name(),
        }
    }
}

/// The eldest worker is the one in use.
fn first_of_each(processes: &[(Group, Pid)]) -> Vec<(Group, Pid)> {
    let mut found: Vec<(Group, Pid)> = Vec::new();
    for (group, pid) in processes {
        if found.iter().all(|(known, _)| known != group) {
            found.push((*group, *pid));
        }
    }
    found
}

/// The processor time of processes since a moment.
#[derive(Debug)]
pub struct Meter(Vec<(Group, Pid, Duration)>);

impl Meter {
    /// From now on.
    pub fn start(processes: Vec<(Group, Pid)>) -> Result<Self, Failure> {
        let readings = processes
            .into_iter()
            .map(|(group, pid)| Ok((group, pid, proc::cpu_of(pid)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(Self(readings))
    }

    /// Until now; one time for each group.
    pub fn stop(&self) -> Result<Vec<(Group, Duration)>, Failure> {
        let mut sums: Vec<(Group, Duration)> = Vec::new();
        for (group, pid, before) in &self.0 {
            let time = proc::cpu_of(*pid)?.saturating_sub(*before);
            match sums.iter_mut().find(|(found, _)| found == group) {
                Some((_, sum)) => *sum += time,
                None => sums.push((*group, time)),
            }
        }
        Ok(sums)
    }
}
