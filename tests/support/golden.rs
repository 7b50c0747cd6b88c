//! Reads the recorded conversations in `tests/golden` (their format is described in the
//! README there).
//!
//! A [`Transcript`] is one file. Take it as it is, event by event, or as [`Exchange`]s (a request
//! with its reply), or as [`Scene`]s (a command line with the exchanges it caused). Payloads are
//! kept as recorded and rebuilt by [`Payload::bytes`], which checks them against their hash:
//! together they are over half a gigabyte.
//!
//! Everything panics on a malformed file: this is for tests, use it by
//! `#[path = "support/golden.rs"] mod golden;`.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test file uses the part that it needs")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Bytes of the header of requests and replies.
pub const HEADER_LEN: usize = 48;

/// One recorded file.
pub struct Transcript {
    /// The file's name without its ending: `15-vdi-list`.
    pub name: String,
    /// Its lines in order.
    pub events: Vec<Event>,
}

/// One line of a file.
#[derive(Clone, Debug)]
pub enum Event {
    /// The first line: what was recorded, with which programs.
    Meta(Value),
    /// What happens next, or happened outside of the protocol.
    Note(String),
    /// A command line that was run.
    Cmd(Cmd),
    /// A connection was opened to a node.
    Open {
        /// Its number.
        conn: u64,
        /// The node's number.
        node: u64,
    },
    /// A connection was closed.
    Close {
        /// Its number.
        conn: u64,
    },
    /// A request.
    Req(Message),
    /// A reply; its `n` is that of the request.
    Rsp(Message),
}

/// A command line and what became of it.
#[derive(Clone, Debug)]
pub struct Cmd {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Exit status.
    pub rc: i64,
    /// What it printed.
    pub stdout: Payload,
    /// What it complained about.
    pub stderr: String,
    /// What it was fed.
    pub stdin: Payload,
}

/// A request or a reply.
#[derive(Clone, Debug)]
pub struct Message {
    /// The number of the request in the file.
    pub n: u64,
    /// The connection.
    pub conn: u64,
    /// The header as it was on the wire.
    pub hdr: [u8; HEADER_LEN],
    /// The header decoded, for people; tests decode `hdr`.
    pub dec: Value,
    /// What followed the header.
    pub payload: Payload,
}

/// A request with its reply.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The request.
    pub req: Message,
    /// The reply, if it came.
    pub rsp: Option<Message>,
}

/// A command line with the exchanges between it and the next command or note.
pub struct Scene {
    /// The command line.
    pub cmd: Cmd,
    /// What it caused, in the order of the requests.
    pub exchanges: Vec<Exchange>,
}

/// Bytes as recorded.
#[derive(Clone, Debug, Default)]
pub struct Payload(Recorded);

#[derive(Clone, Debug, Default)]
enum Recorded {
    #[default]
    Nothing,
    Bytes(Vec<u8>),
    Runs {
        len: usize,
        sha256: String,
        runs: Vec<Value>,
    },
}

