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
    /// By their names; what is not ours is closed. Of several with one name the first
    /// is taken, and the others are closed: systemd hands on the newest first, though
    /// not after it was started anew itself, so nobody should store two.
    fn sorted(stored: impl IntoIterator<Item = (OwnedFd, String)>) -> Self {
        let mut sorted = Self::default();
        for (fd, name) in stored {
            let place = match StoredName::of_word(&name) {
                Some(StoredName::Device) => &mut sorted.device,
                Some(StoredName::State) => &mut sorted.state,
                None => {
                    tracing::warn!(name, "the service manager kept what is not ours; closed");
                    continue;
                }
            };
            if place.is_some() {
                tracing::warn!(name, "the service manager kept several of this name; closed");
            } else {
                *place = Some(fd);
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
    fn each_is_known_by_its_name_and_the_first_of_a_name_is_taken() {
        let (mut older, first) = pipe().unwrap();
        let (mut strange, other) = pipe().unwrap();
        let newer = tempfile::tempfile().unwrap();
        let state = tempfile::tempfile().unwrap();
        let inherited = Inherited::sorted([
            named(newer.try_clone().unwrap(), "sheepfs-device"),
            named(state.try_clone().unwrap(), "sheepfs-state"),
            named(other, "stored"),
            named(first, "sheepfs-device"),
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
