//! Finding entries in the tree.
//!
//! What is found is believed as little as a page of an array index: the header is read after
//! it ([`super::super::pages`]).

use super::{FRONT_LEN, TreeIndex};
use crate::verdict::Verdict;
use crate::volume::index::PAGE_ENTRIES;
use crate::volume::objects::PartId;
use crate::volume::{Io, Volume, Wait};
use sheepfs::ipc::Failure;
use sheepfs::wire::btree::{Head, Part, Root, Search, Top, Tree, TreeError};
use sheepfs::wire::{ObjectId, Request, VdiId};
use std::collections::{BTreeMap, VecDeque};

/// Entries of a stretch: 16 pages of a leaf.
const STRETCH_ENTRIES: usize = 8192;

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A page of the index.
    Page(u32),
    /// The entry of one block, whose object is absent for that part.
    Entry(u32, PartId),
    /// The blocks from the first to the last, or fewer if there are many: for the load of
    /// that number of [`super::super::extents`].
    Stretch(u32, u32, u32),
}

impl Wanted {
    /// The first block and the last.
    fn range(self) -> (u32, u32) {
        match self {
            Self::Page(page) => {
                let first = page.saturating_mul(PAGE_ENTRIES);
                (first, first.saturating_add(PAGE_ENTRIES - 1))
            }
            Self::Entry(block, _) => (block, block),
            Self::Stretch(_, first, last) => (first, last),
        }
    }

    /// With how many entries it is content.
    fn enough(self) -> usize {
        match self {
            Self::Page(_) | Self::Entry(..) => usize::MAX,
            Self::Stretch(..) => STRETCH_ENTRIES,
        }
    }
}

/// What is read now.
#[derive(Debug)]
enum Step {
    /// The front of the node in the inode.
    Top,
    /// All of it, since it is a root.
    Root(u32),
    /// The front of a leaf.
    Leaf(Part),
    /// A piece of a leaf; the one in the inode has no object.
    Piece(Option<ObjectId>, Search, bool),
    /// Nothing: all is found.
    Over,
}

/// A lookup under way.
#[derive(Debug)]
pub struct Lookup {
    wanted: Wanted,
    /// The last block that it looks for.
    last: u32,
    step: Step,
    /// Leaves that are still to be looked into.
    parts: VecDeque<Part>,
    found: BTreeMap<u32, u32>,
}

impl Lookup {
    /// Begins, with what is known of the tree.
    fn begin(wanted: Wanted, known: Option<&Tree>) -> Self {
        let (parts, found) = (VecDeque::new(), BTreeMap::new());
        let (first, last) = wanted.range();
        let mut lookup = Self { wanted, last, step: Step::Top, parts, found };
        match known.map(Tree::top) {
            Some(Top::Leaf(leaf)) => {
                let entries = leaf.range(first, last).iter().take(wanted.enough());
                lookup.found = entries.map(|entry| (entry.block, entry.owner)).collect();
                lookup.next_leaf();
            }
            Some(Top::Root(root)) => lookup.descend(root),
            None => {}
        }
        lookup
    }

    /// What is to be read; `None`: all is found.
    fn question(&self, inode: VdiId) -> Option<Request> {
        match &self.step {
            Step::Top => Some(Request::read_tree_top(inode, 0, FRONT_LEN)),
            Step::Root(len) => Some(Request::read_tree_top(inode, 0, *len)),
            Step::Leaf(part) => Some(Request::read_tree_node(part.leaf, FRONT_LEN)),
            Step::Piece(leaf, search, _) => search.wants().map(|(offset, len)| match leaf {
                None => Request::read_tree_top(inode, offset, len),
                Some(leaf) => Request::read_tree_piece(*leaf, offset, len),
            }),
            Step::Over => None,
        }
    }

