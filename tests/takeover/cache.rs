//! Dirty pages of the kernel's page cache (`-k`) when the supervisor dies: what was synced is
//! there, and whole.
//!
//! The pages belong to programs of their own. A process can't be copied while one of its threads
//! waits for a page, so a test that had mapped the volume could not start the next supervisor.

use crate::MIB;
use crate::cluster::Cluster;
use crate::random::Random;
use crate::rounds::rounds;
use crate::served::{Keeper, Lives, Manager, Served};
use crate::site::random_while;
use crate::tools::{arg, start, wait_for, wait_until};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;
const HALF: usize = BLOCKS * BLOCK;
const INSTANT_MAX: Duration = Duration::from_millis(30);
const END_SECONDS_MAX: u64 = 60;

/// Goes over its blocks again and again, each time with the next number in every word of them,
/// and syncs; says which number it begins with, and which it has synced, in a file elsewhere.
/// Ends when it is told to, by another file.
const WRITER: &str = r"
import mmap, os, struct, sys
volume, how, offset, progress, stop = sys.argv[1:]
file = os.open(volume, os.O_RDWR)
half, block = 64 * 4096, 4096
offset = int(offset)
pages = mmap.mmap(file, half, offset=offset) if how == 'mapped' else None
report = os.open(progress, os.O_RDWR | os.O_CREAT)
number = 0
while not os.path.exists(stop):
    number += 1
    os.pwrite(report, struct.pack('<Q', number), 0)
    content = struct.pack('<Q', number) * (block // 8)
    for at in range(0, half, block):
        if pages is None:
            assert os.pwrite(file, content, offset + at) == block
        else:
            pages[at:at + block] = content
    if pages is None:
        os.fsync(file)
    else:
        pages.flush()
    os.pwrite(report, struct.pack('<Q', number), 8)
";

/// A running writer.
struct Writer {
    child: Child,
    progress: PathBuf,
    offset: usize,
}

impl Writer {
    fn start(volume: &Path, how: &str, offset: usize, dir: &Path) -> Self {
        let progress = dir.join(how);
        let child = start(
            Command::new("python3")
                .args(["-c", WRITER, arg(volume), how, &offset.to_string()])
                .args([arg(&progress), arg(&stop_file(dir))])
                .stdin(Stdio::null()),
        );
        Self { child, progress, offset }
    }

    fn word(&self, at: u64) -> u64 {
        let mut word = [0; 8];
        let report = File::open(&self.progress);
        let read = report.and_then(|report| report.read_exact_at(&mut word, at));
        // It has said nothing yet.
        read.map_or(0, |()| u64::from_le_bytes(word))
    }

    fn wait_for_progress(&mut self) {
        let enough = self.word(8) + 2;
        wait_for("a sync", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the writer ended with {ended:?}");
            self.word(8) >= enough
        });
    }

    /// Waits until it has ended, without an error.
    fn finish(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(END_SECONDS_MAX);
        let ended = wait_until(&mut self.child, deadline).expect("the writer ends");
        assert!(ended.success(), "the writer saw an error: {ended}");
    }

    /// Fails unless its half holds what was synced last, in whole blocks.
    fn compare(&self, content: &[u8]) {
        let (begun, synced) = (self.word(0), self.word(8));
        assert!(synced > 0 && synced == begun);
        for (nth, block) in content[self.offset..][..HALF].chunks(BLOCK).enumerate() {
            let words: Vec<_> = block.chunks(8).collect();
            assert!(words.iter().all(|word| *word == words[0]), "block {nth} is torn");
            assert_eq!(words[0], synced.to_le_bytes(), "block {nth} is not what was synced");
        }
    }
}

fn stop_file(dir: &Path) -> PathBuf {
    dir.join("stop")
}

fn killed_with_dirty_pages<M: Manager>(times: u64) {
    let cluster = Cluster::mini();
    let disk = cluster.vdi("disk", 4 * MIB);
    let mut served = Served::<M>::start(&cluster, &[&disk], &["-k"]);
    let mut random = Random::announced();
    let (volume, dir) = (served.volume(&disk), served.scratch().to_owned());
    let mut writers = [("mapped", 0), ("buffered", HALF)]
        .map(|(how, offset)| Writer::start(&volume, how, offset, &dir));
    for _ in 0..times {
        writers.iter_mut().for_each(Writer::wait_for_progress);
        random_while(&mut random, INSTANT_MAX);
        served.take_over(Signal::SIGKILL);
    }
    writers.iter_mut().for_each(Writer::wait_for_progress);
    fs::write(stop_file(&dir), "").unwrap();
    writers.iter_mut().for_each(Writer::finish);
    assert_eq!(served.count("takeovers"), times);
    assert_eq!(served.read("config/page_cache").trim(), "1", "it is on still");
    let content = cluster.content(&disk);
    for writer in &writers {
        println!("{} rounds of {}", writer.word(8), writer.progress.display());
        writer.compare(&content);
    }
}

/// Pages that were written through a mapping are not lost.
#[test]
fn dirty_pages_outlive_the_supervisor() {
    killed_with_dirty_pages::<Lives>(rounds(5, 50));
}

#[test]
fn dirty_pages_outlive_the_keepers_supervisor() {
    killed_with_dirty_pages::<Keeper>(rounds(3, 50));
}
