//! The words of `-o`: which of them are options of `sheepfs`, which say nothing to
//! it, and which ask for what it can't do.
//!
//! mount(8) has used up some of them before it calls a helper, and added others
//! that it derived, such as `nosuid` from `user`.

use crate::cli::Options;
use clap::{Arg, CommandFactory};
use thiserror::Error;

/// Long options of `sheepfs` that a mount can't have: the source says them, or they
/// are for a terminal.
const NOT_OF_A_MOUNT: [&str; 7] =
    ["address", "port", "source", "debug", "foreground", "local", "create"];

/// Options that are about who mounts what and when: mount(8)'s and systemd's own.
const OF_MOUNT: [&str; 13] = [
    "defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group",
    "comment", "helper", "uhelper",
];

/// Options that the kernel or sheepfs fulfils in any case.
const ALWAYS: [&str; 9] =
    ["nosuid", "nodev", "noexec", "nosymfollow", "sync", "async", "dirsync", "silent", "loud"];

/// Options about the time of the last access, which is not kept.
const ACCESS_TIME: [&str; 10] = [
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
];

/// What a mount of sheepfs never is.
const NEVER: [&str; 3] = ["suid", "dev", "exec"];

/// Why a word can't be translated.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WordsError {
    /// Nobody knows it.
    #[error("unknown option \"{0}\"; mount.sheepfs(8) lists the options")]
    Unknown(String),
    /// `sheepfs` has it, but not here.
    #[error(
        "the option \"{0}\" is only for the command line of sheepfs; here the source names the sheep"
    )]
    NotOfAMount(String),
    /// It asks for what is never so.
    #[error("the option \"{0}\" is refused: the mount is always nosuid, nodev and noexec")]
    Never(String),
    /// The mount is there already.
    #[error("a mount can't be changed in place: unmount it, and mount it with other options")]
    Remount,
    /// A value where none is wanted.
    #[error("the option \"{0}\" takes no value")]
    Value(String),
    /// No value where one is wanted.
    #[error("the option \"{0}\" needs a value: {0}=...")]
    NoValue(String),
    /// A quote without its end.
    #[error("a double quote has no end in \"{0}\"")]
    Quote(String),
}

/// What the words come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Of `ro` and `rw`, the last one was `ro`.
    pub read_only: bool,
    /// Options of `sheepfs`.
    pub arguments: Vec<String>,
}

impl Words {
    /// Of all that was given with `-o`. With `sloppy`, unknown words are ignored.
    pub fn of(options: &[String], sloppy: bool) -> Result<Self, WordsError> {
        let mut words = Self::default();
        for list in options {
            for word in split(list)? {
                match words.take(&word) {
                    Err(WordsError::Unknown(_)) if sloppy => {}
                    other => other?,
                }
            }
        }
        Ok(words)
    }

    fn take(&mut self, word: &str) -> Result<(), WordsError> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        match name {
            "ro" | "read_only" | "read-only" => self.read_only = true,
            "rw" => self.read_only = false,
            "remount" => return Err(WordsError::Remount),
            _ if is_ignored(name) => {}
            _ if NEVER.contains(&name) => return Err(WordsError::Never(name.to_owned())),
            _ => self.arguments.push(argument(name, value)?),
        }
        Ok(())
    }
}

fn is_ignored(name: &str) -> bool {
    let lists: [&[&str]; 3] = [&OF_MOUNT, &ALWAYS, &ACCESS_TIME];
    // What begins so is for others, such as systemd.
    let for_others = name.is_empty() || name.starts_with("x-") || name.starts_with("X-");
    for_others || lists.iter().any(|list| list.contains(&name))
}

/// The argument of `sheepfs` for a word: underscores may stand for its dashes.
pub fn argument(name: &str, value: Option<&str>) -> Result<String, WordsError> {
    let long = name.replace('_', "-");
    let is_it = |arg: &&Arg| arg.get_long() == Some(&long) && !arg.is_hide_set();
    let command = Options::command();
    let Some(option) = command.get_arguments().find(is_it) else {
        return Err(WordsError::Unknown(name.to_owned()));
    };
    if NOT_OF_A_MOUNT.contains(&long.as_str()) {
        return Err(WordsError::NotOfAMount(name.to_owned()));
    }
    match (option.get_action().takes_values(), value) {
        (true, Some(value)) => Ok(format!("--{long}={value}")),
        (false, None) => Ok(format!("--{long}")),
        (true, None) => Err(WordsError::NoValue(name.to_owned())),
        (false, Some(_)) => Err(WordsError::Value(name.to_owned())),
    }
}

/// Cuts a list at its commas, but not between double quotes, which go, as mount(8)
/// has it.
fn split(list: &str) -> Result<Vec<String>, WordsError> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in list.chars() {
        match (character, words.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => words.push(String::new()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    if quoted { Err(WordsError::Quote(list.to_owned())) } else { Ok(words) }
}
