//! What the worker was asked by the control loop and has not answered, who waits
//! for it, and until when. Bounded; tags are never used again.

use crate::inflight::CONTROL_TAG;
use sheepfs::ipc::{Query, Tag, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// The most that may wait at once.
const WAITS_MAX: usize = 1024;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The start of sheepfs itself, for a volume of `--attach`.
    Start,
    /// A program, whose reply the shell of the loop has parked.
    Program(u64),
}

/// What the worker was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A new volume.
    Attach {
        /// Its id to be.
        id: VolumeId,
        /// Its name.
        name: VolumeName,
    },
    /// A volume that an earlier worker had.
    Reattach {
        /// Its id.
        id: VolumeId,
        /// Its name.
        name: VolumeName,
    },
    /// The end of a volume.
    Detach {
        /// Its name.
        name: VolumeName,
        /// Who wants it attached again, once it is gone.
        then: Vec<Caller>,
    },
    /// A report.
    Query {
        /// Which.
        query: Query,
        /// What came of it so far.
        bytes: Vec<u8>,
    },
}

/// What was tried, as a message about its failure begins.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attach { name, .. } => write!(f, "attach {name}"),
            Self::Reattach { name, .. } => write!(f, "attach {name} again"),
            Self::Detach { name, .. } => write!(f, "detach {name}"),
            Self::Query { query, .. } => f.write_str(file_of(*query)),
        }
    }
}

/// The file that a query is for.
pub fn file_of(query: Query) -> &'static str {
    match query {
        Query::Cluster => "read cluster/info",
        Query::Nodes => "read node/list",
        Query::Space => "read node/info",
        Query::Vdis => "read vdi/list",
        Query::Totals => "ask for the cluster's space",
    }
}

/// A request to the worker.
#[derive(Clone, Debug)]
pub struct Wait {
    /// What it was asked.
    pub work: Work,
    /// Who waits. Nobody, when all have given up: an attach is undone then.
    pub callers: Vec<Caller>,
    /// When they give up.
    pub deadline: Option<Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Waits {
    next: u64,
    by_tag: BTreeMap<Tag, Wait>,
}

impl Waits {
    /// Adds one.
    pub fn add(&mut self, work: Work, callers: Vec<Caller>, deadline: Instant) -> Tag {
        let tag = Tag(CONTROL_TAG | self.next);
        self.next += 1;
        self.by_tag.insert(tag, Wait { work, callers, deadline: Some(deadline) });
        tag
    }

    /// Whether there is room for another.
    pub fn has_room(&self) -> bool {
        self.by_tag.len() < WAITS_MAX
    }

    /// Takes out the one that was answered.
    pub fn finish(&mut self, tag: Tag) -> Option<Wait> {
        self.by_tag.remove(&tag)
    }

    /// The one with that tag.
    pub fn get(&mut self, tag: Tag) -> Option<&mut Wait> {
        self.by_tag.get_mut(&tag)
    }

    /// The attach of that name that is under way.
    pub fn attach_of(&mut self, wanted: &VolumeName) -> Option<&mut Wait> {
        self.by_tag
            .values_mut()
            .find(|wait| matches!(&wait.work, Work::Attach { name, .. } if name == wanted))
    }

    /// The detach of that name that is under way.
    pub fn detach_of(&mut self, wanted: &VolumeName) -> Option<&mut Wait> {
        self.by_tag
            .values_mut()
            .find(|wait| matches!(&wait.work, Work::Detach { name, .. } if name == wanted))
    }

    /// The query of that kind that is under way.
    pub fn query_of(&mut self, wanted: Query) -> Option<&mut Wait> {
        self.by_tag
            .values_mut()
            .find(|wait| matches!(wait.work, Work::Query { query, .. } if query == wanted))
    }

    /// Whether volumes are coming or going.
    pub fn any_volume(&self) -> bool {
        self.by_tag.values().any(|wait| !matches!(wait.work, Work::Query { .. }))
    }

    /// Whether volumes are being attached again, within their time.
    pub fn any_reattach(&self) -> bool {
        let open = |wait: &Wait| wait.deadline.is_some();
        self.by_tag.values().any(|wait| matches!(wait.work, Work::Reattach { .. }) && open(wait))
    }

    /// Whether that volume is being attached again.
    pub fn reattaches(&self, wanted: VolumeId) -> bool {
        self.by_tag
            .values()
            .any(|wait| matches!(wait.work, Work::Reattach { id, .. } if id == wanted))
    }

    /// Those whose time is up.
    pub fn overdue(&self, now: Instant) -> Vec<Tag> {
        let is_over = |wait: &Wait| wait.deadline.is_some_and(|deadline| deadline <= now);
        self.by_tag.iter().filter(|(_, wait)| is_over(wait)).map(|(tag, _)| *tag).collect()
    }

    /// When the next one's time is up.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_tag.values().filter_map(|wait| wait.deadline).min()
    }

    /// Takes out all: the worker is gone.
    pub fn take_all(&mut self) -> Vec<Wait> {
        std::mem::take(&mut self.by_tag).into_values().collect()
    }

    /// Takes away all callers, with what each waits for: nobody waits any longer.
    pub fn take_callers(&mut self) -> Vec<(String, Caller)> {
        let mut all = Vec::new();
        for wait in self.by_tag.values_mut() {
            let what = wait.work.to_string();
            all.extend(wait.callers.drain(..).map(|caller| (what.clone(), caller)));
            if let Work::Detach { name, then } = &mut wait.work {
                all.extend(then.drain(..).map(|caller| (format!("attach {name}"), caller)));
            }
        }
        all
    }
}
