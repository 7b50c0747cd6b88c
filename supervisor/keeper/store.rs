//! The descriptors that the supervisor gave us: one a name.

use super::message::Ask;
use command_fds::FdMapping;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// Where inherited descriptors begin (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// A supervisor has two. One of another version may have others, which are kept for
/// its like.
const NAMES_MAX: usize = 16;

/// What is kept.
#[derive(Debug, Default)]
pub struct Store {
    kept: BTreeMap<String, OwnedFd>,
}

impl Store {
    /// Does what the supervisor asks for with what it sent. All that is not kept, or
    /// no longer, is closed.
    pub fn obey(&mut self, ask: Ask, fds: Vec<OwnedFd>) {
        match ask {
            Ask::Nothing => {}
            Ask::Remove(name) => drop(self.kept.remove(&name)),
            Ask::Store(name) => {
                let has_room = self.kept.len() < NAMES_MAX || self.kept.contains_key(&name);
                match fds.into_iter().next_back() {
                    Some(fd) if has_room => drop(self.kept.insert(name, fd)),
                    Some(_) => tracing::warn!(name, "not stored: there are {NAMES_MAX} already"),
                    None => tracing::warn!(name, "nothing came with a request to store it"),
                }
            }
        }
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// The names as `LISTEN_FDNAMES` has them, in the order of [`Store::mappings`].
    pub fn names(&self) -> String {
        self.kept.keys().map(String::as_str).collect::<Vec<_>>().join(":")
    }

    /// Copies of all for a child, under the numbers that it expects.
    ///
    /// # Errors
    /// When there is no room for copies.
    pub fn mappings(&self) -> io::Result<Vec<FdMapping>> {
        let numbered = self.kept.values().zip(FIRST..);
        let copy = |(fd, child_fd): (&OwnedFd, RawFd)| {
            Ok(FdMapping { parent_fd: fd.try_clone()?, child_fd })
        };
        numbered.map(copy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read, pipe};

    fn ask(name: &str) -> Ask {
        Ask::Store(name.to_owned())
    }

    fn fd() -> (PipeReader, Vec<OwnedFd>) {
        let (read, write) = pipe().unwrap();
        (read, vec![write.into()])
    }

    fn is_closed(pipe: &mut PipeReader) -> bool {
        pipe.read(&mut [0]).unwrap() == 0
    }

    #[test]
    fn a_later_one_replaces_the_earlier_one_which_is_closed() {
        let mut store = Store::default();
        let ((mut first, one), (_second, two)) = (fd(), fd());
        store.obey(ask("b"), one);
        store.obey(ask("a"), fd().1);
        store.obey(ask("b"), two);
        assert!(is_closed(&mut first));
        assert_eq!((store.names().as_str(), store.len()), ("a:b", 2));
        let numbers: Vec<_> = store.mappings().unwrap().iter().map(|m| m.child_fd).collect();
        assert_eq!(numbers, [3, 4]);
    }

    #[test]
    fn what_is_removed_or_not_wanted_is_closed() {
        let mut store = Store::default();
        let ((mut first, one), (mut second, two)) = (fd(), fd());
        store.obey(ask("a"), one);
        store.obey(Ask::Remove("b".into()), Vec::new());
        store.obey(ask("a"), Vec::new());
        assert_eq!(store.len(), 1);
        store.obey(Ask::Remove("a".into()), Vec::new());
        store.obey(Ask::Nothing, two);
        assert!(is_closed(&mut first) && is_closed(&mut second) && store.is_empty());
    }

    #[test]
    fn there_is_room_for_so_many_names_and_for_known_ones() {
        let mut store = Store::default();
        for name in 0..NAMES_MAX {
            store.obey(ask(&name.to_string()), fd().1);
        }
        let (mut refused, one) = fd();
        store.obey(ask("one more"), one);
        assert!(is_closed(&mut refused));
        let (_taken, two) = fd();
        store.obey(ask("0"), two);
        assert_eq!(store.len(), NAMES_MAX);
    }
}
