//! Changing an inode: index updates, which give up references, and discards (protocol 8.7–10).
//!
//! An index update is known by its position alone, as in the original: a write that lies
//! completely between the header and the reference counts. Unlike there, the references are
//! given up before the answer, so nothing can be lost by writing a discarded block again.

use std::collections::BTreeSet;
use std::io;

use super::bare;
use super::image::Gref;
use super::lives::Life;
use super::references::Reference;
use super::rules::Rule;
use super::sheep::{Answer, Incoming, Sheep, status_of};
use super::table::{Meta, Vdi};
use super::tree;
use crate::wire::inode::{GREF_OFFSET, INDEX_ENTRIES, INDEX_OFFSET, gref_offset, index_offset};
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, Status, u32_at};

const ENTRY_LEN: u64 = 4;
const GREF_LEN: usize = 8;
pub(super) const STORE_POLICY_HYPER: u8 = 1;

/// WRITE_OBJ of an inode.
pub fn write_inode(sheep: &Sheep, request: &Incoming) -> Result<(), Status> {
    let oid = ObjectId::from_raw(request.header.obj().oid);
    let vdi = sheep.table.get(oid.vid_raw()).ok_or(Status::NoObj)?;
    let _index = vdi.index_lock();
    let start = u64::from(request.header.obj().offset);
    let end = start + u64::from(request.header.data_length);
    let (index, grefs) = (u64::from(INDEX_OFFSET), u64::from(GREF_OFFSET));
    if bare::is_entry(start, request.payload.len()) {
        return bare::write_entry(sheep, request, &vdi, start);
    }
    if start >= index && end <= grefs {
        return write_index(sheep, request, &vdi, start);
    }
    let hyper = vdi.meta().header.store_policy == STORE_POLICY_HYPER;
    if !hyper && start < grefs && end > index {
        sheep.broken(Rule::IndexShape, request);
    }
    let before = (hyper && end > index).then(|| tree::before(sheep, oid)).flatten();
    let written = sheep.store.write(oid, start, &request.payload);
    if let Some(before) = before {
        before.check(sheep, request);
    }
    written.and_then(|()| refresh(sheep, &vdi, start)).map_err(|error| status_of(&error))
}

/// After a write to the header, what is known of the VDI is read again.
fn refresh(sheep: &Sheep, vdi: &Vdi, start: u64) -> io::Result<()> {
    if start < u64::from(INDEX_OFFSET) {
        let header = sheep.read_header(vdi.vid())?;
        vdi.meta_mut().header = header;
    }
    Ok(())
}

fn write_index(sheep: &Sheep, request: &Incoming, vdi: &Vdi, start: u64) -> Result<(), Status> {
    if vdi.meta().header.store_policy == STORE_POLICY_HYPER {
        sheep.broken(Rule::HyperIndex, request);
        return Err(Status::InvalidParms);
    }
    let updated = Update::read(sheep, vdi, start, &request.payload).and_then(|update| {
        update.check(sheep, request, vdi);
        update.write(sheep, vdi, Life::of(&request.header))?;
        Ok(update.given_up())
    });
    sheep.give_up(updated.map_err(|error| status_of(&error))?);
    Ok(())
}

/// DISCARD_OBJ: the entry of the block is cleared and its reference given up.
pub fn discard(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let oid = ObjectId::from_raw(request.header.obj().oid);
    let vdi = sheep.table.get(oid.vid_raw()).ok_or(Status::NoObj)?;
    if oid.kind() == ObjectKind::Inode {
        sheep.broken(Rule::DiscardInode, request);
        return Err(Status::InvalidParms);
    }
    if vdi.meta().header.is_snapshot() {
        sheep.broken(Rule::DiscardForeign, request);
    }
    if vdi.meta().header.store_policy == STORE_POLICY_HYPER {
        discard_in_tree(sheep, &vdi, oid).map_err(|error| status_of(&error))?;
    } else if oid.index() < INDEX_ENTRIES {
        let life = Life::of(&request.header);
        discard_entry(sheep, &vdi, oid, life).map_err(|error| status_of(&error))?;
    }
    Ok(Answer::new(&request.header, Status::Success))
}

/// The entry of a hyper volume stays, and names nobody; the object goes (protocol 10).
fn discard_in_tree(sheep: &Sheep, vdi: &Vdi, oid: ObjectId) -> io::Result<()> {
    let _index = vdi.index_lock();
    match tree::clear(sheep, vdi.vid(), oid.index())? {
        Some(owner) if owner == vdi.vid().get() => sheep.store.remove(oid),
        Some(_) | None => Ok(()),
    }
}

fn discard_entry(sheep: &Sheep, vdi: &Vdi, oid: ObjectId, life: Life) -> io::Result<()> {
    let _index = vdi.index_lock();
    let start = u64::from(index_offset(oid.index()));
    let update = Update::read(sheep, vdi, start, &[0; 4])?;
    if update.old == [0; 4] {
        return Ok(());
    }
    update.write(sheep, vdi, life)?;
    let mut lost = update.given_up();
    // The object of exactly the given id goes at once, even when a child still needs it.
    let own = lost.iter_mut().filter(|reference| reference.owner == vdi.vid().get());
    own.for_each(|reference| reference.gref = Gref::default());
    sheep.give_up(lost);
    Ok(())
}

/// The owner of block `index`; `None` when it has none.
pub fn entry(sheep: &Sheep, vdi: &Vdi, meta: &Meta, index: u32) -> Option<u32> {
    if meta.header.store_policy == STORE_POLICY_HYPER {
        return tree::owner(sheep, vdi.vid(), index);
    }
    if index >= INDEX_ENTRIES {
        return None;
    }
    let mut bytes = [0; 4];
    let inode = ObjectId::inode(vdi.vid());
    sheep.store.read(inode, index_offset(index).into(), &mut bytes).ok()?;
    Some(u32::from_le_bytes(bytes)).filter(|owner| *owner != 0)
}

