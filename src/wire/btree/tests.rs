//! Trees against a map, and what a crash leaves of them.

use super::*;
use crate::wire::VdiId;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const SMALL: Limits = Limits { leaf: 6, root: 64 };
const VID: u32 = 0x5b_5b59;

/// Where a tree is stored.
#[derive(Clone, Debug, Default)]
struct Store {
    counter: u32,
    top: Vec<u8>,
    leaves: HashMap<ObjectId, Vec<u8>>,
}

impl Store {
    fn apply(&mut self, write: &Write) {
        let put = |node: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            node.resize(node.len().max(at + bytes.len()), 0);
            node[at..at + bytes.len()].copy_from_slice(bytes);
        };
        match write {
            Write::Counter(next) => self.counter = *next,
            Write::Create(leaf, bytes) => {
                assert!(leaf.index() < self.counter, "its number could be used once more");
                self.leaves.insert(*leaf, bytes.clone());
            }
            Write::Leaf(leaf, at, bytes) => {
                put(self.leaves.get_mut(leaf).unwrap(), *at as usize, bytes);
            }
            Write::Top(bytes) => put(&mut self.top, 0, bytes),
        }
    }

    fn tree(&self, limits: Limits) -> Result<Tree, TreeError> {
        Tree::decode(VdiId::new(VID).unwrap(), limits, self.counter, &self.top)
    }

    /// Looks blocks up as a client does.
    fn range(&self, first: u32, last: u32) -> BTreeMap<u32, u32> {
        let mut found = BTreeMap::new();
        let mut search = |node: &[u8], first, last, misfiled: bool| {
            let Head::Leaf(entries) = Head::decode(node).unwrap() else { panic!("a root below") };
            let mut search = Search::new(entries, first, last);
            while let Some((at, len)) = search.wants() {
                search.take(&node[at as usize..(at + len) as usize]).unwrap();
            }
            for entry in search.found().into_iter().filter(|entry| entry.owner != 0) {
                if !misfiled || !found.contains_key(&entry.block) {
                    found.insert(entry.block, entry.owner);
                }
            }
        };
        match Head::decode(&self.top).unwrap() {
            Head::Leaf(_) => search(&self.top, first, last, false),
            Head::Root(_) => {
                for part in Root::decode(&self.top).unwrap().parts(first, last) {
                    search(&self.leaves[&part.leaf], part.first, part.last, part.misfiled);
                }
            }
        }
        found
    }

    fn all(&self) -> BTreeMap<u32, u32> {
        self.range(0, u32::MAX)
    }

    fn is_root(&self) -> bool {
        matches!(Head::decode(&self.top), Ok(Head::Root(_)))
    }
}

fn fresh() -> Store {
    Store { top: Head::Leaf(0).encode(), ..Store::default() }
}

/// Sets entries as a worker does that has just begun; gives what was stored after each write.
fn set_all(store: &mut Store, batch: &[Entry], limits: Limits) -> Vec<Store> {
    let mut tree = store.tree(limits).unwrap();
    let (mut done, mut history) = (0, Vec::new());
    let mut whole: Vec<ObjectId> = Vec::new();
    let mut top = false;
    while done < batch.len() {
        let oid = tree.leaf_of(batch[done].block);
        let mut leaf = oid.map(|oid| Leaf::decode(&store.leaves[&oid]).unwrap());
        let at_hand = Whole { top, leaf: oid.is_some_and(|oid| whole.contains(&oid)) };
        let step = tree.set(leaf.as_mut(), &batch[done..], at_hand).unwrap();
        assert!(step.done > 0 || !step.writes.is_empty(), "it goes on");
        for write in &step.writes {
            store.apply(write);
            history.push(store.clone());
            top |= matches!(write, Write::Top(_));
            whole.extend(match write {
                Write::Create(oid, _) | Write::Leaf(oid, 0, _) => Some(*oid),
                _ => None,
            });
        }
        done += step.done;
    }
    assert_eq!(store.tree(limits).unwrap().top(), tree.top(), "what is known is what is stored");
    history
}

fn entries(blocks: impl IntoIterator<Item = u32>) -> Vec<Entry> {
    blocks.into_iter().map(|block| Entry { block, owner: VID }).collect()
}

