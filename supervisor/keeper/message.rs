//! The words of one message of the protocol that concern a keeper. Pure.

use std::os::fd::OwnedFd;

/// What systemd calls descriptors that came without a name.
const NO_NAME: &str = "stored";
/// The longest name that systemd takes.
const NAME_LEN_MAX: usize = 255;

/// What is to be done with the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: what came with the message is closed. That is what a barrier is.
    Nothing,
    /// Keep what came with the message under this name.
    Store(String),
    /// Let go of what has this name.
    Remove(String),
}

/// A message, as far as a keeper understands it.
#[derive(Debug)]
pub struct Message {
    /// `READY=1`
    pub is_ready: bool,
    /// `RELOADING=1`
    pub is_reloading: bool,
    /// `WATCHDOG=1`
    pub is_alive: bool,
    /// `FDSTORE=1` or `FDSTOREREMOVE=1`
    pub ask: Ask,
    /// What came with it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// Reads a message; words that are not known are not for us.
    pub fn read(bytes: &[u8], fds: Vec<OwnedFd>) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let says = |word: &str| text.lines().any(|line| line == word);
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or(NO_NAME);
        let ask = match is_name(name) {
            true if says("FDSTOREREMOVE=1") => Ask::Remove(name.to_owned()),
            true if says("FDSTORE=1") => Ask::Store(name.to_owned()),
            _ => Ask::Nothing,
        };
        Self {
            is_ready: says("READY=1"),
            is_reloading: says("RELOADING=1"),
            is_alive: says("WATCHDOG=1"),
            ask,
            fds,
        }
    }
}

/// Names are handed on in one variable, with colons between them.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    !name.is_empty() && name.len() <= NAME_LEN_MAX && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Ask {
        Message::read(text.as_bytes(), Vec::new()).ask
    }

    #[test]
    fn words_are_whole_lines() {
        let message = Message::read(b"STATUS=READY=1\nWATCHDOG=1", Vec::new());
        assert!(!message.is_ready && message.is_alive);
        let message = Message::read(b"READY=1\nSTATUS=mounted\nMAINPID=1\n\xff\n", Vec::new());
        assert!(message.is_ready && !message.is_alive && !message.is_reloading);
        assert_eq!(message.ask, Ask::Nothing);
    }

    #[test]
    fn the_store_is_asked_by_name() {
        assert_eq!(ask("FDSTORE=1\nFDNAME=a b\nFDPOLL=0\n"), Ask::Store("a b".into()));
        assert_eq!(ask("FDNAME=x\nFDSTOREREMOVE=1"), Ask::Remove("x".into()));
        assert_eq!(ask("FDSTORE=1"), Ask::Store("stored".into()));
        assert_eq!(ask("BARRIER=1"), Ask::Nothing);
    }

    #[test]
    fn a_name_that_could_not_be_handed_on_is_not_taken() {
        for name in ["", "a:b", "a\u{e9}", "a\tb", &"x".repeat(256)] {
            assert_eq!(ask(&format!("FDSTORE=1\nFDNAME={name}")), Ask::Nothing, "{name}");
        }
    }
}
