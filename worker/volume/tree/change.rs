//! Changing the tree: all entries that wait, in one run.

use super::FRONT_LEN;
use crate::verdict::Verdict;
use crate::volume::objects::PartId;
use crate::volume::{Io, REFUSALS_MAX, RETRY_DELAY, Volume, Wait};
use sheepfs::ipc::Failure;
use sheepfs::ipc::Tag;
use sheepfs::wire::btree::{Entry, Head, Leaf, Tree, TreeError, Whole, Write};
use sheepfs::wire::inode::{INODE_HEADER_LEN, InodeHeader, btree_counter};
use sheepfs::wire::{ObjectId, Request};
use std::collections::VecDeque;
use std::mem::take;

/// What was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The inode's header, with the node behind it.
    Top,
    /// A leaf.
    Leaf(ObjectId),
    /// A write.
    Write,
}

/// Who waits for an entry.
#[derive(Clone, Copy, Debug)]
enum Waiting {
    /// A write that has made the object.
    Part(PartId),
    /// A request that takes it away.
    Clear(Tag),
}

/// A run under way.
#[derive(Debug)]
pub struct Run {
    batch: Vec<Entry>,
    /// Who waits for each of them.
    waiting: Vec<Waiting>,
    /// How many of them are in the tree.
    done: usize,
    step: Step,
    writes: VecDeque<Write>,
    /// How many more are when all is written.
    then: usize,
    /// How much of a node is to be read, once that is known.
    need: u32,
}

/// What a run does next.
enum Next {
    Ask(Request),
    /// So many more are in the tree.
    Finish(usize),
    /// It is planned, and the plan is to be carried out.
    Again,
    Damaged(TreeError),
    Over,
}

impl Volume {
    /// Begins a run when there is something to change and no lookup is under way.
    pub(in crate::volume) fn change_tree(&mut self, io: &mut Io) {
        let Some(tree) = &mut self.tree else { return };
        if tree.run.is_some() || !tree.lookups.is_empty() {
            return;
        }
        let Some(entries) = self.updates.take_all(!tree.clears.is_empty()) else { return };
        let owner = self.own.get();
        let mut changes: Vec<(Entry, Waiting)> = entries
            .into_iter()
            .map(|(block, part)| (Entry { block, owner }, Waiting::Part(part)))
            .chain(
                std::mem::take(&mut tree.clears)
                    .into_iter()
                    .map(|(block, tag)| (Entry { block, owner: 0 }, Waiting::Clear(tag))),
            )
            .collect();
        changes.sort_by_key(|(entry, _)| entry.block);
        let (batch, waiting) = changes.into_iter().unzip();
        let (step, writes) = (Step::Top, VecDeque::new());
        tree.run = Some(Run { batch, waiting, done: 0, step, writes, then: 0, need: 0 });
        match self.failure() {
            // The inode may be somebody else's by now.
            Some(failure) => self.end_run(Some(failure), io),
            None => self.go_on(io),
        }
    }

    /// An answer to the run's last question.
    pub(in crate::volume) fn tree_replied(&mut self, verdict: Verdict, bytes: &[u8], io: &mut Io) {
        match verdict {
            Verdict::Done => match self.hear_tree(bytes) {
                Ok(()) => self.go_on(io),
                Err(failure @ (Failure::Replaced | Failure::HyperFrozen)) => {
                    self.fail(failure, io);
                    self.end_run(Some(failure), io);
                }
                Err(failure) => self.end_run(Some(failure), io),
            },
            Verdict::Retry => self.run_later(io),
            // While the cluster recovers, an object may not be found yet.
            Verdict::Recheck if self.refusals < REFUSALS_MAX && self.failure().is_none() => {
                self.refusals += 1;
                self.run_later(io);
            }
            Verdict::Fail(failure) => self.end_run(Some(failure), io),
            Verdict::Reload | Verdict::Recheck | Verdict::SheepGone => {
                self.end_run(Some(Failure::ObjectLost), io);
            }
        }
    }

