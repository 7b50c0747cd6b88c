//! What a worker was asked by the control loop, or is to be asked, and has not
//! answered; who waits for it, and until when. Bounded; tags are never used again.
//!
//! A wait outlives its worker: the next one is asked again. So it also outlives a
//! time without a session, as long as those who wait have patience.

use super::attempt::Attempt;
use super::manage::Managed;
use super::search::Seeking;
use crate::inflight::CONTROL_TAG;
use sheepfs::ipc::{Query, Tag, VolumeFacts, VolumeId};
use sheepfs::wire::name::VolumeName;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The most that may wait at once.
const WAITS_MAX: usize = 1024;
/// How long to wait for a session; the same for everything.
pub const SESSION_TIME: Duration = Duration::from_secs(5);
/// How long a report may take without a sign of progress: a list of many VDIs
/// takes long, and its worker says now and then that it goes on.
pub const QUERY_TIME: Duration = Duration::from_secs(5);
/// How long an attach or detach may take: lookups wait behind any deletion in the
/// cluster (hazard 50).
pub const VOLUME_TIME: Duration = Duration::from_secs(30);
/// How long an errand may take: to delete a large VDI takes a sheep its time, and all wait
/// for it.
const MANAGE_TIME: Duration = Duration::from_secs(600);
/// So many workers broke down over something, and it is given up.
const BREAKDOWNS_MAX: u32 = 3;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// The start of sheepfs itself, for a volume of `--attach`.
    Start,
    /// The same, when the mount is there already: nothing ends for want of it.
    TakeOver,
    /// A program, whose reply the shell of the loop has parked.
    Program(u64),
}

/// What the worker is asked.
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
    Resume {
        /// Its id.
        id: VolumeId,
        /// Its name.
        name: VolumeName,
    },
    /// The end of a volume.
    Detach {
        /// The volume, which is in the tree no more.
        gone: Gone,
        /// Whether the present worker has it. One that has not takes it up first,
        /// since only so it can release its lock.
        is_there: bool,
        /// Who wants it attached again, once it is gone.
        then: Vec<Caller>,
    },
    /// VDIs for the tree.
    Search {
        /// Which.
        seeking: Seeking,
        /// What came of it so far.
        bytes: Vec<u8>,
    },
    /// A report.
    Query {
        /// Which.
        query: Query,
        /// What came of it so far.
        bytes: Vec<u8>,
    },
    /// An errand.
    Manage(Managed),
}

/// A volume that is to go, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Its id.
    pub id: VolumeId,
    /// Its name.
    pub name: VolumeName,
    /// What it was last.
    pub facts: VolumeFacts,
}

impl Work {
    /// How long it may take while there is a session.
    fn time(&self) -> Duration {
        match self {
            Self::Attach { .. } | Self::Resume { .. } | Self::Detach { .. } => VOLUME_TIME,
            Self::Query { .. } | Self::Search { .. } => QUERY_TIME,
            Self::Manage(_) => MANAGE_TIME,
        }
    }
}

/// What a search is for.
pub const SEARCH: &str = "look VDIs up for vdi/tree";

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
    /// What it is asked.
    pub work: Work,
    /// Who waits. Nobody, when all have given up: an attach is undone then.
    pub callers: Vec<Caller>,
    /// When they give up.
    pub deadline: Option<Instant>,
    /// When they give up as long as there is a session. `None`: it was never asked.
    patience: Option<Instant>,
    /// Workers that broke down over it.
    breakdowns: u32,
}

impl Wait {
    /// The present worker is asked. Who gave up before stays so.
    pub fn asked(&mut self, now: Instant) {
        // A report has its time from when it was opened, however late a session came.
        let from_now = match self.work {
            Work::Query { .. } | Work::Search { .. } => self.deadline.unwrap_or(now),
            _ => now + self.work.time(),
        };
        let patience = *self.patience.get_or_insert(from_now);
        self.deadline = self.deadline.map(|_| patience);
    }

    /// Somebody else waits for it too, or it goes on: its time begins anew.
    pub fn extend(&mut self, connected: bool, now: Instant) {
        let patience = now + self.work.time();
        self.patience = self.patience.map(|_| patience);
        self.deadline = Some(if connected { patience } else { now + SESSION_TIME });
    }

