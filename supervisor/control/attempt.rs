//! What was tried: how the words about its failure begin, and the volume that the
//! journal finds them by.

use super::waits::Work;
use sheepfs::wire::name::VolumeName;

/// Something that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// In words.
    pub what: String,
    /// With which volume, if with one.
    pub volume: Option<VolumeName>,
}

impl Attempt {
    /// Attaching a volume.
    pub fn attach(volume: &VolumeName) -> Self {
        Self::with(volume, format!("attach {volume}"))
    }

    /// Attaching it to the next worker.
    pub fn attach_again(volume: &VolumeName) -> Self {
        Self::with(volume, format!("attach {volume} again"))
    }

    /// Detaching it.
    pub fn detach(volume: &VolumeName) -> Self {
        Self::with(volume, format!("detach {volume}"))
    }

    /// Going after its VDI, which became a snapshot.
    pub fn follow(volume: &VolumeName) -> Self {
        Self::with(volume, format!("follow {volume} to its new vid"))
    }

    /// Letting it grow.
    pub fn grow(volume: &VolumeName) -> Self {
        Self::with(volume, format!("let {volume} grow"))
    }

    /// An errand, in words, and the VDI that it is about.
    pub fn errand(what: String, target: &str) -> Self {
        Self { what, volume: VolumeName::parse(target.as_bytes()).ok() }
    }

    fn with(volume: &VolumeName, what: String) -> Self {
        Self { what, volume: Some(volume.clone()) }
    }
}

impl From<&str> for Attempt {
    fn from(what: &str) -> Self {
        Self { what: what.to_owned(), volume: None }
    }
}

impl From<&Work> for Attempt {
    fn from(work: &Work) -> Self {
        match work {
            Work::Attach { name, .. } => Self::attach(name),
            Work::Resume { name, .. } => Self::attach_again(name),
            Work::Detach { gone, .. } => Self::detach(&gone.name),
            Work::Query { query, .. } => super::waits::file_of(*query).into(),
            Work::Manage(managed) => super::manage::attempt(&managed.errand),
            Work::Search { .. } => super::waits::SEARCH.into(),
        }
    }
}
