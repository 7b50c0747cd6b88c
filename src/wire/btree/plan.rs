//! Changing a tree: which writes, in which order.

use super::leaf::{Changed, Entry, Leaf, offset_of};
use super::root::{Root, RootEntry};
use super::{Head, Limits, TreeError, count};
use crate::wire::oid::{ObjectId, VdiId};

/// Where the number of entries stands in a node.
const COUNT_OFFSET: u32 = 4;

/// One write to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The next free number for a leaf, in the inode.
    Counter(u32),
    /// A new leaf, with these bytes at its beginning.
    Create(ObjectId, Vec<u8>),
    /// A piece of a leaf, from that offset on.
    Leaf(ObjectId, u32, Vec<u8>),
    /// The used part of the node in the inode.
    Top(Vec<u8>),
}

/// What is to be done for a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// To be written one after the other.
    pub writes: Vec<Write>,
    /// How many of the entries are in the tree after that, from the front. If not all
    /// are, [`Tree::set`] is to be called again with the rest.
    pub done: usize,
}

/// Which of the nodes at hand this process has written whole, so that all replicas agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// The one in the inode.
    pub top: bool,
    /// The leaf.
    pub leaf: bool,
}

/// The node in the inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Top {
    /// The only leaf.
    Leaf(Leaf),
    /// The root of two levels.
    Root(Root),
}

/// What the inode says of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    vid: VdiId,
    limits: Limits,
    counter: u32,
    top: Top,
}

impl Tree {
    /// The tree of `vid`, with the next leaf number and the node from its inode.
    ///
    /// # Errors
    /// [`TreeError`] when that is no node, or can't be written safely.
    pub fn decode(
        vid: VdiId,
        limits: Limits,
        counter: u32,
        node: &[u8],
    ) -> Result<Self, TreeError> {
        let top = match Head::decode(node)? {
            // Nothing is in it, so it may begin anew.
            Head::Root(0) => Top::Leaf(Leaf::default()),
            Head::Leaf(_) => Top::Leaf(Leaf::decode(node)?),
            Head::Root(_) => Top::Root(Root::decode(node)?),
        };
        let mut tree = Self { vid, limits, counter, top };
        if let Top::Root(root) = &tree.top {
            root.check()?;
            let foreign = |entry: &&RootEntry| entry.leaf.vid_raw() != vid.get();
            if let Some(entry) = root.entries.iter().find(foreign) {
                return Err(TreeError::NotALeaf(entry.leaf));
            }
            // The C programs raise the counter last of all.
            let highest = root.entries.iter().map(|entry| entry.leaf.index()).max();
            let next = highest.map_or(Some(0), |highest| highest.checked_add(1));
            tree.counter = counter.max(next.ok_or(TreeError::Numbers)?);
        }
        Ok(tree)
    }

    /// The node in the inode.
    #[must_use]
    pub fn top(&self) -> &Top {
        &self.top
    }

    /// The leaf object that a change to a block begins with. `None`: the inode has the leaf.
    #[must_use]
    pub fn leaf_of(&self, block: u32) -> Option<ObjectId> {
        match &self.top {
            Top::Leaf(_) => None,
            Top::Root(root) => {
                let slot = root.slot_of(block).or(root.entries.len().checked_sub(1))?;
                root.entries.get(slot).map(|entry| entry.leaf)
            }
        }
    }

    /// Sets entries, which ascend and are not none. `leaf` is what [`Self::leaf_of`] names for
    /// the first of them, if it names one. Afterwards tree and leaf are as they will be when all
    /// is written.
    ///
    /// # Errors
    /// [`TreeError`] when that can't be done; then nothing is to be written.
    pub fn set(
        &mut self,
        leaf: Option<&mut Leaf>,
        batch: &[Entry],
        whole: Whole,
    ) -> Result<Step, TreeError> {
        match (&mut self.top, leaf) {
            (Top::Leaf(only), _) => {
                let done = only.fitting(batch, self.limits.leaf);
                if done == 0 {
                    return self.split_top();
                }
                let changed = only.merge(&batch[..done]);
                let same = changed == Changed::Nothing && whole.top;
                let writes = if same { Vec::new() } else { vec![Write::Top(only.encode())] };
                Ok(Step { writes, done })
            }
            (Top::Root(_), Some(leaf)) => self.set_below(leaf, batch, whole),
            (Top::Root(_), None) => Err(TreeError::RootBelow),
        }
    }

    /// The leaf in the inode is full: two leaves below a root take its place.
    fn split_top(&mut self) -> Result<Step, TreeError> {
        let Top::Leaf(only) = &mut self.top else { return Err(TreeError::RootBelow) };
        let mut upper = std::mem::take(only);
        let lower = upper.split_lower();
        let after = self.counter.checked_add(2).ok_or(TreeError::Numbers)?;
        let numbers = [self.counter, self.counter + 1];
        let [low, high] = numbers.map(|number| ObjectId::btree(self.vid, number));
        self.counter = after;
        let entry = |leaf: &Leaf, oid| RootEntry { last: leaf.last().unwrap_or(0), leaf: oid };
        let root = Root { entries: vec![entry(&lower, low), entry(&upper, high)] };
        let writes = vec![
            Write::Counter(after),
            Write::Create(low, lower.encode()),
            Write::Create(high, upper.encode()),
            Write::Top(root.encode()),
        ];
        self.top = Top::Root(root);
        Ok(Step { writes, done: 0 })
    }