proptest! {
    /// Any batches, of a worker that goes on or of the next one, with a death after any
    /// write: what was set is there, what was not is as it was or as it was to be.
    #[test]
    fn a_tree_is_a_map_after_every_write(
        batches in prop::collection::vec(
            prop::collection::btree_map(
                prop_oneof![0_u32..60, u32::MAX - 20..=u32::MAX],
                prop_oneof![4 => Just(VID), 1 => Just(0)],
                1..14,
            ),
            1..12,
        ),
        deaths in prop::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        let mut store = fresh();
        let mut model = BTreeMap::new();
        for (batch, death) in batches.iter().zip(deaths) {
            let batch: Vec<Entry> =
                batch.iter().map(|(block, owner)| Entry { block: *block, owner: *owner }).collect();
            let before = model.clone();
            for entry in &batch {
                model.insert(entry.block, entry.owner);
            }
            model.retain(|_, owner| *owner != 0);
            let history = set_all(&mut store, &batch, SMALL);
            for stored in &history {
                let seen = stored.all();
                for block in before.keys().chain(model.keys()).chain(seen.keys()) {
                    let (old, new) = (before.get(block), model.get(block));
                    let now = seen.get(block);
                    prop_assert!(now == old || now == new, "{block}: {now:?}, not {old:?} or {new:?}");
                }
            }
            prop_assert_eq!(&store.all(), &model);
            for first in [0, 7, 33, u32::MAX - 9] {
                let last = first.saturating_add(9);
                let part: BTreeMap<_, _> = model.range(first..=last).map(|(a, b)| (*a, *b)).collect();
                prop_assert_eq!(store.range(first, last), part);
            }
            // One that dies in the middle, and the next one does it all again.
            if !history.is_empty() {
                store = history[death.index(history.len())].clone();
                set_all(&mut store, &batch, SMALL);
                prop_assert_eq!(&store.all(), &model);
            }
        }
    }

    #[test]
    fn a_search_finds_what_a_leaf_holds(
        blocks in prop::collection::btree_set(0_u32..9000, 0..4000),
        first in 0_u32..9000,
        count in 0_u32..2000,
    ) {
        let leaf = Leaf::of(entries(blocks));
        let node = leaf.encode();
        let last = first + count;
        let mut search = Search::new(u32::try_from(leaf.entries().len()).unwrap(), first, last);
        let mut reads = 0;
        while let Some((at, len)) = search.wants() {
            search.take(&node[at as usize..(at + len) as usize]).unwrap();
            reads += 1;
        }
        prop_assert!(reads <= 9, "{reads} reads");
        prop_assert_eq!(search.found(), leaf.range(first, last));
    }

    /// Nodes are bytes from outside.
    #[test]
    fn any_bytes_are_a_node_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut node = bytes;
        for head in [&[][..], &[0x74, 0x62, 1, 0][..], &[0x74, 0x62, 2, 0][..]] {
            node.splice(..head.len().min(node.len()), head.iter().copied());
            if let Ok(leaf) = Leaf::decode(&node) {
                prop_assert_eq!(Leaf::decode(&leaf.encode()), Ok(leaf));
            }
            if let Ok(root) = Root::decode(&node) {
                prop_assert_eq!(Root::decode(&root.encode()), Ok(root.clone()));
                prop_assert!(root.parts(3, 2).iter().all(|part| part.misfiled));
            }
        }
    }
}

/// Protocol 5.3: 524287 entries become 262143 and 262144, and one more goes to its half.
#[test]
fn a_full_leaf_of_the_real_size_is_split_in_halves() {
    let mut store = fresh();
    let full = Leaf::of(entries((0..524_287).map(|k| 10 * k + 5)));
    store.top = full.encode();
    assert_eq!(store.top.len(), 4_194_304);
    let history = set_all(&mut store, &entries([7, 5_242_970]), Limits::REAL);
    let root = Root::decode(&store.top).unwrap();
    let keys: Vec<_> =
        root.entries().iter().map(|entry| (entry.last, entry.leaf.index())).collect();
    assert_eq!(keys, [(2_621_425, 0), (5_242_970, 1)]);
    assert_eq!((store.counter, history.len()), (2, 4 + 1 + 3));
    assert_eq!(store.all().len(), 524_289);
    assert_eq!(store.range(5_242_865, u32::MAX).len(), 2);
}