/// A change of neighbouring index entries.
struct Update {
    /// The first block.
    first: u32,
    /// Whether the request was made of whole entries.
    whole: bool,
    old: Vec<u8>,
    new: Vec<u8>,
    grefs: Vec<u8>,
}

impl Update {
    /// Reads what stands where `bytes` shall go, `start` counted in the inode.
    fn read(sheep: &Sheep, vdi: &Vdi, start: u64, bytes: &[u8]) -> io::Result<Self> {
        let inode = ObjectId::inode(vdi.vid());
        let skew = start - u64::from(INDEX_OFFSET);
        let first = u32::try_from(skew / ENTRY_LEN).map_err(io::Error::other)?;
        let lead = usize::try_from(skew % ENTRY_LEN).map_err(io::Error::other)?;
        let count = (lead + bytes.len()).div_ceil(4);
        let mut old = vec![0; count * 4];
        sheep.store.read(inode, index_offset(first).into(), &mut old)?;
        let mut grefs = vec![0; count * GREF_LEN];
        sheep.store.read(inode, gref_offset(first).into(), &mut grefs)?;
        let mut new = old.clone();
        new[lead..lead + bytes.len()].copy_from_slice(bytes);
        let whole = lead == 0 && bytes.len().is_multiple_of(4);
        Ok(Self { first, whole, old, new, grefs })
    }

    /// Writes the entries and forgets their reference counts.
    fn write(&self, sheep: &Sheep, vdi: &Vdi, life: Life) -> io::Result<()> {
        let inode = ObjectId::inode(vdi.vid());
        sheep.store.write(inode, index_offset(self.first).into(), &self.new)?;
        let written = self.entries().map(|(block, old, new)| (block, old != new));
        sheep.lives.indexed(vdi.vid(), written, life);
        if self.grefs.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let zeros = vec![0; self.grefs.len()];
        sheep.store.write(inode, gref_offset(self.first).into(), &zeros)
    }

    /// Each block with its old and its new owner.
    fn entries(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        let owners = self.old.chunks_exact(4).zip(self.new.chunks_exact(4));
        let owners = owners.map(|(old, new)| (u32_at(old, 0), u32_at(new, 0)));
        (self.first..).zip(owners).map(|(block, (old, new))| (block, old, new))
    }

    /// The references that the old entries held.
    fn given_up(&self) -> Vec<Reference> {
        let grefs = self.grefs.chunks_exact(GREF_LEN).map(Gref::decode);
        let lost = self.entries().zip(grefs).filter(|((_, old, new), _)| *old != 0 && old != new);
        lost.map(|((index, owner, _), gref)| Reference { owner, index, gref }).collect()
    }

    /// Counts each rule that the request breaks, once.
    fn check(&self, sheep: &Sheep, request: &Incoming, vdi: &Vdi) {
        let header = vdi.meta().header.clone();
        let blocks = header.vdi_size.div_ceil(1 << header.block_size_shift.min(31));
        let own = vdi.vid().get();
        let again = self.sent_again(sheep, request, vdi);
        let unchanged = |wanted: &dyn Fn(u32) -> bool| {
            let mut same = self.entries().filter(|(_, old, new)| old == new && wanted(*old));
            same.any(|(block, ..)| !again.contains(&block))
        };
        let beyond = |(block, _, new): (u32, u32, u32)| new != 0 && u64::from(block) >= blocks;
        let broken = [
            (Rule::IndexShape, !self.whole),
            (Rule::IndexEmpty, !self.clears() && unchanged(&|owner| owner == 0)),
            (Rule::IndexInherited, unchanged(&|owner| owner != 0 && owner != own)),
            (Rule::IndexBounds, self.entries().any(beyond)),
            (Rule::IndexBeforeObject, self.names_missing(sheep, Life::of(&request.header))),
        ];
        for (rule, _) in broken.into_iter().filter(|(_, broken)| *broken) {
            sheep.broken(rule, request);
        }
    }

    /// Whether it clears all from a used entry to a used entry, as is done to a VDI that is
    /// deleted.
    fn clears(&self) -> bool {
        let is_used = |entry: &[u8]| entry != [0; 4];
        let mut old = self.old.chunks_exact(4);
        let ends = (old.next().is_some_and(is_used), old.next_back().is_none_or(is_used));
        ends == (true, true) && self.new.iter().all(|byte| *byte == 0)
    }

    /// The blocks whose entries may be repeated unchanged, for this is an update sent again: those
    /// that another life of the client wrote, or all of them when this is a dead life's own.
    fn sent_again(&self, sheep: &Sheep, request: &Incoming, vdi: &Vdi) -> BTreeSet<u32> {
        let blocks = self.entries().map(|(block, ..)| block);
        if request.origin.is_gone() {
            return blocks.collect();
        }
        let blocks = self.first..blocks.last().map_or(self.first, |last| last + 1);
        let life = Life::of(&request.header);
        sheep.lives.entries_of_others(vdi.vid(), blocks, life).into_iter().collect()
    }

    /// Whether a new entry names an object that does not exist yet.
    fn names_missing(&self, sheep: &Sheep, life: Life) -> bool {
        let changed = self.entries().filter(|(_, old, new)| old != new && *new != 0);
        let mut objects = changed.map(|(block, _, new)| u64::from(new) << 32 | u64::from(block));
        objects.any(|raw| {
            let oid = ObjectId::from_raw(raw);
            sheep.inflight.is_being_made(oid, life) || !sheep.store.exists(oid)
        })
    }
}