    fn set_below(
        &mut self,
        leaf: &mut Leaf,
        batch: &[Entry],
        whole: Whole,
    ) -> Result<Step, TreeError> {
        let (Top::Root(root), Some(first)) = (&mut self.top, batch.first()) else {
            return Err(TreeError::RootBelow);
        };
        let Some(newest) = root.entries.len().checked_sub(1) else { return Err(TreeError::Full) };
        let slot = root.slot_of(first.block).unwrap_or(newest);
        let oid = root.entries[slot].leaf;
        let before = slot.checked_sub(1).map(|slot| root.entries[slot].last);
        let trimmed = before.is_some_and(|before| leaf.drop_through(before));
        let key = root.entries[slot].last;
        let last = leaf.last().unwrap_or(0);
        if last > key && slot != newest {
            return Err(TreeError::Misfiled { key, last });
        }
        let here = if slot == newest {
            batch
        } else {
            &batch[..batch.partition_point(|entry| entry.block <= key)]
        };
        let done = leaf.fitting(here, self.limits.leaf);
        if done == 0 {
            let behind = slot == newest && first.block > last.max(key);
            return if behind { self.append(here, last) } else { self.split(slot, leaf) };
        }
        let length = leaf.entries().len();
        let changed = leaf.merge(&here[..done]);
        let mut writes = if trimmed || !whole.leaf {
            vec![Write::Leaf(oid, 0, leaf.encode())]
        } else {
            pieces(oid, leaf, length, changed)
        };
        let last = leaf.last().unwrap_or(0);
        let raised = last > key;
        if raised {
            root.entries[slot].last = last;
        }
        if raised || !whole.top {
            writes.push(Write::Top(root.encode()));
        }
        Ok(Step { writes, done })
    }

    /// The last leaf is full, and these entries come behind it: they get a leaf of their own.
    fn append(&mut self, batch: &[Entry], full_last: u32) -> Result<Step, TreeError> {
        let done = batch.len().min(self.limits.leaf as usize);
        let listed = batch[..done].iter().filter(|entry| entry.owner != 0);
        let new = Leaf::of(listed.copied().collect());
        let last = new.last().unwrap_or(0);
        let (leaf, after) = self.next_leaf()?;
        let Top::Root(root) = &mut self.top else { return Err(TreeError::RootBelow) };
        if count(root.entries.len()) >= self.limits.root {
            return Err(TreeError::Full);
        }
        if let Some(full) = root.entries.last_mut() {
            full.last = full.last.max(full_last);
        }
        root.entries.push(RootEntry { last, leaf });
        self.counter = after;
        let writes = vec![
            Write::Counter(after),
            Write::Create(leaf, new.encode()),
            Write::Top(root.encode()),
        ];
        Ok(Step { writes, done })
    }

    /// A leaf is full: its lower half gets a leaf of its own.
    fn split(&mut self, slot: usize, leaf: &mut Leaf) -> Result<Step, TreeError> {
        let (new, after) = self.next_leaf()?;
        let Top::Root(root) = &mut self.top else { return Err(TreeError::RootBelow) };
        if count(root.entries.len()) >= self.limits.root {
            return Err(TreeError::Full);
        }
        let lower = leaf.split_lower();
        let old = root.entries[slot].leaf;
        root.entries[slot].last = root.entries[slot].last.max(leaf.last().unwrap_or(0));
        root.entries.insert(slot, RootEntry { last: lower.last().unwrap_or(0), leaf: new });
        self.counter = after;
        let writes = vec![
            Write::Counter(after),
            Write::Create(new, lower.encode()),
            Write::Top(root.encode()),
            Write::Leaf(old, 0, leaf.encode()),
        ];
        Ok(Step { writes, done: 0 })
    }

    /// A new leaf, and the number after its own.
    fn next_leaf(&self) -> Result<(ObjectId, u32), TreeError> {
        let after = self.counter.checked_add(1).ok_or(TreeError::Numbers)?;
        Ok((ObjectId::btree(self.vid, self.counter), after))
    }
}

/// The writes for a leaf that all replicas have alike, and that had so many entries.
fn pieces(oid: ObjectId, leaf: &Leaf, before: usize, changed: Changed) -> Vec<Write> {
    match changed {
        Changed::Nothing => Vec::new(),
        Changed::Owners(first, last) => {
            vec![Write::Leaf(oid, offset_of(first), leaf.encode_entries(first, last + 1))]
        }
        // Behind the counted entries nobody looks, until they are counted.
        Changed::From(at) if at >= before => {
            let entries = leaf.entries().len();
            vec![
                Write::Leaf(oid, offset_of(at), leaf.encode_entries(at, entries)),
                Write::Leaf(oid, COUNT_OFFSET, count(entries).to_le_bytes().to_vec()),
            ]
        }
        Changed::From(_) => vec![Write::Leaf(oid, 0, leaf.encode())],
    }
}