    /// The worker is gone. `false`: it is to be given up.
    pub fn interrupted(&mut self, broke_down: bool, now: Instant) -> bool {
        let has_begun = matches!(&self.work, Work::Manage(Managed { begun: Some(_), .. }));
        if !has_begun {
            self.deadline = self.deadline.map(|deadline| deadline.min(now + SESSION_TIME));
        }
        match &mut self.work {
            Work::Detach { is_there, .. } => *is_there = false,
            Work::Query { bytes, .. } | Work::Search { bytes, .. } => bytes.clear(),
            Work::Manage(managed) => managed.told = None,
            Work::Attach { .. } | Work::Resume { .. } => {}
        }
        self.breakdowns += u32::from(broke_down);
        self.breakdowns < BREAKDOWNS_MAX
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Waits {
    next: u64,
    by_tag: BTreeMap<Tag, Wait>,
}

impl Waits {
    /// Adds one, of which no worker was told so far.
    pub fn add(&mut self, work: Work, callers: Vec<Caller>, now: Instant) -> Tag {
        let tag = self.next_tag();
        let deadline = Some(now + SESSION_TIME);
        let wait = Wait { work, callers, deadline, patience: None, breakdowns: 0 };
        self.by_tag.insert(tag, wait);
        tag
    }

    /// Whether nothing is asked, or to be asked.
    pub fn is_empty(&self) -> bool {
        self.by_tag.is_empty()
    }

    /// Puts one back that goes on under another tag.
    pub fn put_back(&mut self, wait: Wait) -> Tag {
        let tag = self.next_tag();
        self.by_tag.insert(tag, wait);
        tag
    }

    /// A tag that was never used.
    pub fn next_tag(&mut self) -> Tag {
        let tag = Tag(CONTROL_TAG | self.next);
        self.next += 1;
        tag
    }

    /// Whether there is room for another. Volumes that a new worker takes up don't count:
    /// there may be thousands, and nobody asked for them.
    pub fn has_room(&self) -> bool {
        let counts = |wait: &&Wait| !matches!(wait.work, Work::Resume { .. });
        self.by_tag.values().filter(counts).count() < WAITS_MAX
    }

    /// Takes out the one that was answered.
    pub fn finish(&mut self, tag: Tag) -> Option<Wait> {
        self.by_tag.remove(&tag)
    }

    /// The one with that tag.
    pub fn get(&mut self, tag: Tag) -> Option<&mut Wait> {
        self.by_tag.get_mut(&tag)
    }

    /// The tags of all, oldest first.
    pub fn tags(&self) -> Vec<Tag> {
        self.by_tag.keys().copied().collect()
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
            .find(|wait| matches!(&wait.work, Work::Detach { gone, .. } if gone.name == *wanted))
    }

    /// The query of that kind that is under way.
    pub fn query_of(&mut self, wanted: Query) -> Option<&mut Wait> {
        self.by_tag
            .values_mut()
            .find(|wait| matches!(wait.work, Work::Query { query, .. } if query == wanted))
    }

    /// The search for the same that is under way, and was begun under the same version.
    pub fn search_like(&mut self, wanted: &Seeking) -> Option<&mut Wait> {
        self.by_tag.values_mut().find(|wait| {
            matches!(&wait.work, Work::Search { seeking, .. }
                if seeking.search == wanted.search && seeking.version == wanted.version)
        })
    }

    /// That volume's being taken up again, which is under way.
    pub fn resume_of(&mut self, wanted: VolumeId) -> Option<&mut Wait> {
        self.by_tag
            .values_mut()
            .find(|wait| matches!(wait.work, Work::Resume { id, .. } if id == wanted))
    }

    /// Volumes that are being taken up again.
    pub fn resumes(&self) -> BTreeSet<VolumeId> {
        let resumed = |wait: &Wait| match wait.work {
            Work::Resume { id, .. } => Some(id),
            _ => None,
        };
        self.by_tag.values().filter_map(resumed).collect()
    }

    /// Whether volumes are coming or going, or an errand is in the middle.
    pub fn any_volume(&self) -> bool {
        self.by_tag.values().any(|wait| match &wait.work {
            Work::Query { .. } | Work::Search { .. } => false,
            Work::Manage(managed) => managed.begun.is_some(),
            Work::Attach { .. } | Work::Resume { .. } | Work::Detach { .. } => true,
        })
    }

    /// The errand that a request was for.
    pub fn managed_of(&mut self, number: u64) -> Option<&mut Wait> {
        self.by_tag
            .values_mut()
            .find(|wait| matches!(&wait.work, Work::Manage(managed) if managed.number == number))
    }

    /// All errands, oldest first.
    pub fn managed(&self) -> impl Iterator<Item = (Tag, &Managed)> {
        self.by_tag.iter().filter_map(|(tag, wait)| match &wait.work {
            Work::Manage(managed) => Some((*tag, managed)),
            _ => None,
        })
    }

    /// Whether volumes are being taken up again, within their time.
    pub fn any_resume(&self) -> bool {
        let open = |wait: &Wait| wait.deadline.is_some();
        self.by_tag.values().any(|wait| matches!(wait.work, Work::Resume { .. }) && open(wait))
    }

    /// Volumes that nobody could detach.
    pub fn detaches(&self) -> impl Iterator<Item = &Gone> {
        self.by_tag.values().filter_map(|wait| match &wait.work {
            Work::Detach { gone, .. } => Some(gone),
            _ => None,
        })
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

    /// Volumes that are to come, by number and name.
    pub fn attaches(&self) -> impl Iterator<Item = (VolumeId, &VolumeName)> {
        self.by_tag.values().filter_map(|wait| match &wait.work {
            Work::Attach { id, name } => Some((*id, name)),
            _ => None,
        })
    }

    /// Takes away all callers, with what each waits for: nobody waits any longer.
    pub fn take_callers(&mut self) -> Vec<(Attempt, Caller)> {
        let mut all = Vec::new();
        for wait in self.by_tag.values_mut() {
            let what = Attempt::from(&wait.work);
            all.extend(wait.callers.drain(..).map(|caller| (what.clone(), caller)));
            if let Work::Detach { gone, then, .. } = &mut wait.work {
                let what = Attempt::attach(&gone.name);
                all.extend(then.drain(..).map(|caller| (what.clone(), caller)));
            }
        }
        all
    }
}
