//! The lines that a test writes to the control socket.
//!
//! ```text
//! delay ms=500 [when=after] [FILTER]     answer later; `before` executing is the default
//! status code=0x19 [FILTER]              answer this instead
//! drop before|after [FILTER]             close the connection instead
//! hold [FILTER]                          read, and neither carried out nor forwarded
//! hold_reply [FILTER]                    carried out, and not answered
//! reorder [ms=20] [FILTER]               let the next answer overtake
//! late-reclaim [ms=1000]                 give references up so much later
//! snapshot NAME TAG [after=N] [lose=N] [FILTER]
//! pause, resume                          hold all requests
//! hurry                                  end the delays that are running
//! release, drop                          let all that is held go on in order, or forget it
//! linger                                 gateways that end are nodes still
//! bury                                   those leave, and others at once again; how many `left`
//! held                                   how many `requests` and `replies` are held
//! fired, bugs, stats                     lines of `word number`
//! clear, clear-bugs
//! ```
//!
//! `clear` ends faults, but what they hold stays held, and `release` does not end a fault: so
//! `clear` and then `release` lets everything go. At a gateway all is about that gateway, and
//! what only the minisheep behind it can do (late-reclaim, snapshot, linger, bury, bugs) is
//! refused.
//!
//! FILTER is any of `opcode=write` (or a number), `kind=data` (or inode), `vid=HEX`, `oid=HEX`,
//! `skip=N` (leave the first N alone) and `count=N` (then stop).

use std::time::Duration;

use thiserror::Error;

use crate::minisheep::hooks::Fate;
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, Opcode, RequestHeader, Status};

const REORDER_LIMIT: Duration = Duration::from_millis(20);
const RECLAIM_DELAY: Duration = Duration::from_secs(1);

/// Which requests a fault is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this opcode.
    pub opcode: Option<u8>,
    /// On an object of this kind.
    pub kind: Option<ObjectKind>,
    /// On an object of this VDI.
    pub vid: Option<u32>,
    /// On this object.
    pub oid: Option<u64>,
    /// Not the first of them.
    pub skip: u64,
    /// Only so many.
    pub count: Option<u64>,
}

impl Filter {
    /// Whether a request is one of those, apart from counting.
    #[must_use]
    pub fn takes(&self, request: &RequestHeader) -> bool {
        let oid = ObjectId::from_raw(request.obj().oid);
        self.opcode.is_none_or(|opcode| opcode == request.opcode)
            && self.kind.is_none_or(|kind| kind == oid.kind())
            && self.vid.is_none_or(|vid| vid == oid.vid_raw())
            && self.oid.is_none_or(|raw| raw == oid.raw())
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Executed later.
    DelayBefore(Duration),
    /// Answered later.
    DelayAfter(Duration),
    /// Answered so, and not executed.
    Status(Status),
    /// The connection is closed, nothing executed.
    DropBefore,
    /// The connection is closed after executing.
    DropAfter,
    /// Not carried out until it is released.
    Hold,
    /// Carried out, but not answered until it is released.
    HoldReply,
    /// The next answer overtakes, if one comes in time.
    Reorder(Duration),
    /// References are given up so much later.
    LateReclaim(Duration),
    /// A snapshot is taken just before the request.
    Snapshot {
        /// Of this VDI.
        name: String,
        /// With this tag.
        tag: String,
        /// So many of the last index entries are lost by it (protocol 7.4).
        lose: usize,
    },
}

impl Kind {
    /// The word that asks for it.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::DelayBefore(_) | Self::DelayAfter(_) => "delay",
            Self::Status(_) => "status",
            Self::DropBefore | Self::DropAfter => "drop",
            Self::Hold => "hold",
            Self::HoldReply => "hold_reply",
            Self::Reorder(_) => "reorder",
            Self::LateReclaim(_) => "late-reclaim",
            Self::Snapshot { .. } => "snapshot",
        }
    }
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A fault from now on.
    Add(Kind, Filter),
    /// Hold all requests.
    Pause,
    /// Go on with them.
    Resume,
    /// End the delays that are running.
    Hurry,
    /// Let what is held go on, or forget it.
    Decide(Fate),
    /// How much is held.
    Held,
    /// Gateways that end are nodes still.
    Linger,
    /// Those leave.
    Bury,
    /// How often each fault fired.
    Fired,
    /// Which rules were broken how often.
    Bugs,
    /// How many requests of each opcode were received.
    Stats,
    /// No faults any more.
    Clear,
    /// Count broken rules anew.
    ClearBugs,
}

