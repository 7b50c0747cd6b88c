//! What our children say on stdout and stderr: passed on to our log, line by
//! line, and the last line kept for an error message.
//!
//! A child never gets the caller's own stderr in the background: whoever reads
//! that to its end, as `$(sheepfs … 2>&1)` does, would wait for the child.

use sheepfs::logging::split_priority;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tracing::Level;

/// A longer line is passed on in pieces.
const LINE_LEN_MAX: u64 = 8192;

/// Listens to one stream of a child.
#[derive(Debug)]
pub struct Listener {
    thread: Option<JoinHandle<()>>,
    last: Arc<Mutex<String>>,
}

impl Listener {
    /// Listens until the stream ends, which it does with the child: a child must
    /// never wait for a reader.
    pub fn start(program: &'static str, from: impl Read + Send + 'static) -> Self {
        Self::begin(program, None, from)
    }

    /// As [`Self::start`], for the worker of that generation.
    pub fn of_worker(
        program: &'static str,
        generation: u64,
        from: impl Read + Send + 'static,
    ) -> Self {
        Self::begin(program, Some(generation), from)
    }

    fn begin(program: &'static str, worker: Option<u64>, from: impl Read + Send + 'static) -> Self {
        let last = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&last);
        let listen = move || {
            let mut from = BufReader::new(from);
            while let Some(line) = next_line(&mut from) {
                pass_on(program, worker, &line);
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        };
        let thread = thread::Builder::new().spawn(listen);
        let thread = thread.map_err(|cause| cannot_listen(program, worker, &cause)).ok();
        Self { thread, last }
    }

    /// Waits for the end of the stream; gives its last line, or nothing.
    pub fn last_line(self) -> String {
        // The thread can't panic: it would have ended the process.
        let _ = self.thread.map(JoinHandle::join);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Logs a line. It says by a prefix how grave it is, or else is some library's.
fn pass_on(program: &str, worker: Option<u64>, line: &str) {
    let (level, text) = split_priority(line);
    match level {
        Some(Level::ERROR) => tracing::error!(%program, worker, "{text}"),
        Some(Level::WARN) => tracing::warn!(%program, worker, "{text}"),
        Some(Level::DEBUG | Level::TRACE) => tracing::debug!(%program, worker, "{text}"),
        Some(Level::INFO) | None => tracing::info!(%program, worker, "{text}"),
    }
}

fn cannot_listen(program: &str, worker: Option<u64>, cause: &std::io::Error) {
    let errno = cause.raw_os_error();
    tracing::warn!(%program, worker, errno, "cannot listen to it: {cause}");
}

/// The next line, or as much of it as is believed; whatever the child writes, the
/// listener goes on to the end of the stream.
fn next_line(from: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    let read = from.take(LINE_LEN_MAX).read_until(b'\n', &mut bytes).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_kept() {
        assert_eq!(Listener::start("test", &b"one\ntwo\n"[..]).last_line(), "two");
        assert_eq!(Listener::start("test", &b""[..]).last_line(), "");
        assert_eq!(Listener::start("test", &b"\xff\nlast"[..]).last_line(), "last");
    }
}
