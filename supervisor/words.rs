//! What our children say on stdout and stderr: passed on to our log, line by
//! line, and the last line kept for an error message.
//!
//! A child never gets the caller's own stderr in the background: whoever reads
//! that to its end, as `$(sheepfs … 2>&1)` does, would wait for the child.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

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
        let last = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&last);
        let listen = move || {
            let mut from = BufReader::new(from);
            while let Some(line) = next_line(&mut from) {
                tracing::info!(program, "{line}");
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        };
        let thread = thread::Builder::new().spawn(listen);
        let thread = thread.map_err(|cause| tracing::warn!(%cause, program, "cannot listen")).ok();
        Self { thread, last }
    }

    /// Waits for the end of the stream; gives its last line, or nothing.
    pub fn last_line(self) -> String {
        // The thread can't panic: it would have ended the process.
        let _ = self.thread.map(JoinHandle::join);
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