    /// Takes what was read.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::Top => match Head::decode(bytes)? {
                Head::Leaf(entries) => {
                    let (first, last) = self.wanted.range();
                    self.search(None, self.searching(entries, first, last), false, bytes)
                }
                head if head.used_len() as usize > bytes.len() => {
                    self.step = Step::Root(head.used_len());
                    Ok(())
                }
                Head::Root(_) => self.hear_root(bytes),
            },
            Step::Root(_) => self.hear_root(bytes),
            Step::Leaf(Part { leaf, first, last, misfiled }) => match Head::decode(bytes)? {
                Head::Leaf(entries) => {
                    self.search(Some(leaf), self.searching(entries, first, last), misfiled, bytes)
                }
                Head::Root(_) => Err(TreeError::RootBelow),
            },
            Step::Piece(leaf, mut search, misfiled) => {
                search.take(bytes)?;
                self.search(leaf, search, misfiled, &[])
            }
            Step::Over => Ok(()),
        }
    }

    fn hear_root(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        self.descend(&Root::decode(bytes)?);
        Ok(())
    }

    fn descend(&mut self, root: &Root) {
        let (first, last) = self.wanted.range();
        self.parts = root.parts(first, last).into();
        self.next_leaf();
    }

    fn searching(&self, entries: u32, first: u32, last: u32) -> Search {
        Search::new(entries, first, last).with_enough(self.wanted.enough())
    }

    /// What lies behind a block is not looked for.
    fn cut(&mut self, last: u32) {
        self.last = self.last.min(last);
        if let Some(behind) = last.checked_add(1) {
            self.found.split_off(&behind);
        }
        self.parts.retain_mut(|part| {
            part.last = part.last.min(last);
            part.first <= part.last
        });
    }

    fn next_leaf(&mut self) {
        if self.found.len() >= self.wanted.enough()
            && let Some((last, _)) = self.found.last_key_value()
        {
            self.cut(*last);
        }
        self.step = self.parts.pop_front().map_or(Step::Over, Step::Leaf);
    }

    /// Goes on in a leaf, with what is at hand of its front.
    fn search(
        &mut self,
        leaf: Option<ObjectId>,
        mut search: Search,
        misfiled: bool,
        front: &[u8],
    ) -> Result<(), TreeError> {
        while let Some((offset, len)) = search.wants() {
            let Some(bytes) = front.get(offset as usize..(offset + len) as usize) else {
                self.step = Step::Piece(leaf, search, misfiled);
                return Ok(());
            };
            search.take(bytes)?;
        }
        let cut = search.cut();
        for entry in search.found().iter().filter(|entry| entry.owner != 0) {
            if misfiled {
                self.found.entry(entry.block).or_insert(entry.owner);
            } else {
                self.found.insert(entry.block, entry.owner);
            }
        }
        if let Some(last) = cut {
            self.cut(last);
        }
        self.next_leaf();
        Ok(())
    }

    /// The entries as they would stand in an array.
    fn entries(&self) -> Vec<u8> {
        let (first, last) = self.wanted.range();
        let owner = |block| self.found.get(&block).copied().unwrap_or(0);
        (first..=last).flat_map(|block| owner(block).to_le_bytes()).collect()
    }
}

impl TreeIndex {
    fn add_lookup(&mut self, wanted: Wanted) -> u32 {
        self.next_lookup = self.next_lookup.wrapping_add(1);
        self.lookups.insert(self.next_lookup, Lookup::begin(wanted, self.known.as_ref()));
        self.next_lookup
    }
}

impl Volume {
    /// Looks entries up in the tree, now or when it is not changed any more.
    pub(in crate::volume) fn look_up(&mut self, wanted: Wanted, io: &mut Io) {
        let changes = !self.is_entered() && self.updates_delayed.is_none();
        let Some(tree) = &mut self.tree else { return };
        if changes || tree.is_changing() {
            tree.waiting.push_back(wanted);
        } else {
            self.begin_lookup(wanted, io);
        }
    }

