//! A mount namespace of a test's own, in which `/run` is empty but for a journal that is ours: a
//! socket that takes what programs say in the native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). Or without one.
//!
//! The namespace is that of a thread, and of the programs it starts.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/systemd/journal/socket";
/// How often it looks whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Longer than anything here takes on a busy machine; its end fails a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// One entry: its fields. Of a name that comes twice, the first value.
pub type Entry = BTreeMap<String, String>;

/// The journal.
#[derive(Debug)]
pub struct Journal {
    incoming: Receiver<Entry>,
    entries: Vec<Entry>,
    ended: Arc<AtomicBool>,
}

/// Runs a test where `/run` is empty; what it mounts is gone afterwards.
pub fn without_journal<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace needs root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        test()
    };
    thread::scope(|scope| {
        let thread = scope.spawn(in_namespace);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a test where there is a journal of its own.
pub fn with_journal<T: Send>(test: impl FnOnce(&mut Journal) -> T + Send) -> T {
    without_journal(|| test(&mut Journal::begin()))
}

impl Journal {
    /// Binds the socket, in a namespace that has none.
    pub fn begin() -> Self {
        fs::create_dir_all("/run/systemd/journal").unwrap();
        let socket = UnixDatagram::bind(SOCKET).unwrap();
        // The worker is nobody.
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(SOCKET, everybody).unwrap();
        socket.set_read_timeout(Some(LOOK_INTERVAL)).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (sender, incoming) = channel();
        let until = Arc::clone(&ended);
        // At any time, as the real one does: the queue of the socket is short, and who logs waits
        // for room in it.
        thread::spawn(move || listen(&socket, &sender, &until));
        Self { incoming, entries: Vec::new(), ended }
    }

    /// The first entry of which that holds, now or when it comes.
    pub fn find(&mut self, what: &str, holds: impl Fn(&Entry) -> bool) -> Entry {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.entries.iter().find(|entry| holds(entry)) {
                return found.clone();
            }
            assert!(Instant::now() < deadline, "no {what} in the journal: {:#?}", self.entries);
            self.entries.extend(self.incoming.recv_timeout(LOOK_INTERVAL));
            self.entries.extend(self.incoming.try_iter());
        }
    }

    /// The first entry whose message begins like that.
    pub fn saying(&mut self, begin: &str) -> Entry {
        self.find(begin, |entry| entry.get("MESSAGE").is_some_and(|said| said.starts_with(begin)))
    }

    /// All that came so far.
    pub fn entries(&mut self) -> &[Entry] {
        self.entries.extend(self.incoming.try_iter());
        &self.entries
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

fn listen(socket: &UnixDatagram, sender: &Sender<Entry>, ended: &AtomicBool) {
    let mut room = vec![0; 1 << 16];
    while !ended.load(Ordering::SeqCst) {
        match socket.recv(&mut room) {
            // An empty one only asks whether there is a journal; an error is the time-out.
            Ok(0) | Err(_) => {}
            Ok(len) => drop(sender.send(entry_of(&room[..len]))),
        }
    }
}

/// Fields are `NAME=value`, or the name, a line's end, the value's length and the value.
fn entry_of(mut bytes: &[u8]) -> Entry {
    let mut entry = Entry::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("a line ends");
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        let (name, value, rest) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => (&line[..at], &line[at + 1..], rest),
            None => {
                let (len, rest) = rest.split_at(8);
                let len = u64::from_le_bytes(len.try_into().unwrap()).try_into().unwrap();
                assert_eq!(rest[len], b'\n');
                (line, &rest[..len], &rest[len + 1..])
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        entry.entry(text(name)).or_insert_with(|| text(value));
        bytes = rest;
    }
    entry
}
