//! What our children say on stdout and stderr: passed on to our log, line by
//! line, and the last line kept for an error message.
//!
//! A child never gets the caller's own stderr in the background: whoever reads
//! that to its end, as `$(sheepfs … 2>&1)` does, would wait for the child.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// Listens to one stream of a child.
#[derive(Debug)]
pub struct Listener {
    thread: JoinHandle<()>,
    last: Arc<Mutex<String>>,
}

impl Listener {
    /// Listens until the stream ends, which it does with the child: a child must
    /// never wait for a reader.
    pub fn start(program: &'static str, from: impl Read + Send + 'static) -> Self {
        let last = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&last);
        let listen = move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                tracing::info!(program, "{line}");
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        };
        Self { thread: thread::spawn(listen), last }
    }

    /// Waits for the end of the stream; gives its last line, or nothing.
    pub fn last_line(self) -> String {
        // The thread can't panic: it would have ended the process.
        let _ = self.thread.join();
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_kept() {
        assert_eq!(Listener::start("test", &b"one\ntwo\n"[..]).last_line(), "two");
        assert_eq!(Listener::start("test", &b""[..]).last_line(), "");
    }
}