    /// Begins with lookups that waited.
    pub(super) fn begin_lookups(&mut self, io: &mut Io) {
        let Some(tree) = &mut self.tree else { return };
        // All of them have begun before the first is over, so that no run comes between.
        let waiting = std::mem::take(&mut tree.waiting);
        let ids: Vec<u32> = waiting.into_iter().map(|wanted| tree.add_lookup(wanted)).collect();
        ids.into_iter().for_each(|id| self.ask_lookup(id, io));
    }

    fn begin_lookup(&mut self, wanted: Wanted, io: &mut Io) {
        let Some(tree) = &mut self.tree else { return };
        let id = tree.add_lookup(wanted);
        self.ask_lookup(id, io);
    }

    fn ask_lookup(&mut self, id: u32, io: &mut Io) {
        let own = self.own;
        let Some(tree) = &mut self.tree else { return };
        let Some(lookup) = tree.lookups.get(&id) else { return };
        match lookup.question(own) {
            Some(request) => self.send(request, None, Wait::Lookup(id), io),
            None => {
                if let Some(lookup) = tree.lookups.remove(&id) {
                    self.is_found(lookup, io);
                    self.after_lookup(io);
                }
            }
        }
    }

    /// A piece of the tree has come.
    pub(in crate::volume) fn lookup_replied(
        &mut self,
        id: u32,
        verdict: Verdict,
        bytes: &[u8],
        io: &mut Io,
    ) {
        let Some(tree) = &mut self.tree else { return };
        let Some(lookup) = tree.lookups.get_mut(&id) else { return };
        let wanted = lookup.wanted;
        let heard = match verdict {
            Verdict::Done => lookup.hear(bytes),
            Verdict::Retry
            | Verdict::Reload
            | Verdict::Recheck
            | Verdict::SheepGone
            | Verdict::Fail(_) => {
                tree.lookups.remove(&id);
                self.looked_up(wanted, verdict, &[], io);
                return self.after_lookup(io);
            }
        };
        match heard {
            Ok(()) => self.ask_lookup(id, io),
            Err(damage) => {
                tree.lookups.remove(&id);
                tracing::error!(volume = %self.name, vid = %self.own, "blocks of a hyper volume can't be found: {damage}");
                self.is_damaged(wanted, Failure::TreeDamaged(damage), io);
                self.after_lookup(io);
            }
        }
    }

    fn is_found(&mut self, lookup: Lookup, io: &mut Io) {
        match lookup.wanted {
            Wanted::Stretch(number, first, _) => {
                self.stretch_found(number, (first, lookup.last), lookup.found, io);
            }
            Wanted::Page(_) | Wanted::Entry(..) => {
                self.looked_up(lookup.wanted, Verdict::Done, &lookup.entries(), io);
            }
        }
    }

    /// A lookup is over: whoever wanted it goes on.
    fn looked_up(&mut self, wanted: Wanted, verdict: Verdict, entries: &[u8], io: &mut Io) {
        match wanted {
            Wanted::Stretch(number, ..) => self.stretch_failed(number, verdict, io),
            Wanted::Page(page) => self.page_replied(page, verdict, entries, io),
            Wanted::Entry(block, part) => self.rechecked(block, part, verdict, entries, io),
        }
    }

    /// Zeros would be a lie, and trying again is of no use.
    fn is_damaged(&mut self, wanted: Wanted, failure: Failure, io: &mut Io) {
        match wanted {
            Wanted::Page(page) => {
                self.index.cancel_load(page);
                let objects = self.objects_of(page);
                objects.iter().for_each(|object| self.fail_object(*object, failure, io));
            }
            Wanted::Entry(block, part) => {
                self.rechecked(block, part, Verdict::Fail(failure), &[], io);
            }
            Wanted::Stretch(number, ..) => self.stretch_damaged(number, failure, io),
        }
    }

    /// Changes that waited for lookups may be made.
    fn after_lookup(&mut self, io: &mut Io) {
        if self.tree.as_ref().is_some_and(|tree| tree.lookups.is_empty()) {
            self.send_updates(io);
        }
    }
}