/// Why a line means nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// An unknown first word.
    #[error("no such command: {0}")]
    Command(String),
    /// A word is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A word makes no sense.
    #[error("what is {0}?")]
    Word(String),
}

/// Reads a line.
///
/// # Errors
/// [`ParseError`] names the word that is wrong.
pub fn parse(line: &str) -> Result<Command, ParseError> {
    let mut words = line.split_whitespace();
    let verb = words.next().ok_or(ParseError::Missing("a command"))?;
    match verb {
        "pause" => return Ok(Command::Pause),
        "resume" => return Ok(Command::Resume),
        "hurry" => return Ok(Command::Hurry),
        "release" => return Ok(Command::Decide(Fate::Goes)),
        "drop" if words.clone().next().is_none() => return Ok(Command::Decide(Fate::Forgotten)),
        "held" => return Ok(Command::Held),
        "linger" => return Ok(Command::Linger),
        "bury" => return Ok(Command::Bury),
        "fired" => return Ok(Command::Fired),
        "bugs" => return Ok(Command::Bugs),
        "stats" => return Ok(Command::Stats),
        "clear" => return Ok(Command::Clear),
        "clear-bugs" => return Ok(Command::ClearBugs),
        _ => {}
    }
    let mut options = Options::default();
    words.try_for_each(|word| options.take(word))?;
    Ok(Command::Add(options.kind(verb)?, options.filter))
}

/// All that may follow a fault's name.
#[derive(Debug, Default)]
struct Options {
    plain: Vec<String>,
    filter: Filter,
    delay: Option<Duration>,
    code: Option<u32>,
    after: bool,
    lose: usize,
}

impl Options {
    fn take(&mut self, word: &str) -> Result<(), ParseError> {
        let Some((key, value)) = word.split_once('=') else {
            self.plain.push(word.to_owned());
            return Ok(());
        };
        self.set(key, value).ok_or_else(|| ParseError::Word(word.to_owned()))
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "ms" => self.delay = Some(Duration::from_millis(value.parse().ok()?)),
            "when" if matches!(value, "before" | "after") => self.after = value == "after",
            "code" => self.code = Some(number(value)?),
            "lose" => self.lose = value.parse().ok()?,
            "opcode" => self.filter.opcode = Some(opcode(value)?),
            "kind" => self.filter.kind = Some(object_kind(value)?),
            "vid" => self.filter.vid = Some(u32::from_str_radix(value, 16).ok()?),
            "oid" => self.filter.oid = Some(u64::from_str_radix(value, 16).ok()?),
            "skip" | "after" => self.filter.skip = value.parse().ok()?,
            "count" => self.filter.count = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }

    fn kind(&self, verb: &str) -> Result<Kind, ParseError> {
        let plain = |at: usize| self.plain.get(at).map(String::as_str);
        let delay = self.delay.ok_or(ParseError::Missing("ms="));
        match (verb, plain(0)) {
            ("delay", None) if self.after => delay.map(Kind::DelayAfter),
            ("delay", None) => delay.map(Kind::DelayBefore),
            ("status", None) => {
                let code = self.code.ok_or(ParseError::Missing("code="))?;
                Ok(Kind::Status(Status::from_code(code)))
            }
            ("drop", Some("before")) => Ok(Kind::DropBefore),
            ("drop", Some("after")) => Ok(Kind::DropAfter),
            ("hold", None) => Ok(Kind::Hold),
            ("hold_reply", None) => Ok(Kind::HoldReply),
            ("drop", None) => Err(ParseError::Missing("before or after")),
            ("reorder", None) => Ok(Kind::Reorder(delay.unwrap_or(REORDER_LIMIT))),
            ("late-reclaim", None) => Ok(Kind::LateReclaim(delay.unwrap_or(RECLAIM_DELAY))),
            ("snapshot", Some(name)) => {
                let tag = plain(1).ok_or(ParseError::Missing("a tag"))?;
                Ok(Kind::Snapshot { name: name.into(), tag: tag.into(), lose: self.lose })
            }
            ("snapshot", None) => Err(ParseError::Missing("a name")),
            (_, Some(word)) => Err(ParseError::Word(word.to_owned())),
            _ => Err(ParseError::Command(verb.to_owned())),
        }
    }
}

fn opcode(word: &str) -> Option<u8> {
    let opcode = match word {
        "create" => Opcode::CreateAndWriteObj,
        "read" => Opcode::ReadObj,
        "write" => Opcode::WriteObj,
        "remove" => Opcode::RemoveObj,
        "discard" => Opcode::DiscardObj,
        "new_vdi" => Opcode::NewVdi,
        "lock" => Opcode::LockVdi,
        "release" => Opcode::ReleaseVdi,
        "lookup" => Opcode::GetVdiInfo,
        "flush" => Opcode::FlushVdi,
        _ => return u8::try_from(number(word)?).ok(),
    };
    Some(opcode.code())
}

fn object_kind(word: &str) -> Option<ObjectKind> {
    match word {
        "data" => Some(ObjectKind::Data),
        "inode" => Some(ObjectKind::Inode),
        _ => None,
    }
}

fn number(word: &str) -> Option<u32> {
    match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_shall_go_wrong() {
        let filter = Filter { opcode: Some(3), count: Some(2), ..Filter::default() };
        assert_eq!(
            parse("status code=0x19 opcode=write count=2"),
            Ok(Command::Add(Kind::Status(Status::Halt), filter))
        );
        let half = Duration::from_millis(500);
        assert_eq!(
            parse("delay ms=500 when=after"),
            Ok(Command::Add(Kind::DelayAfter(half), Filter::default()))
        );
        let snapshot = Kind::Snapshot { name: "disk".into(), tag: "t".into(), lose: 1 };
        let filter = Filter { skip: 7, ..Filter::default() };
        assert_eq!(parse("snapshot disk t after=7 lose=1"), Ok(Command::Add(snapshot, filter)));
        assert_eq!(parse(" pause "), Ok(Command::Pause));
        let filter = Filter { kind: Some(ObjectKind::Data), ..Filter::default() };
        assert_eq!(parse("hold kind=data"), Ok(Command::Add(Kind::Hold, filter.clone())));
        assert_eq!(parse("hold_reply kind=data"), Ok(Command::Add(Kind::HoldReply, filter)));
        assert_eq!(parse("linger"), Ok(Command::Linger));
        assert_eq!(parse("bury"), Ok(Command::Bury));
        assert_eq!(parse("release"), Ok(Command::Decide(Fate::Goes)));
        assert_eq!(parse("drop"), Ok(Command::Decide(Fate::Forgotten)));
    }

    #[test]
    fn a_wrong_word_is_named() {
        assert_eq!(parse(""), Err(ParseError::Missing("a command")));
        assert_eq!(parse("explode"), Err(ParseError::Command("explode".into())));
        assert_eq!(parse("delay"), Err(ParseError::Missing("ms=")));
        assert_eq!(parse("drop count=1"), Err(ParseError::Missing("before or after")));
        assert_eq!(parse("hold before"), Err(ParseError::Word("before".into())));
        assert_eq!(parse("delay ms=x"), Err(ParseError::Word("ms=x".into())));
        assert_eq!(parse("reorder now"), Err(ParseError::Word("now".into())));
        assert_eq!(parse("status code=1 colour=red"), Err(ParseError::Word("colour=red".into())));
    }
}