/// What comes in order costs no rewrite of its leaf, once that was written whole.
#[test]
fn entries_behind_the_last_are_written_in_pieces() {
    let mut tree = {
        let mut store = fresh();
        set_all(&mut store, &entries(0..20), SMALL);
        store.tree(SMALL).unwrap()
    };
    let Top::Root(root) = tree.top().clone() else { panic!("two levels") };
    let newest = *root.entries().last().unwrap();
    let mut leaf = Leaf::of(entries([18, 19]));
    let whole = Whole { top: true, leaf: true };
    assert_eq!(newest.last, 19);
    let step = tree.set(Some(&mut leaf), &entries([30]), whole).unwrap();
    let Write::Leaf(oid, 24, entry) = &step.writes[0] else { panic!("{:?}", step.writes) };
    assert_eq!((oid, entry.len()), (&newest.leaf, 8));
    assert_eq!(step.writes[1], Write::Leaf(newest.leaf, 4, vec![3, 0, 0, 0]));
    assert!(matches!(step.writes[2], Write::Top(_)), "the key is raised last");
    let cleared = [Entry { block: 19, owner: 0 }];
    let step = tree.set(Some(&mut leaf), &cleared, whole).unwrap();
    assert!(matches!(step.writes[..], [Write::Leaf(_, 16, _)]), "{:?}", step.writes);
    let again = tree.set(Some(&mut leaf), &cleared, whole).unwrap();
    assert_eq!(again, Step { writes: Vec::new(), done: 1 });
    let whole = Whole { top: false, leaf: false };
    let again = tree.set(Some(&mut leaf), &cleared, whole).unwrap();
    assert!(matches!(again.writes[..], [Write::Leaf(_, 0, _), Write::Top(_)]));
}

/// Protocol 5.3: as the C programs leave it. The blocks are found, and nothing is written.
#[test]
fn a_lower_half_under_key_0_is_read_and_not_written() {
    let mut store = fresh();
    set_all(&mut store, &entries(0..30), SMALL);
    assert!(store.is_root());
    let sound = store.all();
    let mut root = Root::decode(&store.top).unwrap();
    root.entries[1].last = 0;
    root.entries.sort_by_key(|entry| entry.last);
    store.apply(&Write::Top(root.encode()));
    assert_eq!(store.all(), sound);
    assert_eq!(store.range(4, 5), BTreeMap::from([(4, VID), (5, VID)]));
    assert_eq!(store.tree(SMALL), Err(TreeError::Order(0)));
    // Another one that is too small shows when its leaf is at hand.
    set_all(&mut fresh(), &entries(0..30), SMALL);
    let mut store = fresh();
    set_all(&mut store, &entries((0..30).map(|block| block * 2)), SMALL);
    let mut root = Root::decode(&store.top).unwrap();
    let last = root.entries[1].last;
    root.entries[1].last -= 1;
    store.apply(&Write::Top(root.encode()));
    let mut leaf = Leaf::decode(&store.leaves[&root.entries[1].leaf]).unwrap();
    let whole = Whole { top: true, leaf: true };
    let refused = store.tree(SMALL).unwrap().set(Some(&mut leaf), &entries([last - 1]), whole);
    assert_eq!(refused, Err(TreeError::Misfiled { key: last - 1, last }));
}

#[test]
fn what_is_no_tree_is_refused() {
    let vid = VdiId::new(VID).unwrap();
    let decode = |bytes: &[u8]| Tree::decode(vid, Limits::REAL, 0, bytes).map(|_| ());
    assert_eq!(decode(&[0; 8]), Ok(()));
    assert_eq!(decode(&[0x74, 0x62, 1]), Err(TreeError::Short(3)));
    assert_eq!(decode(&[1, 2, 1, 0, 0, 0, 0, 0]), Err(TreeError::Magic(0x201)));
    assert_eq!(decode(&[0x74, 0x62, 3, 0, 0, 0, 0, 0]), Err(TreeError::Depth(3)));
    assert_eq!(decode(&[0x74, 0x62, 1, 0, 0, 0, 8, 0]), Err(TreeError::Count(524_288)));
    assert_eq!(decode(&[0x74, 0x62, 2, 0, 0, 0, 4, 0]), Err(TreeError::Count(262_144)));
    let unsorted = Leaf::of(entries([3, 2])).encode();
    assert_eq!(decode(&unsorted), Err(TreeError::Unsorted));
    let foreign = ObjectId::btree(VdiId::new(9).unwrap(), 0);
    let data = ObjectId::data(vid, 0);
    for leaf in [foreign, data] {
        let root = Root { entries: vec![RootEntry { last: 5, leaf }] };
        assert_eq!(decode(&root.encode()), Err(TreeError::NotALeaf(leaf)));
    }
}

/// A C program that dies after the root and before the counter.
#[test]
fn a_counter_that_is_behind_gives_no_number_twice() {
    let mut store = fresh();
    set_all(&mut store, &entries(0..20), SMALL);
    let used = store.leaves.len();
    store.counter = 0;
    set_all(&mut store, &entries(20..60), SMALL);
    assert_eq!(store.all(), entries(0..60).iter().map(|e| (e.block, e.owner)).collect());
    assert!(store.leaves.len() > used && store.counter as usize == store.leaves.len());
}
