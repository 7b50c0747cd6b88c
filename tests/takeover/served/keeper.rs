//! The keeper that `sheepfs MOUNTPOINT` leaves behind, as a manager: it starts the next life by
//! itself.

use super::{Manager, point_in};
use crate::apart::apart;
use crate::mount::{children_of, is_alive, name_of};
use crate::tools::{arg, succeed, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A keeper.
#[derive(Debug)]
pub struct Keeper {
    process: Pid,
}

impl Keeper {
    /// Its process.
    pub fn process(&self) -> Pid {
        self.process
    }
}

impl Manager for Keeper {
    fn start(dir: &Path, options: &[&str]) -> Self {
        let point = point_in(dir);
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let at = point.clone();
        apart(move || {
            succeed(Command::new(env!("CARGO_BIN_EXE_sheepfs")).args(options).arg(arg(&at)))
        });
        let process = find(&point);
        Self { process: process.expect("sheepfs in the background leaves a keeper") }
    }

    fn supervisor(&self) -> Option<Pid> {
        children_of(self.process).first().copied()
    }

    fn start_next(&mut self, before: Pid) {
        wait_for("the next supervisor", || {
            self.supervisor().is_some_and(|supervisor| supervisor != before)
        });
    }

    fn assert_ended(&mut self) {
        wait_for("the keeper's end", || !is_alive(self.process));
    }

    fn abandon(&mut self) {
        let supervisor = self.supervisor();
        for process in [self.process].into_iter().chain(supervisor) {
            let _ = kill(process, Signal::SIGKILL);
        }
    }

    fn log(&self) -> String {
        "in the journal, if there is one".to_owned()
    }
}

/// The keeper whose command line names `point`.
fn find(point: &Path) -> Option<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut processes = processes.map(Pid::from_raw);
    processes.find(|process| {
        let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        name_of(*process) == "sheepfs-keeper" && String::from_utf8_lossy(&line).contains(arg(point))
    })
}
