//! The register checker: blocks of a volume of which each carries the number of the write that
//! it comes from, written and read at once, past the page cache.
//!
//! A register has one writer, which begins write k + 1 only when k was answered. A reader notes
//! the last answered write before it asks and the last begun one after it has its answer: what
//! it sees must be one of those, and whole. So a lost write, an old block, a torn block and a
//! block in the wrong place are all seen, at once and not only at the end. Any error of any
//! call is a failure.

#[path = "register/block.rs"]
pub mod block;
#[path = "register/plan.rs"]
pub mod plan;
#[path = "register/report.rs"]
pub mod report;

use self::block::{Aligned, decode, encode};
use self::plan::Plan;
use self::report::{Call, Report};
use crate::random::Random;
use crate::tools::wait_for;
use nix::libc::O_DIRECT;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// The writes to one register: the number of the last that was begun, and of the last that was
/// answered.
#[derive(Debug, Default)]
struct History {
    begun: AtomicU64,
    answered: AtomicU64,
}

/// What all threads of a load share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    file: File,
    histories: Vec<History>,
    /// Answered writes of each writer.
    progress: Vec<AtomicU64>,
    stop: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// Registers under load; ends when it is finished or dropped.
#[derive(Debug)]
pub struct Registers {
    shared: Arc<Shared>,
    path: PathBuf,
    threads: Vec<JoinHandle<Vec<Call>>>,
}

impl Registers {
    /// Starts the load that `plan` describes on `volume`, whose bytes must be zeros.
    pub fn start(volume: &Path, plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            plan,
            file: open(volume),
            histories: (0..plan.registers).map(|_| History::default()).collect(),
            progress: (0..plan.writers).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
        });
        let writers = (0..plan.writers).map(|writer| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.keep_writing(writer))
        });
        let readers = (0..plan.readers).map(|reader| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.keep_reading(reader))
        });
        let threads = writers.chain(readers).collect();
        Self { shared, path: volume.to_owned(), threads }
    }

    /// Waits until each writer has had an answer to a write that it began after this call.
    ///
    /// # Panics
    /// When one has not in time, or one has failed.
    pub fn wait_for_progress(&self) {
        let counts = || self.shared.progress.iter().map(|count| count.load(Ordering::SeqCst));
        // The first answer may be to a write that was under way.
        let enough: Vec<_> = counts().map(|count| count + 2).collect();
        wait_for("an answer to each writer", || {
            self.check();
            counts().zip(&enough).all(|(count, enough)| count >= *enough)
        });
    }

    /// What went wrong so far.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure.lock().unwrap().clone()
    }

    /// Fails the test if something went wrong so far.
    pub fn check(&self) {
        assert_eq!(self.failure(), None);
    }

    /// Ends the load and reads all registers through the mount.
    ///
    /// # Panics
    /// When something went wrong, or a register does not hold the last answered write.
    pub fn finish(mut self) -> Report {
        let calls = self.join();
        self.check();
        let expected = self.shared.answered();
        let (plan, file) = (self.shared.plan, open(&self.path));
        let mut room = Aligned::new(plan.block);
        for (register, expected) in (0..).zip(&expected) {
            file.read_exact_at(room.bytes_mut(), plan.offset(register)).unwrap();
            let found = decode(register, room.bytes()).unwrap_or_else(|words| panic!("{words}"));
            assert_eq!(found, *expected, "register {register} at the end");
        }
        Report::new(plan, expected, calls)
    }

    /// Ends the load, for a test that asked for errors; what went wrong first.
    pub fn abandon(mut self) -> Option<String> {
        self.join();
        self.failure()
    }

    fn join(&mut self) -> Vec<Call> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let threads = self.threads.drain(..);
        threads.flat_map(|thread| thread.join().expect("a load's thread fails by words")).collect()
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // Not waited for: with a test that fails, calls may hang until the mount goes.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Goes over the writer's registers: now and then one that was never written, else any.
    fn keep_writing(&self, writer: u64) -> Vec<Call> {
        let mut random = Random::seeded(writer);
        let mut calls = Vec::new();
        let (own, mut used) = (self.plan.registers_of(writer), 0);
        while !self.stop.load(Ordering::Relaxed) {
            let fresh = used < own && (used == 0 || random.within(0..4) == 0);
            let nth = if fresh { used } else { random.within(0..used) };
            used += u64::from(fresh);
            match self.write(writer, nth * self.plan.writers + writer) {
                Ok(call) => calls.push(call),
                Err(words) => self.fail(words),
            }
            self.progress[writer as usize].fetch_add(1, Ordering::SeqCst);
        }
        calls
    }

    fn write(&self, writer: u64, register: u64) -> Result<Call, String> {
        let history = &self.histories[register as usize];
        let write = history.begun.load(Ordering::SeqCst) + 1;
        let mut block = Aligned::new(self.plan.block);
        encode(register, writer, write, block.bytes_mut());
        history.begun.store(write, Ordering::SeqCst);
        let begun = Instant::now();
        let written = self.file.write_all_at(block.bytes(), self.plan.offset(register));
        let ended = Instant::now();
        written.map_err(|error| format!("write {write} to register {register}: {error}"))?;
        history.answered.store(write, Ordering::SeqCst);
        Ok(Call { begun, ended, changes: Some(self.plan.object(register)) })
    }

    fn keep_reading(&self, reader: u64) -> Vec<Call> {
        let mut random = Random::seeded(!reader);
        let mut room = Aligned::new(self.plan.block);
        let mut calls = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            match self.read(random.within(0..self.plan.registers), &mut room) {
                Ok(call) => calls.push(call),
                Err(words) => self.fail(words),
            }
        }
        calls
    }

    fn read(&self, register: u64, room: &mut Aligned) -> Result<Call, String> {
        let history = &self.histories[register as usize];
        let answered = history.answered.load(Ordering::SeqCst);
        let begun = Instant::now();
        let read = self.file.read_exact_at(room.bytes_mut(), self.plan.offset(register));
        let ended = Instant::now();
        read.map_err(|error| format!("read of register {register}: {error}"))?;
        let issued = history.begun.load(Ordering::SeqCst);
        let found = decode(register, room.bytes())?;
        if !(answered..=issued).contains(&found) {
            return Err(format!(
                "register {register}: write {found} was read; {answered} was answered before the \
                 read, and {issued} begun after it"
            ));
        }
        Ok(Call { begun, ended, changes: None })
    }

    /// Notes what went wrong first, and ends the load.
    fn fail(&self, words: String) {
        self.failure.lock().unwrap().get_or_insert(words);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn answered(&self) -> Vec<u64> {
        self.histories.iter().map(|history| history.answered.load(Ordering::SeqCst)).collect()
    }
}

fn open(volume: &Path) -> File {
    File::options().read(true).write(true).custom_flags(O_DIRECT).open(volume).unwrap()
}
