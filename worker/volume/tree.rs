//! The index of a hyper volume: a tree in the cluster (`sheepfs::wire::btree`), and pages of
//! [`super::index`] here, as of any volume.
//!
//! A page is filled by a lookup ([`lookup`]), which reads a few KiB of the tree. Entries that
//! are to be written go out together ([`change`]): a run reads the nodes that it changes, and
//! writes them in the order in which a death does no harm.
//!
//! # Who runs beside whom
//!
//! A change moves entries, and a lookup that reads a leaf in pieces could miss one that is
//! moved from a piece it has yet to read to one that it has read: it would take a block for a
//! hole. And two changes at once would lose one of them. So a run has the tree for itself:
//! lookups wait for it, and it waits for lookups. What waits goes first when the other is
//! over, so neither starves.
//!
//! For the same reason nothing of a worker that died may still be on its way to the tree: a
//! late write of a node takes back all that was entered since (hazard 52). While that may be,
//! the supervisor holds all reads and writes of the volume, repeated ones too. It knows since
//! each request that changes an entry says so before ([`FromWorker::Growing`]).
//!
//! # Memory
//!
//! The node in the inode and one leaf are kept while changes follow each other, 4 MiB each at
//! most; what is large is let go when the volume was looked after and nothing is under way.

mod change;
mod lookup;

use super::{Io, Volume};
use change::Run;
use lookup::Lookup;
pub use lookup::Wanted;
use sheepfs::ipc::{FromWorker, Tag};
use sheepfs::wire::ObjectId;
use sheepfs::wire::btree::{Leaf, Limits, PAGE_ENTRIES, Top, Tree};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes of a node that are read first: its head and a page of entries, which is all of most.
const FRONT_LEN: u32 = 8 + 8 * PAGE_ENTRIES;
/// Entries of a leaf that may be kept while nothing is under way: 64 KiB.
const IDLE_ENTRIES_MAX: usize = 8192;

/// What is known of the tree, and what is under way on it.
#[derive(Debug)]
pub struct TreeIndex {
    limits: Limits,
    /// The node in the inode, as it is in the cluster.
    known: Option<Tree>,
    /// The leaf that was changed last, likewise.
    leaf: Option<(ObjectId, Leaf)>,
    /// The nodes that this worker has written whole; the inode stands for the one in it.
    whole: BTreeSet<ObjectId>,
    lookups: BTreeMap<u32, Lookup>,
    next_lookup: u32,
    /// Lookups that wait for a run.
    waiting: VecDeque<Wanted>,
    /// Blocks that are to have no object any more, each with the request that waits for it.
    clears: BTreeMap<u32, Tag>,
    run: Option<Run>,
}

impl TreeIndex {
    /// Nothing is known yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            known: None,
            leaf: None,
            whole: BTreeSet::new(),
            lookups: BTreeMap::new(),
            next_lookup: 0,
            waiting: VecDeque::new(),
            clears: BTreeMap::new(),
            run: None,
        }
    }

    /// A write may have been carried out or not: nothing is known any more.
    fn forget(&mut self) {
        self.known = None;
        self.leaf = None;
        self.whole.clear();
    }

    /// Whether a run goes on.
    fn is_changing(&self) -> bool {
        self.run.is_some()
    }

    /// Whether nothing is to be changed by requests that take blocks away.
    pub fn is_idle(&self) -> bool {
        self.run.is_none() && self.clears.is_empty()
    }

    /// Lets go of large nodes while nothing is under way.
    fn slim(&mut self) {
        if self.run.is_some() {
            return;
        }
        let is_large = |leaf: &Leaf| leaf.entries().len() > IDLE_ENTRIES_MAX;
        if self.leaf.as_ref().is_some_and(|(_, leaf)| is_large(leaf)) {
            self.leaf = None;
        }
        if matches!(self.known.as_ref().map(Tree::top), Some(Top::Leaf(leaf)) if is_large(leaf)) {
            self.known = None;
        }
    }
}

impl Volume {
    /// Lets leaves and roots have so many entries.
    pub fn with_tree_limits(mut self, limits: Limits) -> Self {
        if let Some(tree) = &mut self.tree {
            tree.limits = limits;
        }
        self
    }

    /// Whether the index is a tree.
    pub(super) fn is_hyper(&self) -> bool {
        self.tree.is_some()
    }

    /// Lets the supervisor know that a write is about to change the tree.
    pub(super) fn tell_growing(&self, tag: Tag, io: &mut Io) {
        if self.is_hyper() {
            io.out.push(FromWorker::Growing { tag });
        }
    }

    /// Whether all entries that there are to be are in the index.
    pub(super) fn is_entered(&self) -> bool {
        self.updates.is_idle() && self.tree.as_ref().is_none_or(|tree| tree.is_idle())
    }

    /// A moment in which little is under way.
    pub(super) fn slim_tree(&mut self) {
        if self.is_entered()
            && let Some(tree) = &mut self.tree
        {
            tree.slim();
        }
    }
}