    fn hear_tree(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let step = self.tree.as_ref().and_then(|tree| tree.run.as_ref()).map(|run| run.step);
        match step {
            Some(Step::Top) => {
                let header = InodeHeader::decode(bytes).map_err(Failure::Unusable)?;
                if !self.is_still_ours(&header) {
                    return Err(Failure::Replaced);
                }
                if header.is_snapshot() {
                    return Err(Failure::HyperFrozen);
                }
                self.hear_top(bytes).map_err(Failure::TreeDamaged)
            }
            Some(Step::Leaf(oid)) => self.hear_leaf(oid, bytes).map_err(Failure::TreeDamaged),
            Some(Step::Write) => {
                self.is_written();
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn hear_top(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        let own = self.own;
        let Some(tree) = &mut self.tree else { return Ok(()) };
        let Some(run) = &mut tree.run else { return Ok(()) };
        let node = bytes.get(INODE_HEADER_LEN..).unwrap_or_default();
        run.need = Head::decode(node)?.used_len();
        if run.need as usize <= node.len() {
            run.need = 0;
            tree.known = Some(Tree::decode(own, tree.limits, btree_counter(bytes), node)?);
        }
        Ok(())
    }

    fn hear_leaf(&mut self, oid: ObjectId, bytes: &[u8]) -> Result<(), TreeError> {
        let Some(tree) = &mut self.tree else { return Ok(()) };
        let Some(run) = &mut tree.run else { return Ok(()) };
        run.need = Head::decode(bytes)?.used_len();
        if run.need as usize <= bytes.len() {
            run.need = 0;
            tree.leaf = Some((oid, Leaf::decode(bytes)?));
        }
        Ok(())
    }

    /// The first write of the run was carried out.
    fn is_written(&mut self) {
        let inode = ObjectId::inode(self.own);
        self.refusals = 0;
        let Some(tree) = &mut self.tree else { return };
        let Some(run) = &mut tree.run else { return };
        match run.writes.pop_front() {
            Some(Write::Top(_)) => drop(tree.whole.insert(inode)),
            Some(Write::Create(leaf, _) | Write::Leaf(leaf, 0, _)) => {
                tree.whole.insert(leaf);
            }
            Some(Write::Counter(_) | Write::Leaf(..)) | None => {}
        }
    }

    /// Does what can be done without asking, then asks.
    fn go_on(&mut self, io: &mut Io) {
        loop {
            if let Some(failure) = self.failure() {
                return self.end_run(Some(failure), io);
            }
            match self.next_of_run() {
                Next::Ask(request) => return self.send(request, None, Wait::Tree, io),
                Next::Finish(count) => self.entered(count, io),
                Next::Again => {}
                Next::Damaged(damage) => {
                    tracing::error!(volume = %self.name, vid = %self.own, "nothing can be added to a hyper volume: {damage}");
                    return self.end_run(Some(Failure::TreeDamaged(damage)), io);
                }
                Next::Over => return self.end_run(None, io),
            }
        }
    }

    fn next_of_run(&mut self) -> Next {
        let own = self.own;
        let Some(tree) = &mut self.tree else { return Next::Over };
        let Some(run) = &mut tree.run else { return Next::Over };
        // It stays in front, without its bytes, until it is written.
        if let Some(write) = run.writes.front_mut() {
            run.step = Step::Write;
            let request = match write {
                Write::Counter(number) => Some(Request::write_btree_counter(own, *number)),
                Write::Create(leaf, node) => Request::create_tree_leaf(*leaf, take(node)),
                Write::Leaf(leaf, at, bytes) => Request::write_tree_leaf(*leaf, *at, take(bytes)),
                Write::Top(node) => Request::write_tree_top(own, &take(node)),
            };
            return request.map_or(Next::Damaged(TreeError::Full), Next::Ask);
        }
        if run.then > 0 {
            return Next::Finish(take(&mut run.then));
        }
        let Some(first) = run.batch.get(run.done) else { return Next::Over };
        let len = run.need.max(FRONT_LEN);
        let Some(known) = &mut tree.known else {
            run.step = Step::Top;
            return Next::Ask(Request::read_inode_tree(own, len));
        };
        let oid = known.leaf_of(first.block);
        let leaf = tree.leaf.as_mut().filter(|(at_hand, _)| oid == Some(*at_hand));
        if let Some(oid) = oid
            && leaf.is_none()
        {
            run.step = Step::Leaf(oid);
            return Next::Ask(Request::read_tree_node(oid, len));
        }
        let whole = Whole {
            top: tree.whole.contains(&ObjectId::inode(own)),
            leaf: oid.is_some_and(|oid| tree.whole.contains(&oid)),
        };
        match known.set(leaf.map(|(_, leaf)| leaf), &run.batch[run.done..], whole) {
            Ok(step) if step.writes.is_empty() && step.done == 0 => Next::Damaged(TreeError::Full),
            Ok(step) => {
                (run.writes, run.then) = (step.writes.into(), step.done);
                Next::Again
            }
            Err(damage) => Next::Damaged(damage),
        }
    }

    /// So many more entries are in the tree: their writes are done.
    fn entered(&mut self, count: usize, io: &mut Io) {
        let Some(run) = self.tree.as_mut().and_then(|tree| tree.run.as_mut()) else { return };
        let range = run.done..(run.done + count).min(run.batch.len());
        run.done = range.end;
        let waiting = run.waiting[range.clone()].iter().copied();
        let entered: Vec<_> = run.batch[range].iter().copied().zip(waiting).collect();
        entered.iter().for_each(|(entry, _)| self.set_entry(entry.block, entry.owner));
        self.tell_stored(io);
        for (entry, waiting) in entered {
            self.is_over(entry.block, waiting, None, io);
        }
    }

    fn is_over(&mut self, block: u32, waiting: Waiting, failure: Option<Failure>, io: &mut Io) {
        match failure {
            // It may have been written all the same.
            Some(_) => self.unsure.insert(block),
            None => self.unsure.remove(&block),
        };
        match waiting {
            Waiting::Part(part) => self.finish_part(block, part, failure, io),
            Waiting::Clear(tag) => self.cleared_in_tree(block, tag, failure, io),
        }
        self.pump(block, io);
    }

    /// Enters that blocks have no objects. Nothing else may be under way on them, and the
    /// supervisor must know that the tree changes ([`Volume::tell_growing`]). Their objects
    /// may go when that is done ([`Self::cleared_in_tree`]); the other way round, a death in
    /// between would leave entries without objects.
    pub(in crate::volume) fn clear_in_tree(&mut self, blocks: &[u32], tag: Tag, io: &mut Io) {
        let Some(tree) = &mut self.tree else { return };
        tree.clears.extend(blocks.iter().map(|block| (*block, tag)));
        self.send_updates(io);
    }

    /// What is not in the tree yet is tried again, from the beginning.
    fn run_later(&mut self, io: &mut Io) {
        let Some(tree) = &mut self.tree else { return };
        tree.forget();
        if let Some(run) = tree.run.take() {
            for (entry, waiting) in run.batch.iter().zip(&run.waiting).skip(run.done) {
                match waiting {
                    Waiting::Part(part) => self.updates.push(entry.block, *part),
                    Waiting::Clear(tag) => drop(tree.clears.insert(entry.block, *tag)),
                }
            }
        }
        self.updates.finish();
        self.updates_delayed = Some(io.now + RETRY_DELAY);
        self.begin_lookups(io);
    }

    /// The run is over; what is not in the tree yet fails.
    fn end_run(&mut self, failure: Option<Failure>, io: &mut Io) {
        let Some(tree) = &mut self.tree else { return };
        if failure.is_some() {
            tree.forget();
        }
        let run = tree.run.take();
        if failure.is_some() {
            // Entries may be there or not.
            self.give_up_count(io);
        }
        let Some(run) = run else { return };
        self.updates.finish();
        for (entry, waiting) in run.batch.iter().zip(run.waiting).skip(run.done) {
            self.is_over(entry.block, waiting, failure, io);
        }
        self.begin_lookups(io);
        self.send_updates(io);
    }
}
