//! Index entries and references by themselves: what a client does that gives references up
//! with its own hands.
//!
//! A gateway counts the whole entries in an index update, and does for each what has to be
//! done about its reference. In three bytes there is none, so a write of three changes an
//! entry and nothing else, as on a real sheep.

use super::image::Gref;
use super::index::STORE_POLICY_HYPER;
use super::lives::Life;
use super::references::Reference;
use super::rules::Rule;
use super::sheep::{Answer, Incoming, Sheep, status_of};
use super::table::Vdi;
use crate::wire::inode::{GREF_OFFSET, INDEX_OFFSET, gref_offset};
use crate::wire::oid::ObjectKind;
use crate::wire::{ObjectId, Status};
use std::io;

const BARE_LEN: usize = 3;

/// Whether a write to an inode sets the three bytes of one entry.
pub fn is_entry(start: u64, len: usize) -> bool {
    let inside = u64::from(INDEX_OFFSET)..u64::from(GREF_OFFSET);
    len == BARE_LEN && inside.contains(&start) && (start - inside.start).is_multiple_of(4)
}

/// Sets an entry, and leaves all counts as they are.
pub fn write_entry(sheep: &Sheep, request: &Incoming, vdi: &Vdi, start: u64) -> Result<(), Status> {
    if vdi.meta().header.store_policy == STORE_POLICY_HYPER {
        sheep.broken(Rule::HyperIndex, request);
        return Err(Status::InvalidParms);
    }
    let block = u32::try_from((start - u64::from(INDEX_OFFSET)) / 4).map_err(|_| Status::Eio)?;
    let done = check(sheep, request, vdi, block).and_then(|()| {
        let inode = ObjectId::inode(vdi.vid());
        sheep.store.write(inode, start, &request.payload)?;
        sheep.lives.indexed(vdi.vid(), [(block, true)].into_iter(), Life::of(&request.header));
        Ok(())
    });
    done.map_err(|error| status_of(&error))
}

/// An entry is cleared in a working VDI, put back in a snapshot that has kept its count, or
/// done once more where a snapshot has lost it, behind its count.
fn check(sheep: &Sheep, request: &Incoming, vdi: &Vdi, block: u32) -> io::Result<()> {
    let mut gref = [0; 8];
    sheep.store.read(ObjectId::inode(vdi.vid()), gref_offset(block).into(), &mut gref)?;
    let gref = Gref::decode(&gref);
    let clears = request.payload.iter().all(|byte| *byte == 0);
    let snapshot = vdi.meta().header.is_snapshot();
    let counts = if snapshot { gref.count > 0 } else { gref.generation > 0 };
    if !clears && !counts {
        sheep.broken(Rule::IndexShape, request);
    }
    Ok(())
}

/// DECREF_OBJ: gives one reference up, before the answer.
pub fn drop_reference(sheep: &Sheep, request: &Incoming) -> Result<Answer, Status> {
    let fields = request.header.obj();
    let ledger = ObjectId::from_raw(fields.oid);
    let words = fields.cow_oid.to_le_bytes();
    let word = |at: usize| words[at..].first_chunk().map_or(0, |word| i32::from_le_bytes(*word));
    let gref = Gref { generation: word(0), count: word(4) };
    // A generation of 0 and no count is no reference that a ledger knows.
    if ledger.kind() != ObjectKind::Ledger || gref.generation < 0 || gref == Gref::default() {
        sheep.broken(Rule::Reserved, request);
        return Err(Status::InvalidParms);
    }
    let reference = Reference { owner: ledger.vid_raw(), index: ledger.index(), gref };
    sheep.give_up_now(reference);
    Ok(Answer::new(&request.header, Status::Success))
}