/// All recordings, in the order of their numbers.
pub fn transcripts() -> Vec<Transcript> {
    let entries = fs::read_dir(folder()).expect("tests/golden is part of the repository");
    let names = entries.filter_map(|entry| {
        let name = entry.expect("a readable folder").file_name().into_string().ok()?;
        name.strip_suffix(".jsonl").map(str::to_owned)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.iter().map(|name| Transcript::load(name)).collect()
}

/// The example of where objects live: a node list and the places of 301 objects.
pub fn placement() -> Value {
    let text = fs::read_to_string(folder().join("placement.json")).expect("placement.json");
    serde_json::from_str(&text).expect("JSON")
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

impl Transcript {
    /// The recording of that name, given without its ending.
    pub fn load(name: &str) -> Self {
        let path = folder().join(format!("{name}.jsonl"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let events = text.lines().enumerate().map(|(i, line)| {
            let line = serde_json::from_str(line);
            Event::parse(&line.unwrap_or_else(|e| panic!("{name}.jsonl:{}: {e}", i + 1)))
        });
        Self { name: name.to_owned(), events: events.collect() }
    }

    /// All requests with their replies.
    pub fn exchanges(&self) -> Vec<Exchange> {
        exchanges(&self.events, &self.events)
    }

    /// All commands with what they caused.
    pub fn scenes(&self) -> Vec<Scene> {
        let starts = self.events.iter().enumerate().filter_map(|(i, event)| match event {
            Event::Cmd(cmd) => Some((i + 1, cmd.clone())),
            _ => None,
        });
        let scene = |(start, cmd)| {
            let rest = &self.events[start..];
            let end = rest.iter().position(|e| matches!(e, Event::Cmd(_) | Event::Note(_)));
            let exchanges = exchanges(&rest[..end.unwrap_or(rest.len())], rest);
            Scene { cmd, exchanges }
        };
        starts.map(scene).collect()
    }
}

/// The requests among `events` with their replies from `later`, which may hold more.
fn exchanges(events: &[Event], later: &[Event]) -> Vec<Exchange> {
    let reply = |n| {
        later.iter().find_map(|event| match event {
            Event::Rsp(rsp) if rsp.n == n => Some(rsp.clone()),
            _ => None,
        })
    };
    let requests = events.iter().filter_map(|event| match event {
        Event::Req(req) => Some(req.clone()),
        _ => None,
    });
    requests.map(|req| Exchange { rsp: reply(req.n), req }).collect()
}

impl Event {
    fn parse(line: &Value) -> Self {
        match text(&line["t"]).as_str() {
            "meta" => Self::Meta(line.clone()),
            "note" => Self::Note(text(&line["text"])),
            "cmd" => Self::Cmd(Cmd::parse(line)),
            "open" => Self::Open { conn: number(&line["conn"]), node: number(&line["node"]) },
            "close" => Self::Close { conn: number(&line["conn"]) },
            "req" => Self::Req(Message::parse(line, "n")),
            "rsp" => Self::Rsp(Message::parse(line, "req")),
            other => panic!("no such line: {other}"),
        }
    }
}

impl Cmd {
    fn parse(line: &Value) -> Self {
        Self {
            argv: list(&line["argv"]).iter().map(text).collect(),
            rc: line["rc"].as_i64().expect("an exit status"),
            stdout: Payload::parse(&line["stdout"]),
            stderr: line["stderr"].as_str().unwrap_or_default().to_owned(),
            stdin: Payload::parse(&line["stdin"]),
        }
    }
}

impl Message {
    fn parse(line: &Value, number_of: &str) -> Self {
        Self {
            n: number(&line[number_of]),
            conn: number(&line["conn"]),
            hdr: unhex(&line["hdr"]).try_into().expect("a header has 48 bytes"),
            dec: line["dec"].clone(),
            payload: Payload::parse(&line["payload"]),
        }
    }
}

impl Payload {
    fn parse(value: &Value) -> Self {
        Self(match value {
            Value::Null => Recorded::Nothing,
            Value::String(text) => Recorded::Bytes(text.clone().into_bytes()),
            _ if value["hex"].is_string() => Recorded::Bytes(unhex(&value["hex"])),
            _ => Recorded::Runs {
                len: position(&value["len"]),
                sha256: text(&value["sha256"]),
                runs: list(&value["runs"]).clone(),
            },
        })
    }

    /// How many bytes there are; cheap.
    pub fn len(&self) -> usize {
        match &self.0 {
            Recorded::Nothing => 0,
            Recorded::Bytes(bytes) => bytes.len(),
            Recorded::Runs { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The recorded hash, for payloads that were not recorded in full; equal hashes are equal
    /// payloads, which saves rebuilding them.
    pub fn sha256(&self) -> Option<&str> {
        match &self.0 {
            Recorded::Runs { sha256, .. } => Some(sha256),
            _ => None,
        }
    }

    /// The bytes, rebuilt and checked against their hash where there is one.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.0 {
            Recorded::Nothing => Vec::new(),
            Recorded::Bytes(bytes) => bytes.clone(),
            Recorded::Runs { len, sha256, runs } => {
                let bytes = rebuild(*len, runs);
                assert_eq!(hex(&Sha256::digest(&bytes)), *sha256, "a payload came out wrong");
                bytes
            }
        }
    }
}

/// Leaves come after all other runs, over them.
fn rebuild(len: usize, runs: &[Value]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let (leaves, plain): (Vec<&Value>, Vec<&Value>) = runs.iter().partition(|r| r[0] == "leaf");
    for run in plain.into_iter().chain(leaves) {
        apply(&mut bytes, list(run));
    }
    bytes
}

fn apply(bytes: &mut [u8], run: &[Value]) {
    match run {
        [at, literal] => {
            let literal = unhex(literal);
            bytes[position(at)..][..literal.len()].copy_from_slice(&literal);
        }
        [at, count, byte] => bytes[position(at)..][..position(count)].fill(unhex(byte)[0]),
        [_, at, count, first, step, value] => {
            let pairs = bytes[position(at)..].chunks_exact_mut(8).take(position(count));
            for (pair, i) in pairs.zip(0..) {
                let key = number(first) + number(step) * i;
                pair[..4].copy_from_slice(&word(key));
                pair[4..].copy_from_slice(&word(number(value)));
            }
        }
        other => panic!("no such run: {other:?}"),
    }
}

fn word(value: u64) -> [u8; 4] {
    u32::try_from(value).expect("a word").to_le_bytes()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn position(value: &Value) -> usize {
    usize::try_from(number(value)).expect("a position")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

/// The bytes of a string of hexadecimal digits.
pub fn unhex(value: &Value) -> Vec<u8> {
    let digits = value.as_str().expect("hex digits").as_bytes().chunks_exact(2);
    assert!(digits.remainder().is_empty(), "half a byte");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(|pair| byte(pair).expect("two hex digits")).collect()
}

/// `bytes` as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
