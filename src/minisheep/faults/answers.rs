//! What commands answer that are not faults themselves.

use std::fmt::Write;

use super::Subject;
use super::parse::Command;
use crate::wire::Opcode;

/// The answer to what needs the objects themselves.
pub const NOT_HERE: &str = "error: only the minisheep behind the gateways can do that\n";

/// Does what a command asks of the dead among the nodes.
pub fn members(subject: Subject<'_>, command: &Command) -> String {
    let Some(sheep) = subject.sheep else { return NOT_HERE.to_owned() };
    if *command == Command::Linger {
        sheep.members.linger();
        return "ok\n".to_owned();
    }
    format!("left {}\n", sheep.members.bury())
}

/// Counts broken rules, or begins anew.
pub fn bugs(subject: Subject<'_>, command: &Command) -> String {
    let Some(sheep) = subject.sheep else { return NOT_HERE.to_owned() };
    if *command == Command::ClearBugs {
        sheep.rules.clear();
        return "ok\n".to_owned();
    }
    lines(sheep.rules.counts().map(|(rule, count)| (rule.name().into(), count)))
}

/// By its name in the library.
pub fn opcode_name(code: u8) -> String {
    Opcode::from_code(code).map_or_else(|| format!("{code:#04x}"), |opcode| format!("{opcode:?}"))
}

/// A line of `word number` for each.
pub fn lines(words: impl Iterator<Item = (String, u64)>) -> String {
    words.fold(String::new(), |mut text, (word, number)| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{word} {number}");
        text
    })
}
