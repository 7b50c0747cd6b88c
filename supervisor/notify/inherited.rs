//! What the manager kept for us: descriptors from 3 on, whose number and names are
//! in the environment (sd_listen_fds(3)).

use super::StoredName;
use crate::descriptors;
use std::io;
use std::os::fd::OwnedFd;

/// What a predecessor left to us. Both close-on-exec.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The open `/dev/fuse`.
    pub device: Option<OwnedFd>,
    /// The memory file.
    pub state: Option<OwnedFd>,
}

/// Takes what the manager kept for us. To be called once, before anything is
/// opened; a second call gives nothing.
///
/// # Errors
/// When the environment contradicts itself or names descriptors that are not open.
pub fn inherited() -> io::Result<Inherited> {
    let (numbers, names): (Vec<_>, Vec<_>) = sd_notify::listen_fds_with_names()?.unzip();
    let taken = descriptors::take_inherited(&numbers);
    Ok(Inherited::sorted(taken.into_iter().zip(names)))
}

impl Inherited {
    /// By their names. Of several with one name the last is the newest, and the
    /// others are closed; so is what is not ours.
    fn sorted(stored: impl IntoIterator<Item = (OwnedFd, String)>) -> Self {
        let mut sorted = Self::default();
        for (fd, name) in stored {
            match StoredName::of_word(&name) {
                Some(StoredName::Device) => sorted.device = Some(fd),
                Some(StoredName::State) => sorted.state = Some(fd),
                None => tracing::warn!(name, "the service manager kept what is not ours; closed"),
            }
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, pipe};

    fn named(fd: impl Into<OwnedFd>, name: &str) -> (OwnedFd, String) {
        (fd.into(), name.to_owned())
    }

    /// Whether all writing ends of the pipe are closed.
    fn is_closed(pipe: &mut io::PipeReader) -> bool {
        pipe.read(&mut [0]).is_ok_and(|read| read == 0)
    }

    #[test]
    fn each_is_known_by_its_name_and_the_last_of_a_name_wins() {
        let (mut older, first) = pipe().unwrap();
        let (mut strange, other) = pipe().unwrap();
        let newer = tempfile::tempfile().unwrap();
        let state = tempfile::tempfile().unwrap();
        let inherited = Inherited::sorted([
            named(first, "sheepfs-device"),
            named(state.try_clone().unwrap(), "sheepfs-state"),
            named(other, "stored"),
            named(newer.try_clone().unwrap(), "sheepfs-device"),
        ]);
        assert!(is_closed(&mut older) && is_closed(&mut strange));
        File::from(inherited.device.unwrap()).set_len(7).unwrap();
        File::from(inherited.state.unwrap()).set_len(8).unwrap();
        assert_eq!(newer.metadata().unwrap().len(), 7);
        assert_eq!(state.metadata().unwrap().len(), 8);
    }

    #[test]
    fn nothing_kept_is_nothing_inherited() {
        let inherited = Inherited::sorted([]);
        assert!(inherited.device.is_none() && inherited.state.is_none());
    }
}
